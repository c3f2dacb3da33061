//! Nodes are killed under traffic, and come back: connections notice nothing but a pause, and forged segments get
//! through at no time.

use tidegate_lab::lab::{Route, Routing};
use tidegate_lab::sys::Stop;

use std::time::Duration;

use tidegate_lab::traffic::Streams;

use crate::common::cluster::length;
use crate::common::load::{TCP, TCP_PORT, Traffic, checking_policy, wait_owned_by_others};
use crate::common::repl::{replicating, sequence_checks, wait_in_sync, wait_verified};
use crate::common::{PATIENCE, TestLab, eventually};

/// Red when a connection is reset or loses a byte as its node dies, as traffic moves back, or the second time; when a
/// forged segment arrives; or when the nodes do not hold the same sessions afterwards.
#[test]
fn connections_outlive_the_node_that_made_them_and_its_return() {
    let lab = replicating("takeover", 2, |spec| spec.policy = Some(checking_policy()));
    assert_eq!(sequence_checks(lab.at(1)), [true, true]);
    let traffic = Traffic::start(&lab);
    traffic.goes_on("at the start", &[1]);
    for round in 0..length(2, 10) {
        let (dead, heir) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        traffic.carry(&[]);
        lab.route_via(dead).unwrap();
        traffic.goes_on(&format!("round {round}: all through node{dead}"), &[dead]);
        let copies = lab.at(heir).sessions(&TCP).unwrap().len();
        assert_eq!(copies, traffic.count(), "round {round}: what node{heir} holds");
        traffic.carry(&[]);
        lab.at(dead).kill().unwrap();
        lab.route_via(heir).unwrap();
        traffic.goes_on(&format!("round {round}: node{dead} is dead"), &[heir]);
        wait_owned_by_others(&lab, heir, dead, traffic.count());
        lab.at(dead).start(&Stop::default()).unwrap();
        wait_in_sync(&lab);
        traffic.goes_on(&format!("round {round}: node{dead} is back"), &[heir]);
        wait_verified(lab.at(heir));
        // It has them all, and none of them is its own: they stay where they are.
        wait_owned_by_others(&lab, dead, dead, traffic.count());
        traffic.carry(&[]);
        lab.route_via(dead).unwrap();
        traffic.goes_on(&format!("round {round}: moved back to node{dead}"), &[dead]);
    }
    assert!(traffic.forger.sent() > 1_000, "{} were forged", traffic.forger.sent());
}

/// Red when a node holds a connection to the window that it last saw itself, though the connection has gone on elsewhere.
#[test]
fn connections_that_went_on_elsewhere_for_megabytes_come_back() {
    let lab = replicating("tofro", 2, |_| ());
    let address = lab.server_v4(TCP_PORT);
    let streams = Streams::open(&lab.client(), &lab.server(), address, 10, Duration::from_millis(4)).unwrap();
    for (round, node) in [1, 2, 1, 2, 1].into_iter().enumerate() {
        lab.route_via(node).unwrap();
        let goal = streams.checked() + 10 * 500_000;
        eventually(&format!("round {round}, through node{node}"), PATIENCE, || {
            streams
                .go_on(PATIENCE)
                .unwrap_or_else(|error| panic!("round {round}, through node{node}: {error}"));
            (streams.checked() > goal).then_some(())
        });
    }
}

/// Kills one node after the other under traffic that takes the route `around` it then, and comes back.
fn outlive_each(lab: &TestLab, whole: &Route, around: impl Fn(u32) -> Route) {
    assert_eq!(sequence_checks(lab.at(1)), [true, true]);
    let traffic = Traffic::start(lab);
    traffic.goes_on("at the start", &[]);
    for round in 0..length(2, 10) {
        let dead = [1, 2, 3][round % 3];
        let witness = dead % 3 + 1;
        lab.at(dead).kill().unwrap();
        lab.route(&around(dead)).unwrap();
        traffic.goes_on(&format!("round {round}: node{dead} is dead"), &[]);
        wait_owned_by_others(lab, witness, dead, traffic.count());
        lab.at(dead).start(&Stop::default()).unwrap();
        wait_in_sync(lab);
        lab.route(whole).unwrap();
        traffic.goes_on(&format!("round {round}: node{dead} is back"), &[]);
        wait_verified(lab.at(witness));
    }
    assert!(traffic.forger.sent() > 1_000, "{} were forged", traffic.forger.sent());
}

/// Red when answers that come back another way find no session, or find none once a node has died or is back.
#[test]
fn asymmetric_connections_outlive_each_of_three_nodes() {
    let lab = replicating("asymmetric", 3, |spec| {
        (spec.routing, spec.policy) = (Routing::Asymmetric, Some(checking_policy()));
    });
    outlive_each(&lab, &Route::split(1, 2), |dead| Route::split(dead % 3 + 1, (dead + 1) % 3 + 1));
}

/// Red when a flow that the hash moves to another node, one way or both, does not go on there.
#[test]
fn connections_that_a_hash_spreads_outlive_each_of_three_nodes() {
    let lab = replicating("ecmp", 3, |spec| {
        (spec.routing, spec.policy) = (Routing::Ecmp, Some(checking_policy()));
    });
    outlive_each(&lab, &Route::spread(&[1, 2, 3]), |dead| Route::spread(&[dead % 3 + 1, (dead + 1) % 3 + 1]));
}
