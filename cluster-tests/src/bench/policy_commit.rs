//! `policy_commit`: how long three nodes take to agree, and how often they can, against three members of etcd in the
//! same namespaces and the disk's own fsync.
//!
//! `apply` is what an operator waits for: committed, and enforced by all engines of all nodes. `commit` is the
//! agreement alone, shown with a join token, which is made and taken back.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Scale;
use super::etcd::{self, Etcd};
use super::http::Connection;
use super::report::{Better, Row, Run, Subject, median};
use crate::LabError;
use crate::lab::{DEFAULT_POLICY, Lab, LabSpec, NodePlan};
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "policy_commit";
/// Clients at once where the rate is measured.
const CLIENTS: usize = 16;
/// Bytes of what etcd commits and of what the disk takes; a token's entry is about as long.
const SMALL: usize = 256;

const GENERATOR: &str = "HTTP connections that are kept, to the leader: a Unix socket, and TCP to etcd; each sends the \
                         next request when the last is answered";
const SINK: &str = "three nodes (QUIC, mutual TLS), three members of etcd (plain TCP), one disk for all";
const PLACEMENT: &str = "all of it on all CPUs, as the kernel runs it";

/// Measures all cases.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the cluster and etcd's"));
    let lab = cluster("commit", 1, stop)?;
    let etcd = Etcd::start(&lab, stop)?;
    let bench = Bench { lab: &lab, etcd: &etcd, window: scale.window, stop };
    let mut runs: [Vec<Run>; 4] = Default::default();
    for round in 0..scale.rounds {
        let figures = bench.round(round)?;
        progress(&format!("{NAME}: round {}: {}", round + 1, words(&figures)));
        for (runs, run) in runs.iter_mut().zip(figures) {
            runs.push(run);
        }
    }
    let [apply, commit, disk, rate] = runs;
    let lower = Better::Lower;
    Ok(vec![
        row("apply p50, 1 client", "etcd", "us", lower, apply),
        row("commit p50, 1 client", "etcd", "us", lower, commit),
        row("commit p50, 1 client", "fsync", "us", lower, disk),
        row(&format!("commits, {CLIENTS} clients"), "etcd", "1/s", Better::Higher, rate),
    ])
}

/// Three nodes of so many engines each that have formed a cluster.
pub(super) fn cluster(name: &str, engines: u32, stop: &Stop) -> Result<Lab, LabError> {
    let name = format!("bench-{}-{name}", std::process::id());
    Lab::up(LabSpec { nodes: 3, queues: engines, ..LabSpec::new(name) }, stop, |_| ())
}

/// A connection to the node that leads.
pub(super) fn connect_to_leader(lab: &Lab) -> Result<Connection, LabError> {
    let status = lab.at(1).json(&["status"])?;
    let leads = |node: &&NodePlan| status["cluster"]["leader"] == node.name.as_str();
    let leader = lab.plan().nodes.iter().find(leads);
    let leader = leader.ok_or_else(|| LabError::Check(format!("nobody leads: {}", status["cluster"])))?;
    Connection::control(&leader.control)
}

/// Applies a policy; returns once all nodes enforce it.
pub(super) fn apply(connection: &mut Connection, text: &str) -> Result<(), LabError> {
    let answer = connection.post("/v1/policy/apply", &json!({"file": "bench.toml", "text": text}))?;
    let enforced = |node: &Value| node["enforced"] == true;
    let all = answer["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3 && nodes.iter().all(enforced));
    if all && answer["unchanged"] == false {
        return Ok(());
    }
    Err(LabError::Check(format!("not all nodes enforce what was applied: {answer}")))
}

/// One of the two that are compared: how it is reached, and what is done, told by a number that no other call has.
struct Side<'a> {
    connect: &'a (dyn Fn() -> Result<Connection, LabError> + Sync),
    once: &'a (dyn Fn(&mut Connection, u64) -> Result<(), LabError> + Sync),
    /// Commits of one call.
    commits: f64,
}

struct Bench<'a> {
    lab: &'a Lab,
    etcd: &'a Etcd,
    window: Duration,
    stop: &'a Stop,
}

impl Bench<'_> {
    /// Apply, commit, commit against the disk, rate. Ours and theirs change places from round to round.
    fn round(&self, round: u32) -> Result<[Run; 4], LabError> {
        let policy = |number: u64| format!("{DEFAULT_POLICY}\n# {round:04} {number:015}\n");
        // Base64 comes in fours.
        let (small, long) = ("x".repeat(SMALL), "x".repeat(policy(0).len().next_multiple_of(4)));
        let to_node = || connect_to_leader(self.lab);
        let to_etcd = || self.etcd.connect();
        let apply = |connection: &mut Connection, number| apply(connection, &policy(number));
        let put_long = |connection: &mut Connection, _| etcd::put(connection, &long);
        let put_small = |connection: &mut Connection, _| etcd::put(connection, &small);
        let ours = |once, commits| Side { connect: &to_node, once, commits };
        let theirs = |once| Side { connect: &to_etcd, once, commits: 1.0 };
        let pair =
            |ours: Side<'_>, theirs: Side<'_>, measure: &dyn Fn(&Side<'_>) -> Result<f64, LabError>| {
                if round.is_multiple_of(2) {
                    let mine = measure(&ours)?;
                    Ok::<_, LabError>(Run::new(mine, measure(&theirs)?))
                } else {
                    let peers = measure(&theirs)?;
                    Ok(Run::new(measure(&ours)?, peers))
                }
            };
        let latency = |side: &Side<'_>| self.latency(side);
        let rate = |side: &Side<'_>| self.rate(side);
        let applied = pair(ours(&apply, 1.0), theirs(&put_long), &latency)?;
        let committed = pair(ours(&token, 2.0), theirs(&put_small), &latency)?;
        let disk = Run::new(committed.ours, self.fsync()?);
        Ok([applied, committed, disk, pair(ours(&token, 2.0), theirs(&put_small), &rate)?])
    }

    /// Median time of a commit with one client, in microseconds.
    fn latency(&self, side: &Side<'_>) -> Result<f64, LabError> {
        let mut connection = (side.connect)()?;
        let mut number = 0;
        let median = self.median_us(|| {
            number += 1;
            (side.once)(&mut connection, number)
        })?;
        Ok(median / side.commits)
    }

    /// Median of how long it takes, in microseconds.
    fn median_us(&self, mut once: impl FnMut() -> Result<(), LabError>) -> Result<f64, LabError> {
        once()?;
        let end = Instant::now() + self.window;
        let mut times = Vec::new();
        while Instant::now() < end || times.is_empty() {
            self.stop.check()?;
            let start = Instant::now();
            once()?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(times))
    }

    /// Commits a second of all clients together.
    fn rate(&self, side: &Side<'_>) -> Result<f64, LabError> {
        let connections: Vec<_> = (0..CLIENTS).map(|_| (side.connect)()).collect::<Result<_, _>>()?;
        let start = Instant::now();
        let work = |mut connection: Connection| {
            let mut calls = 0;
            while start.elapsed() < self.window {
                self.stop.check()?;
                calls += 1;
                (side.once)(&mut connection, calls)?;
            }
            Ok::<_, LabError>(calls)
        };
        let calls = std::thread::scope(|scope| {
            let clients: Vec<_> =
                connections.into_iter().map(|connection| scope.spawn(|| work(connection))).collect();
            let join = |client: std::thread::ScopedJoinHandle<'_, _>| {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            clients.into_iter().map(join).sum::<Result<u64, LabError>>()
        })?;
        Ok(calls as f64 * side.commits / start.elapsed().as_secs_f64())
    }

    /// Median of an append of a few bytes and its fdatasync beside the nodes' stores, in microseconds.
    fn fsync(&self) -> Result<f64, LabError> {
        let path = self.lab.plan().dir.join("fsync");
        let fail = |source| LabError::File { action: "write", path: path.clone(), source };
        let mut file = File::create(&path).map_err(fail)?;
        self.median_us(|| file.write_all(&[0x5a; SMALL]).and_then(|()| file.sync_data()).map_err(fail))
    }
}

/// Makes a join token and takes it back: two commits, and nothing is left.
fn token(connection: &mut Connection, _: u64) -> Result<(), LabError> {
    let made = connection.post("/v1/cluster/tokens", &json!({"ttl_ms": 60_000, "role": "node"}))?;
    connection.post("/v1/cluster/tokens/revoke", &json!({"id": made["id"]})).map(drop)
}

fn words([apply, commit, disk, rate]: &[Run; 4]) -> String {
    format!(
        "apply {:.0} us, commit {:.0} us, {:.0} commits/s; etcd {:.0} us, {:.0} us, {:.0}/s; fsync {:.0} us",
        apply.ours, commit.ours, rate.ours, apply.theirs, commit.theirs, rate.theirs, disk.theirs
    )
}

fn row(case: &str, peer: &str, unit: &str, better: Better, runs: Vec<Run>) -> Row {
    let subject = Subject {
        name: NAME,
        case,
        peer,
        unit,
        better,
        gate: None,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Row::from_runs(&subject, runs)
}
