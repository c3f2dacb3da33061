//! A member that went mad in what it says of sessions and in its heartbeats, and strangers: refused, counted, no effect.

use crate::support::exchange::*;
use crate::support::*;
use quinn::Connection;
use ring::hmac;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::session::owner::Boot;
use tidegate_sync::cluster::{NodeId, Role};
use tidegate_sync::codec;
use tidegate_sync::replication::heartbeat::{Cover, HEARTBEAT_BYTES_MAX, Heard, Heartbeat, SEAL_BYTES};
use tidegate_sync_net::identity::{Directory, Identity};
use tidegate_sync_net::pki::{self, Membership};
use tidegate_sync_net::replicate::{BACK_BYTES_MAX, BATCH_BYTES_MAX};

/// A process with the keys of node 2, where node 2 is expected, that says what it likes to node 1.
struct Mad {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    identity: Identity,
    to: SocketAddr,
    heartbeats: UdpSocket,
}

/// What this process is for node 1: an envelope's kinds, as the product numbers them.
const HELLO: u8 = 1;
const ANSWER: u8 = 2;

fn envelope(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[1, kind][..], &(body.len() as u32).to_le_bytes(), body].concat()
}

fn greeting(boot: u32, streams: u16, heartbeats: &[SocketAddr]) -> Vec<u8> {
    let body = codec::encode(&(boot, streams, 5_u64, heartbeats));
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

impl Mad {
    /// Takes the place of a stopped node.
    fn instead_of(b: &mut Node, a: &Node) -> Mad {
        let at = b.cluster().addresses()[0];
        b.stop();
        let directory = Directory::open(&b.dir).unwrap().unwrap();
        let identity = directory.identity().unwrap().unwrap();
        let members = [(NodeId(1), "a".to_owned()), (NodeId(2), "b".to_owned())];
        let membership =
            Arc::new(arc_swap::ArcSwap::from_pointee(Membership::new(identity.cluster, members)));
        let credentials = directory.credentials().unwrap();
        let server = pki::server_config(&credentials, membership.clone()).unwrap();
        let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
        let client = pki::sync_config(&credentials, membership).unwrap();
        let client = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut endpoint = runtime.block_on(async {
            quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(server)), at).unwrap()
        });
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
        let heartbeats = UdpSocket::bind("127.0.0.1:0").unwrap();
        heartbeats.set_read_timeout(Some(LONG)).unwrap();
        Mad { runtime, endpoint, identity, to: a.cluster().addresses()[0], heartbeats }
    }

    fn hello(&self, node: NodeId) -> Vec<u8> {
        let it = &self.identity;
        codec::encode(&(it.cluster, node, it.generation, it.store, [7_u8; 16], "mad"))
    }

    async fn dial(&self) -> Connection {
        let name = pki::node_name(self.identity.cluster, NodeId(1));
        self.endpoint.connect(self.to, &name).unwrap().await.unwrap()
    }

    /// Dials, and says hello and this greeting; the connection, and the answer.
    async fn greet(&self, node: NodeId, greeting: &[u8]) -> (Connection, Vec<u8>) {
        let connection = self.dial().await;
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let hello = [&[1, 0, 1, 0][..], &self.hello(node)].concat();
        let _ = send.write_all(&[envelope(HELLO, &hello), greeting.to_vec()].concat()).await;
        let _ = send.finish();
        let answer = receive.read_to_end(1 << 20).await.unwrap_or_default();
        (connection, answer)
    }

    /// Waits for node 1's own connection for records, and answers it.
    async fn accept(&self, greeting: &[u8]) -> Connection {
        loop {
            let Ok(connection) = self.endpoint.accept().await.unwrap().await else { continue };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            if data.protocol.as_deref() != Some(pki::ALPN_SYNC) {
                continue;
            }
            let Ok((mut send, mut receive)) = connection.accept_bi().await else { continue };
            let _ = receive.read_to_end(1 << 20).await;
            let it = codec::encode(&BTreeMap::<u64, u64>::new());
            let body = [&[0, 0, 1, 0][..], &self.hello(NodeId(2)), &it].concat();
            let _ = send.write_all(&[envelope(ANSWER, &body), greeting.to_vec()].concat()).await;
            let _ = send.finish();
            return connection;
        }
    }

    /// A whole link as boot `boot`: its own connection, node 1's, and where node 1 takes heartbeats.
    fn link(&self, boot: u32, at_a: &Exchanging) -> (Connection, Connection, SocketAddr) {
        let before = at_a.look(|s| s.events.len());
        let greeting = greeting(boot, 2, &[self.heartbeats.local_addr().unwrap()]);
        let (own, theirs, answer) = self.runtime.block_on(async {
            let theirs = self.accept(&greeting);
            let ((own, answer), theirs) = tokio::join!(self.greet(NodeId(2), &greeting), theirs);
            (own, theirs, answer)
        });
        let answered = 6 + u32::from_le_bytes(answer[2..6].try_into().unwrap()) as usize;
        let (_, _, _, at): (u32, u16, u64, Vec<SocketAddr>) =
            codec::decode::<_, 1_024>(&answer[answered + 4..]).unwrap();
        until("the link", || {
            at_a.look(|s| s.events.len() > before && s.links.get(&2).is_some_and(|l| l.it.boot == boot))
        });
        (own, theirs, at[0])
    }

    /// Waits until node 1 closed that connection.
    fn closed(&self, connection: &Connection, what: &str) {
        let closed = self.runtime.block_on(async { tokio::time::timeout(LONG, connection.closed()).await });
        assert!(closed.is_ok(), "{what}: left open");
    }
}

fn mad() -> (tempfile::TempDir, Node, Exchanging, Mad) {
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let mut b = Node::join(home.path(), "b", &a.token(Role::Node));
    until("the members", || a.cluster().state().borrow().members.len() == 2);
    let mad = Mad::instead_of(&mut b, &a);
    let at_a = exchanging(&a, 1, 2);
    (home, a, at_a, mad)
}

#[test]
fn streams_that_break_the_rules_end_the_link_and_are_counted() {
    let (_home, _a, at_a, mad) = mad();
    let records = |number: u16| [&b"R\x01"[..], &number.to_le_bytes()].concat();
    let announced = |head: &[u8], length: usize| [head, &(length as u32).to_le_bytes(), &[0; 9]].concat();
    let back = b"B\x01\0\0";
    let nonsense = [&records(0)[..], &8_u32.to_le_bytes(), b"nonsense"].concat();
    // Streams on its own connection, and the one on node 1's.
    type Lie = (&'static str, Vec<Vec<u8>>, Vec<u8>);
    let lies: [Lie; 9] = [
        ("no stream of records", vec![b"X\x01\0\0".to_vec()], vec![]),
        ("another version", vec![b"R\x02\0\0".to_vec()], vec![]),
        ("a stream too many", vec![records(2)], vec![]),
        ("a stream twice", vec![records(1), records(1)], vec![]),
        ("an empty batch", vec![announced(&records(0), 0)], vec![]),
        ("a batch too long", vec![announced(&records(0), BATCH_BYTES_MAX + 1)], vec![]),
        ("a batch that the node refuses", vec![nonsense], vec![]),
        ("no way back", vec![], b"R\x01\0\0".to_vec()),
        ("a way back too long", vec![], announced(back, BACK_BYTES_MAX + 1)),
    ];
    for (what, streams, way_back) in lies {
        let (own, theirs, _) = mad.link(9, &at_a);
        let before = at_a.peer(2).refused;
        // Kept until the end: their being dropped would be an end of its own.
        let mut kept = Vec::new();
        mad.runtime.block_on(async {
            for bytes in streams {
                let mut stream = own.open_uni().await.unwrap();
                let _ = stream.write_all(&bytes).await;
                kept.push(stream);
            }
            if !way_back.is_empty() {
                let mut stream = theirs.open_uni().await.unwrap();
                let _ = stream.write_all(&way_back).await;
                kept.push(stream);
            }
        });
        mad.closed(&own, what);
        mad.closed(&theirs, what);
        until(what, || at_a.peer(2).refused == before + 1);
        assert_eq!(at_a.received(2, 0) + at_a.received(2, 1), 0, "{what}");
    }
    // No more streams can be opened than it said (and four that a stranger has): red without the limit.
    let (own, _theirs, _) = mad.link(9, &at_a);
    let opened = mad.runtime.block_on(async {
        let mut opened = Vec::new();
        while opened.len() < 100
            && let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), own.open_uni()).await
        {
            opened.push(stream.unwrap());
        }
        opened.len()
    });
    assert!(opened <= 4, "{opened} streams");
}

#[test]
fn absurd_greetings_false_names_and_strangers_are_refused() {
    let (_home, a, at_a, mad) = mad();
    let at = mad.heartbeats.local_addr().unwrap();
    let good = greeting(9, 2, &[at]);
    let bad = [
        ("no streams", NodeId(2), greeting(9, 0, &[at])),
        ("too many streams", NodeId(2), greeting(9, 65, &[at])),
        ("no addresses", NodeId(2), greeting(9, 2, &[])),
        ("an address that is none", NodeId(2), greeting(9, 2, &["0.0.0.0:5".parse().unwrap()])),
        ("a length beyond the limit", NodeId(2), vec![255; 8]),
        ("bytes that are left", NodeId(2), [&9_u32.to_le_bytes()[..], &[0; 9]].concat()),
        ("another's name", NodeId(1), good),
    ];
    for (what, node, greeting) in bad {
        let before = at_a.health().connections_refused;
        let (connection, _) = mad.runtime.block_on(mad.greet(node, &greeting));
        mad.closed(&connection, what);
        until(what, || at_a.health().connections_refused == before + 1);
    }
    assert!(at_a.look(|s| s.events.is_empty()));
    assert_eq!(at_a.peer(2).refused, 6, "the greetings; who lies about its name is told so");
    // Without a certificate, and by another protocol.
    let refused = || a.cluster().health().counters.handshakes_refused;
    let token = a.token(Role::Node);
    for alpn in [pki::ALPN_SYNC, b"h3"] {
        let before = refused();
        let (mut tls, _) = pki::join_config(token.ca_sha256).unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        mad.runtime.block_on(async {
            let connecting = mad.endpoint.connect_with(config, mad.to, "any.tidegate").unwrap();
            if let Ok(connection) = connecting.await {
                assert!(tokio::time::timeout(LONG, connection.closed()).await.is_ok());
            }
        });
        until("the count", || refused() > before);
    }
    assert!(at_a.look(|s| s.events.is_empty()));
}

#[test]
fn a_node_without_an_exchange_takes_no_records() {
    let (_home, _a, mut at_a, mad) = mad();
    at_a.exchange = None;
    let connection = mad.runtime.block_on(mad.dial());
    mad.closed(&connection, "no exchange");
}

/// The key of a connection, as RFC 5705 exports it, and its name.
fn key(connection: &Connection, dialler: u64, acceptor: u64) -> (hmac::Key, u64) {
    let mut secret = [0; 40];
    let context = [dialler.to_be_bytes(), acceptor.to_be_bytes()].concat();
    connection.export_keying_material(&mut secret, b"EXPORTER-tidegate-heartbeat", &context).unwrap();
    let name = u64::from_le_bytes(secret[32..].try_into().unwrap());
    (hmac::Key::new(hmac::HMAC_SHA256, &secret[..32]), name)
}

fn seal(key: &hmac::Key, bytes: &mut [u8]) {
    let at = bytes.len() - SEAL_BYTES;
    let tag = hmac::sign(key, &bytes[..at]);
    bytes[at..].copy_from_slice(&tag.as_ref()[..SEAL_BYTES]);
}

/// A heartbeat of a boot of node 2 that hears node 1.
fn heartbeat(boot: u32, cover: Cover, key: &hmac::Key) -> Vec<u8> {
    let me = Heard { it: Boot { node: 1, boot: 1 }, age_ms: 0, in_sync: false, mutual: true };
    let it = Heartbeat {
        from: Boot { node: 2, boot },
        in_sync: false,
        workers_ok: true,
        owned: 1,
        used: 2,
        capacity: 3,
        view: 4,
        heard: [me].into_iter().collect(),
    };
    let mut bytes = [0; HEARTBEAT_BYTES_MAX];
    let length = it.write(cover, &mut bytes);
    seal(key, &mut bytes[..length]);
    bytes[..length].to_vec()
}

#[test]
fn forged_and_repeated_heartbeats_are_refused_and_a_key_outlives_its_connection() {
    let (_home, _a, at_a, mad) = mad();
    let (own, theirs, to) = mad.link(9, &at_a);
    let (own_key, name) = key(&own, 2, 1);
    let cover = |sequence| Cover { path: 0, key: name, sequence };
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Nobody is alive by a link alone.
    assert_eq!(at_a.alive(), [(1, 1)]);
    let mut sequence = 0;
    let mut alive = |boots: &[(u16, u32)]| {
        until("the honest heartbeat's effect", || {
            sequence += 1;
            mad.heartbeats.send_to(&heartbeat(9, cover(sequence), &own_key), to).unwrap();
            at_a.alive() == boots
        });
        sequence
    };
    let honest = alive(&[(1, 1), (2, 9)]);
    until("all that was said", || at_a.peer(2).heartbeats_received == honest);
    let good = heartbeat(9, cover(honest), &own_key);
    // What node 1 says of itself, under the key of its own connection.
    let (their_key, their_name) = key(&theirs, 1, 2);
    let mut bytes = [0; 2_000];
    let (length, _) = mad.heartbeats.recv_from(&mut bytes).unwrap();
    let theirs_said = bytes[..length].to_vec();
    let (node, said) = Heartbeat::cover(&theirs_said).unwrap();
    assert_eq!((node, said.key), (1, their_name));
    let mut sealed = theirs_said.clone();
    seal(&their_key, &mut sealed);
    assert_eq!(sealed, theirs_said, "sealed with the key of the connection that it dialled");
    // Each of these is counted where it belongs, and none comes through.
    type Counted = fn(&Exchanging) -> u64;
    let old: Counted = |it| it.peer(2).heartbeats_old;
    let forged: Counted = |it| it.peer(2).heartbeats_forged;
    let unknown: Counted = |it| it.health().heartbeats_unknown_key;
    let malformed: Counted = |it| it.health().heartbeats_malformed;
    let changed = |at: usize| {
        let mut changed = heartbeat(9, cover(honest + 1_000), &own_key);
        changed[at] ^= 1;
        changed
    };
    let strange = hmac::Key::new(hmac::HMAC_SHA256, &[3; 32]);
    let refused: [(&str, Vec<u8>, Counted); 11] = [
        ("the same again", good.clone(), old),
        ("an older one", heartbeat(9, cover(honest - 1), &own_key), old),
        ("a changed flag", changed(24), forged),
        ("a changed sequence", changed(17), forged),
        ("a changed seal", changed(good.len() - 1), forged),
        ("another key under this name", heartbeat(9, cover(honest + 1_000), &strange), forged),
        ("another boot under this key", heartbeat(8, cover(honest + 1_001), &own_key), forged),
        ("another name", heartbeat(9, Cover { key: name ^ 1, ..cover(honest + 1_002) }, &own_key), unknown),
        ("node 1's own, sent back", theirs_said.clone(), unknown),
        ("too short", good[..40].to_vec(), malformed),
        ("too long", vec![1; 1_400], malformed),
    ];
    for (what, bytes, counted) in refused {
        let (before, heard) = (counted(&at_a), at_a.peer(2).heartbeats_received);
        stranger.send_to(&bytes, to).unwrap();
        until(what, || counted(&at_a) == before + 1);
        assert_eq!(at_a.peer(2).heartbeats_received, heard, "{what}");
    }
    // The forged ones with high sequences did not move the window (the one of another boot did, for it was sealed).
    sequence_after(&at_a, &mad, &own_key, cover(honest + 2_000), to);
    // QUIC is cut: heartbeats go on, under the same key.
    own.close(6_u32.into(), b"");
    theirs.close(6_u32.into(), b"");
    until("the link's end", || at_a.look(|s| s.links.is_empty()));
    sequence_after(&at_a, &mad, &own_key, cover(honest + 3_000), to);
    // Another boot: the key of the old one is nothing any more.
    let (_own, _theirs, _) = mad.link(10, &at_a);
    let before = unknown(&at_a);
    mad.heartbeats.send_to(&heartbeat(9, cover(honest + 4_000), &own_key), to).unwrap();
    until("the old key to be unknown", || unknown(&at_a) == before + 1);
    at_a.see(&[(1, 1)]);
}

/// An honest heartbeat of that sequence comes through, and keeps node 2 alive.
fn sequence_after(at_a: &Exchanging, mad: &Mad, key: &hmac::Key, mut cover: Cover, to: SocketAddr) {
    let heard = at_a.peer(2).heartbeats_received;
    until("an honest heartbeat", || {
        cover.sequence += 1;
        mad.heartbeats.send_to(&heartbeat(9, cover, key), to).unwrap();
        at_a.peer(2).heartbeats_received > heard && at_a.alive() == [(1, 1), (2, 9)]
    });
}
