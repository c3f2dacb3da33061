//! First sync, resync, mark and sweep.

use super::super::*;
use super::world::*;
use std::collections::BTreeSet;
use tidegate_dataplane::engine::ReplicationConfig;

/// Rings so small that a burst falls out of them.
fn forgetful() -> Make {
    Make {
        replication: ReplicationConfig { log_entries: 64, tombstones: 16 },
        shard: ShardConfig { keep_ms: 0, ..ShardConfig::default() },
        ..Make::default()
    }
}

fn why(world: &World, at: usize, of: usize, why: ResyncWhy) -> u64 {
    world.status(at, of).resyncs[why as usize]
}

#[test]
fn a_newcomer_gets_everything_while_changes_go_on() {
    let mut world = World::new(&[Make::default(); 2]);
    world.view(0, &[0]);
    world.run(10);
    (0..1000).for_each(|n| assert!(world.send(0, n, true)));
    world.view(0, &[0, 1]);
    world.view(1, &[0, 1]);
    world.join(0, 1);
    for n in 0..100 {
        assert!(world.send(0, 1000 + n, true) && world.send(1, 2000 + n, true));
        world.clear(0, 5 * n);
        world.run(1);
    }
    world.run(200);
    let all: BTreeSet<u16> = (0..1100).filter(|n| !(n % 5 == 0 && *n < 500)).chain(2000..2100).collect();
    assert_eq!((world.flows(0), world.flows(1)), (all.clone(), all));
    assert_eq!(why(&world, 0, 1, ResyncWhy::Joined), 1);
    let applied = |n: &&News| matches!(n, News::ResyncApplied { .. });
    assert_eq!(world.nodes[1].news.iter().filter(applied).count(), 1);
    // Nothing is resynced for ever.
    let status = world.status(0, 1);
    assert!(status.resync_out.is_none() && status.wants.is_none(), "{status:?}");
}

#[test]
fn who_fell_out_of_the_log_is_resynced_and_keeps_no_ghosts() {
    let mut world = World::cluster(&[forgetful(), forgetful()]);
    (0..300).for_each(|n| assert!(world.send(1, 1000 + n, true)));
    for n in 0..300 {
        assert!(world.send(0, n, true));
        world.run(1);
    }
    world.run(300);
    assert_eq!(world.flows(1).len(), 600);
    world.jam(0, 1, true);
    (0..200).for_each(|n| world.clear(0, n));
    (300..400).for_each(|n| assert!(world.send(0, n, true)));
    world.run(50);
    world.jam(0, 1, false);
    let left: BTreeSet<u16> = (200..400).chain(1000..1300).collect();
    // Without the sweep 200 ghosts stay.
    world.until("swept", |world| world.flows(1) == left);
    assert_eq!(world.flows(0), left);
    assert!(why(&world, 0, 1, ResyncWhy::FellOut) >= 1);
}

#[test]
fn ends_that_nobody_heard_of_leave_no_ghosts_and_the_newborn_live() {
    ghosts_go_and_newborns_live(forgetful());
}

/// The log still has every entry, and the tombstones that some of them name have made room for others.
#[test]
fn tombstones_that_were_let_go_leave_no_ghosts() {
    let replication = ReplicationConfig { log_entries: 65_536, tombstones: 16 };
    ghosts_go_and_newborns_live(Make { replication, ..forgetful() });
}

fn ghosts_go_and_newborns_live(make: Make) {
    let mut world = World::cluster(&[make, make]);
    for n in 0..300 {
        assert!(world.send(0, n, true) && world.send(1, 1000 + n, true));
        world.run(1);
    }
    world.run(300);
    world.cut(0, 1);
    for n in 0..150 {
        world.clear(0, n);
        world.run(1);
    }
    // Born on the side that keeps the ghosts, in the same breath.
    (0..50).for_each(|n| assert!(world.send(1, 2000 + n, true)));
    world.run(100);
    world.delay(0, 1, 20);
    world.delay(1, 0, 20);
    world.join(0, 1);
    // Born while the resync is on its way, told before and after the sender's hand has passed.
    for n in 0..100 {
        assert!(world.send(0, 3000 + n, true) && world.send(1, 4000 + n, true));
        world.run(1);
    }
    let left: BTreeSet<u16> =
        (150..300).chain(1000..1300).chain(2000..2050).chain(3000..3100).chain(4000..4100).collect();
    world.until("no ghosts", |world| world.flows(1) == left && world.flows(0) == left);
    world.run(2000);
    assert_eq!((world.flows(0), world.flows(1)), (left.clone(), left));
}

#[test]
fn nothing_is_removed_while_views_differ() {
    let mut world = World::cluster(&[forgetful(), forgetful()]);
    for n in 0..200 {
        assert!(world.send(0, n, true));
        world.run(1);
    }
    world.run(200);
    world.cut(0, 1);
    (0..100).for_each(|n| world.clear(0, n));
    world.run(50);
    // The receiver takes the sender for one that is not in sync.
    world.view(1, &[1]);
    world.join(0, 1);
    world.run(3000);
    // Without the check of the views the ghosts are gone here, by a belief that one of the two does not share. Only the
    // ends whose tombstones are still kept were told: they count in every view.
    assert_eq!(world.flows(1), (0..84).chain(100..200).collect());
    assert!(why(&world, 1, 0, ResyncWhy::ViewsDiffered) >= 2, "asked for again");
    assert!(world.nodes[1].views_differed() < 20, "with growing pauses");
    world.view(1, &[0, 1]);
    world.until("swept", |world| world.flows(1) == (100..200).collect());
    world.run(20_000);
    assert_eq!(world.status(1, 0).wants, None);
}

#[test]
fn the_owner_gets_what_it_lacks() {
    let mut world = World::new(&[Make::default(); 3]);
    (0..3).for_each(|node| world.view(node, &[0, 1, 2]));
    // The third node makes sessions that only the second hears of, and dies.
    world.join(1, 2);
    world.run(100);
    (0..200).for_each(|n| assert!(world.send(2, n, true)));
    world.run(100);
    assert_eq!((world.flows(0).len(), world.flows(1).len()), (0, 200));
    world.cut(1, 2);
    world.nodes[2].stopped = true;
    world.view(0, &[0, 1]);
    world.view(1, &[0, 1]);
    // No echo: it is long ago.
    world.run(5000);
    world.join(0, 1);
    // The first owns about half of them now and has none. Told only by owners, those never come.
    world.until("has all", |world| world.flows(0).len() == 200);
    assert_eq!(world.flows(1).len(), 200);
}

#[test]
fn a_new_boot_of_a_peer_begins_anew() {
    let mut world = World::cluster(&[Make::default(); 2]);
    (0..100).for_each(|n| assert!(world.send(0, n, true)));
    (100..150).for_each(|n| assert!(world.send(1, n, true)));
    world.run(50);
    world.cut(0, 1);
    let it = world.nodes[1].it;
    world.reboot(1);
    world.view(0, &[0]);
    world.nodes[0].all(|| FromNode::Died { peer: Peer(1), it });
    world.run(200);
    world.view(0, &[0, 1]);
    world.view(1, &[0, 1]);
    world.join(0, 1);
    // What its old boot made lives on, under another owner.
    world.until("all back", |world| world.flows(1) == (0..150).collect());
    (0..150).for_each(|n| world.clear(0, n));
    (0..150).for_each(|n| world.clear(1, n));
    world.until("all cleared", |world| world.flows(0).is_empty() && world.flows(1).is_empty());
    assert_eq!(why(&world, 0, 1, ResyncWhy::Joined), 2);
}
