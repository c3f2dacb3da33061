//! A store in memory, for tests and the simulation's quick cases.

use super::store::{Batch, Store, StoreError};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, StorageError};

#[derive(Clone, Default, Debug)]
struct Log {
    hard_state: HardState,
    snapshot: Snapshot,
    entries: Vec<Entry>,
}

/// A store whose synced part survives [`MemoryStore::crash`].
#[derive(Clone, Default, Debug)]
pub struct MemoryStore {
    now: Log,
    synced: Log,
    /// What the next write fails with.
    pub fail_next: Option<StoreError>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is left after a crash: all that was synced.
    pub fn crash(self) -> Self {
        MemoryStore { now: self.synced.clone(), synced: self.synced, fail_next: None }
    }
}

impl Store for MemoryStore {
    fn persist(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        if let Some(error) = self.fail_next.take() {
            return Err(error);
        }
        if let Some(snapshot) = batch.snapshot {
            self.now.snapshot = snapshot.clone();
            self.now.entries.clear();
        }
        if let Some(first) = batch.entries.first() {
            let base = self.now.snapshot.get_metadata().index;
            let keep = first.index.checked_sub(base + 1).filter(|n| *n <= self.now.entries.len() as u64);
            let keep = keep.ok_or_else(|| StoreError::Corrupt(format!("a gap before {}", first.index)))?;
            self.now.entries.truncate(keep as usize);
            self.now.entries.extend_from_slice(batch.entries);
        }
        if let Some(hard_state) = batch.hard_state {
            self.now.hard_state = hard_state.clone();
        }
        if batch.must_sync {
            self.synced = self.now.clone();
        }
        Ok(())
    }

    fn compact(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        if let Some(error) = self.fail_next.take() {
            return Err(error);
        }
        let index = snapshot.get_metadata().index;
        self.now.entries.retain(|e| e.index > index);
        self.now.snapshot = snapshot.clone();
        self.synced = self.now.clone();
        Ok(())
    }
}

impl raft::Storage for MemoryStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = self.now.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState { hard_state: self.now.hard_state.clone(), conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        _: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let base = self.now.snapshot.get_metadata().index + 1;
        let range = low.checked_sub(base).zip(high.checked_sub(base));
        let (from, to) = range.ok_or(Error::Store(StorageError::Compacted))?;
        let entries = self.now.entries.get(from as usize..to as usize);
        entries.map(<[Entry]>::to_vec).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let meta = self.now.snapshot.get_metadata();
        match index.checked_sub(meta.index) {
            None => Err(Error::Store(StorageError::Compacted)),
            Some(0) => Ok(meta.term),
            Some(n) => {
                let entry = self.now.entries.get(n as usize - 1);
                entry.map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
            }
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.now.snapshot.get_metadata().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.now.snapshot.get_metadata().index + self.now.entries.len() as u64)
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        Ok(self.now.snapshot.clone())
    }
}
