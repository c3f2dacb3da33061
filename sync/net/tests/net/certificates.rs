//! Certificates are renewed while everything goes on.

use crate::support::*;
use std::time::Duration;
use tidegate_sync::cluster::Role;
use tidegate_sync_net::identity::Directory;
use tidegate_sync_net::pki::{Csr, NodeKey};

fn key_of(node: &Node) -> [u8; 32] {
    Directory::open(&node.dir).unwrap().unwrap().credentials().unwrap().key.sha256()
}

fn all_connected(nodes: &[Node]) -> bool {
    nodes.iter().all(|n| n.cluster().health().peers.iter().all(|p| p.connected && p.connected_from))
}

#[test]
fn rotation_gives_all_members_new_keys_and_loses_no_connection() {
    // Red when the endpoint is bound anew, or when a witness does not ask a full member to sign.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Witness);
    until("all connections", || all_connected(&nodes));
    let before: Vec<_> = nodes.iter().map(key_of).collect();
    let rotated = nodes[1].run(nodes[1].cluster().rotate_all("test", LONG));
    assert!(rotated.iter().all(|(_, _, result)| result.is_ok()) && rotated.len() == 3, "{rotated:?}");
    let after: Vec<_> = nodes.iter().map(key_of).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    assert!(all_connected(&nodes));
    for node in &nodes {
        let address = format!(" at {} ended", node.cluster().addresses()[0]);
        assert!(!logged(&["the connection to node", &address]), "{address}");
    }
    let state = nodes[0].run(nodes[0].cluster().read(LONG)).unwrap();
    let on_record: Vec<_> = state.members.values().map(|m| m.key_sha256).collect();
    assert_eq!(on_record, after);
    // New handshakes work with the new ones.
    for node in &mut nodes {
        node.kill();
        node.open();
    }
    until("all connections again", || all_connected(&nodes));
}

#[test]
fn nodes_whose_certificates_all_expired_renew_them_when_they_start() {
    // Red when a full member needs a connection before it can renew.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    nodes.iter_mut().for_each(Node::stop);
    for node in &nodes {
        let directory = Directory::open(&node.dir).unwrap().unwrap();
        let ca = directory.ca().unwrap();
        let key = NodeKey::generate().unwrap();
        let csr = Csr::from_der(&key.csr("x").unwrap()).unwrap();
        let id = directory.identity().unwrap().unwrap().node;
        let long_ago = directory.credentials().unwrap().certificate.not_before_unix_s() - 3 * 24 * 3_600;
        let expired = ca.issue(&csr, id, "x", long_ago, 3_600).unwrap();
        directory.write_certificate(&expired, &key).unwrap();
    }
    nodes.iter_mut().for_each(Node::open);
    nodes[0].apply("agreed");
    until("all connections", || all_connected(&nodes));
}

#[test]
fn certificates_are_renewed_at_two_thirds_of_their_life() {
    // Red without the renewing task: the key stays the same until the certificate ends.
    let home = tempfile::tempdir().unwrap();
    let mut a = Node::new(home.path(), "a");
    a.options.certificate_life = Duration::from_secs(12);
    a.try_found("a").unwrap();
    let (key, end) = (key_of(&a), a.cluster().health().certificate_not_after_unix_s);
    until("a new certificate", || a.cluster().health().certificate_not_after_unix_s > end);
    assert_ne!(key_of(&a), key);
    until("it to be on record", || {
        a.cluster().state().borrow().members.values().all(|m| m.key_sha256 == key_of(&a))
    });
}
