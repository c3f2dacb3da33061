//! Births, facts and ends on their way; slow peers; acknowledgements.

use super::super::*;
use super::world::*;
use tidegate_dataplane::session::State;

#[test]
fn births_facts_and_ends_arrive_everywhere() {
    let of = |workers| Make { workers, ..Make::default() };
    // Different numbers of workers and hash keys: parts must be split anew at each receiver.
    let mut world = World::cluster(&[of(2), of(3), of(1)]);
    for n in 0..300 {
        assert!(world.send(usize::from(n % 3), n, true));
    }
    world.run(20);
    let all: std::collections::BTreeSet<u16> = (0..300).collect();
    // Without the split by tuple two thirds are refused as another shard's.
    assert!((0..3).all(|node| world.flows(node) == all));
    // The reply comes in elsewhere: everybody hears of the fact.
    assert!((0..300).all(|n| world.send(usize::from((n + 1) % 3), n, false)));
    world.run(20);
    for node in 0..3 {
        let sessions = world.sessions(node);
        assert!(sessions.iter().all(|s| s.state == State::Replied), "at {node}");
        // By name: every node numbers zones differently.
        let names = &world.nodes[node].names;
        assert!(sessions.iter().all(|s| names.zone_name(s.wings[0].zone) == "outside"));
        assert!(sessions.iter().all(|s| names.rule_name(s.rule) == "outside/inside/out"));
        assert!(sessions.iter().all(|s| names.application_name(s.application) == "game"));
    }
    // Each is cleared by its owner.
    (0..150).for_each(|n| world.clear(usize::from(n % 3), n));
    world.run(20);
    assert!((0..3).all(|node| world.flows(node) == (150..300).collect()));
    let refused: u64 = world.nodes.iter().flat_map(|n| n.doubts).sum();
    assert_eq!((refused, world.nodes.iter().map(|n| n.closed).sum::<u64>()), (0, 0));
}

#[test]
fn a_slow_peer_gets_the_newest_state_once_and_holds_up_nobody() {
    let mut world = World::cluster(&[Make::default(); 3]);
    world.jam(0, 1, true);
    // Two changes of each session, a while apart.
    (0..600).for_each(|n| assert!(world.send(0, n, true)));
    world.run(20);
    (0..600).for_each(|n| assert!(world.send(0, n, false)));
    world.run(20);
    let (slow, fast) = (world.status(0, 1), world.status(0, 2));
    assert_eq!(world.flows(2).len(), 600, "the other peer waits for nobody");
    assert!(fast.sent.changes >= 1200 && fast.lag_entries == 0, "{fast:?}");
    // Bounded by one batch, whatever is behind it in the log.
    assert!(slow.pending_bytes <= 64 * 1024 && slow.lag_entries > 100, "{slow:?}");
    world.jam(0, 1, false);
    world.run(20);
    let slow = world.status(0, 1);
    assert!(world.sessions(1).iter().filter(|s| s.state == State::Replied).count() == 600);
    // Without the skipping of stale entries it is 1200.
    assert!(slow.sent.changes < 1000 && slow.lag_entries == 0, "{slow:?}");
}

#[test]
fn what_comes_after_silence_leaves_at_once_and_what_follows_leaves_together() {
    let mut world = World::cluster(&[Make::default(); 2]);
    world.run(20);
    let batches = |world: &World| world.status(0, 1).sent.batches;
    let before = batches(&world);
    assert!(world.send(0, 1, true));
    world.work();
    // Red when the first waits for others to come.
    assert_eq!(batches(&world), before + 1);
    for n in 2..5 {
        assert!(world.send(0, n, true));
        world.work();
    }
    // Red when each leaves alone.
    assert_eq!(batches(&world), before + 1);
    world.run(1);
    assert_eq!(batches(&world), before + 2);
}

#[test]
fn a_worker_comes_again_at_once_only_while_there_is_something_to_tell() {
    let mut world = World::cluster(&[Make::default(); 2]);
    world.run(20);
    let more = |world: &World| {
        let worker = &world.nodes[0].workers[0];
        worker.shard.has_more(&worker.engine)
    };
    let wants_acks = |world: &World| {
        let worker = &world.nodes[0].workers[0];
        worker.shard.waits_for_acks(&worker.engine)
    };
    // Red when a worker spins, or is woken for each acknowledgement, with nothing that it could do.
    assert!(!more(&world) && !wants_acks(&world));
    let records_per_run = ShardConfig::default().records_per_run as u16;
    (0..records_per_run + 50).for_each(|n| assert!(world.send(0, n, true)));
    world.work();
    // Red when what one pass left over waits for the next packet.
    assert!(more(&world));
    world.run(1);
    assert!(!more(&world));
    world.jam(0, 1, true);
    (0..50).for_each(|n| world.clear(0, n));
    world.run(2);
    assert!(!more(&world), "a full ring is not tried again at once");
    world.jam(0, 1, false);
    world.run(20);
    world.cut(0, 1);
    world.run(1);
    world.join(0, 1);
    world.reboot(1);
    world.join(0, 1);
    world.run(1);
    // Red when the end of a resync waits for the worker's next turn.
    assert!(wants_acks(&world));
    world.until("caught up", |world| !wants_acks(world));
}

#[test]
fn a_link_that_returns_soon_goes_on_where_it_was() {
    let mut world = World::cluster(&[Make::default(); 2]);
    let before = world.status(0, 1).resyncs;
    world.delay(0, 1, 50);
    for round in 0..5 {
        (0..50).for_each(|n| assert!(world.send(0, 50 * round + n, true)));
        (0..10).for_each(|n| world.clear(0, 50 * round + n));
        world.run(10);
        // What is on its way is lost with the link.
        world.cut(0, 1);
        (20..30).for_each(|n| world.clear(0, 50 * round + n));
        world.run(300);
        world.join(0, 1);
        world.run(5);
    }
    world.run(300);
    let left: std::collections::BTreeSet<u16> =
        (0..250).filter(|n| !matches!(n % 50, 0..10 | 20..30)).collect();
    // A cursor that is not taken back loses what was on its way; one that begins anew needs a resync.
    assert_eq!((world.flows(0), world.flows(1)), (left.clone(), left));
    assert_eq!(world.status(0, 1).resyncs, before);
}

#[test]
fn acknowledged_is_what_others_have() {
    let mut world = World::cluster(&[Make::default(); 3]);
    let acked = |world: &World| {
        let worker = &world.nodes[0].workers[0];
        (worker.shard.acked_by_one(), worker.shard.acked_by_all(), worker.engine.log_head())
    };
    world.delay(0, 1, 30);
    world.delay(0, 2, 60);
    assert!(world.send(0, 1, true));
    let (.., head) = acked(&world);
    world.run(40);
    let (one, all, _) = acked(&world);
    // With the maximum for the minimum the second comes true too early.
    assert!(one >= head && all < head, "{one} {all} {head}");
    world.run(40);
    assert!(acked(&world).1 >= head);
    // A node in sync that is not connected has nothing; one that is out of the view does not count.
    world.cut(0, 2);
    assert!(world.send(0, 2, true));
    world.run(200);
    let (one, all, head) = acked(&world);
    assert!(one >= head && all < head, "{one} {all} {head}");
    world.view(0, &[0, 1]);
    world.run(10);
    assert!(acked(&world).1 >= head);
    world.view(0, &[0]);
    world.run(10);
    assert_eq!(acked(&world).0, u64::MAX, "alone, nobody is waited for");
}

#[test]
fn a_peer_without_room_is_repaired_when_there_is_room() {
    let small = Make { capacity: 256, ..Make::default() };
    let mut world = World::cluster(&[Make::default(), small]);
    (0..400).for_each(|n| assert!(world.send(0, n, true)));
    world.run(1000);
    let full = world.status(1, 0);
    assert!(full.no_room && full.received.no_room > 0, "{full:?}");
    assert!(world.flows(1).len() < 400);
    let peer = Peer(0);
    let said =
        |world: &World, wanted: fn(&News) -> bool| world.nodes[1].news.iter().filter(|n| wanted(n)).count();
    assert_eq!(said(&world, |n| matches!(n, News::NoRoom { .. })), 1);
    let head = world.nodes[0].workers[0].engine.log_head();
    // Acknowledged batches of a peer that had no room for them say nothing.
    assert!(world.nodes[0].workers[0].shard.acked_by_all() < head);
    (0..300).for_each(|n| world.clear(0, n));
    // Without the wish for a resync the rest never comes.
    world.until("repaired", |world| world.flows(1) == (300..400).collect());
    world.until("said so", |world| said(world, |n| matches!(n, News::Room { .. })) == 1);
    let line = world.nodes[1].workers[0].shard.status(&world.nodes[1].workers[0].engine);
    assert!(line.peers.iter().any(|p| p.peer == peer && !p.no_room));
    world.run(50);
    assert!(world.nodes[0].workers[0].shard.acked_by_all() >= head);
}
