//! The store against a model of it, on disks that lie, break and fill up.

mod behaviour;
mod crash;
mod damage;
mod disk;
mod faults;
mod files;
mod lives;
mod replica;

use super::RaftStore;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, Storage};
use tidegate_sync::cluster::StoreId;
use tidegate_sync::raft::{Batch, Store, StoreError};

const ID: StoreId = StoreId([7; 16]);

/// What a reader sees of a store.
#[derive(Clone, PartialEq, Debug, Default)]
struct View {
    hard: HardState,
    snapshot: Snapshot,
    entries: Vec<Entry>,
}

fn view(store: &RaftStore) -> Result<View, raft::Error> {
    let state = store.initial_state()?;
    let (first, last) = (store.first_index()?, store.last_index()?);
    let entries = store.entries(first, last + 1, None, GetEntriesContext::empty(false))?;
    let snapshot = store.snapshot(0, 0)?;
    assert_eq!(&state.conf_state, snapshot.get_metadata().get_conf_state());
    assert_eq!(store.term(first - 1)?, snapshot.get_metadata().term);
    for (index, entry) in (first..).zip(&entries) {
        assert_eq!((store.term(index)?, index), (entry.term, entry.index));
    }
    Ok(View { hard: state.hard_state, snapshot, entries })
}

/// One call, owned.
#[derive(Clone, Debug)]
enum Call {
    Persist { snapshot: Option<Snapshot>, entries: Vec<Entry>, hard: Option<HardState>, must_sync: bool },
    Compact(Snapshot),
}

impl Call {
    fn make(&self, store: &mut RaftStore) -> Result<(), StoreError> {
        match self {
            Call::Persist { snapshot, entries, hard, must_sync } => store.persist(&Batch {
                snapshot: snapshot.as_ref(),
                entries,
                hard_state: hard.as_ref(),
                must_sync: *must_sync,
            }),
            Call::Compact(snapshot) => store.compact(snapshot),
        }
    }

    /// The same, to the model.
    fn tell(&self, view: &mut View) {
        match self {
            Call::Persist { snapshot, entries, hard, .. } => {
                if let Some(snapshot) = snapshot {
                    view.entries.clear();
                    view.hard.commit = view.hard.commit.max(snapshot.get_metadata().index);
                    view.hard.term = view.hard.term.max(snapshot.get_metadata().term);
                    view.snapshot = snapshot.clone();
                }
                if let Some(first) = entries.first() {
                    view.entries.retain(|e| e.index < first.index);
                    view.entries.extend(entries.iter().cloned());
                }
                if let Some(hard) = hard {
                    view.hard = hard.clone();
                }
            }
            Call::Compact(snapshot) => {
                view.entries.retain(|e| e.index > snapshot.get_metadata().index);
                view.snapshot = snapshot.clone();
            }
        }
    }
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry { index, term, data: filler(index * 31 + term, bytes), ..Entry::default() }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64, bytes: usize) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, bytes)).collect()
}

fn hard(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

fn snapshot(index: u64, term: u64, bytes: usize) -> Snapshot {
    let conf_state = ConfState { voters: vec![1, 2, 3], learners: vec![index], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state: Some(conf_state), index, term };
    Snapshot { data: filler(index, bytes), metadata: Some(metadata) }
}

/// Bytes that differ everywhere.
fn filler(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed + 1);
    (0..bytes).map(|_| random.next() as u8).collect()
}

fn append(entries: Vec<Entry>, hard: HardState) -> Call {
    Call::Persist { snapshot: None, entries, hard: Some(hard), must_sync: true }
}

/// Only the commit index: need not be synced.
fn commit(hard: HardState) -> Call {
    Call::Persist { snapshot: None, entries: Vec::new(), hard: Some(hard), must_sync: false }
}

/// A life: founding, appends, a truncation, compactions, a snapshot from a leader.
fn life() -> Vec<Call> {
    vec![
        Call::Persist {
            snapshot: Some(snapshot(1, 1, 2_000)),
            entries: Vec::new(),
            hard: Some(hard(1, 1, 1)),
            must_sync: true,
        },
        append(entries(2..=9, 1, 40), hard(1, 1, 1)),
        commit(hard(1, 1, 6)),
        // A new leader's log differs from 8 on.
        append(entries(8..=40, 3, 100), hard(3, 2, 6)),
        commit(hard(3, 2, 38)),
        append(vec![entry(41, 3, 300_000)], hard(3, 2, 38)),
        append(Vec::new(), hard(4, 3, 41)),
        Call::Compact(snapshot(30, 3, 600_000)),
        append(entries(42..=60, 4, 700), hard(4, 3, 41)),
        commit(hard(4, 3, 60)),
        Call::Persist {
            snapshot: Some(snapshot(100, 5, 70_000)),
            entries: Vec::new(),
            hard: Some(hard(6, 0, 100)),
            must_sync: true,
        },
        append(entries(101..=160, 6, 300), hard(6, 1, 100)),
        commit(hard(6, 1, 155)),
        Call::Compact(snapshot(120, 6, 90_000)),
        append(entries(161..=300, 6, 60), hard(6, 1, 155)),
        append(entries(290..=295, 7, 60), hard(7, 1, 155)),
        commit(hard(7, 1, 290)),
    ]
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
