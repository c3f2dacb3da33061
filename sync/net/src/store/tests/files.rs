//! The store as a file: its mode, its lock, its name.

use super::*;
use crate::store::OpenError;
use std::os::unix::fs::PermissionsExt;

#[test]
fn one_opener_only_and_only_a_private_file() {
    // Red without the lock (two daemons on one store), or when others may write what is voted.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    assert!(matches!(RaftStore::open_file(&path), Err(OpenError::File { .. })));
    let mut store = RaftStore::create_file(&path, ID).unwrap();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    life()[..3].iter().for_each(|call| call.make(&mut store).unwrap());
    let seen = view(&store).unwrap();

    let error = RaftStore::open_file(&path).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    assert!(error.to_string().contains("stop the daemon"), "{error}");
    let error = RaftStore::create_file(&path, ID).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
    store.close().unwrap();

    for loose in [0o640, 0o604, 0o660, 0o644] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(loose)).unwrap();
        let error = RaftStore::open_file(&path).unwrap_err();
        assert!(matches!(error, OpenError::Mode(_)), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(view(&RaftStore::open_file(&path).unwrap()).unwrap(), seen);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["raft.redb"]);
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    for bytes in [vec![], b"tidegate".to_vec(), vec![0; 100_000]] {
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let error = RaftStore::open_file(&path).unwrap_err().to_string();
        assert!(error.contains("raft.redb") && error.contains("damaged"), "{error}");
        assert!(error.contains("cluster remove") && error.contains("new token"), "{error}");
    }
}

#[test]
fn a_creation_that_was_cut_off_can_be_repeated() {
    // Red when what an earlier attempt left is taken for a store, or stands in the way.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    std::fs::write(dir.path().join("raft.redb.new"), vec![1; 50_000]).unwrap();
    RaftStore::create_file(&path, ID).unwrap().close().unwrap();
    assert!(RaftStore::open_file(&path).unwrap().is_empty());
}
