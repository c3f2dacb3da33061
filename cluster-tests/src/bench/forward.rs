//! `forward_established`: 60-byte UDP frames of established flows, from one port to the other.
//!
//! All forwarders stand side by side, each in a lab of its own, their flows set up once in both directions; then
//! they are measured in turn, each for a window of saturation, so that whatever else the machine does hits all
//! alike. The load is above what any forwards: what counts is what arrives at the sink. CPU 0 generates, and takes
//! the frames off the link at the node's port (XDP and the copy into packet memory, or the kernel's buffers, which
//! it then steers to CPU 1); CPU 1 forwards, and runs the sink.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::Scale;
use super::bed::{Bed, Kind};
use super::frames::{Direction, Flows};
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::lab::Lab;
use crate::sys::Stop;

/// Name of the bench.
pub const NAME: &str = "forward_established";
/// What is asked of the ratio to `afxdp` alone.
const GATE_RAW: f64 = 0.85;
/// How often each flow's frame is sent for the check of the counters, beyond its set-up.
const CHECK_TIMES: u32 = 2;

const GENERATOR: &str = "BPF_PROG_TEST_RUN live frames, 60 bytes, every header rewritten, checksums valid";
const SINK: &str = "XDP program at the server's veth: counts and drops";
const PLACEMENT: &str = "CPU 0: generator and receiving end of the port; CPU 1: forwarder and sink \
                         (nf_conntrack: steered there by RPS; raw_afxdp: 32 frames a kick)";

/// Measures every number of flows against every peer.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    let mut rows = Vec::new();
    for (case, count) in scale.flows() {
        progress(&format!("{NAME} {case}: setting up the flows"));
        let flows = Flows {
            count,
            client_base: Ipv4Addr::new(10, 82, 0, 0),
            server: Ipv4Addr::new(10, 81, 2, 10),
            server_port: 5000,
        };
        let ours = Bed::make(Kind::Tidegate, flows, stop)?;
        check_counters(&ours, &flows)?;
        let peers = [Bed::make(Kind::Raw, flows, stop)?, Bed::make(Kind::Conntrack, flows, stop)?];
        let mut runs = [Vec::new(), Vec::new()];
        for round in 0..scale.rounds {
            let measured = one_round(&ours, &peers, round, scale.window, stop)?;
            progress(&format!("{NAME} {case}: round {}: {}", round + 1, in_words(&measured)));
            for (peer, runs) in runs.iter_mut().enumerate() {
                runs.push(Run::new(measured[0] / 1e3, measured[peer + 1] / 1e3));
            }
        }
        let [raw, conntrack] = runs;
        rows.push(row(case, Kind::Raw, Some(GATE_RAW).filter(|_| scale.gated), raw));
        rows.push(row(case, Kind::Conntrack, None, conntrack));
    }
    Ok(rows)
}

/// Frames a second of ours, raw and conntrack; who comes first goes round.
fn one_round(
    ours: &Bed,
    peers: &[Bed; 2],
    round: u32,
    window: Duration,
    stop: &Stop,
) -> Result<[f64; 3], LabError> {
    let beds = [ours, &peers[0], &peers[1]];
    let mut measured = [0.0; 3];
    for turn in 0..beds.len() {
        let which = (turn + round as usize) % beds.len();
        measured[which] = beds[which].saturate(window, stop)?;
        if measured[which] == 0.0 {
            return Err(LabError::Check(format!("{} forwarded nothing", beds[which].kind().name())));
        }
    }
    Ok(measured)
}

/// Sends a known number of frames for each flow, and finds just that number in the sessions of some flows and at
/// the sink: what is measured is real forwarding by sessions, not something that skips them.
fn check_counters(bed: &Bed, flows: &Flows) -> Result<(), LabError> {
    bed.send_losslessly(Direction::Forward, CHECK_TIMES)?;
    let sent = u64::from(1 + CHECK_TIMES);
    for (number, arrived) in bed.arrived_by_flow()? {
        let (forward, reply) = session_packets(bed.lab(), flows, number)?;
        if (forward, reply, arrived) != (sent, 1, sent) {
            return Err(LabError::Check(format!(
                "flow {number}: sent {sent} and 1 in reply; its session counts {forward} and {reply}, the sink {arrived}"
            )));
        }
    }
    Ok(())
}

/// Packets of both wings of a flow's session.
fn session_packets(lab: &Lab, flows: &Flows, number: u32) -> Result<(u64, u64), LabError> {
    let (address, port) = flows.client(number);
    let (prefix, port) = (format!("{}/32", IpAddr::V4(address)), port.to_string());
    let filters = ["--protocol", "udp", "--source-prefix", prefix.as_str(), "--source-port", port.as_str()];
    let found = lab.sessions(&filters)?;
    let packets = |wing: &str| found.first().and_then(|session| session[wing]["packets"].as_u64());
    match (found.len(), packets("forward"), packets("reply")) {
        (1, Some(forward), Some(reply)) => Ok((forward, reply)),
        (count, ..) => Err(LabError::Check(format!("flow {number} has {count} sessions"))),
    }
}

fn row(case: &str, peer: Kind, gate: Option<f64>, runs: Vec<Run>) -> Row {
    let subject = Subject {
        name: NAME,
        case,
        peer: peer.name(),
        unit: "kpps",
        better: Better::Higher,
        gate,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Row::from_runs(&subject, runs)
}

fn in_words(measured: &[f64; 3]) -> String {
    let [ours, raw, conntrack] = measured.map(|rate| rate / 1e3);
    format!("tidegate {ours:.0}, raw_afxdp {raw:.0}, nf_conntrack {conntrack:.0} kpps")
}
