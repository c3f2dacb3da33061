//! `rtt`: how long one small UDP datagram takes to the server and back, one at a time, over an otherwise idle node.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::Scale;
use super::bed::{self, Kind};
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::lab::Lab;
use crate::sys::{Stop, pin};
use crate::traffic::UdpEcho;

/// Name of the bench.
pub const NAME: &str = "rtt";
/// What is asked of the median, ours to the kernel's.
const GATE_P50: f64 = 0.7;
const PORT: u16 = 5001;
/// Client and server are two machines: neither wakes the other on its own CPU.
const CLIENT_CPU: usize = 0;
const SERVER_CPU: usize = 1;
/// Round trips before those that count.
const WARM_UP: usize = 200;

const GENERATOR: &str = "UDP socket of the client, 64 bytes, the next when the last is back";
const SINK: &str = "UDP echo of the server";
const PLACEMENT: &str = "CPU 0: client; CPU 1: server; the forwarder where the kernel runs it";

/// Measures against the kernel with equal rules.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the labs"));
    let ours = bed::idle_lab(Kind::Tidegate, stop)?;
    let theirs = bed::idle_lab(Kind::Conntrack, stop)?;
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let (mine, peers) = if round % 2 == 0 {
            let mine = percentiles(&ours, scale.round_trips, stop)?;
            (mine, percentiles(&theirs, scale.round_trips, stop)?)
        } else {
            let peers = percentiles(&theirs, scale.round_trips, stop)?;
            (percentiles(&ours, scale.round_trips, stop)?, peers)
        };
        progress(&format!(
            "{NAME}: round {}: p50 {:.1} and p99 {:.1} us; kernel {:.1} and {:.1} us",
            round + 1,
            mine.0,
            mine.1,
            peers.0,
            peers.1
        ));
        p50.push(Run::new(mine.0, peers.0));
        p99.push(Run::new(mine.1, peers.1));
    }
    let gate = Some(GATE_P50).filter(|_| scale.gated);
    Ok(vec![row("p50", gate, p50), row("p99", None, p99)])
}

/// Median and 99th percentile of the round trip, in microseconds.
fn percentiles(lab: &Lab, round_trips: usize, stop: &Stop) -> Result<(f64, f64), LabError> {
    let address = lab.plan().server.ipv4.clone();
    let listen = format!("{address}:{PORT}").parse().map_err(|error| LabError::Check(format!("{error}")))?;
    let _echo = UdpEcho::start_on_cpu(&lab.server(), listen, SERVER_CPU)?;
    let measured = lab.client().run(|| {
        pin(CLIENT_CPU)?;
        ping_pong(&address, round_trips, stop)
    })?;
    let mut times = measured?;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok((at(0.5), at(0.99)))
}

fn ping_pong(address: &str, round_trips: usize, stop: &Stop) -> Result<Vec<Duration>, LabError> {
    let fail = |source| LabError::system("exchange a datagram", source);
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(fail)?;
    socket.connect((address, PORT)).map_err(fail)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(fail)?;
    let mut times = Vec::with_capacity(round_trips);
    let mut buffer = [0; 64];
    for number in 0..WARM_UP + round_trips {
        stop.check()?;
        let start = Instant::now();
        socket.send(&[0x5a; 64]).map_err(fail)?;
        socket.recv(&mut buffer).map_err(fail)?;
        if number >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

fn row(case: &str, gate: Option<f64>, runs: Vec<Run>) -> Row {
    let subject = Subject {
        name: NAME,
        case,
        peer: "nf_conntrack",
        unit: "us",
        better: Better::Lower,
        gate,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Row::from_runs(&subject, runs)
}
