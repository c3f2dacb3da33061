//! `replicated_setups`: new UDP sessions a second that one node sets up and forwards and the other holds.
//!
//! A trial sends one frame of each of as many flows as a rate gives in its window, from empty tables. It counts when
//! every frame arrived, the other node holds every session, and replies of a thousand random ones pass through it; its
//! figure is the flows over the time until the other node held the last. The rate is doubled until a trial does not
//! count or falls behind what it was offered, then halved in between a few times; the best figure is the run's.

use std::time::Duration;

use super::super::Scale;
use super::super::report::{Better, Row, Run, Subject};
use super::pair::{Pair, PairSpec, Who};
use super::{PEER, check_sample, in_turn, name_of, set_up};
use crate::LabError;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "replicated_setups";
/// What is asked of the ratio.
const GATE: f64 = 2.0;
/// Sessions of one trial, at most; the peer's daemon holds two million.
const SESSIONS_MAX: u32 = 1_000_000;
/// Halvings between the last rate that counted and the first that did not.
const HALVINGS: u32 = 3;
/// A trial that takes this much longer than its flows were to be sent has fallen behind.
const BEHIND: f64 = 1.1;

const GENERATOR: &str = "BPF_PROG_TEST_RUN live frames, 60 bytes, each of a flow of its own, a burst for what is due each millisecond or more";
const SINK: &str = "XDP program at the server's veth; sessions counted at the other node, replies of 1,000 random ones \
                    sent through it";
const PLACEMENT: &str = "CPU 0: generator; nodes on all CPUs, as the kernel runs them";

/// What a search may do.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    first_per_s: u32,
    doublings: u32,
    window: Duration,
}

/// Measures both pairs.
pub(super) fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the pairs"));
    let room = SESSIONS_MAX + SESSIONS_MAX / 3;
    let spec = |who| PairSpec { who, replicating: true, room, long_timeouts: true, worker_cpu: None };
    let mut pairs = [Pair::make(spec(Who::Tidegate), stop)?, Pair::make(spec(Who::Conntrackd), stop)?];
    let bounds = match scale.gated {
        true => Bounds { first_per_s: 30_000, doublings: 5, window: Duration::from_secs(2) },
        false => Bounds { first_per_s: 2_000, doublings: 1, window: Duration::from_secs(1) },
    };
    let mut runs = Vec::new();
    for round in 0..scale.rounds {
        let [ours, theirs] = in_turn(round, |which| {
            let mut say = |text: String| progress(&format!("{NAME}: round {}: {text}", round + 1));
            search(&mut pairs[which], &bounds, round.into(), stop, &mut say)
        })?;
        progress(&format!(
            "{NAME}: round {}: tidegate {:.1}, {PEER} {:.1} k/s",
            round + 1,
            ours / 1e3,
            theirs / 1e3
        ));
        runs.push(Run::new(ours / 1e3, theirs / 1e3));
    }
    let subject = Subject {
        name: NAME,
        case: "UDP, 2 nodes",
        peer: PEER,
        unit: "k sessions/s",
        better: Better::Higher,
        gate: Some(GATE).filter(|_| scale.gated),
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

/// The best figure of a bounded search, in sessions a second.
fn search(
    pair: &mut Pair,
    bounds: &Bounds,
    seed: u64,
    stop: &Stop,
    say: &mut impl FnMut(String),
) -> Result<f64, LabError> {
    let (mut best, mut low, mut high) = (0.0f64, 0, None);
    let mut per_s = bounds.first_per_s;
    let mut left = (bounds.doublings, HALVINGS);
    loop {
        let figure = trial(pair, per_s, bounds.window, seed, stop, say)?;
        best = best.max(figure.unwrap_or(0.0));
        match figure {
            Some(figure) if figure * BEHIND >= f64::from(per_s) => low = per_s,
            _ => high = Some(per_s),
        }
        per_s = match high {
            None if left.0 > 0 => {
                left.0 -= 1;
                per_s * 2
            }
            Some(high) if left.1 > 0 => {
                left.1 -= 1;
                low.midpoint(high)
            }
            _ => break,
        };
    }
    if best > 0.0 {
        return Ok(best);
    }
    Err(LabError::Check(format!("{}: no rate was without loss", name_of(pair.who()))))
}

/// One rate, from empty tables: sessions a second until the other node held all, `None` where something was lost.
fn trial(
    pair: &mut Pair,
    per_s: u32,
    window: Duration,
    seed: u64,
    stop: &Stop,
    say: &mut impl FnMut(String),
) -> Result<Option<f64>, LabError> {
    pair.empty(stop)?;
    let count = ((f64::from(per_s) * window.as_secs_f64()) as u32).min(SESSIONS_MAX);
    let setup = set_up(pair, count, per_s, stop)?;
    let figure = f64::from(count) / setup.elapsed.as_secs_f64();
    let who = name_of(pair.who());
    if !setup.is_lossless() {
        say(format!("{who}, {per_s} offered a second: {}", setup.in_words()));
        return Ok(None);
    }
    check_sample(pair, count, seed)?;
    say(format!("{who}, {per_s} offered a second: {figure:.0} a second until all were held"));
    Ok(Some(figure))
}
