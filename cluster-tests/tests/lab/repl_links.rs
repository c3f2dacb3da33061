//! The sync link is slow, loses, or is cut: connections are set up all the same, and the nodes agree again.

use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::lab::Routing;
use tidegate_lab::lab::link::Change;
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, ChurnReport, UdpEcho, paced_churn, udp_flows};

use crate::common::cluster::length;
use crate::common::load::{Traffic, checking_policy};
use crate::common::repl::{replicating, wait_in_sync, wait_verified};
use crate::common::{EACH_TRY, TRIES, TestLab, ip, pause};

/// No more connections a second than this.
const PER_SECOND: u32 = 500;

/// Connections whose answers come back through another node than their beginning went.
fn connections(lab: &TestLab, count: u64) -> ChurnReport {
    let plan = Churn {
        connections: count,
        concurrency: 64,
        sources: vec![ip(&lab.plan().client.ipv4)],
        server: lab.server_v4(0).ip(),
        ports: (8000..8008).collect(),
    };
    let report = paced_churn(&lab.client(), &lab.server(), &plan, PER_SECOND, &Stop::default()).unwrap();
    assert_eq!((report.completed, report.resets), (count, 0), "{:?}", report.errors);
    report
}

/// Red when an answer that overtakes its session on the way is dropped instead of kept: then a SYN must be sent again.
#[test]
#[ignore = "needs a machine that does nothing else: run it alone, with --ignored"]
fn answers_that_are_faster_than_their_sessions_are_kept_for_them() {
    // Closed connections stay for their time.
    let lab = replicating("delay", 2, |spec| (spec.routing, spec.capacity) = (Routing::Asymmetric, 100_000));
    connections(&lab, 50);
    lab.link(1, 2, Change { delay_ms: Some(20.0), ..Change::NOTHING }).unwrap();
    // The nodes have to notice how long the way is now.
    pause(Duration::from_secs(3));
    let count = length(1_000, 10_000) as u64;
    let report = connections(&lab, count);
    assert_eq!(report.syn_retransmissions, 0, "with 20 ms each way, of {count}");

    lab.link(1, 2, Change { loss_pct: Some(1.0), ..Change::HEAL }).unwrap();
    let report = connections(&lab, count);
    // A connection's birth is in two frames at most, and comes again after a few milliseconds.
    assert!(report.syn_retransmissions <= count * 3 / 100, "{} of {count}", report.syn_retransmissions);
}

/// Red when the two sides do not agree again after a cut: what was cleared is back, what was made is missing at the
/// other side, or a live connection is lost.
#[test]
fn after_a_cut_both_sides_hold_the_same_and_nothing_live_is_lost() {
    let policy = format!("{}\n[timeouts]\nudp = 600\n", checking_policy());
    let lab = replicating("cut", 2, |spec| spec.policy = Some(policy));
    let address = lab.server_v4(5300);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    let make = |ports: std::ops::Range<u16>| {
        let answered = udp_flows(&lab.client(), address, ports.clone(), TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), ports.len());
    };
    let held = |node: u32, ports: &str| {
        lab.at(node).sessions(&["--protocol", "udp", "--source-port", ports]).unwrap().len()
    };
    // Whether the other side heard of it too is not known during a cut.
    let clear = |node: u32, ports: &str| {
        let verb = ["--yes", "session", "clear", "--protocol", "udp", "--source-port", ports];
        lab.at(node).tidegate(&verb).unwrap();
    };
    let traffic = Traffic::start(&lab);
    let cuts = [[true, true], [true, false], [false, true]];
    for (number, [there, back]) in cuts.into_iter().enumerate() {
        lab.route_via(1).unwrap();
        traffic.goes_on("before the cut", &[]);
        let base = 20_000 + 1_000 * number as u16;
        let range = |from: u16, to: u16| format!("{}-{}", base + from, base + to - 1);
        make(base..base + 100);
        for (from, to, is_cut) in [(1, 2, there), (2, 1, back)] {
            lab.link_one_way(from, to, Change { cut: Some(is_cut), ..Change::NOTHING }).unwrap();
        }
        pause(Duration::from_secs(length(2, 10) as u64));
        make(base + 100..base + 150);
        clear(1, &range(0, 20));
        lab.route_via(2).unwrap();
        traffic.goes_on(&format!("cut {number}, through node2"), &[]);
        make(base + 200..base + 250);
        clear(2, &range(50, 70));
        pause(Duration::from_secs(length(2, 20) as u64));
        lab.heal_links().unwrap();
        wait_in_sync(&lab);
        wait_verified(lab.at(1));
        wait_verified(lab.at(2));
        traffic.goes_on(&format!("cut {number}, healed"), &[]);
        for node in [1, 2] {
            let at = format!("cut {number}, at node{node}");
            assert_eq!(held(node, &range(0, 20)) + held(node, &range(50, 70)), 0, "{at}: what was cleared");
            assert_eq!(held(node, &range(20, 50)) + held(node, &range(70, 100)), 60, "{at}: what was not");
            assert_eq!(
                (held(node, &range(100, 150)), held(node, &range(200, 250))),
                (50, 50),
                "{at}: what is new"
            );
        }
    }
}

/// Red when loss, duplicates, another order or changed bytes leave the nodes with different sessions, or one takes
/// another for dead that is not.
#[test]
fn through_a_bad_link_the_nodes_come_to_agree() {
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 600\n");
    let lab = replicating("bad", 2, |spec| (spec.routing, spec.policy) = (Routing::Asymmetric, Some(policy)));
    let address = lab.server_v4(5300);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    let bad = Change {
        loss_pct: Some(30.0),
        duplicate_pct: Some(100.0),
        corrupt_pct: Some(2.0),
        reorder_pct: Some(20.0),
        ..Change::NOTHING
    };
    lab.link(1, 2, bad).unwrap();
    let flows = length(1_000, 10_000) as u16;
    let ports = 20_000..20_000 + flows;
    let answered = udp_flows(&lab.client(), address, ports, TRIES, EACH_TRY).unwrap();
    assert_eq!(answered.len(), usize::from(flows));
    let report = lab.heal_links().unwrap();
    let way = report.way("node1", "node2").unwrap();
    assert!(way.lost > 50 && way.duplicated > 50 && way.corrupted > 1 && way.reordered > 20, "{way:?}");
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
    let held = lab.at(2).sessions(&["--protocol", "udp", "--destination-port", "5300"]).unwrap();
    assert_eq!(held.len(), usize::from(flows));
    for session in held {
        assert_eq!(session["replicas"].as_array().map(Vec::len), Some(1), "{session}");
    }
}
