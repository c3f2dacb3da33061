//! Benches of replication: two nodes of ours, beside two of the kernel's connection tracking with conntrackd (FTFW),
//! each pair in a lab of the same kind, measured in turn on one machine.
//!
//! No figure is believed for itself: what was sent has arrived, the other node holds as many sessions as there were,
//! and replies of random ones among them pass through it.

mod conntrackd;
mod cost;
mod cpu;
mod first_sync;
mod forwarding;
mod pair;
mod probe;
mod setups;
mod takeover;

pub use cost::NAME as REPLICATION_CPU;
pub use first_sync::NAME as FIRST_SYNC;
pub use forwarding::NAME as FORWARD_REPLICATING;
pub use setups::NAME as REPLICATED_SETUPS;
pub use takeover::NAME as TAKEOVER;

use std::time::{Duration, Instant};

use super::Scale;
use super::report::Row;
use crate::LabError;
use crate::sys::Stop;
use pair::{OTHERS, Pair, Who};

/// Names of what is here, in the order in which it runs.
pub const NAMES: [&str; 5] = [REPLICATED_SETUPS, REPLICATION_CPU, FIRST_SYNC, TAKEOVER, FORWARD_REPLICATING];

/// Flows of which replies are sent through the other node.
const SAMPLED: u32 = 1000;
/// So many flows a second are set up where their rate is not what is measured: less than any pair takes.
const GENTLE_PER_S: u32 = 25_000;
/// The same of a quick look, which may be at builds that are not optimized.
const GENTLE_QUICK_PER_S: u32 = 3_000;
/// How long the other node may take until it holds what was set up.
const HELD_MAX: Duration = Duration::from_secs(60);
/// How long it may add nothing until it is clear that it will not.
const STALLED: Duration = Duration::from_secs(5);
/// Between two questions how many sessions it holds.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long sampled replies may take to pass.
const PASS_MAX: Duration = Duration::from_secs(120);
/// Whom ours is compared with.
const PEER: &str = "conntrackd";

/// Runs one of them by its name.
pub fn run(name: &str, scale: &Scale, stop: &Stop, progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    match name {
        REPLICATED_SETUPS => setups::run(scale, stop, progress),
        REPLICATION_CPU => cost::run(scale, stop, progress),
        FIRST_SYNC => first_sync::run(scale, stop, progress),
        TAKEOVER => takeover::run(scale, stop, progress),
        FORWARD_REPLICATING => forwarding::run(scale, stop, progress),
        other => Err(LabError::Check(format!("no bench is called {other}"))),
    }
}

/// What came of flows that were sent once each.
#[derive(Debug, Clone, Copy)]
struct Setup {
    sent: u64,
    /// Frames at the server.
    arrived: u64,
    /// Sessions at the other node.
    held: u64,
    /// From the first frame until both were there.
    elapsed: Duration,
}

impl Setup {
    /// Every frame arrived, and every session is held by the other node.
    fn is_lossless(&self) -> bool {
        self.arrived == self.sent && self.held >= self.sent && self.held <= self.sent + OTHERS
    }

    fn in_words(&self) -> String {
        format!("{} flows sent, {} arrived, {} held by the other node", self.sent, self.arrived, self.held)
    }
}

/// Sends one frame of each of so many flows through node 1, and waits until all have arrived and node 2 holds their
/// sessions, or it is clear that they will not.
fn set_up(pair: &Pair, count: u32, per_s: u32, stop: &Stop) -> Result<Setup, LabError> {
    let (arrived_before, held_before) = (pair.arrived()?, pair.held(2)?.now()?);
    let [start, mut grown] = pair.offer(count, per_s, 1, stop)?;
    // A connection that was idle meanwhile would be closed by now.
    let mut held = pair.held(2)?;
    let mut setup = Setup { sent: count.into(), arrived: 0, held: 0, elapsed: Duration::ZERO };
    loop {
        let before = (setup.arrived, setup.held);
        setup.arrived = pair.arrived()? - arrived_before;
        setup.held = held.now()?.saturating_sub(held_before);
        setup.elapsed = start.elapsed();
        if (setup.arrived, setup.held) != before {
            grown = Instant::now();
        }
        let hopeless = grown.elapsed() > STALLED || start.elapsed() > HELD_MAX + Duration::from_secs(120);
        if setup.is_lossless() || hopeless {
            return Ok(setup);
        }
        stop.sleep(ASK_EVERY)?;
    }
}

/// Sets up so many sessions at a rate that loses none, and insists on it.
fn fill(pair: &Pair, count: u32, scale: &Scale, stop: &Stop) -> Result<(), LabError> {
    let per_s = if scale.gated { GENTLE_PER_S } else { GENTLE_QUICK_PER_S };
    let setup = set_up(pair, count, per_s, stop)?;
    if setup.is_lossless() {
        return Ok(());
    }
    Err(LabError::Check(format!("{}: {}, though slowly sent", name_of(pair.who()), setup.in_words())))
}

/// Waits until a node holds so many sessions.
fn wait_held(pair: &Pair, number: u32, count: u32, stop: &Stop) -> Result<(), LabError> {
    let (mut held, deadline) = (pair.held(number)?, Instant::now() + HELD_MAX);
    loop {
        let now = held.now()?;
        if now >= count.into() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::Check(format!("node {number} holds {now} of {count} sessions")));
        }
        stop.sleep(ASK_EVERY)?;
    }
}

/// Insists that replies of random flows among so many pass through node 2. The kernel's has to take over first.
fn check_sample(pair: &mut Pair, count: u32, seed: u64) -> Result<(), LabError> {
    if pair.who() == Who::Conntrackd {
        pair.conntrackd()?.ask(2, &["-c"])?;
    }
    let flows = probe::random_flows(SAMPLED, count, seed);
    pair.probe(2, count, &flows)?.until_all_pass(PASS_MAX).map(drop)
}

fn name_of(who: Who) -> &'static str {
    match who {
        Who::Tidegate => "tidegate",
        Who::Conntrackd => PEER,
    }
}

/// Measures ours and theirs; who comes first changes from round to round.
fn in_turn<T>(round: u32, mut measure: impl FnMut(usize) -> Result<T, LabError>) -> Result<[T; 2], LabError> {
    if round.is_multiple_of(2) {
        let ours = measure(0)?;
        Ok([ours, measure(1)?])
    } else {
        let theirs = measure(1)?;
        Ok([measure(0)?, theirs])
    }
}
