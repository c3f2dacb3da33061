//! A peer with a valid certificate that lies. Node 3 is no shard: its frames are written here.

use super::super::*;
use super::world::*;
use crate::replication::Doubt;
use crate::replication::outlet::Outlet;
use tidegate_dataplane::session::EndReason;
use tidegate_dataplane::session::copy::{Birth, EndNote, SessionCopy};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::session::record::{SessionId, WingFacts};

struct Forger {
    outlet: Outlet,
    names: Names,
}

impl Forger {
    /// Two true nodes in sync with the forger, of which the first is to be lied to.
    fn new() -> (World, Forger) {
        let mut world = World::cluster(&[Make::default(); 3]);
        world.nodes[2].stopped = true;
        world.cut(0, 2);
        world.join(0, 2);
        world.run(10);
        let names = world.nodes[2].names.clone();
        (world, Forger { outlet: Outlet::new(16_384), names })
    }

    fn copy(&mut self, origin: Boot, counter: u64, n: u16) -> SessionCopy {
        SessionCopy {
            birth: Birth {
                id: SessionId { origin: origin.node, boot: origin.boot, counter },
                tuple: flow(n),
                zones: [self.names.zone("outside").unwrap(), self.names.zone("inside").unwrap()],
                rule: self.names.rule("outside/inside/out").unwrap(),
                application: self.names.application("game").unwrap(),
                revision: 1,
                supersedes: None,
            },
            facts: [WingFacts { bits: 32, ..WingFacts::default() }, WingFacts::default()],
            sighted: [false; 2],
            age_ms: 1,
            created_age_ms: 5,
            packets: [1, 0],
            bytes: [32, 0],
        }
    }

    fn tell(&mut self, copy: &SessionCopy) {
        self.outlet.copy(copy, &self.names);
    }

    fn send(&mut self, world: &mut World) {
        let (_, frame) = self.outlet.finish().expect("something was said");
        world.forge(2, 0, frame);
        world.run(10);
    }
}

fn refused(world: &World, why: &str) -> u64 {
    world.status(0, 2).refused.iter().find(|(name, _)| *name == why).map_or(0, |(_, n)| *n)
}

#[test]
fn a_peer_tells_births_of_its_own_boot_alone() {
    let (mut world, mut forger) = Forger::new();
    let [me, other, it] = [0, 1, 2].map(|n| world.nodes[n].it);
    // Its own: taken, or the rest of the test proves nothing.
    let own = forger.copy(it, 1, 1);
    forger.tell(&own);
    forger.send(&mut world);
    assert_eq!(world.flows(0), [1].into(), "{:?} {:?}", world.nodes[0].doubts, world.status(0, 2));
    // Of a node that is there; of this node's present boot; of a boot of its own that began later than the session.
    let lies = [
        forger.copy(other, 1 << 40, 2),
        forger.copy(me, 1 << 40, 3),
        forger.copy(Boot { boot: 6, ..it }, 1, 4),
    ];
    lies.iter().for_each(|lie| forger.tell(lie));
    forger.send(&mut world);
    world.run(100);
    assert_eq!(world.flows(0), [1].into(), "no effect");
    assert!(world.flows(1).is_empty(), "nothing is told on while its origin is there");
    assert_eq!((refused(&world, "birth_of_another"), refused(&world, "never_made")), (1, 1));
    assert_eq!(world.nodes[0].doubts[Doubt::Identity as usize], 1);
    assert_eq!(world.nodes[0].closed, 0);
}

#[test]
fn absurd_values_have_no_effect() {
    let (mut world, mut forger) = Forger::new();
    let it = world.nodes[2].it;
    type Lie = (Doubt, fn(&mut SessionCopy));
    let absurd: [Lie; 5] = [
        (Doubt::Age, |c| c.created_age_ms = u64::MAX),
        (Doubt::Facts, |c| c.facts[0].bits = 1),
        (Doubt::Counters, |c| c.packets[0] = u64::MAX),
        (Doubt::Tuple, |c| c.birth.tuple.src_port = 0),
        (Doubt::Identity, |c| c.created_age_ms = 1 << 38),
    ];
    for (n, (_, lie)) in absurd.iter().enumerate() {
        let mut copy = forger.copy(it, n as u64, n as u16);
        lie(&mut copy);
        if n == 3 {
            copy.birth.tuple.dst_port = 0;
        }
        forger.tell(&copy);
    }
    forger.send(&mut world);
    assert_eq!(world.flows(0).len(), 0);
    assert!(absurd.iter().all(|(doubt, _)| world.nodes[0].doubts[*doubt as usize] == 1));
}

#[test]
fn a_flood_and_ends_of_others_have_no_effect() {
    let (mut world, mut forger) = Forger::new();
    assert!(world.send(1, 7, true));
    world.run(10);
    let (id, it) = (world.id(0, 7).unwrap(), world.nodes[2].it);
    // Aged, says one that does not own it.
    forger.outlet.end(&EndNote {
        id,
        tuple: flow(7),
        reason: EndReason::Aged,
        age_ms: 90_000,
        bits: [32, 0],
    });
    forger.send(&mut world);
    assert!(world.id(0, 7).is_some());
    // The inlets here let 100,000 records a second pass.
    for batch in 0..400 {
        for n in 0..300 {
            let copy = forger.copy(it, 300 * batch + n, 100);
            forger.tell(&copy);
        }
        let (_, frame) = forger.outlet.finish().unwrap();
        world.forge(2, 0, frame);
    }
    world.run(400);
    assert_eq!(world.nodes[0].doubts[Doubt::Flood as usize], 20_001);
    // The others are served all the while.
    assert!(world.send(1, 8, true));
    world.run(20);
    assert!(world.id(0, 8).is_some());
}

#[test]
fn a_broken_frame_closes_the_link_and_nothing_else() {
    let (mut world, mut forger) = Forger::new();
    let copy = forger.copy(world.nodes[2].it, 1, 1);
    forger.tell(&copy);
    let (_, mut frame) = forger.outlet.finish().unwrap();
    let last = frame.len() - 1;
    frame[14] = 99;
    frame[last] = 7;
    world.forge(2, 0, frame);
    world.run(10);
    assert_eq!((world.nodes[0].closed, world.status(0, 2).link), (1, None));
    assert_eq!(world.flows(0).len(), 0);
    assert!(world.send(1, 8, true));
    world.run(20);
    assert!(world.id(0, 8).is_some());
}
