//! `replication_cpu`: what it costs a node, user and system, to tell a session and to be told of it.
//!
//! Both pairs set up the same number of sessions at the same rate, once with replication and once without (ours: two
//! nodes that are no cluster; theirs: no conntrackd), over equally long windows. Each node has a CPU of its own; the
//! cost of a session is how much longer that CPU was busy, over the sessions. A CPU that was hardly ever idle tells
//! nothing of costs, and the bench says so instead of a figure (but for a quick look, which may be at a busy machine).

use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::report::{Better, Row, Run, Subject};
use super::cpu::Watch;
use super::pair::{OTHERS, Pair, PairSpec, Who};
use super::{PEER, check_sample, in_turn, name_of, wait_held};
use crate::LabError;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "replication_cpu";
/// What is asked of the ratio, for who tells and who is told.
const GATES: [f64; 2] = [0.10, 0.20];
/// At the lower rate what a batch costs, with few sessions in it, weighs more.
const CASES: [[&str; 2]; 2] = [["sender", "receiver"], ["sender at 60k/s", "receiver at 60k/s"]];
/// The CPU of each node.
const CPUS: [usize; 2] = [0, 1];
/// A CPU that is busy for a greater share of the time than this has no time to spare: more work would not show.
const BUSY_MAX: f64 = 0.95;
/// What is observed after the last frame: by then the other node has been told.
const TAIL: Duration = Duration::from_secs(2);

const GENERATOR: &str = "BPF_PROG_TEST_RUN live frames, 60 bytes, each of a flow of its own, paced, the same with and \
                         without replication";
const SINK: &str = "XDP program at the server's veth; sessions counted at the other node, replies of 1,000 random ones \
                    sent through it";
const PLACEMENT: &str = "CPU 0: the node that tells, generator and sink; CPU 1: the node that is told; all that a CPU did \
                         with replication, less the same without";

/// How many sessions, and how fast.
#[derive(Debug, Clone, Copy)]
struct Load {
    count: u32,
    per_s: u32,
    /// Whether figures are to be believed.
    strict: bool,
}

/// Measures both pairs, each with and without replication.
pub(super) fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the pairs"));
    let gated = |count, per_s| Load { count, per_s, strict: true };
    let loads = match scale.gated {
        true => vec![gated(200_000, 20_000), gated(400_000, 60_000)],
        false => vec![Load { count: 4_000, per_s: 2_000, strict: false }],
    };
    let room = loads.iter().map(|load| load.count + load.count / 3).max().unwrap_or(0);
    let make = |who, replicating| {
        let pair =
            Pair::make(PairSpec { who, replicating, room, long_timeouts: true, worker_cpu: None }, stop)?;
        Ok::<_, LabError>(pair)
    };
    let mut pairs = [
        [make(Who::Tidegate, true)?, make(Who::Tidegate, false)?],
        [make(Who::Conntrackd, true)?, make(Who::Conntrackd, false)?],
    ];
    let mut rows = Vec::new();
    for (load, cases) in loads.into_iter().zip(CASES) {
        rows.extend(at_one_rate(&mut pairs, load, cases, scale, stop, &mut progress)?);
    }
    Ok(rows)
}

fn at_one_rate(
    pairs: &mut [[Pair; 2]; 2],
    load: Load,
    cases: [&str; 2],
    scale: &Scale,
    stop: &Stop,
    progress: &mut impl FnMut(&str),
) -> Result<[Row; 2], LabError> {
    let mut runs = [Vec::new(), Vec::new()];
    for round in 0..scale.rounds {
        let [ours, theirs] = in_turn(round, |which| cost(&mut pairs[which], load, round, stop))?;
        progress(&format!(
            "{NAME} at {}/s: round {}: sender {:.2} and receiver {:.2} us a session; {PEER} {:.2} and {:.2}",
            load.per_s,
            round + 1,
            ours[0],
            ours[1],
            theirs[0],
            theirs[1]
        ));
        for (node, runs) in runs.iter_mut().enumerate() {
            runs.push(Run::new(ours[node], theirs[node]));
        }
    }
    let row = |node: usize, runs| {
        let subject = Subject {
            name: NAME,
            case: cases[node],
            peer: PEER,
            unit: "us/session",
            better: Better::Lower,
            gate: Some(GATES[node]).filter(|_| scale.gated),
            generator: GENERATOR,
            sink: SINK,
            cpu_placement: PLACEMENT,
        };
        Row::from_runs(&subject, runs)
    };
    let [sender, receiver] = runs;
    Ok([row(0, sender), row(1, receiver)])
}

/// Microseconds of a session at each node: with replication, less without.
fn cost(pairs: &mut [Pair; 2], load: Load, round: u32, stop: &Stop) -> Result<[f64; 2], LabError> {
    let [on, off] = in_turn(round / 2, |which| busy(&mut pairs[which], load, which == 0, round, stop))?;
    let of_session = |node: usize| (on[node] - off[node]) * 1e6 / f64::from(load.count);
    Ok([of_session(0), of_session(1)])
}

/// Seconds that each node's CPU was busy while the sessions were set up, from empty tables.
fn busy(pair: &mut Pair, load: Load, told: bool, round: u32, stop: &Stop) -> Result<[f64; 2], LabError> {
    pair.empty(stop)?;
    pair.pin_nodes(CPUS)?;
    let before = pair.arrived()?;
    let (start, watches) = (Instant::now(), [Watch::begin(CPUS[0])?, Watch::begin(CPUS[1])?]);
    let [first, last] = pair.offer(load.count, load.per_s, 1, stop)?;
    // Equally long whether anybody tells or not, and however late the generator was.
    let planned = Duration::from_secs_f64(f64::from(load.count) / f64::from(load.per_s)) + TAIL;
    stop.sleep(planned.saturating_sub(start.elapsed()))?;
    let (busy, elapsed) = ([watches[0].busy_s()?, watches[1].busy_s()?], start.elapsed().as_secs_f64());
    if load.strict && busy.iter().any(|busy| *busy > elapsed * BUSY_MAX) {
        let [first, second] = busy.map(|busy| busy * 100.0 / elapsed);
        return Err(LabError::Check(format!(
            "{}: CPUs were busy for {first:.0} and {second:.0} % of the time: what more work costs does not show",
            name_of(pair.who())
        )));
    }
    check(pair, load, before, last - first, told, stop)?;
    if told {
        check_sample(pair, load.count, round.into())?;
    }
    Ok(busy)
}

/// Insists that what was measured is what was meant: nothing lost, at the rate that was asked, and the other node holds
/// all sessions, or none.
fn check(
    pair: &Pair,
    load: Load,
    before: u64,
    sending: Duration,
    told: bool,
    stop: &Stop,
) -> Result<(), LabError> {
    let (arrived, who) = (pair.arrived()? - before, name_of(pair.who()));
    if arrived != u64::from(load.count) {
        return Err(LabError::Check(format!("{who}: {arrived} of {} frames arrived", load.count)));
    }
    let planned = f64::from(load.count) / f64::from(load.per_s);
    if sending.as_secs_f64() > planned + TAIL.as_secs_f64() {
        return Err(LabError::Check(format!("{who}: sending took {sending:.1?} instead of {planned:.1} s")));
    }
    if told {
        return wait_held(pair, 2, load.count, stop);
    }
    match pair.held(2)?.now()? {
        held if held <= OTHERS => Ok(()),
        held => {
            Err(LabError::Check(format!("{who}: without replication the other node holds {held} sessions")))
        }
    }
}
