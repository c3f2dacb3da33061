//! Handshakes in memory: who gets in, and what the others are told.

use super::*;
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_sync::cluster::{ClusterId, NodeId};

const CLUSTER: ClusterId = ClusterId([0xAB; 16]);
const OTHER: ClusterId = ClusterId([0xCD; 16]);

#[expect(clippy::disallowed_methods, reason = "rustls reads the clock of the machine")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn ca(cluster: ClusterId) -> Ca {
    Ca::create(cluster, "east", now()).unwrap()
}

fn credentials(ca: &Ca, node: u64) -> Credentials {
    between(ca, node, now()..now() + 1_000)
}

fn between(ca: &Ca, node: u64, good: std::ops::Range<u64>) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.csr("x").unwrap()).unwrap();
    let certificate = ca.issue_between(&csr, NodeId(node), &format!("node{node}"), good).unwrap();
    Credentials::new(certificate, key, ca.certificate().clone()).unwrap()
}

/// Members 1 to 3; 4 was removed.
fn membership() -> Arc<ArcSwap<Membership>> {
    let named = |ids: &[u64]| -> Vec<(NodeId, String)> {
        ids.iter().map(|id| (NodeId(*id), format!("node{id}"))).collect()
    };
    let mut membership = Membership::new(CLUSTER, named(&[1, 2, 3]));
    membership.removed_for_tests(named(&[4]));
    Arc::new(ArcSwap::from_pointee(membership))
}

struct Met {
    server: Result<Accepted, PeerError>,
}

/// Shakes hands; on failure, which side refused and its reason.
fn meet(
    client: ClientConfig,
    server: ServerConfig,
    name: ServerName<'static>,
) -> Result<Met, (&'static str, String)> {
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().map_err(|e| ("server", reason(&e)))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().map_err(|e| ("client", reason(&e)))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let certificates = server.peer_certificates().unwrap_or_default();
    Ok(Met { server: accepted(server.alpn_protocol(), certificates) })
}

/// Node 1 dials node 2.
fn dial(one: &Credentials, two: &Credentials) -> Result<Met, (&'static str, String)> {
    dial_as(one, two, 2)
}

fn dial_as(one: &Credentials, two: &Credentials, dialled: u64) -> Result<Met, (&'static str, String)> {
    let client = client_config(one, membership()).unwrap();
    let server = server_config(two, membership()).unwrap();
    meet(client, server, server_name(one.ca.cluster(), NodeId(dialled)).unwrap())
}

#[test]
fn members_meet() {
    let ca = ca(CLUSTER);
    let met = dial(&credentials(&ca, 1), &credentials(&ca, 2)).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(met.server, Ok(Accepted::Member(NodeId(1))));
}

/// The dialling and the accepting side must both refuse `bad`, with these words. Red when one of the two
/// verifiers leaves out the check.
fn refused_both_ways(good: &Credentials, bad: &Credentials, words: &str) {
    let (side, why) = dial(good, bad).err().expect("dialled");
    assert!(side == "client" && why.contains(words), "{side}: {why}");
    // A bad client believes what the good server shows, so it is given the good one's CA.
    let client = Credentials {
        certificate: bad.certificate.clone(),
        key: NodeKey::from_pem(&bad.key.pem()).unwrap(),
        ca: good.ca.clone(),
    };
    let name = good.certificate.node().0;
    let (side, why) = dial_as(&client, good, name).err().expect("accepted");
    assert!(side == "server" && why.contains(words), "{side}: {why}");
}

#[test]
fn certificates_that_are_not_let_in() {
    let (ours, theirs) = (ca(CLUSTER), ca(OTHER));
    let one = credentials(&ours, 1);
    refused_both_ways(&one, &credentials(&theirs, 2), &format!("is of cluster {OTHER}"));
    let past = now() - 500_000..now() - 100;
    refused_both_ways(&one, &between(&ours, 2, past), "of node 2 expired at 2");
    let future = now() + 10_000..now() + 20_000;
    refused_both_ways(&one, &between(&ours, 2, future), "of node 2 is good from 2");
    refused_both_ways(&one, &credentials(&ours, 4), "node 4 (node4) was removed");
    refused_both_ways(&one, &credentials(&ours, 9), "node 9 is no member");
    refused_both_ways(&one, &self_signed(), "signed by itself");
    // Another CA that calls itself like ours.
    refused_both_ways(&one, &credentials(&ca(CLUSTER), 2), "not signed by this cluster's CA");
}

fn self_signed() -> Credentials {
    let key = NodeKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(node_name(CLUSTER, NodeId(2)).try_into().unwrap())];
    let certificate = NodeCertificate::from_der(params.self_signed(&key.0).unwrap().der()).unwrap();
    Credentials { certificate, key, ca: ca(CLUSTER).certificate().clone() }
}

#[test]
fn another_member_than_the_dialled_one() {
    // Red when only membership is checked: two members whose addresses are mixed up would go unnoticed.
    let ca = ca(CLUSTER);
    let (side, why) = dial_as(&credentials(&ca, 1), &credentials(&ca, 2), 3).err().unwrap();
    assert!(side == "client" && why.contains("node 2 answers where node 3"), "{side}: {why}");
}

#[test]
fn a_members_certificate_signs_nothing() {
    // Red when the chain may go over a node's certificate.
    let ours = ca(CLUSTER);
    let two = credentials(&ours, 2);
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.csr("x").unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(two.certificate.der(), &two.key.0).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(node_name(CLUSTER, NodeId(3)).try_into().unwrap())];
    let signed = params.signed_by(&csr.key, &issuer).unwrap();
    let three = Credentials {
        certificate: NodeCertificate::from_der(signed.der()).unwrap(),
        key,
        // It sends the other's certificate as the one above its own.
        ca: CaCertificate::from_der(ours.certificate().der()).unwrap(),
    };
    refused_both_ways(&credentials(&ours, 1), &three, "not signed by this cluster's CA");
}

#[test]
fn the_ca_signs_for_its_own_cluster_only() {
    // By its name constraint. Red without it, or without the comparison of clusters.
    let ours = ca(CLUSTER);
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.csr("x").unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(
        ours.certificate().der(),
        NodeKey::from_pem(&ours.key_pem()).unwrap().0,
    )
    .unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(node_name(OTHER, NodeId(2)).try_into().unwrap())];
    let signed = params.signed_by(&csr.key, &issuer).unwrap();
    let certificate = NodeCertificate::from_der(signed.der()).unwrap();
    let two = Credentials { certificate, key, ca: ours.certificate().clone() };
    let one = credentials(&ours, 1);
    let (side, why) = dial(&one, &two).err().unwrap();
    assert!(side == "client" && why.contains("certificate"), "{side}: {why}");
    assert!(dial_as(&two, &one, 1).is_err());
}

#[test]
fn a_change_of_membership_counts_from_the_next_handshake_on() {
    // The same configurations, used twice. Red when a session is resumed, or the membership was copied.
    let ca = ca(CLUSTER);
    let known = membership();
    let client = client_config(&credentials(&ca, 1), known.clone()).unwrap();
    let server = server_config(&credentials(&ca, 2), known.clone()).unwrap();
    let name = server_name(CLUSTER, NodeId(2)).unwrap();
    assert!(meet(client.clone(), server.clone(), name.clone()).is_ok());
    let only_two = Membership::new(CLUSTER, [(NodeId(2), "node2".to_owned())]);
    known.store(Arc::new(only_two.clone()));
    let (side, why) = meet(client.clone(), server.clone(), name.clone()).err().unwrap();
    assert!(side == "server" && why.contains("node 1 is no member"), "{side}: {why}");
    // A node that was away learns of newer members from one that it knows.
    known.store(Arc::new(only_two.with_newer([(NodeId(1), "node1".to_owned())])));
    assert!(meet(client, server, name).is_ok());
}

#[test]
fn what_was_removed_is_not_let_in_as_newer() {
    let newer = membership().load().as_ref().clone().with_newer([(NodeId(4), "node4".to_owned())]);
    assert!(matches!(newer.check(NodeId(4)), Err(PeerError::Removed { .. })));
}

#[test]
fn joining_shows_nothing_and_checks_the_fingerprint() {
    let ours = ca(CLUSTER);
    let server = || server_config(&credentials(&ours, 2), membership()).unwrap();
    let name = || server_name(CLUSTER, NodeId(1)).unwrap();
    let (client, seen) = join_config(ours.certificate().sha256()).unwrap();
    assert!(seen.ca().is_none() && !seen.is_foreign());
    let met = meet(client, server(), name()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(met.server, Ok(Accepted::Joining));
    assert_eq!(seen.ca(), Some(ours.certificate()));

    // Red when the fingerprint is not compared: the secret would go to whoever answers.
    let (client, seen) = join_config(ca(CLUSTER).certificate().sha256()).unwrap();
    let (side, why) = meet(client, server(), name()).err().unwrap();
    assert!(side == "client" && why.contains("another fingerprint"), "{side}: {why}");
    assert!(seen.is_foreign() && seen.ca().is_none());

    // Red when the fingerprint alone suffices: a CA's certificate is no secret.
    let stranger = Credentials { ca: ours.certificate().clone(), ..self_signed() };
    let server = server_config(&stranger, membership()).unwrap();
    let (client, seen) = join_config(ours.certificate().sha256()).unwrap();
    let (side, why) = meet(client, server, name()).err().unwrap();
    assert!(side == "client" && why.contains("signed by itself"), "{side}: {why}");
    assert!(!seen.is_foreign() && seen.ca().is_none());
}

#[test]
fn a_member_without_certificate_is_nobody() {
    // Red when the protocol alone makes a member.
    let ours = ca(CLUSTER);
    let (mut client, _) = join_config(ours.certificate().sha256()).unwrap();
    for alpn in [ALPN, ALPN_SYNC] {
        client.alpn_protocols = vec![alpn.to_vec()];
        let server = server_config(&credentials(&ours, 2), membership()).unwrap();
        let name = server_name(CLUSTER, NodeId(2)).unwrap();
        let met = meet(client.clone(), server, name).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(met.server, Err(PeerError::Missing));
    }
    assert_eq!(accepted(Some(b"h3"), &[]), Err(PeerError::Protocol));
    assert_eq!(accepted(None, &[]), Err(PeerError::Protocol));
}

#[test]
fn session_records_have_a_protocol_of_their_own() {
    let ours = ca(CLUSTER);
    let client = sync_config(&credentials(&ours, 1), membership()).unwrap();
    let server = server_config(&credentials(&ours, 2), membership()).unwrap();
    let met = meet(client, server, server_name(CLUSTER, NodeId(2)).unwrap());
    assert_eq!(met.unwrap_or_else(|e| panic!("{e:?}")).server, Ok(Accepted::Sync(NodeId(1))));
}

#[test]
fn no_protocol_in_common_ends_the_handshake() {
    let ours = ca(CLUSTER);
    let mut client = client_config(&credentials(&ours, 1), membership()).unwrap();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let server = server_config(&credentials(&ours, 2), membership()).unwrap();
    let (side, _) = meet(client, server, server_name(CLUSTER, NodeId(2)).unwrap()).err().unwrap();
    assert_eq!(side, "server");
}

#[test]
fn a_changed_request_is_refused_at_every_byte() {
    // Red when the request's signature is not checked.
    let key = NodeKey::generate().unwrap();
    let request = key.csr("node7").unwrap();
    assert_eq!(Csr::from_der(&request).unwrap().key_sha256(), key.sha256());
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let (_, parsed) = X509CertificationRequest::from_der(&request).unwrap();
    let signed = parsed.certification_request_info.raw.len() + 2;
    let mut by_signature = 0;
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 0x10;
        match Csr::from_der(&changed) {
            // How the signature's algorithm is written is not signed; it changes nothing.
            Ok(csr) => assert!(at > signed && csr.key_sha256() == key.sha256(), "changed at byte {at}"),
            Err(PkiError::Request) => by_signature += 1,
            Err(PkiError::Malformed { .. } | PkiError::Algorithm(_)) => {}
            Err(other) => panic!("at byte {at}: {other}"),
        }
    }
    assert!(by_signature > 100, "only {by_signature}");
    assert!(matches!(Csr::from_der(&[]), Err(PkiError::Malformed { .. })));
    assert!(Csr::from_der(&[&request[..], &[0]].concat()).is_err());
    assert!(Csr::from_der(&vec![0x30; Csr::LONGEST + 1]).unwrap_err().to_string().contains("too many"));
}

#[test]
fn what_is_in_a_request_beside_its_key_does_not_count() {
    // A request for another node's name, as a CA. Red when anything of it gets into the certificate.
    let key = NodeKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(node_name(CLUSTER, NodeId(1)).try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key.0).unwrap();
    let ca = ca(CLUSTER);
    let csr = Csr::from_der(request.der()).unwrap();
    let certificate = ca.issue(&csr, NodeId(5), "node5", now(), 1_000).unwrap();
    assert_eq!((certificate.cluster(), certificate.node()), (CLUSTER, NodeId(5)));
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    assert!(!parsed.is_ca());
}

#[test]
fn only_keys_of_two_kinds() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    assert!(matches!(Csr::from_der(request.der()), Err(PkiError::Algorithm(_))));
    assert!(matches!(NodeKey::from_pem(&key.serialize_pem()), Err(PkiError::Algorithm(_))));
}

#[test]
fn what_a_certificate_says_survives_pem() {
    let ca = ca(CLUSTER);
    let start = now();
    let it = between(&ca, 7, start..start + 90 * 86_400).certificate;
    assert_eq!(NodeCertificate::from_pem(&it.pem()).unwrap(), it);
    assert_eq!(it.not_after_unix_s(), start + 90 * 86_400);
    assert_eq!(it.not_before_unix_s(), start - 3_600);
    let again = CaCertificate::from_pem(&ca.certificate().pem()).unwrap();
    assert_eq!((&again, again.sha256()), (ca.certificate(), ca.certificate().sha256()));
    let loaded = Ca::new(again, NodeKey::from_pem(&ca.key_pem()).unwrap()).unwrap();
    let three = between(&loaded, 3, start..start + 100);
    assert!(dial(&credentials(&ca, 1), &between(&loaded, 2, start..start + 100)).is_ok());
    // Neither is taken for the other.
    assert!(CaCertificate::from_der(it.der()).is_err());
    assert!(NodeCertificate::from_der(ca.certificate().der()).is_err());
    // Nor another's key.
    let key = NodeKey::generate().unwrap();
    assert!(matches!(Ca::new(ca.certificate().clone(), key), Err(PkiError::Mismatch { .. })));
    let key = NodeKey::generate().unwrap();
    let mixed = Credentials::new(three.certificate, key, ca.certificate().clone());
    assert!(matches!(mixed, Err(PkiError::Mismatch { .. })));
}

#[test]
fn renewal_is_due_after_two_thirds() {
    assert_eq!(renewal_due_unix_s(1_000, 1_000 + 90 * DAY_S), 1_000 + 60 * DAY_S);
    assert_eq!(renewal_due_unix_s(1_000, 1_003), 1_002);
    // A damaged or mad one is due at once.
    assert_eq!(renewal_due_unix_s(1_000, 10), 1_000);
}

#[test]
fn names_are_read_as_they_are_written_only() {
    let name = node_name(CLUSTER, NodeId(12));
    assert_eq!(name, "n12.abababababababababababababababab.tidegate");
    assert_eq!(name::parse_node(&name), Some((CLUSTER, NodeId(12))));
    let cluster = CLUSTER.to_string();
    for wrong in [
        "n12.tidegate".to_owned(),
        name.to_uppercase(),
        name.replace("n12", "n012"),
        name.replace("n12", "n+12"),
        name.replace("n12", "12"),
        format!("{name}."),
        format!("x.{name}"),
        format!("n12.{cluster}.example"),
        format!("n12.{}.tidegate", cluster.to_uppercase()),
        format!("n12.{}.tidegate", &cluster[2..]),
    ] {
        assert_eq!(name::parse_node(&wrong), None, "{wrong}");
    }
    assert_eq!(name::parse_ca(&name::ca_name(CLUSTER)), Some(CLUSTER));
    assert_eq!(name::parse_ca(&name), None);
}

#[test]
fn nonsense_certificates_are_refused() {
    // Each byte of a good one flipped: never a panic, and never a different name with a good chain.
    let ours = ca(CLUSTER);
    let two = credentials(&ours, 2);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ours.certificate().der().clone()).unwrap();
    let at_now = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(now()));
    let good = two.certificate.der();
    assert!(peer::verify(ours.certificate(), &roots, good, at_now).is_ok());
    for at in 0..good.len() {
        let mut changed = good.to_vec();
        changed[at] ^= 0x01;
        let changed = CertificateDer::from(changed);
        if let Ok(seen) = peer::verify(ours.certificate(), &roots, &changed, at_now) {
            panic!("changed at byte {at}: {seen:?}");
        }
    }
    let key: PrivateKeyDer<'static> = two.key.der();
    assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
}
