//! The log's tail and the state in memory: what raft-rs reads.
//!
//! raft-rs panics when a read fails in the wrong place. So nothing is read from the store once it is
//! open: the tail is short, as the log is compacted.

use super::entry;
use super::replica::{OpenError, inconsistent, read_all};
use super::snapshot::{snapshot, state_of};
use super::store::{Batch, Store};
use crate::cluster::{ClusterState, NodeId};
use raft::eraftpb::{ConfState, Entry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::collections::VecDeque;
use std::sync::Arc;
use tidegate_dataplane::planted::{Fault, is_planted};

/// The log after a base, and the state as applied.
pub(super) struct Mirror {
    /// Index and term of the entry before the first that is kept.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// As the store had them at the start; raft-rs asks once.
    initial: RaftState,
    /// Length of the opened snapshot in bytes.
    pub(super) snapshot_length: u64,
    /// What is agreed, as far as it is applied.
    pub(super) state: Option<Arc<ClusterState>>,
    /// Membership that belongs to `state`; none while entries are being applied.
    pub(super) membership: Option<ConfState>,
}

impl Mirror {
    /// Reads and checks a whole store.
    pub(super) fn load<S: Store>(store: &S, id: NodeId) -> Result<Self, OpenError> {
        if id.0 == 0 {
            return Err(OpenError::Config("a node's id is not 0".to_owned()));
        }
        let (RaftState { mut hard_state, .. }, snapshot, entries) = read_all(store)?;
        let wrong = |what: String| Err(OpenError::Inconsistent(what));
        if is_planted(Fault::VoteForgotten) {
            hard_state.vote = 0;
        }
        let (base, state) = match snapshot.get_metadata().index {
            0 if !entries.is_empty() => return wrong("entries without a snapshot before them".to_owned()),
            0 => ((0, 0), None),
            index => {
                let state = state_of(&snapshot).map_err(|e| inconsistent(&e))?;
                ((index, snapshot.get_metadata().term), Some(Arc::new(state)))
            }
        };
        let mut last = base;
        for entry in &entries {
            if entry.index != last.0 + 1 || entry.term < last.1 || entry::read(entry).is_none() {
                return wrong(format!("entry {} after {} is none of ours", entry.index, last.0));
            }
            last = (entry.index, entry.term);
        }
        // The commit index is written without a sync: it may be older than the snapshot, but never newer
        // than the log.
        hard_state.commit = hard_state.commit.max(base.0);
        if hard_state.commit > last.0 {
            return wrong(format!("entry {} was committed, the last is {}", hard_state.commit, last.0));
        }
        if hard_state.term < last.1 {
            return wrong(format!("the last entry is of term {}, the store of {}", last.1, hard_state.term));
        }
        let conf_state = snapshot.get_metadata().get_conf_state().clone();
        Ok(Mirror {
            base,
            entries: entries.into(),
            membership: Some(conf_state.clone()),
            initial: RaftState { hard_state, conf_state },
            snapshot_length: snapshot.data.len() as u64,
            state,
        })
    }

    /// Index of the entry before the first that is kept.
    pub(super) fn base(&self) -> u64 {
        self.base.0
    }

    /// Follows what the store took.
    pub(super) fn take(&mut self, batch: &Batch<'_>) {
        if let Some(snapshot) = batch.snapshot {
            let meta = snapshot.get_metadata();
            self.base = (meta.index, meta.term);
            self.entries.clear();
        }
        if let Some(first) = batch.entries.first() {
            self.entries.truncate((first.index - self.base.0 - 1) as usize);
            self.entries.extend(batch.entries.iter().cloned());
        }
    }

    /// Forgets entries up to `index`; a peer that needs one gets a snapshot.
    pub(super) fn forget(&mut self, index: u64) {
        while self.base.0 < index
            && let Some(first) = self.entries.pop_front()
        {
            self.base = (first.index, first.term);
        }
    }

    /// The term of an entry that is kept, or of the one before.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base.0)? {
            0 => Some(self.base.1),
            n => self.entries.get(n as usize - 1).map(|e| e.term),
        }
    }

    /// The snapshot of what is applied; none before the first came, or while entries are being applied.
    pub(super) fn snapshot_now(&self) -> Option<Snapshot> {
        let (state, membership) = (self.state.as_ref()?, self.membership.as_ref()?);
        Some(snapshot(state, membership, self.term_of(state.applied)?))
    }
}

impl raft::Storage for Mirror {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let from = low.checked_sub(self.base.0 + 1).ok_or(Error::Store(StorageError::Compacted))? as usize;
        let to = high.saturating_sub(self.base.0 + 1) as usize;
        if to > self.entries.len() || from > to {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let (limit, mut bytes) = (max_size.into().unwrap_or(u64::MAX), 0);
        let fits = |(n, entry): &(usize, &Entry)| {
            bytes += prost::Message::encoded_len(*entry) as u64;
            *n == 0 || bytes <= limit
        };
        Ok(self.entries.range(from..to).enumerate().take_while(fits).map(|(_, e)| e.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let error = if index < self.base.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(Error::Store(error))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        let snapshot = self.snapshot_now().filter(|s| s.get_metadata().index >= request_index);
        snapshot.ok_or(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
