//! What the store does to a replica.

use super::world::*;
use crate::cluster::*;
use crate::raft::*;
use raft::eraftpb::{Entry, HardState};

#[test]
fn when_the_store_fails_nothing_is_sent_and_nothing_goes_on() {
    // Send before the write, and the failed follower's acknowledgement is on the wire.
    let mut world = World::of(3);
    let leader = world.leader();
    let follower = [N1, N2, N3].into_iter().find(|id| *id != leader).unwrap();
    world.propose(leader, Command::ApplyPolicy { base: 0, text: "x".into(), lease: None });
    world.drive(leader);
    let (_, _, append) = world.wire.iter().find(|(_, to, _)| *to == follower).cloned().unwrap();
    let mut store = world.nodes.remove(&follower).unwrap().into_store();
    store.fail_next = Some(StoreError::Full("no space".to_owned()));
    let mut node = Replica::open(world.config(follower), store).unwrap();
    node.step(&append, leader).unwrap();
    let error = node.drive().unwrap_err();
    assert_eq!(error, StoreError::Full("no space".to_owned()));
    // Stopped for good.
    node.tick();
    assert_eq!(node.drive().unwrap_err(), error);
    assert_eq!(node.step(&append, leader), Err(StepError::Stopped(error.clone())));
    let proposal = world.proposal(follower, Command::ConfirmPolicy { revision: 1 });
    assert_eq!(node.propose(&proposal), Err(ProposeError::Stopped(error)));
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all() {
    let mut world = World::of(3);
    for n in 0..30 {
        world.policy(n, &format!("policy {n}"));
        for id in [N1, N2, N3] {
            world.crash(id);
        }
        world.ticks(60);
        assert_eq!(world.state(world.leader()).policy.in_force().unwrap().number, n + 1);
    }
    world.assert_equal();
}

#[test]
fn a_wiped_store_is_noticed() {
    // Without the check raft-rs panics: `to_commit is out of range`.
    let mut world = World::of(3);
    world.policy(0, "one");
    let follower = [N1, N2, N3].into_iter().find(|id| *id != world.leader()).unwrap();
    world.open(follower, MemoryStore::new());
    let leader = world.leader();
    for _ in 0..5 {
        world.nodes.get_mut(&leader).unwrap().tick();
        world.drive(leader);
    }
    let wire: Vec<_> = world.wire.drain(..).filter(|(_, to, _)| *to == follower).collect();
    let node = world.nodes.get_mut(&follower).unwrap();
    let refused = wire.iter().filter_map(|(from, _, m)| node.step(m, *from).err());
    assert!(refused.into_iter().any(|e| matches!(e, StepError::Lost { last: 0, .. })));
}

#[test]
fn a_membership_change_that_is_applied_survives_the_power() {
    // Without the sync before it is applied the survivor waits for the votes of nodes that are gone.
    let mut world = World::of(3);
    world.tidy = false;
    let leader = world.leader();
    for other in [N1, N2, N3].into_iter().filter(|id| *id != leader) {
        assert_eq!(world.agree(Command::Remove { node: other }), Outcome::Done);
    }
    world.nodes.retain(|id, _| *id == leader);
    world.crash(leader);
    world.ticks(60);
    assert_eq!(world.leader(), leader);
}

fn open(store: MemoryStore) -> Result<Replica<MemoryStore>, OpenError> {
    Replica::open(ReplicaConfig::new(N1, 1), store)
}

fn persist(store: &mut MemoryStore, entries: &[Entry], hard_state: Option<(u64, u64)>) {
    let hard_state = hard_state.map(|(term, commit)| HardState { term, vote: 0, commit });
    let hard_state = hard_state.as_ref();
    store.persist(&Batch { snapshot: None, entries, hard_state, must_sync: true }).unwrap();
}

#[test]
fn a_store_that_raft_would_panic_on_is_refused() {
    // Each is red without its check in `Mirror::load`.
    let founded_store = || {
        let mut store = MemoryStore::new();
        found(&mut store, &founded(), 1).unwrap();
        store
    };
    assert!(open(founded_store()).is_ok());
    let entry = |index, term| Entry { index, term, ..Entry::default() };
    let refused = |store, why: &str| {
        let error = open(store).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    };
    let mut store = founded_store();
    persist(&mut store, &[], Some((1, 2)));
    refused(store, "entry 2 was committed, the last is 1");
    let mut store = founded_store();
    persist(&mut store, &[entry(2, 2)], Some((1, 1)));
    refused(store, "the last entry is of term 2, the store of 1");
    let mut store = founded_store();
    persist(&mut store, &[Entry { data: vec![255; 9], ..entry(2, 1) }], None);
    refused(store, "entry 2 after 1 is none of ours");
    let mut store = founded_store();
    persist(&mut store, &[entry(2, 2), entry(3, 1)], None);
    refused(store, "entry 3 after 2 is none of ours");
    let mut store = founded_store();
    persist(&mut store, &[entry(2, 1), entry(4, 1)], None);
    refused(store, "entry 4 after 2 is none of ours");
    let mut snapshot = first_snapshot(&founded(), 1);
    snapshot.data[20] ^= 1;
    let mut store = founded_store();
    store.compact(&snapshot).unwrap();
    refused(store, "checksum");
    let mut snapshot = first_snapshot(&founded(), 1);
    snapshot.mut_metadata().mut_conf_state().voters.push(3);
    let mut store = founded_store();
    store.compact(&snapshot).unwrap();
    refused(store, "Raft's members are not the state's");
    // A commit index that was not synced is older than the snapshot beside it: that is right.
    let mut store = founded_store();
    persist(&mut store, &[], Some((1, 0)));
    assert!(open(store).is_ok());
}

#[test]
fn a_recovered_survivor_goes_on_alone_as_a_new_generation() {
    let mut world = World::of(3);
    world.policy(0, "one");
    let (state, status) = (world.state(N2).clone(), world.nodes[&N2].status());
    let recovered = state.clone().recovered(N2, "root".to_owned(), world.now).unwrap();
    let mut store = MemoryStore::new();
    found(&mut store, &recovered, status.term + 1).unwrap();
    let mut alone = World::new();
    alone.nodes.clear();
    alone.proposals = 1_000;
    alone.open(N2, store);
    alone.ticks(60);
    assert_eq!(alone.leader(), N2);
    let revision = alone.state(N2).policy.in_force().unwrap().number;
    assert_eq!(alone.policy(revision, "two"), Outcome::Revision { number: revision + 1, unchanged: false });
    assert_eq!(alone.state(N2).generation, 2);
    // Snapshots of the old generation are refused.
    let snapshot = first_snapshot(&state, 99);
    let mut m = raft::eraftpb::Message { from: 1, to: 2, term: 99, ..Default::default() };
    m.set_msg_type(raft::eraftpb::MessageType::MsgSnapshot);
    m.snapshot = Some(snapshot);
    let bytes = prost::Message::encode_to_vec(&m);
    let refused = alone.nodes.get_mut(&N2).unwrap().step(&bytes, N1);
    assert!(matches!(refused, Err(StepError::Removed(N1))), "{refused:?}");
    m.from = 9;
    let bytes = prost::Message::encode_to_vec(&m);
    assert_eq!(alone.nodes.get_mut(&N2).unwrap().step(&bytes, NodeId(9)), Err(StepError::Foreign));
}
