//! Requests from daemon to daemon: whole, in bounded memory, and only between full members.

use crate::support::*;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_sync::cluster::Role;
use tidegate_sync_net::cluster::{NodeAnswer, NodeHandler, NodeRequest};

const PART: usize = 32 << 10;

/// Answers with as many parts as the path says, and counts them; "broken" breaks off in the middle.
fn handler(made: Arc<AtomicU64>) -> NodeHandler {
    Arc::new(move |from, request| {
        let made = made.clone();
        async move {
            let parts: u64 = request.path.parse().unwrap_or(10);
            let broken = request.path == "broken";
            let text = format!("{from} {} {:?}\n", request.by, request.body.map(|b| b.len()));
            let first = futures::stream::iter([Ok(text.into())]);
            let rest = futures::stream::iter(0..parts).map(move |n| {
                made.fetch_add(1, Ordering::Relaxed);
                if broken && n == 5 { Err("no more".to_owned()) } else { Ok(vec![n as u8; PART].into()) }
            });
            NodeAnswer { status: 207, body: first.chain(rest).boxed() }
        }
        .boxed()
    })
}

fn request(path: &str, body: Option<Vec<u8>>) -> NodeRequest {
    NodeRequest { path: path.to_owned(), body, by: "uid 0 (root)".to_owned() }
}

#[test]
fn answers_stream_whole_or_are_broken_and_a_witness_gets_none() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Witness);
    let (a, b, witness) = (&nodes[0], &nodes[1], &nodes[2]);
    let early = a.run(a.cluster().ask_node(b.id(), &request("1", None), LONG)).unwrap();
    assert_eq!(early.status, 503, "before there is somebody to answer");
    let made = Arc::new(AtomicU64::new(0));
    b.cluster().answer_nodes(handler(made.clone()));
    let reply = a.run(a.cluster().ask_node(b.id(), &request("3", Some(vec![7; 1000])), LONG)).unwrap();
    assert_eq!(reply.status, 207);
    let body = a.run(reply.all(1 << 20)).unwrap();
    // Red when the answering side believes what the asker calls itself.
    let head = format!("{} uid 0 (root) (asked at node {}) Some(1000)\n", a.id(), a.id());
    assert!(body.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&body[..80]));
    assert_eq!(body.len(), head.len() + 3 * PART);
    // Red when an answer that ends too early passes for a short one.
    let broken = a.run(async {
        let broken = request("broken", None);
        a.cluster().ask_node(b.id(), &broken, LONG).await?.all(64 << 20).await
    });
    assert!(broken.is_err(), "{} bytes", broken.unwrap_or_default().len());
    let long = a.run(a.cluster().ask_node(b.id(), &request("100", None), LONG)).unwrap();
    assert!(a.run(long.all(1 << 20)).unwrap_err().contains("too long"));
    // Red when a witness is answered, which sees no sessions.
    let refused = witness.run(witness.cluster().ask_node(b.id(), &request("1", None), LONG)).unwrap();
    assert_eq!(refused.status, 403);
}

#[test]
fn a_slow_reader_holds_up_its_own_answers_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Node);
    let (a, b) = (&nodes[0], &nodes[1]);
    let made = Arc::new(AtomicU64::new(0));
    b.cluster().answer_nodes(handler(made.clone()));
    let ask = || a.run(a.cluster().ask_node(b.id(), &request("1000000", None), LONG)).unwrap();
    let mut slow: Vec<_> = (0..8).map(|_| ask()).collect();
    assert_eq!(ask().status, 503, "a ninth at the same time");
    // They stop when the windows are full: red without back-pressure, which would make 32 GiB each.
    let mut before = u64::MAX;
    until("them to stand still", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        std::mem::replace(&mut before, made.load(Ordering::Relaxed)) == made.load(Ordering::Relaxed)
    });
    assert!(before * (PART as u64) < 64 << 20, "{before} parts");
    // Red when they take up the connection: nobody else's question would be answered.
    let reports = a.run(a.cluster().reports(LONG));
    assert!(reports.iter().all(|(.., report)| report.is_ok()), "{reports:?}");
    assert_eq!(a.apply("meanwhile"), 2);
    // They go on where they were, and stop being made when nobody reads them.
    for reply in &mut slow {
        assert!(a.run(reply.next()).unwrap().is_some());
    }
    drop(slow);
    until("places to be free again", || ask().status == 207);
}
