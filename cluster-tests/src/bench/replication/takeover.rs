//! `takeover`: from "the other node is down" until replies of a thousand random sessions have passed the survivor.
//!
//! Ours: a node is killed; the clock starts at the time that the survivor's log gives to its declaration. Theirs: it starts when `conntrackd -c` does, which is what keepalived runs when it has declared the
//! other down. How long either takes to declare that is not part of the figure.

use std::time::{Duration, Instant, SystemTime};

use super::super::Scale;
use super::super::bed::FORWARDER_CPU;
use super::super::new_flows::flush_conntrack;
use super::super::report::{Better, Row, Run, Subject, median};
use super::pair::{Pair, PairSpec, Who};
use super::probe::random_flows;
use super::{PASS_MAX, PEER, SAMPLED, fill, in_turn, wait_held};
use crate::LabError;
use crate::lab::Member;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "takeover";
/// What is asked of the ratio to theirs.
const GATE: f64 = 0.1;
/// What is asked of the ratio of most sessions to fewest.
const GATE_NUMBER: f64 = 1.2;
/// How long a node may take until it declares the other down.
const DECLARED_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_micros(200);
const DAY_US: u64 = 86_400_000_000;

const GENERATOR: &str = "AF_PACKET socket of the switch: one reply of each of 1,000 random sessions, what is missing again \
                         after a few milliseconds";
const SINK: &str = "AF_PACKET socket of the client, which tells the sessions apart";
const PLACEMENT: &str =
    "the probe on the generator's CPU, workers on the other, the rest as the kernel runs it";

/// Measures every number of sessions.
pub(super) fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    let cases: &[(&str, u32)] = match scale.gated {
        true => &[("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)],
        false => &[("1k", 1_000), ("10k", 10_000)],
    };
    let (mut rows, mut ours) = (Vec::new(), Vec::new());
    for (case, count) in cases {
        let runs = one_case(case, *count, scale, stop, &mut progress)?;
        ours.push(runs.iter().map(|run| run.ours).collect::<Vec<_>>());
        rows.push(row(case, PEER, Some(GATE).filter(|_| scale.gated), runs));
    }
    if let ([fewest, .., most], [(few, _), .., (many, _)]) = (ours.as_slice(), cases) {
        let base = median(fewest.iter().copied());
        let runs = most.iter().map(|most| Run::new(*most, base)).collect();
        let gate = Some(GATE_NUMBER).filter(|_| scale.gated);
        rows.push(row(&format!("{many} against {few}"), &format!("{few} sessions"), gate, runs));
    }
    Ok(rows)
}

fn one_case(
    case: &str,
    count: u32,
    scale: &Scale,
    stop: &Stop,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Run>, LabError> {
    progress(&format!("{NAME} {case}: setting up the sessions"));
    let make = |who| {
        let room = (count + count / 3).max(10_000);
        let pair = Pair::make(
            PairSpec {
                who,
                replicating: true,
                room,
                long_timeouts: true,
                worker_cpu: Some(FORWARDER_CPU as u32),
            },
            stop,
        )?;
        fill(&pair, count, scale, stop)?;
        Ok::<_, LabError>(pair)
    };
    let mut pairs = [make(Who::Tidegate)?, make(Who::Conntrackd)?];
    let mut runs = Vec::new();
    for round in 0..scale.rounds {
        let [ours, theirs] = in_turn(round, |which| match which {
            0 => ours(&pairs[0], count, round, stop),
            _ => theirs(&mut pairs[1], count, round),
        })?;
        let run = Run::new(ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
        progress(&format!(
            "{NAME} {case}: round {}: tidegate {:.1}, {PEER} {:.1} ms",
            round + 1,
            run.ours,
            run.theirs
        ));
        runs.push(run);
    }
    Ok(runs)
}

/// Kills the nodes in turn: the one that dies comes back, is told everything, and is the next survivor.
fn ours(pair: &Pair, count: u32, round: u32, stop: &Stop) -> Result<Duration, LabError> {
    let (dying, survivor) = if round.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    let (dying, survivor) = (pair.lab().at(dying), pair.lab().at(survivor));
    let flows = random_flows(SAMPLED, count, round.into());
    let probe = pair.probe(survivor.number(), count, &flows)?;
    let logged = survivor.log()?.len();
    dying.kill()?;
    let declared_us = wait_declared_down(&survivor, logged, dying.number(), stop)?;
    let passed = probe.until_all_pass(PASS_MAX)?;
    let took = Duration::from_micros((DAY_US + time_of_day_us()? - declared_us) % DAY_US);
    let took = took.saturating_sub(passed.elapsed());
    dying.start(stop)?;
    wait_held(pair, dying.number(), count, stop)?;
    Ok(took)
}

/// The time of day at which a node declared another one down: as its log says, behind what was there before.
fn wait_declared_down(
    survivor: &Member<'_>,
    logged: usize,
    number: u32,
    stop: &Stop,
) -> Result<u64, LabError> {
    let deadline = Instant::now() + DECLARED_MAX;
    while Instant::now() < deadline {
        let log = survivor.log()?;
        if let Some(time_us) = declared_down(log.get(logged..).unwrap_or_default(), number) {
            return Ok(time_us);
        }
        stop.sleep(LOOK_EVERY)?;
    }
    Err(LabError::Check(format!("node {number} is not declared down after {DECLARED_MAX:?}")))
}

/// `2026-11-22T12:46:05.870234Z  WARN ...: node 1 (boot 7) is down`: microseconds of the day.
fn declared_down(log: &str, number: u32) -> Option<u64> {
    let (node, down) = (format!(" node {number} (boot "), ") is down");
    // The last line may not be whole yet.
    let whole = &log[..=log.rfind('\n')?];
    let line = whole.lines().find(|line| line.contains(&node) && line.contains(down))?;
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut fields = time.split([':', '.']).map(|field| field.parse::<u64>().ok());
    let mut next = || fields.next().flatten();
    let (hours, minutes, seconds, micros) = (next()?, next()?, next()?, next()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

fn time_of_day_us() -> Result<u64, LabError> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_err(|error| LabError::Check(format!("the clock: {error}")))?;
    Ok((since.as_micros() % u128::from(DAY_US)) as u64)
}

/// Empties the survivor's kernel, then commits what its daemon was told.
fn theirs(pair: &mut Pair, count: u32, round: u32) -> Result<Duration, LabError> {
    pair.lab().at(2).netns().run(flush_conntrack)??;
    let flows = random_flows(SAMPLED, count, round.into());
    let probe = pair.probe(2, count, &flows)?;
    let start = Instant::now();
    let mut commit = pair.conntrackd()?.begin_commit(2)?;
    let passed = probe.until_all_pass(PASS_MAX);
    let ended = commit.wait().map_err(|source| LabError::system("wait for conntrackd -c", source))?;
    let passed = passed.map_err(|error| LabError::Check(format!("conntrackd -c ({ended}): {error}")))?;
    Ok(passed - start)
}

fn row(case: &str, peer: &str, gate: Option<f64>, runs: Vec<Run>) -> Row {
    let subject = Subject {
        name: NAME,
        case,
        peer,
        unit: "ms",
        better: Better::Lower,
        gate,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Row::from_runs(&subject, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when another node's death, an unfinished line or another event is taken for it.
    #[test]
    fn the_log_says_when_a_node_was_declared_down() {
        let log = "2026-11-22T12:46:05.000001Z  INFO tidegate::heart: node 1 (boot 7) is alive\n\
                   2026-11-22T12:46:05.000002Z  WARN tidegate::heart: node 2 (boot 7) is down\n\
                   2026-11-22T01:02:03.870234Z  WARN tidegate::heart: node 1 (boot 7) is down\n";
        let time_us = ((60 + 2) * 60 + 3) * 1_000_000 + 870_234;
        assert_eq!(declared_down(log, 1), Some(time_us));
        assert_eq!(declared_down(log.trim_end(), 1), None);
        assert_eq!(declared_down(log, 3), None);
    }
}
