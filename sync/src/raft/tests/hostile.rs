//! Messages that no peer in its right mind sends.

use super::world::*;
use crate::cluster::*;
use crate::raft::*;
use proptest::prelude::*;
use prost::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};
use std::cell::RefCell;

/// Numbers at the edges, and around where the log is.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..40_u64,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1 << 62),
        1 => any::<u64>(),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let data =
        prop_oneof![Just(vec![]), prop::collection::vec(any::<u8>(), 0..40), (0..4_u64).prop_map(read)];
    (number(), number(), -1..4, data.clone(), data).prop_map(|(index, term, kind, data, context)| Entry {
        index,
        term,
        entry_type: kind,
        data,
        context,
        ..Entry::default()
    })
}

fn read(node: u64) -> Vec<u8> {
    [node, 5, 1].iter().flat_map(|n| n.to_le_bytes()).collect()
}

prop_compose! {
    fn message()(
        kind in -1..21,
        numbers in prop::array::uniform6(number()),
        entries in prop::collection::vec(entry(), 0..3),
        follow in any::<bool>(),
        reject in any::<bool>(),
        snapshot in prop::option::of((number(), number(), any::<bool>())),
        context in prop::collection::vec(any::<u8>(), 0..20),
        request_snapshot in prop_oneof![3 => Just(0), 1 => number()],
    ) -> Message {
        let [term, log_term, index, commit, commit_term, reject_hint] = numbers;
        let mut entries = entries;
        if follow {
            // Entries that follow each other come farther.
            for (n, e) in entries.iter_mut().enumerate() {
                e.index = index.wrapping_add(1 + n as u64);
                e.term = term;
                e.entry_type = 0;
                e.context.clear();
                e.data.clear();
            }
        }
        let snapshot = snapshot.map(|(index, term, right)| {
            let mut s = first_snapshot(&founded(), 1);
            if !right {
                let mut state = founded();
                state.applied = index.max(1) - 1;
                s = first_snapshot(&state, term);
            }
            s
        });
        Message {
            msg_type: kind, term, log_term, index, commit, commit_term, reject_hint, entries, reject,
            snapshot, context, request_snapshot, ..Message::default()
        }
    }
}

/// Opens every node anew from what is durable, so that one case does not depend on the one before.
fn fresh(stores: &[(NodeId, MemoryStore)], leader: bool) -> World {
    let mut world = World::new();
    world.nodes.clear();
    for (id, store) in stores {
        world.open(*id, store.clone());
    }
    if leader {
        world.ticks(60);
    }
    world
}

fn stores() -> Vec<(NodeId, MemoryStore)> {
    let mut world = World::of(4);
    for n in 0..8 {
        world.policy(n, &format!("policy {n}"));
    }
    world.nodes.into_iter().map(|(id, node)| (id, node.into_store())).collect()
}

thread_local! {
    static STORES: RefCell<Vec<(NodeId, MemoryStore)>> = RefCell::new(stores());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever comes, a replica refuses it or goes on. Each check in `guard` is there because raft-rs
    /// panicked here without it.
    #[test]
    fn no_message_makes_a_replica_panic(
        messages in prop::collection::vec((message(), 0..4_usize, any::<bool>(), any::<bool>()), 1..12),
        leader in any::<bool>(),
    ) {
        let mut world = STORES.with_borrow(|stores| fresh(stores, leader));
        let target = if leader { world.leader() } else { N1 };
        let others: Vec<_> = [N1, N2, N3, N4].into_iter().filter(|id| *id != target).collect();
        for (mut m, from, near, drive) in messages {
            let node = world.nodes.get_mut(&target).unwrap();
            let status = node.status();
            if near {
                // What would be believed comes farther than what is absurd at first sight.
                m.term = status.term + m.term % 3;
                m.log_term = m.log_term.min(status.term);
                m.index = status.commit.wrapping_add(m.index % 5);
                for (n, e) in m.entries.iter_mut().enumerate() {
                    (e.index, e.term) = (m.index + 1 + n as u64, m.term);
                }
                if let Some(s) = &mut m.snapshot {
                    s.mut_metadata().term %= 40;
                }
            }
            let from = others.get(from).copied().unwrap_or(NodeId(9));
            (m.from, m.to) = (from.0, target.0);
            let _ = node.step(&m.encode_to_vec(), from);
            if drive {
                node.tick();
                let _ = node.drive();
            }
        }
        let node = world.nodes.get_mut(&target).unwrap();
        for _ in 0..50 {
            node.tick();
            let _ = node.drive();
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut world = STORES.with_borrow(|stores| fresh(stores, false));
        let node = world.nodes.get_mut(&N1).unwrap();
        let before = node.status();
        prop_assert!(node.step(&bytes, N2).is_err());
        prop_assert_eq!(node.status(), before);
    }
}

fn of(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    let mut m = Message { from, to, term, ..Message::default() };
    m.set_msg_type(kind);
    m
}

#[test]
fn a_message_is_its_senders_and_for_this_node() {
    let mut world = World::of(3);
    let node = world.nodes.get_mut(&N1).unwrap();
    let term = node.status().term;
    let vote = |from, to| of(MessageType::MsgRequestPreVote, from, to, term + 1).encode_to_vec();
    assert_eq!(node.step(&vote(3, 1), N2), Err(StepError::Sender { from: N2, named: 3 }));
    assert_eq!(node.step(&vote(1, 1), N1), Err(StepError::Sender { from: N1, named: 1 }));
    assert_eq!(node.step(&vote(2, 3), N2), Err(StepError::Addressee(3)));
    assert_eq!(node.step(&vote(2, 1), N2), Ok(()));
    for kind in [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgTransferLeader] {
        let m = of(kind, 2, 1, term).encode_to_vec();
        assert_eq!(node.step(&m, N2), Err(StepError::Kind(kind as i32)));
    }
}

#[test]
fn entries_of_a_later_version_are_not_taken() {
    // Take them, and this node's state differs from the others' for ever.
    let mut world = World::of(3);
    let leader = world.leader();
    let follower = [N1, N2, N3].into_iter().find(|id| *id != leader).unwrap();
    let node = world.nodes.get_mut(&follower).unwrap();
    let status = node.status();
    let mut m = of(MessageType::MsgAppend, leader.0, follower.0, status.term);
    (m.index, m.log_term) = (status.last, status.term);
    let e = Entry { index: status.last + 1, term: status.term, data: vec![99; 40], ..Entry::default() };
    m.entries.push(e);
    assert_eq!(node.step(&m.encode_to_vec(), leader), Err(StepError::NotUnderstood(status.last + 1)));
    // Neither is a membership change in an ordinary entry.
    let proposal = world.proposal(leader, Command::Remove { node: N2 });
    m.entries[0].data = crate::codec::encode(&proposal);
    let node = world.nodes.get_mut(&follower).unwrap();
    assert_eq!(node.step(&m.encode_to_vec(), leader), Err(StepError::NotUnderstood(status.last + 1)));
}
