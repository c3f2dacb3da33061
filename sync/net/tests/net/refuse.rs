//! Who is not let in, and what each side says about it.

use crate::support::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;
use tidegate_sync::cluster::{NodeId, Outcome, Role, StoreId};
use tidegate_sync_net::cluster::Cluster;
use tidegate_sync_net::cluster::{OpenError, ProposeError, RecoverError, Standing, Versions};
use tidegate_sync_net::identity::Directory;
use tidegate_sync_net::pki::{ALPN, Ca, Csr, NodeCertificate, NodeKey, node_name};
use tidegate_sync_net::store::RaftStore;

const DAY_S: u64 = 24 * 3_600;

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn last_error(node: &Node, peer: u64) -> String {
    let health = node.cluster().health();
    let peer = health.peers.into_iter().find(|p| p.id == NodeId(peer));
    peer.and_then(|p| p.last_error).unwrap_or_default()
}

fn standing(node: &Node) -> Standing {
    node.cluster().standing().borrow().clone()
}

/// Trusts anybody: what matters is what the member says.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Dials a member with that certificate; what the client is told.
fn dial(node: &Node, chain: Vec<CertificateDer<'static>>, key: &NodeKey) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pem = key.pem();
    let der = <PrivatePkcs8KeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    let key = PrivateKeyDer::from(der.unwrap()).clone_key();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let address = node.cluster().addresses()[0];
    node.run(async move {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        match endpoint.connect_with(config, address, "any.tidegate").unwrap().await {
            Ok(connection) => connection.closed().await.to_string(),
            Err(error) => error.to_string(),
        }
    })
}

fn issue(ca: &Ca, node: u64, from_s: u64, life_s: u64) -> (NodeCertificate, NodeKey) {
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.csr("x").unwrap()).unwrap();
    (ca.issue(&csr, NodeId(node), "x", from_s, life_s).unwrap(), key)
}

fn ca(node: &Node) -> Ca {
    Directory::open(&node.dir).unwrap().unwrap().ca().unwrap()
}

#[test]
fn strange_certificates_are_refused_each_in_its_own_words_on_both_sides() {
    // Each line is red without its check in the verifier.
    let home = tempfile::tempdir().unwrap();
    let (a, other) = (Node::found(home.path(), "a"), Node::found(home.path(), "x"));
    let refused = |(certificate, key): (NodeCertificate, NodeKey), words: &str| {
        let told = dial(&a, vec![certificate.der().clone()], &key);
        assert!(told.contains(words), "{told}");
        until("the member's own line", || logged(&["WARN", "was refused", words]));
    };
    refused(issue(&ca(&other), 1, now_s(), DAY_S), "the certificate is of cluster");
    refused(issue(&ca(&a), 1, now_s() - 3 * DAY_S, DAY_S), "the certificate of node 1 expired");
    refused(issue(&ca(&a), 1, now_s() + 3 * DAY_S, DAY_S), "is good from");
    refused(issue(&ca(&a), 7, now_s(), DAY_S), "node 7 is no member");
    let impostor = Ca::create(a.cluster().cluster().0, "edge", now_s()).unwrap();
    refused(issue(&impostor, 1, now_s(), DAY_S), "not signed by this cluster's CA");
    let key = NodeKey::generate().unwrap();
    let name = node_name(a.cluster().cluster().0, NodeId(1));
    let pair = rcgen::KeyPair::from_pem(&key.pem()).unwrap();
    let own = rcgen::CertificateParams::new(vec![name]).unwrap().self_signed(&pair).unwrap();
    let told = dial(&a, vec![own.der().clone()], &key);
    assert!(told.contains("signed by itself"), "{told}");
    assert!(a.cluster().health().counters.handshakes_refused >= 6);
}

#[test]
fn a_peer_of_another_version_is_refused_in_clear_words_on_both_sides() {
    // Red without the range of versions before the rest of the hello.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    nodes[2].stop();
    nodes[2].options.versions = Versions { min: 2, max: 3 };
    nodes[2].open();
    until("both sides to say so", || {
        last_error(&nodes[0], 3).contains("speaks 2 to 3, its peer 1")
            && last_error(&nodes[2], 1).contains("speaks 1, its peer 2 to 3")
    });
    assert!(logged(&["node 3 at", "was refused: no common protocol version", "it is too new"]));
    assert!(logged(&["node 1 at", "was refused: no common protocol version", "it is too old"]));
    // The others go on.
    nodes[0].apply("next");
    nodes[2].stop();
    nodes[2].options.versions = Versions { min: 1, max: 3 };
    nodes[2].open();
    until("the upgraded node to follow", || nodes[2].revision() == 2);
}

#[test]
fn a_removed_node_is_told_and_stays_out() {
    // Red when a removed node is merely unknown in the handshake: then it never learns why.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let at = leader(&nodes);
    let (away, here) = ((at + 1) % 3, (at + 2) % 3);
    until("the policy at those two", || nodes[away].revision() == 1 && nodes[here].revision() == 1);
    nodes[away].kill();
    let remove = |id| nodes[at].run(nodes[at].cluster().remove(NodeId(id), "test", LONG)).unwrap();
    assert_eq!(remove(away as u64 + 1), Outcome::Done);
    until("one voter less", || voters(&nodes[at]) < 3);
    nodes[away].open();
    until("the one that was away to hear it", || matches!(standing(&nodes[away]), Standing::Removed { .. }));
    until("its policy to go", || nodes[away].cluster().policy().borrow().is_none());
    // Where nobody can tell it again: red when it is not written down.
    let (alone, dir) = (home.path().join("alone"), nodes[away].dir.clone());
    nodes[away].stop();
    std::fs::rename(&dir, &alone).unwrap();
    std::fs::write(alone.join("members.json"), b"{}").unwrap();
    nodes[away].dir = alone;
    nodes[away].open();
    assert!(matches!(standing(&nodes[away]), Standing::Removed { .. }));
    assert!(nodes[away].cluster().policy().borrow().is_none());
    let command = tidegate_sync::cluster::Command::ConfirmPolicy { revision: 1 };
    let error = nodes[away].run(nodes[away].cluster().propose(command, "test", LONG)).unwrap_err();
    assert!(matches!(error, ProposeError::Standing(Standing::Removed { .. })), "{error}");
    // And one that is connected.
    let remove = |id| nodes[at].run(nodes[at].cluster().remove(NodeId(id), "test", LONG)).unwrap();
    assert_eq!(remove(here as u64 + 1), Outcome::Done);
    until("the connected one to hear it", || matches!(standing(&nodes[here]), Standing::Removed { .. }));
    nodes[at].apply("alone");
    assert_eq!(nodes[at].cluster().health().peers.len(), 0);
    assert!(logged(&["was refused", "was removed from the cluster; an id never returns"]));
}

#[test]
fn recovery_starts_a_generation_that_fences_the_old_one() {
    // Red when the hello does not compare generations: the old majority would go on beside the new cluster.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Witness);
    until("the policy everywhere", || nodes.iter().all(|n| n.revision() == 1));
    assert_eq!(nodes[0].apply("second"), 2);
    until("it everywhere", || nodes.iter().all(|n| n.revision() == 2));
    let running = Cluster::recover(&nodes[0].dir, "test").unwrap_err();
    assert!(running.to_string().contains("has this store open"), "{running}");
    nodes.iter_mut().for_each(Node::kill);
    let (dir, witness) = (nodes[0].dir.clone(), nodes[2].dir.clone());
    let recovered = |dir: &Path| {
        let mut result = Cluster::recover(dir, "test");
        until("the killed store to be free", || {
            let busy = matches!(&result, Err(e) if e.to_string().contains("has this store open"));
            if busy {
                result = Cluster::recover(dir, "test");
            }
            !busy
        });
        result
    };
    assert!(matches!(recovered(&witness), Err(RecoverError::Witness)));
    assert_eq!(recovered(&dir).unwrap(), 2);
    nodes[0].open();
    assert_eq!(nodes[0].apply("third"), 3);
    assert_eq!(nodes[0].cluster().health().generation, 2);
    for n in [1, 2] {
        nodes[n].open();
        until("the old one to be fenced", || standing(&nodes[n]) == Standing::Fenced { own: 1, now: 2 });
        until("its policy to go", || nodes[n].cluster().policy().borrow().is_none());
    }
    assert!(logged(&["was refused", "it is fenced"]));
    // The survivor takes new members.
    let d = Node::join(home.path(), "d", &nodes[0].token(Role::Node));
    until("the new node to follow", || d.revision() == 3);
    assert_eq!((d.id(), d.cluster().health().generation), (NodeId(4), 2));
}

#[test]
fn a_wiped_store_does_not_come_back_under_its_old_id() {
    // Red without the store's id in the identity (first half), and in the membership (second half).
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    nodes[2].stop();
    let directory = Directory::open(&nodes[2].dir).unwrap().unwrap();
    std::fs::remove_file(directory.store_path()).unwrap();
    let error = nodes[2].try_open().unwrap_err();
    assert!(matches!(error, OpenError::WipedStore(_)), "{error}");
    let id = StoreId([9; 16]);
    drop(RaftStore::create_file(&directory.store_path(), id).unwrap());
    let error = nodes[2].try_open().unwrap_err();
    assert!(matches!(error, OpenError::WipedStore(_)), "{error}");
    // Somebody makes the identity fit.
    let mut identity = directory.identity().unwrap().unwrap();
    identity.store = id;
    directory.write_identity(&identity).unwrap();
    nodes[2].open();
    until("the others to refuse it", || last_error(&nodes[2], 1).contains("another Raft store"));
    until("the member's line", || logged(&["was refused", "another Raft store than the one"]));
    until("the other direction too", || last_error(&nodes[0], 3).contains("another store"));
    nodes[0].apply("next");
    assert_eq!(nodes[2].revision(), 0);
}

#[test]
fn a_copied_directory_does_not_make_two_nodes_of_one_id() {
    // Red without `only_one`: both would vote.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    nodes[2].stop();
    let copy = home.path().join("copy");
    let made = std::process::Command::new("cp").arg("-a").args([&nodes[2].dir, &copy]).status().unwrap();
    assert!(made.success());
    nodes[2].open();
    until("the real one to be in", || {
        nodes[0].cluster().health().peers.iter().all(|p| p.connected && p.connected_from)
    });
    let mut twin = Node::new(home.path(), "copy");
    twin.options.listen = loopback();
    twin.open();
    until("the copy to be refused", || last_error(&twin, 1).contains("two nodes run with one identity"));
    until("the member's line", || logged(&["was refused", "two nodes run with one identity"]));
    // The real one is not disturbed.
    nodes[2].apply("next");
}
