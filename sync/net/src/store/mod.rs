//! The durable Raft log of a node: redb, with checksums of our own.
//!
//! What was persisted and answered is there after a crash; what is damaged is refused, never handed out
//! changed. redb gives neither by itself: it reads records unchecked, panics on some damage, and takes a
//! damaged newest transaction for one that was never finished and returns to the one before. So
//! - every record carries a checksum, and everything is read and checked when the store is opened,
//!   after redb has checked its own pages;
//! - one state record, written in each transaction, says what must be there;
//! - a mark beside redb's part of the file says which transaction was finished last;
//! - nothing that redb does on a damaged file leaves this module as a panic.
//!
//! After an error the store is to be dropped; nothing more is written, and it may be opened again.

mod below;
mod file;
mod log;
mod open;
mod record;
#[cfg(test)]
mod tests;

pub use file::{FileStorage, OpenError, remedy};

use below::{Below, Mark};
use log::{Change, Log};
use prost::Message;
use raft::eraftpb::{Entry, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use record::{PIECE, Place, State};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tidegate_sync::cluster::StoreId;
use tidegate_sync::raft::{Batch, Store, StoreError};

type Table = TableDefinition<'static, u64, &'static [u8]>;
const STATE: Table = Table::new("state");
const ENTRIES: Table = Table::new("entries");
const PIECES: Table = Table::new("snapshot");

/// The durable Raft log. See the module's text.
#[derive(Debug)]
pub struct RaftStore {
    // Dropped first: redb may still write.
    db: Option<Database>,
    below: Below,
    id: StoreId,
    log: Log,
    mark: Mark,
}

impl RaftStore {
    /// Drawn when the store was created.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Whether nothing was ever persisted.
    pub fn is_empty(&self) -> bool {
        self.mark.seq == 0
    }

    /// Ends orderly, so that the next opening has nothing to repair.
    ///
    /// # Errors
    /// The medium's; what was persisted is safe nevertheless.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.flush()?;
        let Some(db) = self.db.take() else { return Ok(()) };
        guarded(&self.below, || db.close().map_err(|e| redb_error(&self.below, e)))
    }

    /// Drops the store without writing anything more, as a crash would.
    pub fn abandon(self) {
        self.below.fail(StoreError::Io("the store was abandoned".to_owned()));
    }

    fn usable(&self) -> Result<(), StoreError> {
        self.below.fault().map_or(Ok(()), Err)
    }

    fn carry_out(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        let mut mark = self.mark;
        if change.durable {
            mark.seq += 1;
            let written = guarded(&self.below, || {
                self.transact(&change, mark.seq).map_err(|e| redb_error(&self.below, e))
            });
            written.map_err(|e| self.below.fail(e))?;
        }
        mark.count += 1;
        mark.commit = change.hard.commit;
        let written = self.below.write_mark(self.id, &mark);
        written.map_err(|e| self.below.fail(below::classify("write the store's mark", &e)))?;
        self.mark = mark;
        self.log.take(change);
        Ok(())
    }

    /// One redb transaction; synced when it returns.
    fn transact(&self, change: &Change<'_>, seq: u64) -> Result<(), redb::Error> {
        let Some(db) = &self.db else { return Err(redb::Error::DatabaseClosed) };
        let transaction = db.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            if let Some(remove) = change.remove.clone() {
                entries.retain_in(remove, |_, _| false)?;
            }
            for entry in change.entries {
                let sealed = record::seal(Place::Entry, entry.index, &entry.encode_to_vec());
                entries.insert(entry.index, &sealed[..])?;
            }
        }
        if let Some((snapshot, state)) = &change.snapshot {
            let mut pieces = transaction.open_table(PIECES)?;
            for (key, piece) in (0..).zip(snapshot.data.chunks(PIECE)) {
                pieces.insert(key, &record::seal(Place::Piece, key, piece)[..])?;
            }
            pieces.retain_in(state.pieces().., |_, _| false)?;
        }
        let state = State {
            store: Some(self.id),
            seq,
            term: change.hard.term,
            vote: change.hard.vote,
            commit: change.hard.commit,
            snapshot: change.snapshot.as_ref().map_or_else(|| self.log.snapshot.clone(), |s| s.1.clone()),
            last: change.last,
        };
        let sealed = record::seal(Place::State, 0, &tidegate_sync::codec::encode(&state));
        transaction.open_table(STATE)?.insert(0, &sealed[..])?;
        transaction.commit()?;
        Ok(())
    }

    /// Reads, and remembers a failure like one of a write.
    fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> raft::Result<T> {
        let read = self.usable().and_then(|()| {
            guarded(&self.below, || {
                let Some(db) = &self.db else {
                    return Err(redb_error(&self.below, redb::Error::DatabaseClosed));
                };
                f(&db.begin_read().map_err(|e| redb_error(&self.below, e))?)
            })
        });
        read.map_err(|e| StorageError::Other(Box::new(self.below.fail(e))).into())
    }
}

impl Store for RaftStore {
    fn persist(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        self.usable()?;
        let change = self.log.plan(batch).map_err(|e| self.below.fail(e))?;
        self.carry_out(change)
    }

    fn compact(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.usable()?;
        match self.log.plan_compaction(snapshot).map_err(|e| self.below.fail(e))? {
            Some(change) => self.carry_out(change),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        self.below.sync().map_err(|e| self.below.fail(below::classify("sync the store", &e)))
    }
}

impl Storage for RaftStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.log.hard.clone(), self.log.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        self.log.holds(low, high)?;
        let (mut bytes, max) = (0, max_size.into());
        self.read(|transaction| {
            open::entries(&self.below, transaction, low..high, |entry| {
                let first = bytes == 0;
                bytes += entry.encoded_len() as u64;
                first || max.is_none_or(|max| bytes <= max)
            })
        })
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        Ok(self.log.term(index)?)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last().0)
    }

    /// The newest snapshot; an empty one before the first.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let state = &self.log.snapshot;
        if state.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let data = self.read(|transaction| open::snapshot_data(&self.below, transaction, state))?;
        let conf_state = Some(self.log.conf_state.clone());
        let metadata = SnapshotMetadata { conf_state, index: state.index, term: state.term };
        Ok(Snapshot { data, metadata: Some(metadata) })
    }
}

/// Runs what calls redb. redb panics on damage that neither its checks nor ours see first (a page that
/// rotted after the store was opened); that is a damaged store like any other, and no reason for a
/// firewall to stop. Nothing of redb is used again afterwards but its drop.
fn guarded<T>(below: &Below, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(below.fail(StoreError::Corrupt(format!("redb gave up: {text}"))))
    })
}

/// What an error of redb means; the storage's own first error counts more than what redb made of it.
fn redb_error(below: &Below, error: impl Into<redb::Error>) -> StoreError {
    if let Some(fault) = below.fault() {
        return fault;
    }
    match error.into() {
        redb::Error::Io(error) => below::classify("use the store", &error),
        redb::Error::Corrupted(text) => StoreError::Corrupt(text),
        other => StoreError::Corrupt(other.to_string()),
    }
}
