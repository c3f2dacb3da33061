//! A replica on a store: what it answered is there after it was killed.

use super::disk::Disk;
use super::*;
use std::sync::Arc;
use tidegate_sync::cluster::{
    ClusterId, ClusterState, Command, Founding, NodeId, Outcome, Proposal, RequestId,
};
use tidegate_sync::raft::{CompactAfter, Replica, ReplicaConfig, found};

fn state() -> ClusterState {
    ClusterState::founded(Founding {
        cluster: ClusterId([1; 16]),
        name: "east".to_owned(),
        node: "fw1".to_owned(),
        addresses: Vec::new(),
        store: ID,
        key_sha256: [0; 32],
        not_after_unix_s: 0,
        by: "test".to_owned(),
        at_unix_ms: 0,
        policy: None,
    })
}

fn apply(number: u32) -> Proposal {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    let text = Arc::from(format!("policy {number}: {}", "x".repeat(number as usize * 37 % 9_000)));
    let command = Command::ApplyPolicy { base: number - 1, text, lease: None };
    Proposal { id: RequestId(id), by: "test".to_owned(), via: NodeId(1), at_unix_ms: 1, command }
}

#[test]
fn every_answered_revision_is_there_after_a_kill() {
    // The only voter, killed every few revisions, with compactions between. Red when a commit is answered
    // that the store has not, when a compaction loses entries, or when the commit index is not kept: then
    // a node that starts alone would not know its last agreed policy.
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    found(&mut store, &state(), 1).unwrap();
    let (mut number, mut compactions) = (0, 0);
    for life in 1..=12 {
        let mut config = ReplicaConfig::new(NodeId(1), life);
        config.compact_after = CompactAfter { entries: 16, bytes: 1 << 20 };
        let before = store.first_index().unwrap();
        let mut replica = Replica::open(config, store).unwrap();
        // Before any election: what was agreed is known.
        replica.drive().unwrap();
        assert_eq!(replica.state().unwrap().policy.in_force().map_or(0, |r| r.number), number);
        for _ in 0..30 {
            replica.tick();
            replica.drive().unwrap();
        }
        for _ in 0..10 {
            number += 1;
            replica.propose(&apply(number)).unwrap();
            let answers = replica.drive().unwrap().answers;
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].1, Outcome::Revision { number, unchanged: false });
        }
        compactions += u32::from(replica.store().first_index().unwrap() > before);
        replica.into_store().abandon();
        store = RaftStore::open(disk.clone()).unwrap();
    }
    assert!(compactions >= 4, "only {compactions} lives with a compaction");
}

#[test]
fn a_store_that_fails_stops_the_replica_and_answers_nothing_that_is_lost() {
    // Red when an answer comes for what the failed write held.
    for count in 0..6 {
        let disk = Disk::default();
        let mut store = RaftStore::create(disk.clone(), ID).unwrap();
        found(&mut store, &state(), 1).unwrap();
        let mut replica = Replica::open(ReplicaConfig::new(NodeId(1), 1), store).unwrap();
        for _ in 0..30 {
            replica.tick();
            replica.drive().unwrap();
        }
        disk.fail_sync_in(count);
        let mut answered = 0;
        let error = (1..100).find_map(|number| {
            replica.propose(&apply(number)).ok()?;
            match replica.drive() {
                Ok(out) => {
                    answered += out.answers.len();
                    None
                }
                Err(error) => Some(error),
            }
        });
        assert!(matches!(error, Some(StoreError::Io(_))), "{error:?}");
        assert!(replica.drive().is_err());
        drop(replica);
        let store = RaftStore::open(Disk::of(&disk.image())).unwrap();
        let mut replica = Replica::open(ReplicaConfig::new(NodeId(1), 2), store).unwrap();
        replica.drive().unwrap();
        let there = replica.state().unwrap().policy.in_force().map_or(0, |r| r.number) as usize;
        assert!(there == answered || there == answered + 1, "{answered} answered, {there} there");
    }
}
