//! What a peer may tell, and what has no effect (`spec/replication.md`; the forger's test).

use super::*;
use crate::session::EndReason;
use crate::session::copy::EndNote;

fn told_copy(c: &mut Cluster, from: u16, to: u16) -> crate::session::copy::SessionCopy {
    match c.read(from, to)[..] {
        [Told::Copy(copy)] => copy,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_birth_is_the_origins_to_tell_while_it_is_there() {
    // Red when anybody may tell a session of a living origin, or nobody one of a dead one.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    let copy = told_copy(&mut c, 1, 2);
    assert_eq!(c.apply(3, 2, &Told::Copy(copy)), Applied::Refused(Refusal::BirthOfAnother));
    assert_eq!(c.of(2).sessions().len(), 0);
    c.view(2, &[2, 3]);
    let mut wishes = Vec::new();
    c.of(2).engine.take_resync_wishes(|peer| wishes.push(peer));
    assert_eq!(wishes, [Cluster::slot(3)], "what was refused from it may be right now");
    assert_eq!(c.apply(3, 2, &Told::Copy(copy)), Applied::New);
    assert_eq!(c.of(2).sessions().len(), 1);
}

#[test]
fn sessions_of_this_boot_are_known_here_or_over() {
    // Red when a peer can plant a session as this node's own, or bring one back that it ended.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    let mut copy = {
        let lab = c.of(2);
        lab.engine.copy(crate::table::SlotId(0), lab.now).unwrap()
    };
    let now = c.of(1).now;
    c.of(1).engine.clear(0, u32::MAX, &SessionFilter::default(), now);
    assert_eq!(c.apply(2, 1, &Told::Copy(copy)), Applied::Answered);
    copy.birth.id.counter = 1_000_000;
    assert_eq!(c.apply(2, 1, &Told::Copy(copy)), Applied::Refused(Refusal::NeverMade));
    assert_eq!(c.of(1).sessions().len(), 0);
    c.talk();
    assert_eq!(c.counts(), [0, 0]);
}

#[test]
fn nonsense_is_refused_and_counted() {
    // Red when a value that no honest node tells is taken, or panics.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    let copy = told_copy(&mut c, 1, 2);
    let mut mixed = copy;
    mixed.birth.tuple.src = "2001:db8::1".parse::<IpAddr>().unwrap().into();
    let mut old = copy;
    old.age_ms = u32::MAX;
    let mut facts = copy;
    facts.facts[1].bits = 0xff;
    let mut own = copy;
    own.birth.supersedes = Some(copy.birth.id);
    for bad in [mixed, old, facts, own] {
        let applied = c.apply(1, 2, &Told::Copy(bad));
        assert!(matches!(applied, Applied::Refused(Refusal::Absurd(_))), "{bad:?}: {applied:?}");
    }
    let lab = c.of(2);
    let applied = lab.engine.apply_copy(Peer(15), boot(1), 1, &copy, lab.now);
    assert!(matches!(applied, Applied::Refused(_)), "no such peer");
    let applied = lab.engine.apply_copy(Peer(0), boot(2), 1, &copy, lab.now);
    assert!(matches!(applied, Applied::Refused(_)), "nobody else is this node");
    assert_eq!(lab.engine.counters().replication.refused_absurd, 6);
    assert_eq!(c.counts(), [1, 0]);
    assert_eq!(c.apply(1, 2, &Told::Copy(copy)), Applied::New);
    let mut moved = copy;
    moved.birth.zones = [moved.birth.zones[1], moved.birth.zones[0]];
    assert!(matches!(c.apply(1, 2, &Told::Copy(moved)), Applied::Refused(_)), "a birth never changes");
}

#[test]
fn what_is_final_stays_so_against_every_copy() {
    // Red when a late copy, however young, brings a closed, reset, cleared or denied session back.
    for reason in EndReason::ALL.into_iter().filter(|r| r.is_final()) {
        let mut c = Cluster::new(3);
        c.of(1).connect(4000, 80);
        let copies: Vec<Told> = c.read(1, 2);
        for told in &copies {
            c.apply(1, 2, told);
            c.apply(1, 3, told);
        }
        let s = c.of(1).only();
        let (id, tuple) = (s.id, s.wings[0].tuple);
        let end = EndNote { id, tuple, reason, age_ms: 0, bits: [63, 63] };
        c.apply(1, 2, &Told::End(end));
        assert_eq!(c.of(2).sessions().len(), 0, "{reason:?}");
        for told in &copies {
            c.apply(1, 2, told);
            c.apply(3, 2, told);
        }
        assert_eq!(c.of(2).sessions().len(), 0, "{reason:?}: back again");
    }
}

#[test]
fn a_copy_that_the_local_policy_denies_forwards_nothing_and_only_the_owner_ends_it() {
    // Red when a replica ends what it may not decide, or forwards what its policy denies.
    let mut c = Cluster::new(2);
    c.of(2).policy(&POLICY.replace("action = \"permit\"", "action = \"deny\""));
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    assert_eq!(dropped(c.of(2).verdict(OUT, udp(true, 4000, 7777, 1))), DropReason::PolicyRevoked);
    c.wait_ms(3_000);
    assert_eq!(c.counts(), [1, 1]);
    assert_eq!(c.of(2).engine.log_head(), 1, "nothing of it is told");
    c.of(1).policy(&POLICY.replace("action = \"permit\"", "action = \"deny\""));
    c.wait_ms(3_000);
    assert_eq!(c.counts(), [0, 0]);
}

#[test]
fn counts_are_summed_over_nodes_and_survive_a_peers_boots() {
    // Red when a peer's counts replace this node's, or a new boot of it starts the sum anew.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 72));
    c.talk();
    for _ in 0..3 {
        c.of(2).verdict(OUT, udp(true, 4000, 7777, 72));
    }
    c.of(2).verdict(IN, udp(false, 4000, 7777, 72));
    c.talk();
    let packets = |c: &mut Cluster| c.of(1).only().wings.map(|w| w.packets);
    assert_eq!(packets(&mut c), [4, 1]);
    let lab = c.of(2);
    let mut copy = lab.engine.copy(crate::table::SlotId(0), lab.now).unwrap();
    (copy.packets, copy.bytes) = ([2, 2], [200, 200]);
    let reborn = Boot { node: 2, boot: 8 };
    let lab = c.of(1);
    lab.engine.apply_copy(Peer(1), reborn, 2, &copy, lab.now);
    lab.engine.apply_copy(Peer(1), reborn, 2, &copy, lab.now);
    assert_eq!(packets(&mut c), [6, 3]);
}
