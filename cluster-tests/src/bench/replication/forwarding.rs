//! `forward_replicating`: frames of established flows through a node that replicates, and through one that does not.
//!
//! A pair that is a cluster, and the same two nodes each by itself. What the latter forwards at most is found first;
//! then the same paced load, as much as that, goes through node 1 of either in turn. The window is long enough for a
//! replicating node to tell the other once more that every flow lives.

use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::bed::FORWARDER_CPU;
use super::super::report::{Better, Row, Run, Subject};
use super::pair::{Pair, PairSpec, Who};
use super::{GENTLE_PER_S, GENTLE_QUICK_PER_S, fill, in_turn};
use crate::LabError;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "forward_replicating";
/// What is asked of the ratio.
const GATE: f64 = 0.9;
/// Before what is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// A refresh of every flow falls into it: the policy's 60 s for UDP make that every 15 s.
const WINDOW: Duration = Duration::from_secs(16);
const WINDOW_QUICK: Duration = Duration::from_secs(2);

const GENERATOR: &str = "BPF_PROG_TEST_RUN live frames, 60 bytes, evenly paced at what the node forwards at most without \
                         replication";
const SINK: &str = "XDP program at the server's veth: counts and drops";
const PLACEMENT: &str = "CPU 0: generator and receiving end of the port; CPU 1: both nodes' workers and sink; the nodes' \
                         other threads where the kernel runs them";

/// Measures with and without, in turn.
pub(super) fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    let (case, count) = if scale.gated { ("100k", 100_000) } else { ("10k", 10_000) };
    progress(&format!("{NAME} {case}: setting up the flows"));
    let make = |replicating| {
        let spec = PairSpec {
            who: Who::Tidegate,
            replicating,
            room: count + count / 3,
            long_timeouts: false,
            worker_cpu: Some(FORWARDER_CPU as u32),
        };
        Pair::make(spec, stop)
    };
    let pairs = [make(true)?, make(false)?];
    fill(&pairs[0], count, scale, stop)?;
    let gentle = if scale.gated { GENTLE_PER_S } else { GENTLE_QUICK_PER_S };
    pairs[1].offer(count, gentle, 1, stop)?;
    let maximum =
        pairs[1].while_sending(count, Duration::ZERO, 1, || measure(&pairs[1], scale.window, stop))?;
    if maximum < 1.0 {
        return Err(LabError::Check("a node alone forwarded nothing".into()));
    }
    let gap = Duration::from_secs_f64(1.0 / maximum);
    let window = if scale.gated { WINDOW } else { WINDOW_QUICK };
    let mut runs = Vec::new();
    for round in 0..scale.rounds {
        let [on, off] = in_turn(round, |which| {
            let pair = &pairs[which];
            pair.while_sending(count, gap, 1, || measure(pair, window, stop))
        })?;
        progress(&format!(
            "{NAME} {case}: round {}: {:.0} kpps, {:.0} without replication",
            round + 1,
            on / 1e3,
            off / 1e3
        ));
        runs.push(Run::new(on / 1e3, off / 1e3));
    }
    check_replicated(&pairs, count)?;
    let subject = Subject {
        name: NAME,
        case,
        peer: "replication off",
        unit: "kpps",
        better: Better::Higher,
        gate: Some(GATE).filter(|_| scale.gated),
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

/// How many frames a second arrive at the server for so long.
fn measure(pair: &Pair, window: Duration, stop: &Stop) -> Result<f64, LabError> {
    stop.sleep(WARM_UP)?;
    let (start, before) = (Instant::now(), pair.arrived()?);
    stop.sleep(window)?;
    Ok((pair.arrived()? - before) as f64 / start.elapsed().as_secs_f64())
}

/// Insists that one pair's other node still holds every flow, and the other pair's none.
fn check_replicated(pairs: &[Pair; 2], count: u32) -> Result<(), LabError> {
    let (on, off) = (pairs[0].held(2)?.now()?, pairs[1].held(2)?.now()?);
    if on >= count.into() && off < count.into() {
        return Ok(());
    }
    Err(LabError::Check(format!("of {count} flows the other node holds {on}, and {off} without replication")))
}
