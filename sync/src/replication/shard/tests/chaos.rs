//! Seeded trouble: links that break and delay, rings that fill up, nodes that stop, clears and births all the
//! while. Afterwards all nodes hold the same sessions.

use super::super::*;
use super::world::*;
use std::collections::BTreeMap;
use tidegate_dataplane::engine::ReplicationConfig;

struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn trouble(seed: u64) {
    let mut draw = Draw(seed);
    let nodes = 2 + draw.below(2) as usize;
    let small = draw.below(2) == 0;
    let make = |draw: &mut Draw| Make {
        workers: 1 + draw.below(3) as u16,
        replication: if small {
            ReplicationConfig { log_entries: 128, tombstones: 32 }
        } else {
            ReplicationConfig::default()
        },
        shard: ShardConfig { keep_ms: 500, ..ShardConfig::default() },
        ..Make::default()
    };
    let makes: Vec<Make> = (0..nodes).map(|_| make(&mut draw)).collect();
    let mut world = World::cluster(&makes);
    let mut next = 0;
    let (mut cut, mut jammed) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..400 {
        let (a, b) = (draw.below(nodes as u64) as usize, draw.below(nodes as u64) as usize);
        match draw.below(12) {
            0 if a != b => {
                let on = jammed.entry((a, b)).or_insert(false);
                *on = !*on;
                world.jam(a, b, *on);
            }
            1 if a < b => {
                let on = cut.entry((a, b)).or_insert(false);
                *on = !*on;
                if *on { world.cut(a, b) } else { world.join(a, b) }
            }
            2 if a != b => world.delay(a, b, draw.below(40)),
            3..8 => {
                for _ in 0..draw.below(20) {
                    world.send(a, next, true);
                    next += 1;
                }
            }
            8..10 => {
                (0..draw.below(20)).for_each(|_| world.clear(a, draw.below(u64::from(next).max(1)) as u16))
            }
            _ => (0..draw.below(20)).for_each(|_| {
                let n = draw.below(u64::from(next).max(1)) as u16;
                if world.id(a, n).is_some() {
                    world.send(a, n, false);
                }
            }),
        }
        world.run(draw.below(15));
    }
    for a in 0..nodes {
        (0..nodes).filter(|b| *b != a).for_each(|b| {
            world.jam(a, b, false);
            world.delay(a, b, 1);
        });
        (a + 1..nodes).filter(|b| cut.get(&(a, *b)) == Some(&true)).for_each(|b| world.join(a, b));
    }
    let same = |world: &World| {
        let of = |node| {
            let mut all: Vec<_> = world.sessions(node).iter().map(|s| (s.id, s.state)).collect();
            all.sort_unstable();
            all
        };
        (1..nodes).all(|node| of(node) == of(0))
    };
    world.until(&format!("seed {seed} converges"), same);
    world.run(1_000);
    assert!(same(&world), "seed {seed} stays so");
    assert!(!world.flows(0).is_empty(), "seed {seed} left nothing to compare");
    for node in 0..nodes {
        for peer in (0..nodes).filter(|p| *p != node) {
            let status = world.status(node, peer);
            assert_eq!((status.pending_bytes, status.lag_entries), (0, 0), "seed {seed}: {status:?}");
        }
        assert_eq!(world.nodes[node].closed, 0, "seed {seed}");
    }
}

#[test]
fn after_any_trouble_all_nodes_hold_the_same() {
    (0..12).for_each(trouble);
}

/// `cargo test -p tidegate-sync any_trouble_at_length -- --ignored`
#[test]
#[ignore = "the same, for minutes"]
fn after_any_trouble_at_length() {
    (12..100).for_each(trouble);
}
