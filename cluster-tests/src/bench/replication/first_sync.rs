//! `first_sync`: from the start of a node's daemon until it holds every session that the other has.
//!
//! Ours: the daemon is killed and started again, until `/readyz` says yes; then it holds all. Theirs: conntrackd is
//! killed and started again and asks the other for its table (`-n`), until its cache holds all. Replies of a thousand
//! random sessions then pass through the node.

use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::report::{Better, Row, Run, Subject};
use super::pair::{Pair, PairSpec, Who};
use super::{HELD_MAX, PEER, check_sample, fill, in_turn, name_of, wait_held};
use crate::LabError;
use crate::lab::http_get;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "first_sync";
/// Between two looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

const GENERATOR: &str = "none while it lasts: the sessions were set up before";
const SINK: &str = "the other node's daemon; replies of 1,000 random sessions sent through it";
const PLACEMENT: &str = "all of it on all CPUs, as the kernel runs it";

/// Measures both pairs.
pub(super) fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    let (case, count) = if scale.gated { ("1M sessions", 1_000_000) } else { ("10k sessions", 10_000) };
    progress(&format!("{NAME}: setting up {case}"));
    let make = |who| {
        let room = count + count / 3;
        let pair = Pair::make(
            PairSpec { who, replicating: true, room, long_timeouts: true, worker_cpu: None },
            stop,
        )?;
        fill(&pair, count, scale, stop)?;
        Ok::<_, LabError>(pair)
    };
    let mut pairs = [make(Who::Tidegate)?, make(Who::Conntrackd)?];
    let mut runs = Vec::new();
    for round in 0..scale.rounds {
        let [ours, theirs] = in_turn(round, |which| {
            let pair = &mut pairs[which];
            let took = match pair.who() {
                Who::Tidegate => ours(pair, count, stop)?,
                Who::Conntrackd => theirs(pair, count, stop)?,
            };
            check_sample(pair, count, round.into())?;
            Ok(took.as_secs_f64())
        })?;
        progress(&format!("{NAME}: round {}: tidegate {ours:.2}, {PEER} {theirs:.2} s", round + 1));
        runs.push(Run::new(ours, theirs));
    }
    let subject = Subject {
        name: NAME,
        case,
        peer: PEER,
        unit: "s",
        better: Better::Lower,
        gate: None,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

fn ours(pair: &Pair, count: u32, stop: &Stop) -> Result<Duration, LabError> {
    let node = pair.lab().at(2);
    node.kill()?;
    let start = Instant::now();
    node.spawn()?;
    let netns = node.netns();
    until(pair, start, stop, || Ok(matches!(http_get(&netns, "/readyz"), Ok((200, _)))))?;
    let took = start.elapsed();
    let held = pair.held(2)?.now()?;
    if held < count.into() {
        return Err(LabError::Check(format!("ready with {held} of {count} sessions")));
    }
    Ok(took)
}

fn theirs(pair: &mut Pair, count: u32, stop: &Stop) -> Result<Duration, LabError> {
    pair.conntrackd()?.kill_one(2);
    let start = Instant::now();
    pair.conntrackd()?.start_one(2, stop)?;
    pair.conntrackd()?.ask(2, &["-n"])?;
    let mut held = pair.held(2)?;
    until(pair, start, stop, || Ok(held.now()? >= count.into()))?;
    drop(held);
    let took = start.elapsed();
    wait_held(pair, 2, count, stop)?;
    Ok(took)
}

fn until(
    pair: &Pair,
    start: Instant,
    stop: &Stop,
    mut done: impl FnMut() -> Result<bool, LabError>,
) -> Result<(), LabError> {
    while !done()? {
        if start.elapsed() > HELD_MAX {
            return Err(LabError::Check(format!("{}: not in sync after {HELD_MAX:?}", name_of(pair.who()))));
        }
        stop.sleep(LOOK_EVERY)?;
    }
    Ok(())
}
