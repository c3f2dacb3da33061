//! Creating and opening: everything in the file is read and checked before any of it is used.

use super::below::{self, Below, HEADER, Mark};
use super::log::Log;
use super::record::{self, PIECE, Place, STATE_LIMIT, SnapshotState, State};
use super::{ENTRIES, PIECES, RaftStore, STATE, Table, guarded, redb_error};
use prost::Message;
use raft::eraftpb::{ConfState, Entry, HardState};
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, TableHandle,
};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use tidegate_sync::cluster::StoreId;
use tidegate_sync::codec;
use tidegate_sync::raft::StoreError;

/// redb's page cache, in bytes. The replica reads the log once.
const CACHE: usize = 4 << 20;

impl RaftStore {
    /// A new, empty store on an empty storage.
    ///
    /// A crash in here leaves something that cannot be opened: see [`RaftStore::create_file`], which
    /// gives the file its name only afterwards.
    ///
    /// # Errors
    /// The storage's, or it is not empty.
    pub fn create(storage: impl StorageBackend, id: StoreId) -> Result<RaftStore, StoreError> {
        let below = Below::new(storage);
        let io = |what: &'static str| {
            let below = below.clone();
            move |e: std::io::Error| below.fail(below::classify(what, &e))
        };
        if below.whole_len().map_err(io("find the length of the store"))? != 0 {
            return Err(StoreError::Io("there is something where the new store is to be".to_owned()));
        }
        below.found(id).map_err(io("create the store"))?;
        let db = open_redb(&below, CACHE, false)?;
        let store = RaftStore { db: Some(db), id, log: Log::default(), mark: Mark::default(), below };
        guarded(&store.below, || store.first_transaction().map_err(|e| redb_error(&store.below, e)))?;
        Ok(store)
    }

    /// All tables, and the state record that says that nothing is in them.
    fn first_transaction(&self) -> Result<(), redb::Error> {
        let Some(db) = &self.db else { return Err(redb::Error::DatabaseClosed) };
        let transaction = db.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(PIECES)?;
        let state = State { store: Some(self.id), ..State::default() };
        let sealed = record::seal(Place::State, 0, &codec::encode(&state));
        transaction.open_table(STATE)?.insert(0, &sealed[..])?;
        transaction.commit()?;
        Ok(())
    }

    /// Opens a store and checks all of it.
    ///
    /// # Errors
    /// `Corrupt` for anything that is not as it was written, else the storage's error.
    pub fn open(storage: impl StorageBackend) -> Result<RaftStore, StoreError> {
        Self::open_with_cache(storage, CACHE)
    }

    pub(super) fn open_with_cache(
        storage: impl StorageBackend,
        cache: usize,
    ) -> Result<RaftStore, StoreError> {
        let below = Below::new(storage);
        let opened = guarded(&below, || open_checked(&below, cache));
        let (db, id, log, mark) = opened.map_err(|e| below.fail(e))?;
        Ok(RaftStore { db: Some(db), below, id, log, mark })
    }
}

fn open_redb(below: &Below, cache: usize, check: bool) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache).set_check_integrity_on_open(check);
    guarded(below, || builder.create_with_backend(below.clone()).map_err(|e| redb_error(below, e)))
}

fn open_checked(below: &Below, cache: usize) -> Result<(Database, StoreId, Log, Mark), StoreError> {
    let (id, mark) = below.read_header()?;
    let len = below.whole_len().map_err(|e| below::classify("find the length of the store", &e))?;
    if len <= HEADER {
        // redb would begin a new store here.
        return Err(StoreError::Corrupt("the file ends after its header".to_owned()));
    }
    let db = open_redb(below, cache, true)?;
    // Before redb is dropped after a failure: then it is not to write.
    let checked = check(below, &db, id, mark).map_err(|e| below.fail(e));
    let (log, seq) = checked?;
    let mark = Mark { count: mark.count, seq, commit: log.hard.commit };
    Ok((db, id, log, mark))
}

fn check(below: &Below, db: &Database, id: StoreId, mark: Mark) -> Result<(Log, u64), StoreError> {
    let transaction = db.begin_read().map_err(|e| redb_error(below, e))?;
    check_tables(below, &transaction)?;
    let state = read_state(below, &transaction)?;
    if state.store != Some(id) {
        return corrupt("its parts belong to different stores");
    }
    if state.seq < mark.seq {
        return corrupt(format!(
            "it is at transaction {} but had finished {}: the newest is damaged, or an old copy of the file was put in place",
            state.seq, mark.seq
        ));
    }
    let commit = state.commit.max(mark.commit);
    let conf_state = ConfState::decode(&state.snapshot.conf_state[..])
        .map_err(|e| StoreError::Corrupt(format!("the members in its snapshot cannot be read: {e}")))?;
    let log = Log {
        hard: HardState { term: state.term, vote: state.vote, commit },
        terms: read_terms(below, &transaction, &state)?,
        snapshot: state.snapshot,
        conf_state,
    };
    if log.last() != state.last || commit > state.last.0 || commit < log.snapshot.index {
        let (index, term) = log.last();
        return corrupt(format!(
            "its log ends at {index} (term {term}), but was written up to {} (term {}) and agreed up to {commit}",
            state.last.0, state.last.1
        ));
    }
    snapshot_data(below, &transaction, &log.snapshot)?;
    Ok((log, state.seq))
}

fn check_tables(below: &Below, transaction: &ReadTransaction) -> Result<(), StoreError> {
    let tables = transaction.list_tables().map_err(|e| redb_error(below, e))?;
    let found: BTreeSet<String> = tables.map(|t| t.name().to_owned()).collect();
    let wanted = [STATE, ENTRIES, PIECES].map(|t| t.name().to_owned());
    if found == BTreeSet::from(wanted) { Ok(()) } else { corrupt("its tables are not those of a Raft store") }
}

fn read_state(below: &Below, transaction: &ReadTransaction) -> Result<State, StoreError> {
    let mut found = None;
    each(below, transaction, STATE, 1, |key, sealed| {
        let bytes = record::unseal(Place::State, key, sealed)?;
        let state = codec::decode::<State, STATE_LIMIT>(bytes);
        found = Some(state.map_err(|e| StoreError::Corrupt(format!("its state record: {e}")))?);
        Ok(())
    })?;
    found.ok_or_else(|| StoreError::Corrupt("its state record is missing".to_owned()))
}

fn read_terms(
    below: &Below,
    transaction: &ReadTransaction,
    state: &State,
) -> Result<VecDeque<u64>, StoreError> {
    let Some(count) = state.last.0.checked_sub(state.snapshot.index) else {
        return corrupt("its log ends before its snapshot");
    };
    let mut terms = VecDeque::new();
    let (mut index, mut term) = (state.snapshot.index, state.snapshot.term);
    each(below, transaction, ENTRIES, count, |key, sealed| {
        let entry = entry(key, sealed)?;
        if key != index + 1 || entry.term < term || entry.term > state.term {
            return corrupt(format!("log entry {key} does not follow entry {index}"));
        }
        (index, term) = (entry.index, entry.term);
        terms.push_back(term);
        Ok(())
    })?;
    Ok(terms)
}

/// The entries of these indexes, as long as `more` wants them.
pub(super) fn entries(
    below: &Below,
    transaction: &ReadTransaction,
    indexes: Range<u64>,
    mut more: impl FnMut(&Entry) -> bool,
) -> Result<Vec<Entry>, StoreError> {
    let table = transaction.open_table(ENTRIES).map_err(|e| redb_error(below, e))?;
    let mut entries = Vec::new();
    for index in indexes {
        let Some(sealed) = table.get(index).map_err(|e| redb_error(below, e))? else {
            return corrupt(format!("log entry {index} is missing"));
        };
        let entry = entry(index, sealed.value())?;
        if !more(&entry) {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(key: u64, sealed: &[u8]) -> Result<Entry, StoreError> {
    let bytes = record::unseal(Place::Entry, key, sealed)?;
    let entry = Entry::decode(bytes);
    match entry.map_err(|e| StoreError::Corrupt(format!("log entry {key} cannot be read: {e}")))? {
        entry if entry.index == key => Ok(entry),
        entry => corrupt(format!("log entry {key} says that it is {}", entry.index)),
    }
}

/// The data of the snapshot, checked.
pub(super) fn snapshot_data(
    below: &Below,
    transaction: &ReadTransaction,
    snapshot: &SnapshotState,
) -> Result<Vec<u8>, StoreError> {
    let (mut data, mut next) = (Vec::new(), 0);
    each(below, transaction, PIECES, snapshot.pieces(), |key, sealed| {
        let piece = record::unseal(Place::Piece, key, sealed)?;
        let left = snapshot.bytes.saturating_sub(key.saturating_mul(PIECE as u64));
        if key != next || piece.len() as u64 != left.min(PIECE as u64) {
            return corrupt(format!("snapshot piece {key} is not where it belongs"));
        }
        next += 1;
        data.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(data)
}

/// Calls `f` with each record of a table that must hold `count` of them.
fn each(
    below: &Below,
    transaction: &ReadTransaction,
    table: Table,
    count: u64,
    mut f: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let name = table.name().to_owned();
    let table = transaction.open_table(table).map_err(|e| redb_error(below, e))?;
    let told = table.len().map_err(|e| redb_error(below, e))?;
    let mut seen = 0;
    for item in table.iter().map_err(|e| redb_error(below, e))? {
        let (key, sealed) = item.map_err(|e| redb_error(below, e))?;
        seen += 1;
        // Also an end for a walk in circles.
        if seen > count {
            break;
        }
        f(key.value(), sealed.value())?;
    }
    if seen == count && told == count {
        return Ok(());
    }
    corrupt(format!("table {name} has {seen} records (by its own count {told}) where {count} were written"))
}

fn corrupt<T>(text: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Corrupt(text.into()))
}
