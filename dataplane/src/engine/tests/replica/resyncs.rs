//! Mark and sweep, readers that fall behind, and the last words of the dead.

use super::*;

/// Node 2 has heard all that node 1 owns, in a resync with that mark; then it sweeps.
fn resync(c: &mut Cluster, mark: u32) {
    c.mark = mark;
    let now = c.of(1).now;
    let engine = &c.of(1).engine;
    let mut slots = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = engine.scan_owned(at, 3, &mut |slot| slots.push(slot));
    }
    let copies: Vec<Told> = slots.iter().map(|s| Told::Copy(engine.copy(*s, now).unwrap())).collect();
    c.of(2).engine.resync_begins(Cluster::slot(1), mark);
    for copy in &copies {
        c.apply(1, 2, copy);
    }
    let now = c.of(2).now;
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = c.of(2).engine.sweep_unmarked(Cluster::slot(1), boot(1), 1, mark, at, 3, now);
    }
}

#[test]
fn sessions_that_were_there_before_replication_are_told_by_a_resync() {
    // Red when a resync covers only what was logged.
    let mut labs = [Lab::of_node(1, POLICY), Lab::of_node(2, POLICY)];
    labs[0].connect(4000, 80);
    let mut c = Cluster::new(2);
    std::mem::swap(&mut c.nodes[0], &mut labs[0]);
    c.of(1).engine.enable_replication(ReplicationConfig::default()).unwrap();
    c.view(1, &[1, 2]);
    assert_eq!(c.of(1).engine.log_head(), 1);
    resync(&mut c, 1);
    assert_eq!(c.counts(), [1, 1]);
    assert_eq!(c.of(2).only().state, State::Established);
}

#[test]
fn what_vanished_at_its_owner_goes_by_mark_and_sweep_and_nothing_else_does() {
    // Red when the sweep takes what was told in the resync, what others own, or what was born since; or
    // leaves what is gone.
    let mut c = Cluster::new(2);
    for sport in 4000..4010 {
        c.of(1).verdict(OUT, udp(true, sport, 7777, 1));
    }
    c.of(2).verdict(OUT, udp(true, 5000, 7777, 1));
    resync(&mut c, 1);
    assert_eq!(c.counts()[1], 11);
    let gone =
        SessionFilter { source_port: Some(PortRange { first: 4000, last: 4004 }), ..Default::default() };
    let now = c.of(1).now;
    c.of(1).engine.clear(0, u32::MAX, &gone, now);
    c.nodes.iter_mut().for_each(|lab| lab.now.0 += 5_000);
    resync(&mut c, 2);
    assert_eq!(c.counts()[1], 6);
    assert_eq!(c.of(2).engine.counters().replication.swept, 5);
    assert_eq!(c.of(2).engine.tombstones(), (0, 0), "no end is told for it");
}

#[test]
fn what_the_owner_lacks_is_told_to_it() {
    // Red when a session that only a replica still knows is swept away, or never told.
    let mut c = Cluster::new(3);
    c.of(3).verdict(OUT, udp(true, 4000, 7777, 1));
    for told in c.read(3, 2) {
        c.apply(3, 2, &told);
    }
    // Node 3 is gone, and node 1, which never heard of the session, owns it or node 2 does.
    for node in 1..=2 {
        c.view(node, &[1]);
    }
    resync(&mut c, 1);
    assert_eq!(c.of(2).engine.counters().replication.returned, 1);
    for told in c.read(2, 1) {
        c.apply(2, 1, &told);
    }
    assert_eq!(c.counts()[..2], [1, 1]);
}

#[test]
fn a_flow_that_this_node_forwards_is_asked_for_and_not_swept() {
    // Red when the sweep ends a live flow because its owner had lost it by mistake.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    resync(&mut c, 1);
    c.nodes.iter_mut().for_each(|lab| lab.now.0 += 1_000);
    c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    let engine = &mut c.of(2).engine;
    let head = engine.log_head();
    c.of(2).engine.resync_begins(Cluster::slot(1), 2);
    let now = c.of(2).now;
    c.of(2).engine.sweep_unmarked(Cluster::slot(1), boot(1), 1, 2, 0, u32::MAX, now);
    assert_eq!(c.of(2).sessions().len(), 1);
    assert!(c.of(2).engine.log_head() > head);
}

#[test]
fn a_reader_that_falls_behind_the_log_is_told_so_and_a_slow_one_gets_the_newest_state_once() {
    // Red when lost changes are skipped in silence, or each change is told by itself.
    let mut lab = Lab::of_node(1, POLICY);
    lab.engine.enable_replication(ReplicationConfig { log_entries: 16, tombstones: 4 }).unwrap();
    lab.connect(4000, 80);
    let mut cursor = 1;
    let mut changes = 0;
    while lab.engine.next_change(&mut cursor, lab.now).unwrap().is_some() {
        changes += 1;
    }
    assert_eq!((changes, cursor), (1, lab.engine.log_head()), "three changes of one session, told once");
    for sport in 1..30 {
        lab.verdict(OUT, udp(true, sport, 7777, 1));
    }
    assert_eq!(lab.engine.next_change(&mut cursor, lab.now), Err(FellOut));
    lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
    // A tombstone that was overwritten is as good as lost, unless everybody has it.
    for (released, want) in [(true, false), (false, true)] {
        let mut cursor = lab.engine.log_head();
        let mut tell = |lab: &mut Lab, n: u16, release: bool| {
            for sport in 1000..1000 + n {
                lab.verdict(OUT, udp(true, sport, 7777, 1));
                lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
                if release {
                    lab.engine.release_tombstones(lab.engine.log_head());
                }
            }
            lab.engine.next_change(&mut cursor, lab.now).is_err()
        };
        assert_eq!(tell(&mut lab, 6, released), want, "released: {released}");
    }
}

#[test]
fn the_last_words_of_a_dead_node_reach_everybody() {
    // Red when what only one node heard from the dead is lost to the others.
    let mut c = Cluster::new(3);
    c.of(1).connect(4000, 80);
    c.of(1).verdict(OUT, udp(true, 4001, 7777, 1));
    for told in c.read(1, 2) {
        c.apply(1, 2, &told);
    }
    for node in 2..=3 {
        c.view(node, &[2, 3]);
        let now = c.of(node).now;
        c.of(node).engine.peer_died(Cluster::slot(1), boot(1), now);
    }
    for told in c.read(2, 3) {
        c.apply(2, 3, &told);
    }
    assert_eq!(c.counts()[1..], [2, 2]);
    assert_eq!(c.of(2).engine.counters().replication.echoed, 2);
}
