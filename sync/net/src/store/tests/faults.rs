//! Disks that are full or fail.

use super::disk::Disk;
use super::*;

/// Runs a life on a disk until a call fails; what had been acknowledged, and the error.
fn run(disk: &Disk, from: usize, store: RaftStore, model: &mut View) -> Option<(usize, StoreError)> {
    let mut store = store;
    for (number, call) in life().iter().enumerate().skip(from) {
        match call.make(&mut store) {
            Ok(()) => call.tell(model),
            Err(error) => {
                let before = disk.image();
                // It stays failed, and nothing more is written, not when it is dropped either.
                assert_eq!(call.make(&mut store), Err(error.clone()));
                assert_eq!(store.flush(), Err(error.clone()));
                assert!(store.snapshot(0, 0).is_err());
                drop(store);
                assert!(disk.image() == before, "written after the failure");
                return Some((number, error));
            }
        }
    }
    None
}

/// Opened on a repaired disk: what was acknowledged, and at most the call that failed with it.
fn check(disk: &Disk, model: &View, failed: usize) {
    let image = disk.image();
    let store = RaftStore::open(Disk::of(&image)).unwrap();
    let seen = view(&store).unwrap();
    let mut next = model.clone();
    life()[failed].tell(&mut next);
    // The commit index is written last.
    let mut between = next.clone();
    between.hard.commit = model.hard.commit;
    assert!(seen == *model || seen == next || seen == between, "after call {failed} failed");
    // And it can be used again.
    let mut model = seen;
    let mut store = store;
    append(Vec::new(), hard(90, 1, model.hard.commit)).make(&mut store).unwrap();
    model.hard = hard(90, 1, model.hard.commit);
    assert_eq!(view(&store).unwrap(), model);
}

#[test]
fn a_write_that_fails_is_an_error_and_what_was_acknowledged_stays() {
    // Red when an error is swallowed, or when a failed call destroys what was there before it.
    let mut failures = 0;
    for count in 0.. {
        let disk = Disk::default();
        let store = RaftStore::create(disk.clone(), ID).unwrap();
        disk.fail_write_in(count);
        let mut model = view(&store).unwrap();
        let Some((number, error)) = run(&disk, 0, store, &mut model) else { break };
        assert!(matches!(&error, StoreError::Io(text) if text.contains("gave up")), "{error}");
        check(&disk, &model, number);
        failures += 1;
    }
    assert!(failures > 60, "only {failures} writes in a life");
}

#[test]
fn a_sync_that_fails_is_an_error_and_what_was_acknowledged_stays() {
    // Red when `persist` answers before its sync has succeeded.
    let mut failures = 0;
    for count in 0.. {
        let disk = Disk::default();
        let store = RaftStore::create(disk.clone(), ID).unwrap();
        disk.fail_sync_in(count);
        let mut model = view(&store).unwrap();
        let Some((number, error)) = run(&disk, 0, store, &mut model) else { break };
        assert!(matches!(&error, StoreError::Io(text) if text.contains("sync")), "{error}");
        check(&disk, &model, number);
        failures += 1;
    }
    assert!(failures >= 12, "only {failures} syncs in a life");
}

#[test]
fn a_full_disk_is_told_as_such_and_what_was_acknowledged_stays() {
    // Red when the operator is told of a damaged store instead, and would throw it away.
    let longest = {
        let disk = Disk::default();
        let store = RaftStore::create(disk.clone(), ID).unwrap();
        run(&disk, 0, store, &mut View::default());
        disk.image().len() as u64
    };
    let mut failures = 0;
    for quota in (0..longest).step_by(64 << 10) {
        let disk = Disk::default();
        disk.limit(Some(quota));
        let store = match RaftStore::create(disk.clone(), ID) {
            Ok(store) => store,
            Err(error) => {
                assert!(matches!(error, StoreError::Full(_)), "{error}");
                continue;
            }
        };
        let mut model = view(&store).unwrap();
        let Some((number, error)) = run(&disk, 0, store, &mut model) else { continue };
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        check(&disk, &model, number);
        // Still full: said again, and nothing lost by the attempt.
        if let Err(error) = RaftStore::open(disk.clone()) {
            assert!(matches!(error, StoreError::Full(_)), "{error}");
        }
        check(&disk, &model, number);
        failures += 1;
    }
    assert!(failures >= 5, "only {failures} of the sizes were too small");
}
