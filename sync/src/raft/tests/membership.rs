//! Who takes part.

use super::world::*;
use crate::cluster::*;
use crate::raft::*;

#[test]
fn the_second_member_stays_a_learner_until_a_third_joins() {
    let mut world = World::of(2);
    let status = world.nodes[&N1].status();
    assert_eq!((status.voters, status.learners), (vec![N1], vec![N2]));
    assert_eq!(world.nodes[&N2].role(), RaftRole::Learner);
    // A learner never campaigns.
    world.cut.insert(N1);
    world.ticks(200);
    assert!(world.leaders().is_empty());
    assert_eq!(world.nodes[&N2].role(), RaftRole::Learner);
    assert!(!world.nodes[&N2].status().has_quorum);
    world.cut.clear();
    world.ticks(40);
    // Both learners become voters in one joint change: never are there two voters.
    world.tidy = false;
    world.join(N3, Role::Witness);
    world.ticks(20);
    let command = world.nodes.get_mut(&N1).unwrap().tidy(0).unwrap();
    assert_eq!(command, Command::SetVoters { voters: [N1, N2, N3].into() });
    world.propose(N1, command);
    let mut joint = false;
    for _ in 0..20 {
        for id in [N1, N2, N3] {
            world.drive(id);
            let status = world.nodes[&id].status();
            joint |= status.joint;
            assert_ne!(world.state(id).voters().len(), 2);
        }
        let wire: Vec<_> = world.wire.drain(..).collect();
        for (from, to, message) in wire {
            let _ = world.nodes.get_mut(&to).unwrap().step(&message, from);
        }
    }
    assert!(joint);
    world.ticks(10);
    world.assert_equal();
    assert_eq!(world.nodes[&N2].status().voters, [N1, N2, N3]);
    assert!(!world.nodes[&N2].status().joint);
}

#[test]
fn a_learner_that_has_not_caught_up_does_not_become_a_voter() {
    // Without `caught_up` the voters change at once, and with one of them dead nothing is agreed any more.
    let mut world = World::of(2);
    world.token(N3, Role::Node);
    let redeem = world.redeem(N3);
    world.agree(redeem);
    world.ticks(100);
    assert_eq!(world.nodes[&N1].status().voters, [N1]);
    assert_eq!(world.policy(0, "one"), Outcome::Revision { number: 1, unchanged: false });
    world.open(N3, MemoryStore::new());
    world.ticks(100);
    assert_eq!(world.nodes[&N1].status().voters, [N1, N2, N3]);
}

#[test]
fn a_refused_membership_change_changes_nothing_in_raft() {
    // Change Raft by what the entry says instead of by what the state did, and node 9 is there.
    let mut world = World::of(3);
    world.token(N4, Role::Node);
    let voters = world.nodes[&N1].status().voters;
    let bad = [
        Command::Redeem {
            token: TokenId([4; 8]),
            secret_sha256: [0; 32],
            key_sha256: [4; 32],
            node: N4,
            name: "n4".to_owned(),
            addresses: vec![],
            store: StoreId([4; 16]),
        },
        Command::Remove { node: NodeId(9) },
        Command::SetVoters { voters: [NodeId(9)].into() },
        Command::SetVoters { voters: [].into() },
    ];
    for command in bad {
        let outcome = world.agree(command);
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    // Asked twice by a new request after it was admitted: admitted still, and no voter becomes a learner.
    let redeem = world.redeem(N4);
    world.open(N4, MemoryStore::new());
    world.agree(redeem.clone());
    world.ticks(60);
    assert_eq!(world.nodes[&N1].status().voters, [N1, N2, N3, N4]);
    let Command::Redeem { token, secret_sha256, key_sha256, name, addresses, store, .. } = redeem else {
        panic!()
    };
    for node in [N4, NodeId(5)] {
        let (name, addresses) = (name.clone(), addresses.clone());
        let again = Command::Redeem { token, secret_sha256, key_sha256, node, name, addresses, store };
        assert_eq!(world.agree(again), Outcome::Admitted { node: N4 });
    }
    let status = world.nodes[&N1].status();
    assert_eq!((status.voters, status.learners), ([voters, vec![N4]].concat(), vec![]));
}

#[test]
fn a_second_membership_change_waits_for_the_first() {
    // raft-rs would put an empty entry in its place, and it would never be answered.
    let mut world = World::of(3);
    let leader = world.leader();
    world.cut = [N1, N2, N3].into_iter().filter(|id| *id != leader).collect();
    let first = world.proposal(leader, Command::Remove { node: N3 });
    let second = world.proposal(leader, Command::Remove { node: N2 });
    let node = world.nodes.get_mut(&leader).unwrap();
    node.propose(&first).unwrap();
    assert_eq!(node.propose(&second), Err(ProposeError::Busy));
}

#[test]
fn a_removed_node_learns_it_and_is_not_heard_any_more() {
    let mut world = World::of(4);
    let gone = [N4, N2].into_iter().find(|id| *id != world.leader()).unwrap();
    assert_eq!(world.agree(Command::Remove { node: gone }), Outcome::Done);
    world.ticks(5);
    assert_eq!(world.nodes[&gone].role(), RaftRole::Outsider);
    assert!(world.state(gone).removed.contains_key(&gone));
    let leader = world.leader();
    let term = world.nodes[&leader].status().term;
    world.ticks(200);
    assert_eq!((world.leader(), world.nodes[&leader].status().term), (leader, term));
    let refused = world.nodes.get_mut(&leader).unwrap().step(&hello(gone, leader, term + 1), gone);
    assert_eq!(refused, Err(StepError::Removed(gone)));
}

fn hello(from: NodeId, to: NodeId, term: u64) -> Vec<u8> {
    use prost::Message as _;
    let mut m = raft::eraftpb::Message { from: from.0, to: to.0, term, ..Default::default() };
    m.set_msg_type(raft::eraftpb::MessageType::MsgRequestVote);
    m.encode_to_vec()
}

#[test]
fn a_leader_does_not_remove_itself() {
    // Let it, switch it off once that is acknowledged, and of two voters the other one, which was not told
    // of the commit, waits for its vote for ever.
    let mut world = World::of(3);
    let leader = world.leader();
    let removal = world.proposal(leader, Command::Remove { node: leader });
    let refused = world.nodes.get_mut(&leader).unwrap().propose(&removal);
    assert_eq!(refused, Err(ProposeError::Busy));
    world.deliver();
    let next = world.leader();
    assert_ne!(next, leader);
    world.nodes.get_mut(&next).unwrap().propose(&removal).unwrap();
    world.deliver();
    assert_eq!(world.answers[&(next, removal.id)], Outcome::Done);
}

#[test]
fn a_leader_that_is_removed_steps_down() {
    // It came to lead while its removal was on the way. Without `step_down_if_gone` raft-rs panics at the
    // next write.
    let mut world = World::of(4);
    let leader = world.leader();
    let next = world.nodes[&leader].successor().unwrap();
    let removal = world.propose(leader, Command::Remove { node: next });
    world.nodes.get_mut(&leader).unwrap().transfer_leader(next);
    // All hear of it before anybody hears that it is committed.
    for _ in 0..2 {
        for id in [N1, N2, N3, N4] {
            world.drive(id);
        }
        let wire: Vec<_> = world.wire.drain(..).filter(|(from, _, _)| *from == leader).collect();
        for (from, to, message) in wire {
            let _ = world.nodes.get_mut(&to).unwrap().step(&message, from);
        }
    }
    world.cut.insert(leader);
    world.wire.clear();
    for _ in 0..60 {
        if world.leaders() == [next] {
            world.propose(next, Command::ApplyPolicy { base: 0, text: "x".into(), lease: None });
            break;
        }
        world.ticks(1);
    }
    world.ticks(60);
    world.cut.clear();
    world.ticks(60);
    assert_eq!(world.nodes[&next].role(), RaftRole::Outsider);
    assert!(world.state(world.leader()).answer(&removal).is_some());
    world.nodes.remove(&next);
    world.ticks(60);
    world.assert_equal();
}

#[test]
fn of_two_that_are_left_the_full_node_votes_alone() {
    let mut world = World::of(3);
    // The witness leads when a full node goes.
    while world.leader() != N3 {
        let leader = world.leader();
        world.nodes.get_mut(&leader).unwrap().transfer_leader(N3);
        world.ticks(10);
    }
    assert_eq!(world.agree(Command::Remove { node: N2 }), Outcome::Done);
    world.nodes.remove(&N2);
    world.ticks(100);
    world.assert_equal();
    let status = world.nodes[&N1].status();
    assert_eq!((status.role, status.voters, status.learners), (RaftRole::Leader, vec![N1], vec![N3]));
    let last = Outcome::Refused(Refusal::LastVoter(N1));
    assert_eq!(world.agree(Command::Remove { node: N1 }), last);
}

#[test]
fn a_joint_change_survives_its_leader() {
    let mut world = World::of(3);
    world.tidy = false;
    let (mut seen, rounds) = (0, 40);
    for round in 0..rounds {
        let leader = world.leader();
        let voters = match world.state(leader).voters().len() {
            3 => [leader].into(),
            _ => [N1, N2, N3].into(),
        };
        world.propose(leader, Command::SetVoters { voters });
        // So many messages arrive before it dies.
        for _ in 0..round / 2 {
            for id in [N1, N2, N3] {
                world.drive(id);
            }
            let Some((from, to, message)) = world.wire.pop_front() else { break };
            let _ = world.nodes.get_mut(&to).unwrap().step(&message, from);
        }
        world.wire.clear();
        seen += u32::from(world.nodes.values().any(|n| n.status().joint));
        world.crash(leader);
        world.ticks(80);
        world.assert_equal();
        assert!(!world.nodes[&N1].status().joint, "round {round}");
    }
    assert!(seen > 3, "only {seen} of {rounds} died in the middle of a joint change");
}
