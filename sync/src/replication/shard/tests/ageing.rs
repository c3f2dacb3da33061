//! Questions before a shared session ages; pauses.

use super::super::*;
use super::world::*;
use tidegate_dataplane::session::EndReason;

/// The second node made it, the first saw the reply: it is shared, and owned by the second.
fn shared(world: &mut World, n: u16) {
    assert!(world.send(1, n, true));
    world.run(10);
    assert!(world.send(0, n, false));
    world.run(10);
}

/// It was used through the first node, which told of that, and eight seconds later again: too soon for another telling, so
/// only the question finds that out.
fn used_untold(world: &mut World) {
    shared(world, 1);
    world.run(50_000);
    assert!(world.send(0, 1, false));
    world.run(8_000);
    assert!(world.send(0, 1, false));
}

#[test]
fn a_session_that_another_node_saw_lately_does_not_age() {
    // Answers must wait behind what is told before them.
    let slow = ShardConfig { records_per_run: 1, ..ShardConfig::default() };
    let mut world = World::cluster(&[Make { shard: slow, ..Make::default() }, Make::default()]);
    used_untold(&mut world);
    world.run(51_900);
    (100..150).for_each(|n| assert!(world.send(0, n, true)));
    for n in 0..1_500 {
        assert!(world.send(0, 200 + n, true));
        world.run(1);
    }
    world.run(2_000);
    assert_eq!(world.id(0, 1), world.id(1, 1));
    assert!(world.id(1, 1).is_some(), "a packet passed 55 seconds ago");
    // Without the question, or with an answer that overtakes what it is about, it ends and is born again.
    let aged = |node: &Node| node.workers[0].engine.counters().ended[EndReason::Aged as usize];
    assert_eq!(world.nodes.iter().map(aged).sum::<u64>(), 0);
    assert!(world.status(1, 0).sent.questions >= 1);
    world.run(8_000);
    assert_eq!(world.id(1, 1), None, "and no longer than that");
}

/// Red when a peer is not asked because something else waits for it at that moment: what it saw counts for nothing.
#[test]
fn a_question_waits_for_a_peer_that_cannot_be_asked_at_once() {
    let mut world = World::cluster(&[Make::default(); 2]);
    used_untold(&mut world);
    world.run(51_500);
    let asking = |world: &World| {
        let worker = &world.nodes[1].workers[0];
        worker.shard.status(&worker.engine).asking
    };
    world.jam(1, 0, true);
    let mut n = 100;
    while asking(&world) == 0 {
        assert!(n < 5_000, "it is never asked for");
        assert!(world.send(1, n, true));
        world.run(1);
        n += 1;
    }
    // Less than anybody is waited for.
    world.run(100);
    world.jam(1, 0, false);
    world.run(2_000);
    let aged = |node: &Node| node.workers[0].engine.counters().ended[EndReason::Aged as usize];
    assert_eq!(world.nodes.iter().map(aged).sum::<u64>(), 0, "a packet passed 56 seconds ago");
    assert!(world.id(1, 1).is_some());
    world.run(8_000);
    assert_eq!(world.id(1, 1), None, "and no longer than that");
}

/// Red when what a third node told before the birth came counts as said at the moment in which that comes.
#[test]
fn words_that_wait_for_their_birth_grow_older() {
    let mut world = World::cluster(&[Make::default(); 3]);
    world.cut(0, 2);
    assert!(world.send(0, 1, true));
    world.run(10);
    assert!(world.send(1, 1, false));
    world.run(6_000);
    assert!(world.flows(2).is_empty(), "who made it has not said so");
    world.join(0, 2);
    world.until("the birth has come", |world| !world.flows(2).is_empty());
    let [there, here] = [1, 2].map(|node| world.sessions(node)[0].idle_ms);
    assert!(here + 500 >= there, "{here} ms here, {there} ms where the last packet passed");
}

#[test]
fn an_idle_session_dies_on_time_everywhere() {
    let mut world = World::cluster(&[Make::default(); 3]);
    shared(&mut world, 1);
    assert!(world.send(1, 2, true));
    world.run(TIMEOUT_MS - 100);
    assert!((0..3).all(|node| world.flows(node).len() == 2));
    // The timeout, a turn of the sweep, the questions; far less than the replicas' own bound (15 s more).
    world.run(3_000);
    assert!((0..3).all(|node| world.flows(node).is_empty()), "answered at once, nobody waits out the bound");
    assert!(world.status(1, 0).sent.questions >= 1);
    assert!(world.status(0, 1).received.questions >= 1);
}

#[test]
fn who_does_not_answer_is_not_waited_for_long() {
    let mut world = World::cluster(&[Make::default(); 3]);
    shared(&mut world, 1);
    world.nodes[2].stopped = true;
    world.run(TIMEOUT_MS + 4_000);
    // Without the bound the session stays with its owner.
    assert!(world.flows(1).is_empty() && world.flows(0).is_empty());
}

#[test]
fn nothing_ages_after_a_pause_until_what_waited_is_applied() {
    let slow = ShardConfig { records_per_run: 1, ..ShardConfig::default() };
    let mut world = World::cluster(&[Make::default(), Make { shard: slow, ..Make::default() }]);
    shared(&mut world, 1);
    world.run(TIMEOUT_MS - 5_000);
    // Stopped while the other goes on with the session.
    world.nodes[1].stopped = true;
    (0..10).for_each(|_| {
        world.run(1_000);
        assert!(world.send(0, 1, false));
    });
    for n in 100..120 {
        assert!(world.send(0, n, true));
        world.run(3);
    }
    world.nodes[1].stopped = false;
    world.run(3);
    let status = |world: &World| {
        let worker = &world.nodes[1].workers[0];
        (worker.shard.status(&worker.engine).held, worker.engine.holds_ageing())
    };
    // Noticed before the first sweep, by the shard itself.
    assert_eq!(status(&world), (true, true));
    assert!(world.nodes[1].news.iter().any(|n| matches!(n, News::Paused { ms } if *ms > 9_000)));
    // The word that ageing may go on overtakes what waits: it holds behind it all the same.
    world.nodes[1].workers[0].wire.inbox.push_front(FromNode::Resume);
    world.run(5);
    assert!(status(&world).1 && world.flows(1).len() < 21);
    world.run(3_000);
    assert_eq!(status(&world), (false, false));
    assert!(world.id(1, 1).is_some() && world.id(0, 1).is_some());
}
