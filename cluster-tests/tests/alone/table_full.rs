//! The session table is a limited resource (J14): what is in stays in, what comes too late is refused and counted.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{UdpEcho, udp_flows};

use crate::common::{PATIENCE, TRIES, TestLab, eventually, lab};

const CAPACITY: u64 = 1000;
/// Long enough for all the flows below, short enough to wait for.
const TIMEOUT_S: u64 = 40;

/// Red when a full table throws out a live session (the first thousand lose their answers), when a refused flow
/// is not counted, when refusing costs memory, or when a slot is lost by a time-out (fewer than 1,000 the second
/// time).
#[test]
fn j14_a_full_table_refuses_and_counts_and_fills_again_after_the_timeout() {
    let lab = lab("full", |spec| {
        spec.capacity = CAPACITY as u32;
        spec.policy = Some(format!("{DEFAULT_POLICY}\n[timeouts]\nudp = {TIMEOUT_S}\n"));
    });
    let server = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let flows = |ports: std::ops::Range<u16>, tries, wait_ms| {
        udp_flows(&lab.client(), server, ports, tries, Duration::from_millis(wait_ms)).unwrap()
    };
    let all = |ports: std::ops::Range<u16>| ports.collect::<BTreeSet<u16>>();

    assert_eq!(flows(20_000..21_000, TRIES, 2_000), all(20_000..21_000), "the table holds 1,000");
    let memory_before_kib = resident_kib(&lab);
    assert_eq!(flows(21_000..25_000, 1, 100), BTreeSet::new(), "admitted into a full table");
    let memory_after_kib = resident_kib(&lab);
    assert_eq!(flows(20_000..21_000, TRIES, 2_000), all(20_000..21_000), "a live session was thrown out");

    let summary = lab.json(&["session", "summary"]).unwrap();
    assert_eq!(summary["in_use"].as_u64(), Some(CAPACITY), "{summary}");
    assert_eq!(summary["failed"].as_u64(), Some(4000), "{summary}");
    assert_eq!(lab.drops("table_full").unwrap(), 4000);
    assert!(
        memory_after_kib <= memory_before_kib + 1024,
        "memory grew from {memory_before_kib} to {memory_after_kib} KiB while 4,000 flows were refused"
    );

    eventually("all sessions age out", Duration::from_secs(TIMEOUT_S) + PATIENCE, || {
        let summary = lab.json(&["session", "summary"]).unwrap();
        (summary["in_use"].as_u64() == Some(0)).then_some(())
    });
    assert_eq!(flows(30_000..31_000, TRIES, 2_000), all(30_000..31_000), "slots were lost");
}

fn resident_kib(lab: &TestLab) -> u64 {
    let pid = lab.json(&["status"]).unwrap()["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}
