//! Histories that once left a session on some nodes and not on others: what was wrong, one test each.

use super::*;
use crate::session::EndReason;
use crate::session::copy::{EndNote, SessionCopy};
use crate::session::record::WingFacts;
use crate::session::tcp::fact;

/// What `from` tells `to` now, split into copies and ends.
fn told(c: &mut Cluster, from: u16, to: u16) -> (Vec<SessionCopy>, Vec<EndNote>) {
    let (mut copies, mut ends) = (Vec::new(), Vec::new());
    for word in c.read(from, to) {
        match word {
            Told::Copy(copy) => copies.push(copy),
            Told::End(end) => ends.push(end),
        }
    }
    (copies, ends)
}

fn clear_all(c: &mut Cluster) {
    for lab in &mut c.nodes {
        lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
    }
}

/// Nobody has anything to say any more, and what waited was looked at.
fn settle(c: &mut Cluster) {
    for _ in 0..3 {
        c.talk();
        c.nodes.iter_mut().for_each(|lab| lab.engine.sweep(lab.now));
    }
    c.talk();
}

#[test]
fn a_second_birth_that_was_answered_is_over_on_the_node_that_saw_the_answer_too() {
    // Goes red when that node keeps it, although nobody else does, because the first birth is cleared before it
    // comes: two births of a datagram flow, an answer to the higher one, a clear.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    c.of(2).verdict(IN, udp(false, 4000, 7777, 1));
    // Node 3 hears of both, and tells which one is over; node 2 never hears of the first alive.
    for from in [1, 2] {
        for word in c.read(from, 3) {
            c.apply(from, 3, &word);
        }
    }
    let over = told(&mut c, 3, 2).1;
    assert_eq!(over.len(), 1);
    let now = c.of(1).now;
    c.of(1).engine.clear(0, u32::MAX, &SessionFilter::default(), now);
    assert_eq!(c.apply(3, 2, &Told::End(over[0])), Applied::Merged);
    settle(&mut c);
    assert_eq!(c.counts(), [0, 0, 0]);
}

#[test]
fn who_drops_a_birth_hears_of_the_one_that_won() {
    // Goes red when a node that holds the winner says only that the loser is over: whoever lacks the winner, and
    // whose own birth it was, is left without any.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    for word in c.read(1, 2) {
        c.apply(1, 2, &word);
    }
    c.read(1, 3);
    c.of(3).verdict(OUT, udp(true, 4000, 7777, 1));
    // Node 1 is gone; node 3 has never heard of its session.
    c.view(2, &[2, 3]);
    c.view(3, &[2, 3]);
    for word in c.read(3, 2) {
        c.apply(3, 2, &word);
    }
    let (copies, ends) = told(&mut c, 2, 3);
    assert_eq!((copies.len(), ends.len()), (1, 1));
    assert_eq!(copies[0].birth.id.origin, 1);
}

#[test]
fn an_end_that_is_refused_is_answered_with_what_is_known() {
    // Goes red when a node that knows a session to be alive keeps that to itself: others have taken it for over by
    // an early picture of it, and stay without it.
    let mut c = Cluster::new(3);
    c.of(1).connect(4000, 80);
    c.talk();
    let s = c.of(1).only();
    let (id, tuple) = (s.id, s.wings[0].tuple);
    let early = EndNote { id, tuple, reason: EndReason::Superseded, age_ms: 0, bits: [fact::SYN, 0] };
    // Node 2 has let it go, and takes it for over.
    let now = c.of(2).now;
    c.view(2, &[2]);
    c.of(2).engine.clear(0, u32::MAX, &SessionFilter::default(), now);
    c.read(2, 1);
    c.read(2, 3);
    c.view(2, &[1, 2, 3]);
    assert_eq!(c.apply(2, 1, &Told::End(early)), Applied::Answered);
    assert_eq!(c.apply(2, 3, &Told::End(early)), Applied::Answered);
    assert_eq!(told(&mut c, 1, 2).0.len(), 1);
}

#[test]
fn whether_a_superseded_session_is_over_is_judged_by_all_that_is_known_of_it() {
    // Goes red when the order of copy and end decides: facts that came after the end must count as those that came
    // before it.
    let ends = [[fact::SYN, 0], [fact::SYN | fact::FIN, fact::SYN | fact::FIN]];
    for bits in ends {
        let closing = bits[1] != 0;
        let outcome = |copy_first: bool| {
            let mut c = Cluster::new(2);
            c.of(1).connect(4000, 80);
            let copy = told(&mut c, 1, 2).0[0];
            let (id, tuple) = (copy.birth.id, copy.birth.tuple);
            let end = EndNote { id, tuple, reason: EndReason::Superseded, age_ms: 0, bits };
            let words = [Told::Copy(copy), Told::End(end)];
            let order = if copy_first { [0, 1] } else { [1, 0] };
            order.iter().for_each(|n| {
                c.apply(1, 2, &words[*n]);
            });
            c.of(2).sessions().len()
        };
        assert_eq!(outcome(true), usize::from(!closing), "copy first, {bits:?}");
        assert_eq!(outcome(false), usize::from(!closing), "end first, {bits:?}");
    }
}

#[test]
fn all_births_that_wait_for_a_tuple_get_their_turn() {
    // Goes red when only one word waits for a tuple: of three births of one tuple the last two wait, and the
    // one that is not cleared must come in when the first has gone.
    let mut c = Cluster::new(3);
    let mut words = Vec::new();
    for (node, seq) in [(1, 1000), (2, 50_000), (3, 90_000)] {
        let mut lab = Lab::of_node(node, POLICY);
        lab.engine.enable_replication(ReplicationConfig::default()).unwrap();
        lab.verdict(OUT, tcp(true, 4000, 80, SYN, seq, 0, 0));
        words.push(lab.engine.copy(crate::table::SlotId(0), lab.now).unwrap());
    }
    // Seen by node 2 of a cluster whose nodes 1 and 3 made theirs; a third comes from a boot that is gone.
    let mut gone = words[1];
    gone.birth.id.origin = 9;
    for (from, copy) in [(1, words[0]), (3, words[2]), (1, gone)] {
        c.apply(from, 2, &Told::Copy(copy));
    }
    assert_eq!(c.of(2).only().id.origin, 1);
    for copy in [words[0], gone] {
        let (id, tuple) = (copy.birth.id, copy.birth.tuple);
        let end = EndNote { id, tuple, reason: EndReason::Cleared, age_ms: 0, bits: [fact::SYN, 0] };
        c.apply(1, 2, &Told::End(end));
        let lab = c.of(2);
        lab.engine.sweep(lab.now);
    }
    assert_eq!(c.of(2).only().id.origin, 3);
}

#[test]
fn an_own_session_that_was_let_go_undecided_is_taken_back() {
    // Goes red when a node says of a session of its own boot that it is closed, because it is not there: it was let
    // go while another node decided about it, and lives.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    // Node 1 is not in sync, so node 2 decides; packets go there, and node 1 hears nothing of them.
    c.view(1, &[2]);
    c.view(2, &[2]);
    for _ in 0..400 {
        for lab in &mut c.nodes {
            lab.wait_ms(1_000);
        }
        c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    }
    assert_eq!(c.counts(), [0, 1]);
    c.read(2, 1);
    c.view(1, &[1, 2]);
    c.view(2, &[1, 2]);
    let lab = c.of(2);
    let copy = lab.engine.copy(crate::table::SlotId(0), lab.now).unwrap();
    assert_eq!(c.apply(2, 1, &Told::Copy(copy)), Applied::New);
    settle(&mut c);
    assert_eq!(c.counts(), [1, 1]);
}

#[test]
fn a_closing_connection_does_not_take_the_place_of_a_live_one() {
    // Goes red when a node that comes back with a closed connection in hand, of a lower identity, ends the new
    // one that has its tuple meanwhile.
    let mut c = Cluster::new(2);
    for (up, flags, seq, ack) in [
        (true, SYN, 1000, 0),
        (false, SYN | ACK, 5000, 1001),
        (true, ACK, 1001, 5001),
        (true, FIN | ACK, 1001, 5001),
        (false, FIN | ACK, 5001, 1002),
    ] {
        let port = if up { OUT } else { IN };
        c.of(1).verdict(port, tcp(up, 4000, 80, flags, seq, ack, 0));
    }
    // Node 2 never heard of it.
    for (up, flags, seq, ack) in
        [(true, SYN, 70_000, 0), (false, SYN | ACK, 80_000, 70_001), (true, ACK, 70_001, 80_001)]
    {
        let port = if up { OUT } else { IN };
        c.of(2).verdict(port, tcp(up, 4000, 80, flags, seq, ack, 0));
    }
    settle(&mut c);
    for node in 1..=2 {
        let s = c.of(node).only();
        assert_eq!((s.id.origin, s.state), (2, State::Established), "node {node}");
    }
    clear_all(&mut c);
    settle(&mut c);
    assert_eq!(c.counts(), [0, 0]);
}

#[test]
fn a_denied_copy_ends_when_its_node_comes_to_be_the_owner() {
    // Goes red when a copy is judged once, when it comes: whoever may not end it then, and comes to own it, never
    // does.
    let mut c = Cluster::new(2);
    c.of(2).policy(&POLICY.replace("action = \"permit\"", "action = \"deny\""));
    c.of(1).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    c.of(2).wait_ms(3_000);
    assert_eq!(c.counts(), [1, 1]);
    c.view(2, &[2]);
    c.of(2).wait_ms(3_000);
    assert_eq!(c.counts(), [1, 0]);
}

#[test]
fn a_resync_tells_the_ends_that_the_log_has_forgotten() {
    // Goes red when the scan leaves out a tombstone under the given number or later, or tells an older one.
    let mut c = Cluster::new(2);
    for sport in 4000..4006 {
        c.of(1).verdict(OUT, udp(true, sport, 7777, 1));
    }
    let mut heads = Vec::new();
    for port in 4000..4006 {
        let one = PortRange { first: port, last: port };
        let filter = SessionFilter { source_port: Some(one), ..Default::default() };
        let lab = c.of(1);
        heads.push(lab.engine.log_head());
        lab.engine.clear(0, u32::MAX, &filter, lab.now);
    }
    let lab = c.of(1);
    for (n, since) in heads.iter().enumerate() {
        let (mut ports, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            cursor = lab.engine.scan_ends(at, 4, *since, lab.now, &mut |end| ports.push(end.tuple.src_port));
        }
        assert_eq!(ports, (4000 + n as u16..4006).collect::<Vec<_>>());
    }
}

#[test]
fn facts_of_an_end_that_is_refused_are_kept() {
    // Goes red when what only the teller of a refused end knew is lost: two nodes would judge by different facts.
    let mut c = Cluster::new(2);
    c.of(1).connect(4000, 80);
    let s = c.of(1).only();
    let before = s.wings.map(|w| w.facts);
    let (id, tuple) = (s.id, s.wings[0].tuple);
    let bits = [fact::FIN, 0];
    let end = EndNote { id, tuple, reason: EndReason::Superseded, age_ms: 0, bits };
    assert_eq!(c.apply(2, 1, &Told::End(end)), Applied::Answered);
    let after = c.of(1).only().wings.map(|w| w.facts);
    assert_eq!(after, [WingFacts { bits: before[0].bits | fact::FIN, ..before[0] }, before[1]]);
}

#[test]
fn the_owner_tells_of_a_session_that_a_late_packet_has_revived() {
    // Goes red when it only takes note: a node that has let its copy go takes it back from nobody else.
    let mut c = Cluster::new(3);
    c.of(2).verdict(OUT, udp(true, 4000, 7777, 1));
    c.talk();
    // Idle for longer than the timeout, and on node 1 for longer than a replica waits beyond it.
    let timeout_ms = u64::from(c.of(2).only().timeout.and_then(|t| t.timeout_ms).unwrap() as u32);
    for (node, late_ms) in [(1, 1_000_000), (2, 1_000), (3, 1_000)] {
        c.of(node).now.0 += timeout_ms + late_ms;
    }
    for _ in 0..10 {
        c.of(1).wait_ms(1_000);
    }
    assert_eq!(c.counts()[0], 0);
    c.of(3).verdict(OUT, udp(true, 4000, 7777, 1));
    settle(&mut c);
    assert_eq!(c.counts(), [1, 1, 1]);
}

#[test]
fn who_takes_an_end_by_what_only_it_knows_tells_so() {
    // Goes red when a node that saw a connection being reset takes an early end of it in silence: for the others it
    // is not over, and they keep it.
    let mut c = Cluster::new(3);
    c.of(1).connect(4000, 80);
    c.talk();
    let s = c.of(1).only();
    let (id, tuple) = (s.id, s.wings[0].tuple);
    let at = s.wings[0].facts.seq_max;
    c.of(2).verdict(OUT, tcp(true, 4000, 80, RST, at, 0, 0));
    assert_eq!(c.of(2).only().state, State::Reset);
    let early = EndNote { id, tuple, reason: EndReason::Superseded, age_ms: 0, bits: [fact::SYN, 0] };
    assert_eq!(c.apply(3, 2, &Told::End(early)), Applied::Merged);
    settle(&mut c);
    assert_eq!(c.counts(), [0, 0, 0]);
}
