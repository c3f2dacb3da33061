//! One node stands still, or comes back under load: the others do not wait for it, and it is ready only when it holds
//! what they hold.

use std::time::Duration;

use tidegate_lab::lab::{DEFAULT_POLICY, Member, Route, Routing};
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, ChurnReport, Trickle, TrickleFlow, churn, paced_churn};

use crate::common::cluster::{is_long, length};
use crate::common::load::{Traffic, checking_policy};
use crate::common::repl::{replicating, wait_in_sync, wait_verified};
use crate::common::{PATIENCE, TestLab, ip, pause};

fn plan(lab: &TestLab, connections: u64) -> Churn {
    Churn {
        connections,
        concurrency: 16,
        sources: vec![ip(&lab.plan().client.ipv4)],
        server: lab.server_v4(0).ip(),
        ports: (8000..8008).collect(),
    }
}

/// Memory that a daemon has in use, in MiB.
fn memory_mib(member: Member<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", member.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Red when the others wait for a node that stands still, keep for it what they must not, or it ages what is alive, or
/// does not catch up.
#[test]
fn a_node_that_stands_still_holds_up_nobody_and_catches_up() {
    let lab = replicating("frozen", 3, |spec| {
        (spec.routing, spec.policy) = (Routing::Asymmetric, Some(checking_policy()));
        // Closed connections stay for their time.
        spec.capacity = 100_000;
    });
    let traffic = Traffic::start(&lab);
    traffic.goes_on("at the start", &[]);
    let count = length(500, 5_000) as u64;
    let run = || -> ChurnReport {
        let report =
            paced_churn(&lab.client(), &lab.server(), &plan(&lab, count), 250, &Stop::default()).unwrap();
        assert_eq!((report.completed, report.resets), (count, 0), "{:?}", report.errors);
        report
    };
    let five = || (0..length(2, 5)).map(|_| run()).collect::<Vec<_>>();
    let before = five();
    let memory = [1, 2].map(|node| memory_mib(lab.at(node)));
    lab.at(3).freeze().unwrap();
    let during = five();
    for (node, before) in [1, 2].into_iter().zip(memory) {
        let now = memory_mib(lab.at(node));
        assert!(
            now <= before + 64,
            "node{node} used {before} MiB, and {now} MiB with a peer that stands still"
        );
    }
    if is_long() {
        let seconds = |runs: &[ChurnReport]| runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
        let spread = seconds(&before) - before.iter().map(|run| run.seconds).fold(f64::MAX, f64::min);
        assert!(seconds(&during) <= seconds(&before) + spread.max(0.5), "{before:?} then {during:?}");
    }
    traffic.goes_on("while node3 stands still", &[]);
    lab.at(3).thaw().unwrap();
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
    traffic.goes_on("when node3 is back", &[]);
    lab.route(&Route::through(3)).unwrap();
    traffic.goes_on("through node3 alone", &[3]);
}

/// Red when a node says that it is ready before it holds all sessions, or holds some that have ended meanwhile.
#[test]
fn a_newcomer_is_ready_only_when_it_holds_everything_though_much_changes() {
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 600\n");
    let lab = replicating("newcomer", 2, |spec| (spec.policy, spec.capacity) = (Some(policy), 100_000));
    let flow = |number: u16| TrickleFlow {
        client_port: 30_000 + number,
        server_port: 7100,
        every: Duration::from_secs(2),
        phase: Duration::from_millis(u64::from(number) * 2),
    };
    let flows = (0..1_000).map(flow).collect();
    let server = lab.server_v4(0).ip();
    lab.at(2).kill().unwrap();
    let trickle = Trickle::open(&lab.client(), &lab.server(), server, flows).unwrap();
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| churn(&lab.client(), &lab.server(), &plan(&lab, 1_000_000), &stop));
        pause(Duration::from_millis(500));
        lab.at(2).start(&Stop::default()).unwrap();
        // Ready: what comes back through it now has a session there, or none at all.
        lab.route(&Route::split(1, 2)).unwrap();
        let dead = trickle.dead(PATIENCE);
        stop.set();
        // Interrupted, that is.
        let _ = load.join().unwrap();
        assert_eq!(dead, [], "through the newcomer");
    });
    // One in a hundred may be lost below the engines, on a machine that is busy.
    assert!(trickle.missing() <= 10, "{} were lost on the way", trickle.missing());
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
    wait_verified(lab.at(2));
}
