//! What the log is, without what its entries say; and what a change would make of it.

use super::record::SnapshotState;
use prost::Message;
use raft::StorageError;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use tidegate_sync::raft::{Batch, StoreError};

/// What the file holds.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) hard: HardState,
    pub(super) snapshot: SnapshotState,
    pub(super) conf_state: ConfState,
    /// Terms of all entries, from the one after the snapshot on.
    pub(super) terms: VecDeque<u64>,
}

/// A change that was checked against the log.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) snapshot: Option<(&'a Snapshot, SnapshotState)>,
    /// Entries that go, by index.
    pub(super) remove: Option<RangeInclusive<u64>>,
    pub(super) entries: &'a [Entry],
    pub(super) hard: HardState,
    /// Index and term of the last entry afterwards.
    pub(super) last: (u64, u64),
    /// Whether it may not be lost: everything but an advance of the commit index.
    pub(super) durable: bool,
}

impl Log {
    pub(super) fn first(&self) -> u64 {
        self.snapshot.index + 1
    }

    /// Index and term of the last entry, or of the snapshot.
    pub(super) fn last(&self) -> (u64, u64) {
        let term = self.terms.back().copied().unwrap_or(self.snapshot.term);
        (self.snapshot.index + self.terms.len() as u64, term)
    }

    pub(super) fn term(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        let at = index.checked_sub(self.first()).ok_or(StorageError::Compacted)?;
        self.terms.get(at as usize).copied().ok_or(StorageError::Unavailable)
    }

    /// Whether entries `low..high` are there.
    pub(super) fn holds(&self, low: u64, high: u64) -> Result<(), StorageError> {
        match () {
            () if low < self.first() => Err(StorageError::Compacted),
            () if high > self.last().0 + 1 || low > high => Err(StorageError::Unavailable),
            () => Ok(()),
        }
    }

    /// Checks what is to be written.
    pub(super) fn plan<'a>(&self, batch: &Batch<'a>) -> Result<Change<'a>, StoreError> {
        let mut change = Change {
            snapshot: None,
            remove: None,
            entries: batch.entries,
            hard: batch.hard_state.cloned().unwrap_or_else(|| self.hard.clone()),
            last: self.last(),
            durable: batch.must_sync || !batch.entries.is_empty(),
        };
        if let Some(snapshot) = batch.snapshot {
            let state = snapshot_state(snapshot);
            if state.index <= self.snapshot.index || state.index < self.hard.commit {
                return Err(nonsense(format!("a snapshot at {} would go back in the log", state.index)));
            }
            change.hard.commit = change.hard.commit.max(state.index);
            change.hard.term = change.hard.term.max(state.term);
            change.last = (state.index, state.term);
            change.remove = (!self.terms.is_empty()).then(|| self.first()..=self.last().0);
            change.durable = true;
            change.snapshot = Some((snapshot, state));
        }
        if let Some(first) = batch.entries.first() {
            self.follows(first.index, &mut change)?;
        }
        for entry in batch.entries {
            let (index, term) = change.last;
            if entry.index != index + 1 || entry.term < term || entry.term > change.hard.term {
                return Err(nonsense(format!(
                    "entry {} of term {} cannot follow entry {index} of term {term}",
                    entry.index, entry.term
                )));
            }
            if entry.index <= self.hard.commit && self.term(entry.index).ok() != Some(entry.term) {
                return Err(nonsense(format!("entry {} is committed and cannot change", entry.index)));
            }
            change.last = (entry.index, entry.term);
        }
        let (hard, was) = (&change.hard, &self.hard);
        if hard.term < was.term || hard.commit < was.commit || hard.commit > change.last.0 {
            let (term, commit, last) = (hard.term, hard.commit, change.last.0);
            return Err(nonsense(format!("term {term} and commit {commit} with a log up to {last}")));
        }
        change.durable |= hard.term != was.term || hard.vote != was.vote;
        Ok(change)
    }

    /// What is cut off when entries from `index` on are written.
    fn follows(&self, index: u64, change: &mut Change<'_>) -> Result<(), StoreError> {
        let (last, _) = change.last;
        if index == last + 1 {
            return Ok(());
        }
        if change.snapshot.is_some() || index < self.first() || index > last + 1 {
            return Err(nonsense(format!("entries from {index} on do not join a log up to {last}")));
        }
        change.remove = Some(index..=last);
        change.last = (index - 1, self.term(index - 1).map_err(|e| nonsense(e.to_string()))?);
        Ok(())
    }

    /// Checks a snapshot that is to stand for the log's beginning. `None`: there is a newer one.
    pub(super) fn plan_compaction<'a>(
        &self,
        snapshot: &'a Snapshot,
    ) -> Result<Option<Change<'a>>, StoreError> {
        let state = snapshot_state(snapshot);
        if state.index <= self.snapshot.index {
            return Ok(None);
        }
        if state.index > self.hard.commit || self.term(state.index).ok() != Some(state.term) {
            let (index, commit) = (state.index, self.hard.commit);
            return Err(nonsense(format!("a snapshot at {index} of a log that is agreed up to {commit}")));
        }
        Ok(Some(Change {
            remove: Some(self.first()..=state.index),
            snapshot: Some((snapshot, state)),
            entries: &[],
            hard: self.hard.clone(),
            last: self.last(),
            durable: true,
        }))
    }

    /// Makes the change.
    pub(super) fn take(&mut self, change: Change<'_>) {
        if let Some(remove) = change.remove {
            // Either the log's beginning or its end goes, or both.
            let (from, to) = (remove.start() - self.first(), remove.end() + 1 - self.first());
            self.terms.drain(from as usize..to as usize);
        }
        if let Some((snapshot, state)) = change.snapshot {
            self.snapshot = state;
            self.conf_state = snapshot.get_metadata().get_conf_state().clone();
        }
        self.terms.extend(change.entries.iter().map(|e| e.term));
        self.hard = change.hard;
    }
}

fn snapshot_state(snapshot: &Snapshot) -> SnapshotState {
    let meta = snapshot.get_metadata();
    SnapshotState {
        index: meta.index,
        term: meta.term,
        conf_state: meta.get_conf_state().encode_to_vec(),
        bytes: snapshot.data.len() as u64,
    }
}

fn nonsense(text: String) -> StoreError {
    StoreError::Corrupt(format!("told what cannot be: {text}"))
}
