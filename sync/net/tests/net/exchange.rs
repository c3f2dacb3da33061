//! Two and three members exchange batches over loopback.

use crate::support::exchange::*;
use crate::support::*;
use std::time::Duration;
use tidegate_sync::cluster::{NodeId, Role};
use tidegate_sync_net::replicate::BATCH_BYTES_MAX;

fn two(home: &std::path::Path) -> (Node, Node) {
    let a = Node::found(home, "a");
    let b = Node::join(home, "b", &a.token(Role::Node));
    until("the members", || b.cluster().state().borrow().members.len() == 2);
    (a, b)
}

const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn batches_come_in_order_and_a_shut_receiver_holds_the_sender_back() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = two(home.path());
    let (at_a, at_b) = (exchanging(&a, 1, 2), exchanging(&b, 5, 2));
    at_a.linked(2);
    at_b.linked(1);
    at_a.look(|s| {
        let link = &s.links[&2];
        assert_eq!((link.it.boot, link.streams, link.outlets.len()), (5, STREAMS, usize::from(STREAMS)));
    });
    // 64 MiB offered, nothing taken. Red without limits of windows and queues: all of it would be on its way.
    at_b.look(|s| s.shut.push(1));
    let all = batches(4_096, 16 << 10);
    let taken = at_a.offer(2, 0, &all, AT_ONCE);
    assert!(taken < 2_000, "{taken} batches were taken though nobody reads");
    assert_eq!(at_b.received(1, 0), 0);
    // The way back is not held up by it.
    at_a.look(|s| s.links[&2].back.send(b"ack".to_vec())).unwrap();
    until("the acknowledgement", || at_b.look(|s| s.backs.get(&1).is_some_and(|b| &b[0][..] == b"ack")));
    at_b.look(|s| s.shut.clear());
    assert_eq!(at_a.offer(2, 0, &all[taken..], LONG), all.len() - taken);
    until("all batches", || at_b.received(1, 0) == all.len());
    let numbers = at_b.look(|s| numbers(&s.batches[&(1, 0)]));
    assert!(numbers.iter().copied().eq(0..all.len() as u64));
    // Streams are not mixed up.
    assert_eq!(at_a.offer(2, 1, &batches(3, 20), LONG), 3);
    until("the other stream", || at_b.received(1, 1) == 3);
    assert_eq!((at_b.received(1, 0), at_b.received(1, 2)), (all.len(), 0));
    let (sent, got) = (at_a.peer(2), at_b.peer(1));
    assert_eq!((sent.batches_sent, got.batches_received), (all.len() as u64 + 3, all.len() as u64 + 3));
    assert_eq!((sent.bytes_sent, sent.backs_sent, got.backs_received), (got.bytes_received, 1, 1));
    assert!(sent.rtt_us.is_some() && sent.packets_sent > 0 && sent.last_error.is_none());
    // What is too long does not leave, and takes nothing with it.
    let too_long = [vec![0; BATCH_BYTES_MAX + 1], vec![]];
    assert_eq!(at_a.offer(2, 1, &too_long, LONG), 2);
    assert_eq!(at_a.offer(2, 1, &batches(1, 20), LONG), 1);
    until("what was behind it", || at_b.received(1, 1) == 4);
    assert_eq!((at_a.peer(2).swallowed, at_a.peer(2).links), (2, 1));
}

#[test]
fn a_peer_that_does_not_read_holds_up_no_other() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Node);
    let at: Vec<Exchanging> = nodes.iter().map(|n| exchanging(n, 1, 3)).collect();
    for (own, other) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
        at[own].linked(other);
    }
    at[1].look(|s| s.shut.push(1));
    let all = batches(2_000, 16 << 10);
    assert!(at[0].offer(2, 0, &all, Duration::from_millis(500)) < all.len());
    // Red if the peers shared a queue, a connection or a task.
    assert_eq!(at[0].offer(3, 0, &all, LONG), all.len());
    until("the other peer's batches", || at[2].received(1, 0) == all.len());
    assert_eq!(at[1].received(1, 0), 0);
    // Nor is the stopped one taken for dead: its heartbeats have a way of their own.
    assert!(at[0].look(|s| s.died.is_empty()));
    at[0].see(&[(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn a_killed_process_is_noticed_and_its_next_one_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    let (a, mut b) = two(home.path());
    let (at_a, mut at_b) = (exchanging(&a, 1, 2), exchanging(&b, 5, 2));
    let first = at_a.linked(2);
    at_a.see(&[(1, 1), (2, 5)]);
    at_b.see(&[(1, 1), (2, 5)]);
    at_b.exchange = None;
    b.kill();
    // By silence: no farewell was said.
    at_a.see(&[(1, 1)]);
    assert_eq!(at_a.look(|s| s.died.iter().map(|d| (d.node, d.boot)).collect::<Vec<_>>()), [(2, 5)]);
    b.open();
    let at_b = exchanging(&b, 6, 2);
    at_b.linked(1);
    until("the next link", || at_a.look(|s| s.links.get(&2).is_some_and(|l| l.it.boot == 6)));
    let second = at_a.linked(2);
    at_a.see(&[(1, 1), (2, 6)]);
    at_a.look(|s| {
        let of_b: Vec<_> = s.events.iter().filter(|e| e.2 == first || e.2 == second).collect();
        assert_eq!(of_b, [&("up", 2, first), &("down", 2, first), &("up", 2, second)]);
    });
    assert_eq!(at_a.offer(2, 0, &batches(10, 100), LONG), 10);
    until("batches to the new process", || at_b.received(1, 0) == 10);
}

#[test]
fn a_stop_in_order_is_told_and_needs_no_silence() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = two(home.path());
    let (at_a, mut at_b) = (exchanging(&a, 1, 2), exchanging(&b, 5, 2));
    at_a.see(&[(1, 1), (2, 5)]);
    let exchange = at_b.exchange.take().unwrap();
    b.run(exchange.stop());
    at_a.see(&[(1, 1)]);
    // Red without the farewell: the last heartbeat would be an ordinary one.
    assert!(at_a.look(|s| !s.heard.last().unwrap().workers_ok));
    until("the end of the link", || at_a.look(|s| s.links.is_empty()));
    // It can be started again, in the same process.
    let at_b = exchanging(&b, 6, 2);
    at_b.linked(1);
    at_a.see(&[(1, 1), (2, 6)]);
}

#[test]
fn a_member_that_is_removed_loses_link_and_heartbeats_at_once() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Node);
    let at: Vec<Exchanging> = nodes.iter().map(|n| exchanging(n, 1, 3)).collect();
    at[0].linked(3);
    at[1].linked(3);
    at[0].see(&[(1, 1), (2, 1), (3, 1)]);
    nodes[0].run(nodes[0].cluster().remove(NodeId(3), "test", LONG)).unwrap();
    for one in &at[..2] {
        until("the end of the link", || one.look(|s| !s.links.contains_key(&3)));
        one.see(&[(1, 1), (2, 1)]);
        assert!(one.health().peers.iter().all(|p| p.node != 3), "still in the table");
    }
    // The others keep theirs.
    assert!(at[0].look(|s| s.links.contains_key(&2)) && at[0].peer(2).links == 1);
}

#[test]
fn a_batch_that_the_receiver_refuses_ends_the_link_and_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = two(home.path());
    let (at_a, at_b) = (exchanging(&a, 1, 2), exchanging(&b, 5, 2));
    let first = at_a.linked(2);
    at_b.linked(1);
    assert_eq!(at_a.offer(2, 0, &[b"nonsense".to_vec()], LONG), 1);
    until("the link's end", || at_a.look(|s| s.events.contains(&("down", 2, first))));
    until("the count", || at_b.peer(1).refused == 1);
    until("the next link", || at_a.look(|s| s.links.get(&2).is_some_and(|l| l.number > first)));
    // The links' end is no death.
    assert!(at_a.look(|s| s.died.is_empty()) && at_b.look(|s| s.died.is_empty()));
}

#[test]
fn a_witness_has_no_exchange_and_nobody_dials_it() {
    let home = tempfile::tempdir().unwrap();
    let nodes = three(home.path(), Role::Witness);
    let at: Vec<Exchanging> = nodes[..2].iter().map(|n| exchanging(n, 1, 2)).collect();
    at[0].linked(2);
    at[1].linked(1);
    assert_eq!(at[0].health().peers.iter().map(|p| p.node).collect::<Vec<_>>(), [2]);
}
