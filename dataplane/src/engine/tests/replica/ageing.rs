//! Who ends what, and when (`spec/replication.md`, "Who decides").

use super::*;
use crate::engine::replica::staleness_bound_ms;
use crate::session::EndReason;

/// UDP sessions of this policy live for 20 s.
fn short() -> String {
    format!("{POLICY}\n[timeouts]\nudp = 20")
}

const TIMEOUT_MS: u64 = 20_000;

fn bound_ms() -> u64 {
    staleness_bound_ms(TIMEOUT_MS as u32, 100).into()
}

#[test]
fn what_only_the_owner_has_seen_ages_exactly_on_time_and_everywhere() {
    // Red when the owner waits or asks for what nobody else has seen, or a replica ages by itself.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.wait_ms(TIMEOUT_MS);
    assert_eq!(c.counts(), [1, 1, 1]);
    c.of(1).now.0 += 1;
    assert_eq!(c.of(1).sessions().len(), 0, "a lookup takes it for expired at once");
    c.wait_ms(1_200);
    assert_eq!(c.counts(), [0, 0, 0]);
    assert_eq!(c.of(1).engine.counters().replication.asked, 0);
    let let_go: u64 = c.nodes.iter().map(|l| l.engine.counters().replication.let_go).sum();
    assert_eq!(let_go, 0, "the owner's word ended it, not the bound");
}

#[test]
fn the_owner_asks_before_it_ages_what_others_have_seen() {
    // Red when the owner ages by what it knows alone: the replica's packets are too young to have been told.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    // Younger than the last telling by less than a refresh: untold.
    c.wait_ms(4_000);
    c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    c.wait_ms(TIMEOUT_MS - 4_000 + 1_500);
    assert_eq!(c.counts(), [1, 1]);
    assert_eq!(c.of(1).engine.counters().replication.asked, 1);
    c.wait_ms(4_000 + 1_500);
    assert_eq!(c.counts(), [0, 0]);
    assert_eq!(c.of(1).engine.counters().ended[EndReason::Aged as usize], 1);
    assert_eq!(c.of(2).engine.counters().ended[EndReason::Aged as usize], 0);
}

#[test]
fn a_replica_waits_the_staleness_bound_and_leaves_no_tombstone() {
    // Red when a replica ages at the timeout, never lets go, or its letting go is told as an end.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    let alone = |c: &mut Cluster, ms| c.of(2).wait_ms(ms);
    // A telling takes a millisecond at least.
    alone(&mut c, TIMEOUT_MS + bound_ms() - 1);
    assert_eq!(c.of(2).sessions().len(), 1);
    // It is here, and no part of what all must hold: red when verify takes it for missing, or for live.
    let (mut live, mut idle) = (Vec::new(), Vec::new());
    let lab = c.of(2);
    (0..VERIFY_BUCKETS).for_each(|bucket| {
        lab.engine.verify_bucket(bucket, 0, u32::MAX, lab.now, &mut live, &mut idle);
    });
    assert_eq!((live.len(), idle), (0, vec![lab.only().id]));
    alone(&mut c, 1_100);
    assert_eq!(c.of(2).engine.summary().in_use, 0);
    assert_eq!((c.of(2).engine.log_head(), c.of(2).engine.tombstones()), (1, (0, 0)));
    assert_eq!(c.of(2).engine.counters().replication.let_go, 1);
}

#[test]
fn a_flow_through_replicas_alone_outlives_its_owner() {
    // Red when the new owner ages by its own packets alone, or a dead owner's sessions go with it.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    for round in 0..10 {
        c.wait_ms(TIMEOUT_MS * 8 / 10);
        if round == 4 {
            c.nodes[0].engine.hold_ageing(true);
            for node in 2..=3 {
                c.view(node, &[2, 3]);
                let now = c.of(node).now;
                c.of(node).engine.peer_died(Cluster::slot(1), boot(1), now);
            }
        }
        let through = 2 + u16::from(round % 2 == 1);
        let v = c.of(through).verdict(OUT, udp(true, 4000, 7777, 1));
        assert_eq!(v, Verdict::Transmit(IN), "round {round}");
        assert_eq!(c.of(through).engine.counters().created, 0, "round {round}: a session of its own");
    }
    let (two, three) = (c.of(2).only(), c.of(3).only());
    assert_eq!((two.owner, two.id.origin), (three.owner, 1));
    assert_ne!(two.owner, Some(boot(1)));
    c.wait_ms(TIMEOUT_MS + bound_ms() + 2_500);
    assert_eq!(c.counts()[1..], [0, 0]);
}

#[test]
fn what_a_dead_node_may_have_seen_untold_counts_for_the_new_owner() {
    // Red when the new owner ages at the timeout a session whose dead owner may have forwarded younger packets.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.view(2, &[2]);
    let now = c.of(2).now;
    c.of(2).engine.peer_died(Cluster::slot(1), boot(1), now);
    c.of(2).wait_ms(TIMEOUT_MS + bound_ms() - 100);
    assert_eq!(c.of(2).verdict(OUT, udp(true, 4000, 7777, 1)), Verdict::Transmit(IN));
    assert_eq!(c.of(2).engine.counters().created, 0);
}

#[test]
fn an_end_by_age_loses_against_a_younger_copy_and_the_session_lives_everywhere() {
    // Red when a claim is final: two owners, each with its own half of the packets.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.nodes.iter_mut().for_each(|lab| lab.now.0 += 15_000);
    c.of(3).verdict(OUT, udp(true, 4000, 7777, 1));
    // Nobody hears of that packet, and the owner ages the session.
    c.nodes.iter_mut().for_each(|lab| lab.now.0 += 6_000);
    c.of(1).wait_ms(1_500);
    assert_eq!(c.of(1).sessions().len(), 0);
    for told in c.read(1, 2).into_iter().chain(c.read(1, 3)).collect::<Vec<_>>() {
        c.apply(1, 2, &told);
    }
    assert_eq!(c.of(2).sessions().len(), 0, "who has seen nothing younger believes it");
    c.talk();
    c.wait_ms(100);
    assert_eq!(c.counts(), [1, 1, 1]);
    assert!(c.of(1).engine.counters().replication.rebirths > 0);
}

#[test]
fn an_end_by_age_from_a_node_that_does_not_own_the_session_has_no_effect() {
    // Red when any peer may age any session.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    let s = c.of(1).only();
    c.of(2).wait_ms(10);
    let mut end = crate::session::copy::EndNote {
        id: s.id,
        tuple: s.wings[0].tuple,
        reason: EndReason::Aged,
        age_ms: 5,
        bits: [0; 2],
    };
    assert_eq!(c.apply(3, 2, &Told::End(end)), Applied::Refused(Refusal::NotOwner));
    end.age_ms = 1_000_000;
    assert_eq!(c.apply(3, 2, &Told::End(end)), Applied::Answered, "it knows of younger packets");
    assert_eq!(c.apply(3, 1, &Told::End(end)), Applied::Answered);
    assert_eq!(c.counts(), [1, 1, 1]);
}

#[test]
fn while_ageing_is_held_nothing_ages_and_nothing_is_asked() {
    // Red when a node that stood still ages before it has applied what waits for it.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.of(2).verdict(OUT, udp(true, 4001, 7777, 1));
    c.talk();
    c.of(1).engine.hold_ageing(true);
    c.of(1).wait_ms(100_000);
    assert_eq!(c.of(1).sessions().len(), 2);
    c.of(1).engine.hold_ageing(false);
    c.of(1).wait_ms(1_500);
    assert_eq!(c.of(1).sessions().len(), 0);
}

#[test]
fn a_timeout_that_policy_changes_reaches_replicas_no_sooner_than_the_owner() {
    // Red when a replica takes a shorter timeout at once, while the owner keeps the old one until a packet comes (F7).
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.wait_ms(1_000);
    c.nodes.iter_mut().for_each(|lab| lab.policy(&format!("{POLICY}\n[timeouts]\nudp = 4")));
    c.wait_ms(15_000);
    assert_eq!(c.counts(), [1, 1]);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.wait_ms(3_000);
    assert_eq!(c.counts(), [1, 1]);
    c.wait_ms(3_000);
    assert_eq!(c.counts(), [0, 0]);
}
