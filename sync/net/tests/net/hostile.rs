//! A member that went mad, and strangers: nothing of it stops the others.

use crate::support::*;
use quinn::Connection;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, NodeId, Role, StoreId};
use tidegate_sync::codec;
use tidegate_sync_net::identity::{Directory, Identity};
use tidegate_sync_net::pki::{self, Membership};

/// A process that has a member's keys and says what it likes.
struct Mad {
    config: quinn::ClientConfig,
    endpoint: quinn::Endpoint,
    identity: Identity,
}

/// As the product's envelope: version 1, a kind, a length.
fn envelope(kind: u8, length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    bytes.extend((length as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

impl Mad {
    fn new(node: &Node, directory: &Directory) -> Self {
        let identity = directory.identity().unwrap().unwrap();
        let members = [(NodeId(1), "a".to_owned()), (NodeId(2), "b".to_owned())];
        let membership =
            Arc::new(arc_swap::ArcSwap::from_pointee(Membership::new(identity.cluster, members)));
        let tls = pki::client_config(&directory.credentials().unwrap(), membership).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let endpoint = node.run(async { quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap() });
        Mad { config, endpoint, identity }
    }

    async fn connect(&self, to: std::net::SocketAddr) -> Connection {
        let name = pki::node_name(self.identity.cluster, NodeId(1));
        self.endpoint.connect_with(self.config.clone(), to, &name).unwrap().await.unwrap()
    }

    /// A hello with these facts.
    fn hello(&self, cluster: ClusterId, node: NodeId, generation: u32, store: StoreId) -> Vec<u8> {
        let body = codec::encode(&(cluster, node, generation, store, [7_u8; 16], "mad\nness"));
        [&[1, 0, 1, 0][..], &body].concat()
    }

    fn honest(&self) -> Vec<u8> {
        let it = &self.identity;
        self.hello(it.cluster, it.node, it.generation, it.store)
    }
}

async fn say(connection: &Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    receive.read_to_end(1 << 20).await.unwrap_or_default()
}

/// The reason in an answer to a hello; empty when it was accepted, or there is none.
fn refusal(answer: &[u8]) -> String {
    answer.get(6 + 10..).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

#[test]
fn what_a_mad_member_says_is_refused_and_the_cluster_goes_on() {
    // Each of these ends the connection or is answered; red when one of them ends the member instead.
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let mut b = Node::join(home.path(), "b", &a.token(Role::Node));
    until("the new node to hear of the policy", || b.revision() == 1);
    let mad = Mad::new(&a, &Directory::open(&b.dir).unwrap().unwrap());
    b.kill();
    let to = a.cluster().addresses()[0];
    let it = mad.identity.clone();
    let lies = [
        (mad.hello(ClusterId([1; 16]), it.node, 1, it.store), "the hello names node 2 of cluster 0101"),
        (mad.hello(it.cluster, NodeId(1), 1, it.store), "the hello names node 1"),
        (mad.hello(it.cluster, it.node, 0, it.store), "fenced"),
        (mad.hello(it.cluster, it.node, 1, StoreId([9; 16])), "another Raft store"),
        (vec![9, 0, 9, 0], "no common protocol version"),
        (vec![1, 0, 1, 0, 255, 255], "not a valid message"),
    ];
    for (hello, words) in lies {
        let answer = a.run(async {
            let connection = mad.connect(to).await;
            let answer = say(&connection, &envelope(1, hello.len(), &hello)).await;
            // Closed by the member, not by us.
            let closed = tokio::time::timeout(LONG, connection.closed()).await;
            assert!(closed.is_ok(), "{words}: left open");
            answer
        });
        assert!(refusal(&answer).contains(words), "{words}: {}", String::from_utf8_lossy(&answer));
    }
    // No hello at all, an envelope of another kind, a length beyond all limits, nonsense.
    let no_hello = [envelope(3, 1, &[0]), envelope(1, usize::MAX, &[]), vec![9; 64], envelope(77, 0, &[])];
    for bytes in no_hello {
        a.run(async {
            let connection = mad.connect(to).await;
            say(&connection, &bytes).await;
            assert!(tokio::time::timeout(LONG, connection.closed()).await.is_ok());
        });
    }
    // A proper hello, and then: a bad question, a proposal in another's name, streams of nonsense, a
    // snapshot that is announced and never comes, a Raft message of another sender.
    let after: [(bool, Vec<u8>); 5] = [
        (true, envelope(3, 3, &[200, 1, 1])),
        (true, envelope(5, 0, &[])),
        (false, [envelope(5, 0, &[]), vec![255; 4]].concat()),
        (false, vec![3; 100]),
        (false, envelope(6, (256 << 20) + 1, &[])),
    ];
    let refused = |a: &Node| a.cluster().health().counters.messages_refused;
    for (both, bytes) in after {
        let before = refused(&a);
        a.run(async {
            let connection = mad.connect(to).await;
            let hello = mad.honest();
            let answer = say(&connection, &envelope(1, hello.len(), &hello)).await;
            assert_eq!(answer.get(6..8), Some(&[0, 0][..]), "{}", refusal(&answer));
            if both {
                say(&connection, &bytes).await;
            } else {
                let mut stream = connection.open_uni().await.unwrap();
                let _ = stream.write_all(&bytes).await;
                let _ = stream.finish();
            }
            let closed = tokio::time::timeout(LONG, connection.closed()).await;
            assert!(closed.is_ok(), "{bytes:?}: left open");
        });
        assert!(refused(&a) > before, "{bytes:?}: not counted");
    }
    // Well-formed frames with Raft messages that are none: counted, and the connection stays.
    let before = refused(&a);
    a.run(async {
        let connection = mad.connect(to).await;
        let hello = mad.honest();
        say(&connection, &envelope(1, hello.len(), &hello)).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[envelope(5, 0, &[]), vec![3, 0, 0, 0, 1, 2, 3]].concat()).await.unwrap();
        let mut huge = connection.open_uni().await.unwrap();
        huge.write_all(&envelope(6, 200 << 20, &[1, 2, 3])).await.unwrap();
        tokio::time::timeout(LONG, async {
            while refused(&a) == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("counted");
        assert!(connection.close_reason().is_none());
    });
    assert_eq!(a.apply("goes on"), 2);
    assert!(!logged(&["mad\nness"]));
}

#[test]
fn a_malformed_join_request_is_refused_and_counted() {
    let home = tempfile::tempdir().unwrap();
    let a = Node::found(home.path(), "a");
    let token = a.token(Role::Node);
    let to = a.cluster().addresses()[0];
    let (tls, _) = pki::join_config(token.ca_sha256).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let bad = [
        envelope(7, 6, &[1, 0, 1, 0, 9, 9]),
        envelope(7, 4, &[8, 0, 9, 0]),
        envelope(7, (64 << 10) + 1, &[]),
        envelope(3, 1, &[0]),
    ];
    let count = bad.len() as u64;
    for bytes in bad {
        a.run(async {
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let connection =
                endpoint.connect_with(config.clone(), to, "join.tidegate").unwrap().await.unwrap();
            say(&connection, &bytes).await;
            assert!(tokio::time::timeout(LONG, connection.closed()).await.is_ok());
        });
    }
    assert_eq!(a.cluster().health().counters.joins_refused, count);
    // Without a certificate the members' protocol is closed to it: only joining is left.
    let _b = Node::join(home.path(), "b", &token);
}
