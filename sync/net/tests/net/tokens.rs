//! Joining by tokens, and what can go wrong with them.

use crate::support::*;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_sync::cluster::{NodeId, Refusal, Role};
use tidegate_sync_net::cluster::OpenError;

#[test]
fn each_token_that_is_of_no_use_is_refused_in_its_own_words() {
    // Each block is red without its check in the log or in the verifier.
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let used = a.token(Role::Node);
    let _b = Node::join(home.path(), "b", &used);
    let refused = |token, name: &str| {
        let error = Node::new(home.path(), &format!("{name}-dir")).try_join(name, token, LONG).unwrap_err();
        match error {
            OpenError::Refused(refusal) => refusal,
            other => panic!("{other}"),
        }
    };
    let by = Refusal::TokenUsed { by: NodeId(2), name: "b".to_owned() };
    assert_eq!(refused(&used, "c"), by);
    let short = a.cluster().create_token(Role::Node, Duration::ZERO, "test", LONG);
    let short = a.run(short).unwrap();
    assert_eq!(refused(&short, "d"), Refusal::TokenExpired);
    let mut wrong = a.token(Role::Node);
    wrong.secret[0] ^= 1;
    assert_eq!(refused(&wrong, "e"), Refusal::WrongSecret);
    let fresh = a.token(Role::Node);
    assert_eq!(refused(&fresh, "b"), Refusal::NameTaken { name: "b".to_owned(), by: NodeId(2) });
    let revoked = a.token(Role::Node);
    a.run(a.cluster().revoke_token(revoked.token, "test", LONG)).unwrap();
    assert_eq!(refused(&revoked, "f"), Refusal::UnknownToken);
    // The token of the refused name is still good.
    let _g = Node::join(home.path(), "g", &fresh);
}

#[test]
fn a_token_of_another_cluster_shows_its_secret_to_nobody() {
    // Red when the fingerprint is not checked before the request is sent: then the refusal is the log's.
    let home = tempfile::tempdir().unwrap();
    let (a, other) = (Node::found(home.path(), "a"), Node::found(home.path(), "x"));
    let mut token = other.token(Role::Node);
    token.addresses = a.cluster().addresses().to_vec();
    let error = Node::new(home.path(), "b").try_join("b", &token, LONG).unwrap_err();
    assert!(matches!(error, OpenError::Join { .. }), "{error}");
    assert!(error.to_string().contains("its CA has another fingerprint"), "{error}");
    let counters = a.cluster().health().counters;
    assert_eq!((counters.joins_refused, counters.proposals), (0, 0));
    until("the member's line", || logged(&["was refused", "its CA has another fingerprint"]));
}

#[test]
fn one_token_raced_at_two_members_admits_one() {
    // Red when the member that is asked decides alone.
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let b = Node::join(home.path(), "b", &a.token(Role::Node));
    let token = a.token(Role::Node);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = [(&a, "c"), (&b, "d")]
            .into_iter()
            .map(|(member, name)| {
                let mut token = token.clone();
                token.addresses = member.cluster().addresses().to_vec();
                let home = home.path();
                scope.spawn(move || {
                    let mut node = Node::new(home, name);
                    let result = node.try_join(name, &token, LONG);
                    (node, result)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let won = results.iter().filter(|(_, result)| result.is_ok()).count();
    assert_eq!(won, 1, "{:?}", results.iter().map(|(_, r)| r).collect::<Vec<_>>());
    let lost = results.iter().find_map(|(_, result)| result.as_ref().err()).unwrap();
    assert!(matches!(lost, OpenError::Refused(Refusal::TokenUsed { .. })), "{lost}");
    assert_eq!(a.run(a.cluster().read(LONG)).unwrap().members.len(), 3);
}

#[test]
fn two_nodes_that_join_at_once_get_two_ids() {
    // Red when an id that another node got first is not asked for anew.
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let tokens: Vec<_> = (0..3).map(|_| a.token(Role::Node)).collect();
    let nodes: Vec<_> = std::thread::scope(|scope| {
        let home = home.path();
        let join = |(name, token)| scope.spawn(move || Node::join(home, name, token));
        let threads: Vec<_> = ["b", "c", "d"].into_iter().zip(&tokens).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut ids: Vec<_> = nodes.iter().map(Node::id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [NodeId(2), NodeId(3), NodeId(4)]);
    until("four voters", || voters(&a) == 4);
}

#[test]
fn a_join_whose_answer_was_lost_gets_the_same_id_again() {
    // Red when the key of the first attempt is not used again, or when a used token refuses its own key.
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let mut token = a.token(Role::Node);
    let (relay, lost) = relay(a.cluster().addresses()[0]);
    token.addresses = vec![relay];
    let b = Node::join(home.path(), "b", &token);
    assert!(lost.load(Ordering::Relaxed) > 0, "the relay lost nothing");
    assert_eq!(b.id(), NodeId(2));
    let state = a.run(a.cluster().read(LONG)).unwrap();
    assert_eq!(state.members.len(), 2);
    let asked = state.audit.iter().filter(|e| e.what.starts_with("admit b")).count();
    assert!(asked >= 2, "asked {asked} times");
    until("the new node to hear of the policy", || b.revision() == 1);
}

/// A relay that loses everything that the member says after the first handshake is finished (the client sent
/// a packet with a short header), until the client begins another.
fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let (address, lost) = (front.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = lost.clone();
    std::thread::spawn(move || {
        let mut clients: BTreeMap<SocketAddr, (Arc<UdpSocket>, Arc<AtomicUsize>)> = BTreeMap::new();
        let mut bytes = [0; 2_048];
        while let Ok((length, from)) = front.recv_from(&mut bytes) {
            let (back, mute) = clients.entry(from).or_insert_with(|| {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                back.connect(to).unwrap();
                let mute = Arc::new(AtomicUsize::new(0));
                let (front, counted) = (front.clone(), counted.clone());
                let (reader, muted) = (back.clone(), mute.clone());
                std::thread::spawn(move || {
                    let mut bytes = [0; 2_048];
                    while let Ok(length) = reader.recv(&mut bytes) {
                        match muted.load(Ordering::Relaxed) {
                            2 => drop(counted.fetch_add(1, Ordering::Relaxed)),
                            _ => drop(front.send_to(&bytes[..length], from)),
                        }
                    }
                });
                (back, mute)
            });
            // 0: before the end of the first handshake; 2: muted; 1: since the next one began.
            let (short, initial) = (bytes[0] & 0x80 == 0, bytes[0] & 0xF0 == 0xC0);
            match mute.load(Ordering::Relaxed) {
                0 if short => mute.store(2, Ordering::Relaxed),
                2 if initial => mute.store(1, Ordering::Relaxed),
                _ => {}
            }
            let _ = back.send(&bytes[..length]);
        }
    });
    (address, lost)
}

#[test]
fn a_witness_votes_has_no_ca_key_and_sends_who_joins_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Witness);
    let [a, b, w] = &nodes[..] else { panic!() };
    assert!(a.dir.join("ca.key").exists() && b.dir.join("ca.key").exists());
    // Red when the welcome does not look at the role.
    assert!(!w.dir.join("ca.key").exists() && w.dir.join("ca.pem").exists());
    let mut token = w.token(Role::Node);
    token.addresses = w.cluster().addresses().to_vec();
    // Red when a witness answers instead of naming the others.
    let d = Node::join(home.path(), "d", &token);
    assert_eq!(d.id(), NodeId(4));
    let error = Node::new(home.path(), "e-dir").try_join("bad name", &w.token(Role::Node), LONG).unwrap_err();
    assert!(matches!(error, OpenError::Invalid(_)), "{error}");
}
