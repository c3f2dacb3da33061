//! What it does on a good disk.

use super::disk::Disk;
use super::*;
use raft::StorageError;

#[test]
fn what_was_persisted_is_there_after_each_call_and_after_opening_again() {
    // Red when a call forgets a part, leaves a truncated entry, or the file differs from what is read.
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    assert!(store.is_empty());
    assert_eq!(view(&store).unwrap(), View { snapshot: empty_snapshot(), ..View::default() });
    let mut model = View::default();
    for (number, call) in life().iter().enumerate() {
        call.make(&mut store).unwrap();
        call.tell(&mut model);
        assert_eq!(view(&store).unwrap(), model, "after call {number}");
        assert!(!store.is_empty());
        // In turn as after a crash of the process and after an orderly end.
        match number % 2 {
            0 => store.abandon(),
            _ => store.close().unwrap(),
        }
        store = RaftStore::open(disk.clone()).unwrap();
        assert_eq!(view(&store).unwrap(), model, "opened again after call {number}");
        assert_eq!(store.id(), ID);
    }
}

fn empty_snapshot() -> Snapshot {
    let metadata = SnapshotMetadata { conf_state: Some(ConfState::default()), ..Default::default() };
    Snapshot { metadata: Some(metadata), ..Snapshot::default() }
}

fn filled() -> RaftStore {
    let mut store = RaftStore::create(Disk::default(), ID).unwrap();
    life()[..8].iter().for_each(|call| call.make(&mut store).unwrap());
    store
}

#[test]
fn reads_outside_the_log_say_on_which_side() {
    // Log 31..=41 behind a snapshot at 30. Red when a compacted entry is "unavailable" or the reverse.
    let store = filled();
    let read = |low, high, max| store.entries(low, high, max, GetEntriesContext::empty(false));
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (31, 41));
    assert_eq!(store.term(29), Err(StorageError::Compacted.into()));
    assert_eq!(store.term(42), Err(StorageError::Unavailable.into()));
    assert_eq!(read(30, 32, None), Err(StorageError::Compacted.into()));
    assert_eq!(read(31, 43, None), Err(StorageError::Unavailable.into()));
    assert_eq!(read(31, 31, None), Ok(vec![]));
    assert_eq!(read(31, 40, None).unwrap(), entries(31..=39, 3, 100));
    // At least one, otherwise no more bytes than asked for.
    assert_eq!(read(31, 40, Some(0)).unwrap().len(), 1);
    assert_eq!(read(31, 40, Some(250)).unwrap().len(), 2);
    assert_eq!(read(41, 42, Some(10)).unwrap().len(), 1);
    assert_eq!(store.snapshot(31, 2), Err(StorageError::SnapshotTemporarilyUnavailable.into()));
}

#[test]
fn a_compaction_to_what_is_compacted_already_changes_nothing() {
    let mut store = filled();
    let before = view(&store).unwrap();
    store.compact(&snapshot(30, 3, 10)).unwrap();
    store.compact(&snapshot(12, 3, 10)).unwrap();
    assert_eq!(view(&store).unwrap(), before);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    // Each would lose something agreed, or leave a log that raft-rs panics on. Red without its check.
    let gap = append(entries(43..=44, 4, 10), hard(4, 3, 41));
    let back = append(vec![entry(42, 3, 10), entry(43, 2, 10)], hard(4, 3, 41));
    let agreed = append(vec![entry(41, 4, 10)], hard(4, 3, 41));
    let compacted = append(vec![entry(30, 3, 10)], hard(4, 3, 41));
    let ahead = append(vec![entry(42, 5, 10)], hard(4, 3, 41));
    let term = append(Vec::new(), hard(3, 3, 41));
    let commit_back = commit(hard(4, 3, 40));
    let commit_beyond = commit(hard(4, 3, 42));
    let old = Call::Persist {
        snapshot: Some(snapshot(40, 3, 10)),
        entries: Vec::new(),
        hard: Some(hard(4, 3, 41)),
        must_sync: true,
    };
    let other_term = Call::Compact(snapshot(41, 4, 10));
    for call in [gap, back, agreed, compacted, ahead, term, commit_back, commit_beyond, old, other_term] {
        let disk = Disk::default();
        let mut store = RaftStore::create(disk.clone(), ID).unwrap();
        life()[..7].iter().for_each(|call| call.make(&mut store).unwrap());
        Call::Compact(snapshot(30, 3, 600_000)).make(&mut store).unwrap();
        let before = view(&store).unwrap();
        let error = call.make(&mut store).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("cannot be")), "{error}");
        // And from then on nothing, whatever it is.
        assert_eq!(append(Vec::new(), hard(9, 1, 41)).make(&mut store), Err(error));
        drop(store);
        assert_eq!(view(&RaftStore::open(disk).unwrap()).unwrap(), before);
    }
}

#[test]
fn an_entry_sent_again_may_overwrite_itself() {
    // Followers get agreed entries again after a lost answer. Red when that counts as a change.
    let mut store = filled();
    let before = view(&store).unwrap();
    append(vec![entry(41, 3, 300_000)], hard(4, 3, 41)).make(&mut store).unwrap();
    assert_eq!(view(&store).unwrap(), before);
}

#[test]
fn closing_closes_the_storage() {
    let disk = Disk::default();
    RaftStore::create(disk.clone(), ID).unwrap().close().unwrap();
    assert!(disk.closed());
}
