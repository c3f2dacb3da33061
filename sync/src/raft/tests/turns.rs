//! Elections, commits, reads, compaction.

use super::world::*;
use crate::cluster::*;
use crate::raft::*;

fn revision(number: u32) -> Outcome {
    Outcome::Revision { number, unchanged: false }
}

#[test]
fn a_founder_alone_leads_and_agrees_with_itself() {
    let mut world = World::new();
    world.ticks(40);
    assert_eq!(world.policy(0, "one"), revision(1));
    let status = world.nodes[&N1].status();
    assert_eq!((status.role, status.leader, status.has_quorum), (RaftRole::Leader, Some(N1), true));
    assert_eq!((status.voters, status.learners), (vec![N1], vec![]));
}

#[test]
fn three_elect_one_and_all_apply_the_same() {
    let mut world = World::of(3);
    for n in 0..20 {
        assert_eq!(world.policy(n, &format!("policy {n}")), revision(n + 1));
    }
    world.ticks(5);
    world.assert_equal();
    // Another leads once the first is gone, with everything that was agreed.
    let first = world.leader();
    world.cut.insert(first);
    world.ticks(60);
    assert_ne!(world.leader(), first);
    assert_eq!(world.policy(20, "later"), revision(21));
    // Cut off it notices that it has no majority, and follows again afterwards.
    assert!(!world.nodes[&first].status().has_quorum);
    assert_ne!(world.nodes[&first].role(), RaftRole::Leader);
    world.cut.clear();
    world.ticks(60);
    world.assert_equal();
}

#[test]
fn election_timeouts_follow_from_the_seed() {
    // With raft-rs' own draw from the thread's generator two runs differ after a few elections.
    let run = || {
        let mut world = World::of(3);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let leader = world.leader();
            world.cut = [leader].into();
            let mut ticks = 0;
            while world.leaders().is_empty() {
                world.ticks(1);
                ticks += 1;
            }
            seen.push((world.leader(), ticks));
            world.cut.clear();
            world.ticks(60);
        }
        seen
    };
    assert_eq!(run(), run());
}

#[test]
fn a_proposal_sent_again_is_answered_and_takes_effect_once() {
    // Without the look at known answers in `propose` nobody answers the last one.
    let mut world = World::of(3);
    let leader = world.leader();
    let proposal = world.proposal(N2, Command::ApplyPolicy { base: 0, text: "x".into(), lease: None });
    for _ in 0..2 {
        world.nodes.get_mut(&leader).unwrap().propose(&proposal).unwrap();
    }
    world.deliver();
    assert_eq!(world.answers[&(leader, proposal.id)], revision(1));
    assert_eq!(world.state(leader).policy.all().count(), 1);
    // Also by one that does not lead, if it knows.
    let other = world.nodes.keys().copied().find(|id| *id != leader).unwrap();
    world.ticks(5);
    world.answers.clear();
    world.nodes.get_mut(&other).unwrap().propose(&proposal).unwrap();
    world.deliver();
    assert_eq!(world.answers[&(other, proposal.id)], revision(1));
}

#[test]
fn only_the_leader_takes_proposals_and_says_who_it_is() {
    let mut world = World::of(3);
    let leader = world.leader();
    let other = world.nodes.keys().copied().find(|id| *id != leader).unwrap();
    let proposal = world.proposal(other, Command::ConfirmPolicy { revision: 1 });
    let refused = world.nodes.get_mut(&other).unwrap().propose(&proposal);
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
    let text = "x".repeat(9 << 20);
    let long = world.proposal(leader, Command::ApplyPolicy { base: 0, text: text.into(), lease: None });
    let refused = world.nodes.get_mut(&leader).unwrap().propose(&long);
    assert!(matches!(refused, Err(ProposeError::TooLong { .. })), "{refused:?}");
}

#[test]
fn a_read_waits_for_the_quorum_and_for_what_was_committed() {
    let mut world = World::of(3);
    world.policy(0, "one");
    for id in [N1, N2, N3] {
        world.nodes.get_mut(&id).unwrap().read_index(ReadId(7)).unwrap();
        world.deliver();
        let index = world.reads[&(id, ReadId(7))];
        assert!(world.state(id).applied >= index);
        assert_eq!(world.state(id).policy.in_force().unwrap().number, 1);
    }
    // A leader that is cut off answers no read, though it still believes that it leads.
    let leader = world.leader();
    world.cut.insert(leader);
    world.nodes.get_mut(&leader).unwrap().read_index(ReadId(8)).unwrap();
    world.ticks(40);
    assert!(!world.reads.contains_key(&(leader, ReadId(8))));
}

#[test]
fn the_answer_to_a_read_of_an_earlier_run_is_not_taken_for_a_new_one() {
    // Without the run in the read's name the old index comes back.
    let mut world = World::of(3);
    let other = [N1, N2, N3].into_iter().find(|id| *id != world.leader()).unwrap();
    world.nodes.get_mut(&other).unwrap().read_index(ReadId(1)).unwrap();
    world.drive(other);
    let wire: Vec<_> = world.wire.drain(..).collect();
    world.crash(other);
    world.ticks(5);
    world.wire.extend(wire);
    world.deliver();
    assert!(!world.reads.contains_key(&(other, ReadId(1))));
}

#[test]
fn the_lead_is_handed_over_without_an_election_timeout() {
    let mut world = World::of(3);
    let leader = world.leader();
    let next = world.nodes[&leader].successor().unwrap();
    assert_ne!(next, N3, "a full node before the witness");
    world.nodes.get_mut(&leader).unwrap().transfer_leader(next);
    world.deliver();
    assert_eq!(world.leader(), next);
}

#[test]
fn a_long_log_becomes_a_snapshot_and_a_late_joiner_gets_it() {
    let mut world = World::of(3);
    world.compact_after = 16;
    for id in [N1, N2, N3] {
        world.crash(id);
    }
    world.ticks(60);
    for n in 0..50 {
        world.policy(n, &format!("policy {n}"));
    }
    for node in world.nodes.values() {
        let status = node.status();
        assert!(status.snapshot > 16 && status.applied - status.snapshot <= 16, "{status:?}");
    }
    // Its first message is a snapshot: the log's beginning is gone.
    assert_eq!(world.join(N4, Role::Node), Outcome::Admitted { node: N4 });
    world.ticks(60);
    world.assert_equal();
    assert_eq!(world.nodes[&N4].status().voters, [N1, N2, N3, N4]);
    // What is in the stores is enough.
    for id in [N1, N2, N3, N4] {
        world.crash(id);
    }
    world.ticks(60);
    world.assert_equal();
    assert_eq!(world.state(N4).policy.in_force().unwrap().number, 50);
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    // Without `give_up_snapshots` the joiner waits for ever.
    let mut world = World::of(3);
    world.lose = Some((N4, 500));
    world.join(N4, Role::Node);
    assert!(world.nodes[&world.leader()].status().peers.iter().any(|p| p.snapshot));
    assert!(world.nodes[&N4].state().is_none());
    world.lose = None;
    world.ticks(20);
    assert!(world.nodes[&N4].state().is_none(), "it is still thought to be on its way");
    world.ticks(250);
    world.assert_equal();
}

#[test]
fn an_unconfirmed_policy_is_ended_by_the_leader_after_its_deadline() {
    let mut world = World::of(3);
    world.policy(0, "one");
    let lease = Some(Lease { within_ms: 1_000, deadline_unix_ms: world.now + 1_000 });
    world.agree(Command::ApplyPolicy { base: 1, text: "two".into(), lease });
    world.ticks(15);
    assert_eq!(world.state(N1).policy.in_force().unwrap().number, 2);
    world.ticks(10);
    world.assert_equal();
    assert_eq!(world.state(N1).policy.in_force().unwrap().number, 1);
    let ends = world.state(N1).audit.iter().filter(|a| a.what.contains("not confirmed in time")).count();
    assert_eq!(ends, 1, "asked once");
}
