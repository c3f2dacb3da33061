//! A cluster forms, agrees, and loses members.

use crate::support::*;
use std::time::Duration;
use tidegate_sync::cluster::{Command, Role};
use tidegate_sync_net::cluster::{ProposeError, ReadError};

#[test]
fn three_nodes_join_vote_and_agree_through_each_of_them() {
    // Red without the joining node's dialling by the members that it was told, without learners becoming
    // voters, or without forwarding to the leader.
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Node);
    for (n, node) in nodes.iter().enumerate() {
        assert_eq!(node.apply(&format!("policy {n}")), n as u32 + 2);
    }
    for node in &nodes {
        let state = node.run(node.cluster().read(LONG)).unwrap();
        assert_eq!(state.policy.in_force().unwrap().text.as_deref(), Some("policy 2"));
        until("the policy to be in force here", || {
            node.cluster().policy().borrow().as_ref().is_some_and(|p| p.revision == 4)
        });
        let health = node.cluster().health();
        assert!(health.quorum);
        until("all peers to be connected both ways", || {
            node.cluster().health().peers.iter().all(|p| p.connected && p.connected_from)
        });
        assert_eq!(node.cluster().health().peers.len(), 2);
    }
    let digests: Vec<_> = {
        until("equal copies", || {
            let found: Vec<_> = nodes.iter().map(|n| n.cluster().state().borrow().digest()).collect();
            found.windows(2).all(|w| w[0] == w[1])
        });
        nodes[0].run(nodes[0].cluster().reports(LONG))
    };
    assert!(digests.iter().all(|(_, _, report)| report.is_ok()), "{digests:?}");
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back_with_all_that_was_acknowledged() {
    // Red when an answer is given before the entry is synced on a majority, or when the address of the
    // killed process keeps the new one out.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let mut acknowledged = 1;
    for round in 0..3 {
        let at = leader(&nodes);
        acknowledged = nodes[at].apply(&format!("before {round}"));
        nodes[at].kill();
        let other = (at + 1) % 3;
        let next = nodes[other].apply(&format!("after {round}"));
        assert_eq!(next, acknowledged + 1);
        acknowledged = next;
        nodes[at].open();
        until("the restarted node to catch up", || nodes[at].revision() == acknowledged);
    }
    // All at once.
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::open);
    for node in &nodes {
        let state = node.run(node.cluster().read(LONG)).unwrap();
        assert_eq!(state.policy.in_force().unwrap().number, acknowledged);
    }
}

#[test]
fn an_orderly_stop_hands_the_lead_over() {
    // The others would not begin an election within this test: red without the transfer.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let at = leader(&nodes);
    let other = (at + 1) % 3;
    for n in [other, (at + 2) % 3] {
        nodes[n].stop();
        nodes[n].options.election_ticks = 10_000;
        nodes[n].open();
        until("it to follow", || nodes[n].cluster().health().quorum && nodes[n].revision() == 1);
    }
    nodes[at].stop();
    until("another leader", || nodes[other].cluster().health().leader.is_some_and(|l| l.0 != at as u64 + 1));
    nodes[other].apply("next");
    nodes[at].open();
    until("it to catch up", || nodes[at].revision() == 2);
}

#[test]
fn without_a_quorum_changes_and_reads_are_refused_and_the_policy_stays() {
    // Red when a follower keeps believing in a dead leader, or when no quorum takes the policy away.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let at = leader(&nodes);
    let left = (at + 1) % 3;
    until("the policy here", || nodes[left].revision() == 1);
    nodes[at].kill();
    nodes[(at + 2) % 3].kill();
    let node = &nodes[left];
    until("the loss to be noticed", || {
        let health = node.cluster().health();
        !health.quorum && health.peers.iter().all(|p| !p.connected)
    });
    let command = Command::ApplyPolicy { base: 1, text: "x".into(), lease: None };
    let error = node.run(node.cluster().propose(command, "test", LONG)).unwrap_err();
    let ProposeError::NoQuorum(text) = &error else { panic!("{error}") };
    assert!(text.contains("not reached"), "{text}");
    let error = node.run(node.cluster().read(LONG)).unwrap_err();
    assert!(matches!(error, ReadError::NoQuorum(_)), "{error}");
    assert_eq!(node.cluster().policy().borrow().as_ref().unwrap().revision, 1);
}

#[test]
fn a_node_that_starts_alone_begins_with_the_last_agreed_policy() {
    // Red when what it opens with is its last snapshot: then it forwards under an old policy for a moment.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    for n in 2..8 {
        assert_eq!(nodes[0].apply(&format!("policy {n}")), n);
    }
    until("it everywhere", || nodes.iter().all(|n| n.revision() == 7));
    // Until the commit index is on its disk, too.
    nodes.iter_mut().for_each(Node::stop);
    nodes[1].open();
    let policy = nodes[1].cluster().policy();
    assert_eq!(policy.borrow().as_ref().map(|p| p.revision), Some(7));
    assert_eq!(nodes[1].cluster().health().peers.len(), 2);
    assert!(!nodes[1].cluster().health().quorum);
}

#[test]
fn a_lease_ends_without_a_quorum_and_the_log_agrees_later() {
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let at = leader(&nodes);
    let left = (at + 1) % 3;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let within_ms = 3_000;
    let lease = Some(tidegate_sync::cluster::Lease { within_ms, deadline_unix_ms: now + within_ms });
    let command = Command::ApplyPolicy { base: 1, text: "risky".into(), lease };
    nodes[at].run(nodes[at].cluster().propose(command, "test", LONG)).unwrap();
    let policy = nodes[left].cluster().policy();
    until("the leased policy, or its end, here", || nodes[left].revision() == 2);
    nodes[at].kill();
    nodes[(at + 2) % 3].kill();
    // Red without this node's own clock: nobody can agree that the lease is over.
    until("the fallback", || policy.borrow().as_ref().is_some_and(|p| p.fell_back_from == Some(2)));
    assert_eq!(policy.borrow().as_ref().unwrap().revision, 1);
    assert_eq!(nodes[left].revision(), 2, "the log still says 2");
    nodes[at].open();
    until("the log to say so too", || nodes[left].revision() == 1);
    until("an agreed fallback", || {
        policy.borrow().as_ref().is_some_and(|p| p.revision == 1 && p.fell_back_from.is_none())
    });
}

#[test]
fn a_node_that_was_away_while_others_joined_follows_a_leader_that_it_does_not_know() {
    // Red without the members in the answer to a hello: it would refuse that leader for ever.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let first = leader(&nodes);
    let away = (first + 1) % 3;
    until("the policy at the one that goes", || nodes[away].revision() == 1);
    nodes[away].kill();
    for name in ["d", "e"] {
        let token = nodes[first].token(Role::Node);
        nodes.push(Node::join(home.path(), name, &token));
    }
    until("five voters", || nodes.iter().enumerate().all(|(n, node)| n == away || voters(node) == 5));
    // Until one of the new ones leads.
    let mut at = first;
    while at < 3 {
        nodes[at].stop();
        nodes[at].open();
        at = leader(&nodes);
    }
    let next = nodes[at].apply("while it was away");
    nodes[away].open();
    until("it to follow the new one", || nodes[away].revision() == next);
}

#[test]
fn wait_enforced_asks_every_full_member() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Witness);
    let state = nodes[0].run(nodes[0].cluster().read(LONG)).unwrap();
    let sha256 = state.policy.in_force().unwrap().sha256;
    nodes[0].cluster().enforced(1, sha256);
    let found = nodes[1].run(nodes[1].cluster().wait_enforced(1, Duration::from_millis(300)));
    let names: Vec<_> = found.iter().map(|e| (e.name.as_str(), e.result.is_ok())).collect();
    assert_eq!(names, [("a", true), ("b", false)]);
    nodes[1].cluster().enforced(1, [9; 32]);
    let found = nodes[0].run(nodes[0].cluster().wait_enforced(1, LONG));
    assert!(found[1].result.as_ref().unwrap_err().contains("another text"), "{found:?}");
    nodes[1].cluster().enforced(1, sha256);
    let found = nodes[0].run(nodes[0].cluster().wait_enforced(1, LONG));
    assert!(found.iter().all(|e| e.result.is_ok()), "{found:?}");
}
