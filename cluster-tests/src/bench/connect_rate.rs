//! `connect_rate`: TCP connections that real clients and servers open, use once and close, in a second.
//!
//! Both ends are kernel stacks on the same two CPUs as the forwarder, and take most of their time.

use super::Scale;
use super::bed::{self, Kind};
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::lab::Lab;
use crate::sys::Stop;
use crate::traffic::{Churn, churn};

/// Name of the bench.
pub const NAME: &str = "connect_rate";
/// Connections at a time.
const CONCURRENCY: usize = 32;
const FIRST_PORT: u16 = 7000;
/// Server ports, so that a client's ports in TIME-WAIT do not run out.
const PORTS: u16 = 8;

const GENERATOR: &str = "32 client threads: connect, 64 bytes, close; the next when the last is closed";
const SINK: &str = "TCP servers that repeat what they get; every connection completed, none failed";
const PLACEMENT: &str = "two CPUs, clients, servers and forwarder where the kernel runs them";

/// Measures against the kernel with equal rules.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the labs"));
    let labs = [bed::idle_lab(Kind::Tidegate, stop)?, bed::idle_lab(Kind::Conntrack, stop)?];
    let mut runs = Vec::new();
    for round in 0..scale.rounds as usize {
        let mut rates = [0.0; 2];
        for turn in 0..labs.len() {
            let which = (turn + round) % labs.len();
            rates[which] = rate(&labs[which], scale, stop)?;
        }
        let [ours, theirs] = rates;
        progress(&format!(
            "{NAME}: round {}: tidegate {ours:.0}, nf_conntrack {theirs:.0} a second",
            round + 1
        ));
        runs.push(Run::new(ours, theirs));
    }
    let subject = Subject {
        name: NAME,
        case: "32 at a time",
        peer: Kind::Conntrack.name(),
        unit: "connections/s",
        better: Better::Higher,
        gate: None,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

/// Connections a second.
fn rate(lab: &Lab, scale: &Scale, stop: &Stop) -> Result<f64, LabError> {
    let address = |text: &str| text.parse().map_err(|error| LabError::Check(format!("{text}: {error}")));
    let plan = Churn {
        connections: scale.connections,
        concurrency: CONCURRENCY,
        sources: vec![address(&lab.plan().client.ipv4)?],
        server: address(&lab.plan().server.ipv4)?,
        ports: (FIRST_PORT..FIRST_PORT + PORTS).collect(),
    };
    let report = churn(&lab.client(), &lab.server(), &plan, stop)?;
    if report.failed > 0 {
        return Err(LabError::Check(format!("{} connections failed: {:?}", report.failed, report.errors)));
    }
    Ok(report.completed as f64 / report.seconds)
}
