//! `forward_new_flows`: 60-byte UDP frames of which each is the first of its flow.
//!
//! Against nf_conntrack with equal rules, each in a lab of its own, measured in turn, both tables emptied before
//! every run. What counts is what arrives at the sink; that each frame there set up a session is checked by the
//! counters of both sides: first with a known number of frames, slowly sent, then for every run.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::Scale;
use super::bed::{Bed, Kind};
use super::frames::{Direction, Flows};
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::sys::{Stop, read_file};

/// Name of the bench.
pub const NAME: &str = "forward_new_flows";
/// What is asked of the ratio to nf_conntrack.
const GATE: f64 = 1.25;
/// Sessions that both tables hold: more than any forwarder sets up in a run.
const SESSIONS: u32 = 4_000_000;
/// Flows of the generator: more than it sends frames in a run, so that none comes twice.
const FLOWS: u32 = 32_000_000;
/// How long a run is measured, at most.
const WINDOW_MAX: Duration = Duration::from_secs(2);
/// Frames that are sent slowly, to see that the counters say how many there were.
const CHECKED: u32 = 65_536;

const GENERATOR: &str = "BPF_PROG_TEST_RUN live frames, 60 bytes, each of a flow of its own, checksums valid";
const SINK: &str = "XDP program at the server's veth: counts and drops; as many sessions as frames, checked";
const PLACEMENT: &str = "CPU 0: generator and receiving end of the port; CPU 1: forwarder and sink \
                         (nf_conntrack: steered there by RPS)";

/// Measures against the kernel.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the labs"));
    let window = scale.window.min(WINDOW_MAX);
    let flows = |count| Flows {
        count,
        client_base: Ipv4Addr::new(10, 82, 0, 0),
        server: Ipv4Addr::new(10, 81, 2, 10),
        server_port: 5000,
    };
    for kind in [Kind::Tidegate, Kind::Conntrack] {
        check_counters(&Bed::make_empty(kind, flows(CHECKED), SESSIONS, stop)?)?;
    }
    let beds =
        [Kind::Tidegate, Kind::Conntrack].map(|kind| Bed::make_empty(kind, flows(FLOWS), SESSIONS, stop));
    let [ours, theirs] = beds;
    let beds = [ours?, theirs?];
    let mut runs = Vec::new();
    for round in 0..scale.rounds as usize {
        let mut rates = [0.0; 2];
        for turn in 0..beds.len() {
            let which = (turn + round) % beds.len();
            rates[which] = set_up_rate(&beds[which], window, stop)?;
        }
        let [ours, theirs] = rates.map(|rate| rate / 1e3);
        progress(&format!("{NAME}: round {}: tidegate {ours:.0}, nf_conntrack {theirs:.0} k/s", round + 1));
        runs.push(Run::new(ours, theirs));
    }
    let subject = Subject {
        name: NAME,
        case: "each packet",
        peer: Kind::Conntrack.name(),
        unit: "k sessions/s",
        better: Better::Higher,
        gate: Some(GATE).filter(|_| scale.gated),
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

/// Sessions set up in a second of saturation, from an empty table.
fn set_up_rate(bed: &Bed, window: Duration, stop: &Stop) -> Result<f64, LabError> {
    empty(bed)?;
    let before = (sessions_made(bed)?, bed.arrived()?);
    let rate = bed.saturate(window, stop)?;
    // What is under way when the generator ends arrives too.
    std::thread::sleep(Duration::from_millis(300));
    let (made, arrived) = (sessions_made(bed)? - before.0, bed.arrived()? - before.1);
    let spoilt = spoilt(bed)?;
    // The kernel loses frames behind its forwarding, and its other traffic has sessions too.
    let slack = arrived / 100 + 16;
    if made + 16 < arrived || made > arrived + slack || spoilt > 0 {
        return Err(LabError::Check(format!(
            "{}: {arrived} frames arrived, {made} sessions were set up, {spoilt} were refused or thrown out",
            bed.kind().name()
        )));
    }
    Ok(rate)
}

/// Finds as many sessions as flows were sent, and no more frames at the sink.
fn check_counters(bed: &Bed) -> Result<(), LabError> {
    empty(bed)?;
    let before = sessions_made(bed)?;
    bed.send_losslessly(Direction::Forward, 1)?;
    let (made, spoilt) = (sessions_made(bed)? - before, spoilt(bed)?);
    let slack = if bed.kind() == Kind::Tidegate { 0 } else { 16 };
    if made.abs_diff(u64::from(CHECKED)) <= slack && spoilt == 0 {
        return Ok(());
    }
    Err(LabError::Check(format!(
        "{}: {CHECKED} flows were sent, {made} sessions set up, {spoilt} refused or thrown out",
        bed.kind().name()
    )))
}

/// Ends every session, and sees that none is left.
fn empty(bed: &Bed) -> Result<(), LabError> {
    match bed.kind() {
        Kind::Conntrack => bed.lab().node().run(flush_conntrack)??,
        _ => {
            bed.lab().json(&["--yes", "session", "clear", "--all"])?;
        }
    }
    let left = sessions_live(bed)?;
    // Some other packet may have come meanwhile.
    if left <= 16 { Ok(()) } else { Err(LabError::Check(format!("{left} sessions are left"))) }
}

/// Sessions in the table now.
fn sessions_live(bed: &Bed) -> Result<u64, LabError> {
    match bed.kind() {
        Kind::Conntrack => bed.lab().node().run(conntrack_count)?,
        _ => metric(bed, "tidegate_table_in_use_sessions"),
    }
}

/// Sessions set up so far; of the kernel's those in its table, which was empty.
fn sessions_made(bed: &Bed) -> Result<u64, LabError> {
    match bed.kind() {
        Kind::Conntrack => sessions_live(bed),
        _ => metric(bed, "tidegate_sessions_created_total"),
    }
}

/// Sessions that found no room, or were thrown out for others, so far.
fn spoilt(bed: &Bed) -> Result<u64, LabError> {
    match bed.kind() {
        Kind::Conntrack => {
            let stat = bed.lab().node().proc_net("stat/nf_conntrack")?;
            Ok(stat_sum(&stat, &["insert_failed", "drop", "early_drop"]))
        }
        _ => metric(bed, "tidegate_sessions_failed_total"),
    }
}

fn metric(bed: &Bed, name: &str) -> Result<u64, LabError> {
    let value = bed.lab().metrics()?.sum(name, &[]);
    value.map(|value| value as u64).ok_or_else(|| LabError::Check(format!("the node has no metric {name}")))
}

pub(super) fn conntrack_count() -> Result<u64, LabError> {
    let text = read_file(Path::new("/proc/sys/net/netfilter/nf_conntrack_count"))?;
    text.trim().parse().map_err(|error| LabError::Check(format!("nf_conntrack_count: {error}")))
}

/// The sum over CPUs of some columns of /proc/net/stat/nf_conntrack, which are hexadecimal.
fn stat_sum(stat: &str, columns: &[&str]) -> u64 {
    let mut lines = stat.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let value = |(name, value): (&&str, &str)| match columns.contains(name) {
        true => u64::from_str_radix(value, 16).unwrap_or_default(),
        false => 0,
    };
    lines.map(|line| names.iter().zip(line.split_ascii_whitespace()).map(value).sum::<u64>()).sum()
}

/// Deletes every entry of the namespace's connection tracking: one netlink message (IPCTNL_MSG_CT_DELETE without
/// a tuple), acknowledged when done.
pub(super) fn flush_conntrack() -> Result<(), LabError> {
    const NETLINK: i32 = 16;
    const NETFILTER: i32 = 12;
    let fail = |source| LabError::system("empty the connection tracking table", source);
    let mut socket =
        Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER))).map_err(fail)?;
    let mut message = Vec::new();
    // Length, type (subsystem 1, message 2), flags (request, acknowledge), number, sender; family, version, id.
    message.extend(20u32.to_ne_bytes());
    message.extend(0x0102u16.to_ne_bytes());
    message.extend(0x0005u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    socket.write_all(&message).map_err(fail)?;
    let mut answer = [0; 256];
    let length = socket.read(&mut answer).map_err(fail)?;
    // An error message; its code follows the header, 0 is success.
    let code = answer[..length].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        code => Err(LabError::Check(format!("the kernel does not empty its connection tracking: {code:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_by_name_over_all_cpus() {
        let stat = "entries found early_drop drop\n00000010 00000001 00000002 0000000a\n\
                    00000010 00000001 00000000 00000001\n";
        assert_eq!(stat_sum(stat, &["early_drop", "drop"]), 13);
        assert_eq!(stat_sum(stat, &["nothing"]), 0);
    }
}
