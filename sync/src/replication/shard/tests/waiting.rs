//! Packets that wait for replication: first ones until peers hold their session, early ones until it comes.

use super::super::*;
use super::world::*;
use tidegate_dataplane::policy;

/// All nodes take the policy with these settings.
fn set(world: &mut World, settings: &str) {
    for node in &mut world.nodes {
        let text = format!("{POLICY}[replication]\n{settings}\n");
        let file = policy::check(&text, "test.toml").file.unwrap();
        let compiled = Arc::new(policy::compile(&file, 2, &mut node.names).unwrap());
        for worker in &mut node.workers {
            worker.engine.set_policy(compiled.clone());
        }
    }
}

/// Packets that a node's engines have sent by themselves so far.
fn sent(world: &mut World, at: usize) -> usize {
    world.nodes[at].workers.iter_mut().map(|w| w.engine.outbox().iter().count()).sum()
}

/// Red when a first packet leaves before a peer holds its session, or waits although it does.
#[test]
fn first_packets_wait_until_the_peers_hold_their_session() {
    for (peers, far_ms, leaves_before) in [("one", 60, true), ("all", 60, false), ("all", 10, true)] {
        let mut world = World::cluster(&[Make { workers: 2, ..Make::default() }; 3]);
        set(&mut world, &format!("setup_ack = \"{peers}\"\nsetup_ack_timeout_ms = 900"));
        for (to, ms) in [(1, 10), (2, far_ms)] {
            world.delay(0, to, ms);
            world.delay(to, 0, ms);
        }
        for n in 0..20 {
            assert!(!world.send(0, n, true), "{n} did not wait");
        }
        world.run(15);
        assert_eq!(sent(&mut world, 0), 0, "{peers}: no acknowledgement can be here yet");
        world.run(45);
        assert_eq!(sent(&mut world, 0), if leaves_before { 20 } else { 0 }, "{peers}, {far_ms} ms");
        world.run(140);
        assert_eq!(sent(&mut world, 0), 20, "{peers}, {far_ms} ms");
        assert!((0..3).all(|node| world.flows(node).len() == 20));
        let timeouts: u64 =
            world.nodes[0].workers.iter().map(|w| w.engine.counters().waiting.setup_timeouts).sum();
        assert_eq!(timeouts, 0);
    }
}

/// Red when anything waits with no peer connected, or goes on waiting for one that went.
#[test]
fn nothing_waits_for_a_peer_that_is_not_connected() {
    let mut world = World::cluster(&[Make::default(); 2]);
    set(&mut world, "setup_ack = \"all\"\nsetup_ack_timeout_ms = 5000");
    world.delay(0, 1, 500);
    assert!(!world.send(0, 1, true));
    world.cut(0, 1);
    world.run(5);
    assert_eq!(sent(&mut world, 0), 1);
    assert!(world.send(0, 2, true));
}

/// Red when an early packet is given up before its session can come: the way has grown longer while nothing was
/// said, or under traffic.
#[test]
fn early_packets_wait_as_long_as_the_way_is() {
    let mut world = World::cluster(&[Make::default(); 2]);
    // Both have measured a short way.
    for n in 100..120 {
        assert!(world.send(usize::from(n % 2), n, true));
        world.run(5);
    }
    world.run(3_000);
    for (from, to) in [(0, 1), (1, 0)] {
        world.delay(from, to, 40);
    }
    for n in 0..50 {
        assert!(world.send(0, n, true));
        assert!(!world.send(1, n, false), "the session cannot be here");
        world.run(10);
    }
    world.run(300);
    assert_eq!(sent(&mut world, 1), 50);
    let counters = world.nodes[1].workers[0].engine.counters();
    assert_eq!((counters.waiting.park_delivered, counters.drops.total()), (50, 0));
}
