//! A list of a million sessions streams (J11): neither the daemon nor the command line holds them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::common::raw::{RawPair, raw_pair_without_sessions, v4};
use crate::common::{TestLab, lab};
use tidegate_lab::lab::DEFAULT_POLICY;

const SESSIONS: u64 = 1_000_000;
const PORTS: u16 = 50_000;
/// Packets that are sent before one is waited for: what the far end holds in its socket.
const BURST: u16 = 200;

/// Red when the daemon or the command line collects sessions before it passes them on (a million take hundreds of
/// MiB), when one is lost between two slices or listed twice, or when a sorted list keeps more than its limit.
#[test]
fn j11_a_million_sessions_are_listed_in_bounded_memory() {
    let lab = lab("million", |spec| {
        spec.capacity = 1_100_000;
        spec.policy = Some(format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 3600\n"));
    });
    let pair = raw_pair_without_sessions(&lab);
    let mut frame = template(&pair);
    for round in 0..(SESSIONS / u64::from(PORTS)) as u16 {
        for start in (0..PORTS).step_by(usize::from(BURST)) {
            for port in start..start + BURST {
                send(&pair, &mut frame, 10_000 + port, 20_000 + round);
            }
            wait_until_through(&pair, &mut frame);
        }
    }
    let made = lab.json(&["session", "summary"]).unwrap()["in_use"].as_u64().unwrap();
    assert!(made >= SESSIONS * 95 / 100, "too many packets were lost: {made} sessions");

    let before_kib = daemon_kib(&lab, "VmRSS:");
    let (lines, command_kib) = list(&lab, &["-o", "json", "session", "list"]);
    // The brackets of the array have lines of their own.
    assert_eq!(lines, made + 2, "each session once");
    let (lines, sorted_kib) =
        list(&lab, &["session", "list", "--sort", "source-port:desc", "--limit", "100"]);
    assert_eq!(lines, 101);
    let grown_kib = daemon_kib(&lab, "VmHWM:").saturating_sub(before_kib);
    eprintln!("{made} sessions: the daemon grew by {grown_kib} KiB, the command line had {command_kib} KiB");
    assert!(grown_kib < 32 * 1024, "the daemon grew by {grown_kib} KiB");
    assert!(command_kib.max(sorted_kib) < 64 * 1024, "the command line had {command_kib} KiB");
}

/// A UDP datagram from client to server without a checksum, which IPv4 allows (RFC 768).
fn template(pair: &RawPair) -> Vec<u8> {
    let (client, server) = v4(pair);
    let builder = pair.client.packet(client, server).udp(1, 1);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"").unwrap();
    frame[CHECKSUM..CHECKSUM + 2].fill(0);
    frame
}

/// Where the ports and the checksum are behind Ethernet and IPv4 headers.
const PORTS_AT: usize = 34;
const CHECKSUM: usize = PORTS_AT + 6;
const MARK: u16 = 19_999;

fn send(pair: &RawPair, frame: &mut [u8], source: u16, destination: u16) {
    frame[PORTS_AT..PORTS_AT + 2].copy_from_slice(&source.to_be_bytes());
    frame[PORTS_AT + 2..PORTS_AT + 4].copy_from_slice(&destination.to_be_bytes());
    pair.client.wire.send(frame).unwrap();
}

/// What is sent behind a burst arrives when the burst is through.
fn wait_until_through(pair: &RawPair, frame: &mut [u8]) {
    for _ in 0..100 {
        send(pair, frame, MARK, MARK);
        while let Some(seen) = pair.server.wire.receive(Duration::from_millis(100)).unwrap() {
            if seen.get(PORTS_AT + 2..PORTS_AT + 4) == Some(&MARK.to_be_bytes()) {
                return;
            }
        }
    }
    panic!("nothing comes through");
}

/// Lines that a verb prints, and the most memory that it had.
fn list(lab: &TestLab, arguments: &[&str]) -> (u64, u64) {
    let binary = tidegate_lab::sys::find_binary("tidegate", "TIDEGATE_BIN").unwrap();
    let mut command = lab.node().command(&binary);
    command.arg("--control").arg(&lab.plan().nodes[0].control).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut most_kib) = (0, 0);
    let status = format!("/proc/{}/status", child.id());
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = Vec::new();
    while out.read_until(b'\n', &mut line).unwrap() > 0 {
        lines += 1;
        line.clear();
        if lines % 10_000 == 1 {
            most_kib = most_kib.max(kib(&status, "VmHWM:").unwrap_or(0));
        }
    }
    assert!(child.wait().unwrap().success());
    (lines, most_kib)
}

fn daemon_kib(lab: &TestLab, what: &str) -> u64 {
    let pid = lab.json(&["status"]).unwrap()["pid"].as_u64().unwrap();
    kib(&format!("/proc/{pid}/status"), what).unwrap()
}

fn kib(status: &str, what: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    text.lines().find_map(|l| l.strip_prefix(what))?.split_ascii_whitespace().next()?.parse().ok()
}
