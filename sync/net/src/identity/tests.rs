//! Files of an identity: their modes, what is missing or mixed, and what survives an interruption.

use super::*;
use crate::pki::{Ca, Csr, NodeKey};
use crate::store::RaftStore;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tidegate_sync::cluster::TokenId;

const CLUSTER: ClusterId = ClusterId([3; 16]);
const NOW: u64 = 1_800_000_000;

fn identity(role: Role) -> Identity {
    Identity {
        cluster: CLUSTER,
        cluster_name: "east".to_owned(),
        node: NodeId(2),
        node_name: "fw2".to_owned(),
        role,
        addresses: vec!["10.0.0.2:7000".parse().unwrap(), "[fd00::2]:7000".parse().unwrap()],
        generation: 3,
        store: StoreId([9; 16]),
    }
}

/// A member's directory, whole.
fn member(path: &Path, role: Role) -> Directory {
    let directory = Directory::create(path).unwrap();
    let ca = Ca::create(CLUSTER, "east", NOW).unwrap();
    let key_pem = ca.key_pem();
    directory.write_ca(ca.certificate(), (role == Role::Node).then_some(&key_pem)).unwrap();
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.csr("fw2").unwrap()).unwrap();
    let certificate = ca.issue(&csr, NodeId(2), "fw2", NOW, 1_000).unwrap();
    directory.write_certificate(&certificate, &key).unwrap();
    directory.write_identity(&identity(role)).unwrap();
    directory
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some/where/tidegate");
    assert_eq!(Directory::open(&path).unwrap(), None);
    let directory = member(&path, Role::Node);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(directory.identity().unwrap(), Some(identity(Role::Node)));
    assert_eq!(directory.credentials().unwrap().certificate.node(), NodeId(2));
    assert_eq!(directory.ca().unwrap().certificate().cluster(), CLUSTER);
    for (name, wanted) in
        [("node.pem", 0o600), ("ca.key", 0o600), ("ca.pem", 0o644), ("identity.json", 0o600)]
    {
        assert_eq!(mode(&path.join(name)), wanted, "{name}");
    }
    // Nothing but these.
    let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "identity.json", "node.pem"]);
    directory.forget_identity().unwrap();
    assert_eq!(directory.identity().unwrap(), None);
}

#[test]
fn looser_modes_are_refused_with_the_remedy() {
    // Red for each secret whose mode is not looked at.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate");
    let directory = member(&path, Role::Node);
    directory.begin_join(TokenId([1; 8])).unwrap();
    for (name, loose) in
        [("node.pem", 0o640), ("node.pem", 0o604), ("ca.key", 0o644), ("ca.key", 0o620), ("join.json", 0o644)]
    {
        set_mode(&path.join(name), loose);
        let error = match name {
            "node.pem" => directory.credentials().map(drop),
            "ca.key" => {
                assert!(directory.check_ca_key().is_err(), "only noticed when it is to sign");
                directory.ca().map(drop)
            }
            _ => directory.begin_join(TokenId([1; 8])).map(drop),
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("{loose:o}")), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
        set_mode(&path.join(name), 0o600);
    }
    set_mode(&path, 0o750);
    let error = Directory::open(&path).unwrap_err().to_string();
    assert!(error.contains("750") && error.contains("chmod 700"), "{error}");
    let error = Directory::create(&path).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn what_is_missing_broken_or_mixed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate");
    let directory = member(&path, Role::Node);
    let other = member(&dir.path().join("other"), Role::Node);

    let keep = |name: &str| std::fs::read(path.join(name)).unwrap();
    let (node, ca, key, json) = (keep("node.pem"), keep("ca.pem"), keep("ca.key"), keep("identity.json"));
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(path.join(name), bytes).unwrap();
        set_mode(&path.join(name), 0o600);
    };

    for name in ["node.pem", "ca.pem"] {
        let whole = keep(name);
        std::fs::remove_file(path.join(name)).unwrap();
        let error = directory.credentials().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("missing"), "{error}");
        put(name, &whole[..whole.len() / 3]);
        let error = directory.credentials().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("cannot be read"), "{error}");
        put(name, &whole);
    }
    // The key of another certificate, in the same file.
    let (mine, theirs) = (String::from_utf8(node.clone()).unwrap(), other.credentials().unwrap());
    let certificate = mine.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    put("node.pem", (certificate.to_owned() + &theirs.key.pem()).as_bytes());
    let error = directory.credentials().unwrap_err().to_string();
    assert!(error.contains("belongs together"), "{error}");
    put("node.pem", &node);
    // The CA of another cluster of the same name.
    put("ca.key", &std::fs::read(other.path().join("ca.key")).unwrap());
    let error = directory.ca().unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("belongs together"), "{error}");
    put("ca.key", &key);
    put("ca.pem", &ca);

    let text = String::from_utf8(json).unwrap();
    for (from, to, word) in [
        ("\"node\": 2", "\"node\": 7", "node 2 of cluster"),
        ("\"format\": 1", "\"format\": 2", "format 2"),
        ("\"role\": \"node\"", "\"role\": \"king\"", "neither node nor witness"),
        ("0303", "03", "no cluster id"),
        ("{", "{\"more\": 1,", "unknown field"),
        ("}", "", "EOF"),
    ] {
        put("identity.json", text.replacen(from, to, 1).as_bytes());
        let error = directory.credentials().unwrap_err().to_string();
        assert!(error.contains(word), "{from} -> {to}: {error}");
    }
    put("identity.json", text.as_bytes());
    directory.credentials().unwrap();
}

#[test]
fn a_join_repeated_is_the_same_join() {
    // Red when the key is drawn anew: the cluster would refuse its own member as a second user.
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::create(&dir.path().join("t")).unwrap();
    let first = directory.begin_join(TokenId([1; 8])).unwrap();
    let again = directory.begin_join(TokenId([1; 8])).unwrap();
    assert_eq!((first.key.sha256(), first.store), (again.key.sha256(), again.store));
    let other = directory.begin_join(TokenId([2; 8])).unwrap();
    assert!(other.key.sha256() != first.key.sha256() && other.store != first.store);
    directory.end_join().unwrap();
    directory.end_join().unwrap();
    let anew = directory.begin_join(TokenId([2; 8])).unwrap();
    assert!(anew.key.sha256() != other.key.sha256());
}

#[test]
fn reissue_works_offline_whatever_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let directory = member(&dir.path().join("t"), Role::Node);
    let old = directory.credentials().unwrap();
    let much_later = NOW + 10 * 365 * 86_400;
    let issued = reissue(&directory, much_later, 5_000).unwrap();
    let new = directory.credentials().unwrap();
    assert_eq!(new.certificate, issued);
    assert_eq!((issued.node(), issued.not_after_unix_s()), (NodeId(2), much_later + 5_000));
    assert_ne!(new.key.sha256(), old.key.sha256());
    assert_eq!(mode(&directory.path().join("node.pem")), 0o600);
}

#[test]
fn reissue_is_refused_while_the_daemon_runs_and_without_a_ca_key() {
    let dir = tempfile::tempdir().unwrap();
    let directory = member(&dir.path().join("t"), Role::Node);
    // The daemon holds its store.
    let running = RaftStore::create_file(&directory.store_path(), StoreId([9; 16])).unwrap();
    let before = directory.credentials().unwrap().certificate;
    let error = reissue(&directory, NOW, 5_000).unwrap_err().to_string();
    assert!(error.contains("stop the daemon"), "{error}");
    assert_eq!(directory.credentials().unwrap().certificate, before);
    drop(running);
    reissue(&directory, NOW, 5_000).unwrap();

    let witness = member(&dir.path().join("w"), Role::Witness);
    let error = reissue(&witness, NOW, 5_000).unwrap_err().to_string();
    assert!(error.contains("no CA key"), "{error}");
    let nobody = Directory::create(&dir.path().join("n")).unwrap();
    assert!(reissue(&nobody, NOW, 5_000).unwrap_err().to_string().contains("identity.json is missing"));
}

#[test]
fn a_replacement_that_fails_leaves_the_old_file() {
    // Red when files are written in place.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    files::write(&path, b"old", 0o600).unwrap();
    // Something that cannot be removed stands where the new one is built.
    std::fs::create_dir(dir.path().join("file.new")).unwrap();
    let error = files::write(&path, b"new", 0o600).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(files::read(&path, true).unwrap().unwrap(), b"old");
    std::fs::remove_dir(dir.path().join("file.new")).unwrap();
    // What is left of an attempt, looser than it may be.
    std::fs::write(dir.path().join("file.new"), b"half").unwrap();
    files::write(&path, b"new", 0o600).unwrap();
    assert_eq!((files::read(&path, true).unwrap().unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
    std::fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
    assert!(matches!(files::read(&path, true), Err(files::FileError::TooLong { .. })));
}
