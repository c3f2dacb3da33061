//! What the simulation of sessions found wrong, one test each.

use super::*;
use crate::engine::replica::refresh_ms;
use crate::session::EndReason;
use crate::session::copy::{EndNote, SessionCopy};
use crate::session::record::SessionId;

const TIMEOUT_MS: u32 = 20_000;

fn short() -> String {
    format!("{POLICY}\n[timeouts]\nudp = 20")
}

fn flow() -> Vec<u8> {
    udp(true, 4000, 7777, 1)
}

/// The copies that `from` tells `to` now.
fn copies(c: &mut Cluster, from: u16, to: u16) -> Vec<SessionCopy> {
    let copy = |word| if let Told::Copy(copy) = word { Some(copy) } else { None };
    c.read(from, to).into_iter().filter_map(copy).collect()
}

fn aged(copy: &SessionCopy, age_ms: u32) -> EndNote {
    let SessionCopy { birth, facts, .. } = copy;
    EndNote { id: birth.id, tuple: birth.tuple, reason: EndReason::Aged, age_ms, bits: facts.map(|f| f.bits) }
}

/// Nodes 1 and 3 have made a session of one flow each; node 2 knows both, and node 1 has told node 3 nothing. What node 1
/// told of its own.
fn two_births(c: &mut Cluster, between_ms: u64) -> SessionCopy {
    c.of(1).verdict(OUT, flow());
    let first = copies(c, 1, 2)[0];
    c.read(1, 3);
    c.apply(1, 2, &Told::Copy(first));
    c.nodes.iter_mut().for_each(|lab| lab.wait_ms(between_ms));
    c.of(3).verdict(OUT, flow());
    for word in c.read(3, 2) {
        c.apply(3, 2, &word);
    }
    first
}

#[test]
fn who_loses_a_second_birth_goes_on_with_the_first_whoever_tells_of_it() {
    // Red when the first birth is refused because its origin is alive and has not told of it: the node forwards nothing
    // until that one comes to it, and both are lost if it dies before.
    let mut c = Cluster::new(3);
    two_births(&mut c, 100);
    for word in c.read(2, 3) {
        c.apply(2, 3, &word);
    }
    let lab = c.of(3);
    lab.engine.sweep(lab.now);
    assert_eq!(c.of(3).only().id.origin, 1);
    assert_eq!(c.of(3).verdict(OUT, flow()), Verdict::Transmit(IN));
    assert_eq!(c.of(3).engine.counters().created, 1, "its own, before");
}

#[test]
fn a_birth_of_another_that_no_session_here_has_lost_to_is_refused() {
    // Red when any word of a third node counts: then a member can put in what it likes.
    let mut c = Cluster::new(3);
    let first = two_births(&mut c, 100);
    assert_eq!(c.apply(2, 3, &Told::Copy(first)), Applied::Refused(Refusal::BirthOfAnother));
    assert_eq!(c.of(3).only().id.origin, 3);
}

#[test]
fn what_was_seen_of_a_second_birth_keeps_the_first_alive() {
    // Red when the age of the loser's last packet is lost with it: the owner, which has not seen that one, ages the flow.
    let mut c = Cluster::with(3, &short());
    let first = two_births(&mut c, 10_000);
    let ends = c.read(2, 3).into_iter().filter(|word| matches!(word, Told::End(_))).collect::<Vec<_>>();
    ends.iter().for_each(|end| {
        c.apply(2, 3, end);
    });
    assert_eq!(c.counts()[2], 0);
    let late = SessionCopy { age_ms: 10_000, ..first };
    assert_eq!(c.apply(1, 3, &Told::Copy(late)), Applied::New);
    assert!(c.of(3).only().idle_ms < 1_000, "{} ms", c.of(3).only().idle_ms);
    assert_eq!(c.apply(1, 3, &Told::End(aged(&first, 10_500))), Applied::Answered);
}

#[test]
fn what_is_told_twice_before_the_birth_comes_is_as_old_as_the_younger_word() {
    // Red when the age of the second is counted from the first one's arrival, or from the birth's.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, flow());
    let copy = copies(&mut c, 1, 2)[0];
    for age_ms in [3_000, 0] {
        let word = SessionCopy { age_ms, created_age_ms: 9_000, ..copy };
        assert_eq!(c.apply(2, 3, &Told::Copy(word)), Applied::Refused(Refusal::BirthOfAnother));
        c.of(3).wait_ms(4_000);
    }
    let birth = SessionCopy { age_ms: 11_000, created_age_ms: 17_000, ..copy };
    assert_eq!(c.apply(1, 3, &Told::Copy(birth)), Applied::New);
    let idle_ms = c.of(3).only().idle_ms;
    assert!((4_000..4_500).contains(&idle_ms), "{idle_ms} ms");
}

#[test]
fn a_claim_stays_as_old_as_it_was_told_on_a_node_that_has_just_started() {
    // Red when its age is cut off at this process's start: then a copy that refutes it seems older than the claim.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, flow());
    let copy = copies(&mut c, 1, 2)[0];
    let up_ms = c.of(2).now.0 as u32;
    c.apply(1, 2, &Told::End(aged(&copy, 3 * up_ms)));
    let younger = SessionCopy { age_ms: 2 * up_ms, ..copy };
    assert_eq!(c.apply(1, 2, &Told::Copy(younger)), Applied::New);
    let mut c = Cluster::new(2);
    c.apply(1, 2, &Told::End(aged(&copy, 3 * up_ms)));
    let older = SessionCopy { age_ms: 4 * up_ms, ..copy };
    assert_eq!(c.apply(1, 2, &Told::Copy(older)), Applied::Unchanged);
}

/// Two nodes that know a session of node 1; the tombstones of node `few` are few, and it is alone now.
fn with_few_tombstones(few: u16) -> Cluster {
    let mut c = Cluster::with(2, &short());
    *c.of(few) = Lab::of_node(few, &short());
    let config = ReplicationConfig { tombstones: 4, ..ReplicationConfig::default() };
    c.of(few).engine.enable_replication(config).unwrap();
    c.view(few, &[1, 2]);
    c.of(1).verdict(OUT, flow());
    c.talk();
    c.view(few, &[few]);
    c
}

/// Node 1, whose tombstones are few, alone for so long that it has ended a session, by age or by an operator, that node 2
/// goes on to use; and then so many others by an operator that it has forgotten how. What becomes of what node 2 says.
fn forgotten(cleared: bool) -> (Cluster, Applied) {
    let mut c = with_few_tombstones(1);
    c.nodes.iter_mut().for_each(|lab| lab.wait_ms(15_000));
    c.of(2).verdict(OUT, flow());
    let clear = |lab: &mut Lab| lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now).1;
    if cleared {
        assert_eq!(clear(c.of(1)), 1);
    }
    c.of(1).wait_ms(15_000);
    settle_unanswered(&mut c);
    assert_eq!(c.of(1).sessions().len(), 0);
    (0..8).for_each(|n| {
        c.of(1).verdict(OUT, udp(true, 5000 + n, 7777, 1));
    });
    assert_eq!(clear(c.of(1)), 8);
    // It is in use all the time, also after all that.
    for _ in 0..8 {
        c.of(2).wait_ms(15_000);
        c.of(2).verdict(OUT, flow());
    }
    assert!(c.nodes[1].now > c.nodes[0].now);
    c.view(1, &[1, 2]);
    c.read(2, 1);
    let now = c.of(2).now;
    let id: SessionId = c.of(2).only().id;
    let tuple = c.of(2).only().wings[0].tuple;
    let asked = Question { id, tuple, age_ms: TIMEOUT_MS };
    c.of(2).engine.answer(&asked, now);
    let copy = copies(&mut c, 2, 1)[0];
    let applied = c.apply(2, 1, &Told::Copy(copy));
    (c, applied)
}

/// Node 1 asks whether anybody has seen more, and nobody hears it.
fn settle_unanswered(c: &mut Cluster) {
    let (lab, mut questions) = (c.of(1), Vec::new());
    lab.engine.take_questions(usize::MAX, &mut questions);
    questions.iter().for_each(|(slot, question)| lab.engine.settle(*slot, question.id, lab.now));
}

#[test]
fn an_end_by_age_that_is_forgotten_ends_nothing_that_was_used_since() {
    // Red when an owner takes everything for over that it owns and has no more, or all of it once an end for good is
    // forgotten: after a cut in which it ended much, live sessions would die.
    let (mut c, applied) = forgotten(false);
    assert_eq!(applied, Applied::New);
    assert_eq!(c.of(1).verdict(IN, udp(false, 4000, 7777, 1)), Verdict::Transmit(OUT));
}

#[test]
fn an_end_for_good_that_is_forgotten_is_one() {
    // Red when a session comes back that an operator ended, because that had to go, or because it is in use elsewhere.
    let (c, applied) = forgotten(true);
    assert_eq!(applied, Applied::Answered);
    assert_eq!(c.counts()[0], 0);
}

#[test]
fn who_cleared_a_session_of_another_and_forgot_it_takes_it_from_nobody() {
    // Red when only a session's owner remembers its end for good beyond the tombstone: one that was cut off while an
    // operator cleared would take it again from any node that had not heard of that.
    let mut c = with_few_tombstones(2);
    let clear = |lab: &mut Lab| lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now).1;
    assert_eq!(clear(c.of(2)), 1);
    (0..8).for_each(|n| {
        c.of(2).verdict(OUT, udp(true, 5000 + n, 7777, 1));
    });
    assert_eq!(clear(c.of(2)), 8);
    c.view(2, &[1, 2]);
    c.of(1).wait_ms(15_000);
    c.of(1).verdict(OUT, flow());
    let (now, only) = (c.of(1).now, c.of(1).only());
    let asked = Question { id: only.id, tuple: only.wings[0].tuple, age_ms: TIMEOUT_MS };
    c.of(1).engine.answer(&asked, now);
    let copy = copies(&mut c, 1, 2)[0];
    assert_eq!(c.apply(1, 2, &Told::Copy(copy)), Applied::Answered);
    assert_eq!(c.counts()[1], 0);
}

#[test]
fn a_packet_in_the_millisecond_of_a_word_is_no_hearsay() {
    // Red when the time alone says that the owner told of it: its end by age would be believed, and the packet forgotten.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, flow());
    let copy = SessionCopy { age_ms: 0, ..copies(&mut c, 1, 2)[0] };
    // On its way for long, and then followed by a packet at once.
    c.nodes.iter_mut().for_each(|lab| lab.wait_ms(u64::from(TIMEOUT_MS) + 1_000));
    assert_eq!(c.apply(1, 2, &Told::Copy(copy)), Applied::New);
    c.of(2).verdict(OUT, flow());
    c.of(2).wait_ms(1_000);
    let end = aged(&copy, TIMEOUT_MS + 2_000);
    assert_eq!(c.apply(1, 2, &Told::End(end)), Applied::Answered);
    assert_eq!(c.counts()[1], 1);
}

#[test]
fn a_packet_that_the_owner_knows_is_not_younger_by_a_millisecond() {
    // Red when ages are compared to the millisecond: an end by age is refused for the very packet that it counts from, the
    // session comes back at its owner, and lives for as long as that takes.
    let mut c = Cluster::with(2, &short());
    c.of(1).verdict(OUT, flow());
    let copy = copies(&mut c, 1, 2)[0];
    assert_eq!(c.apply(1, 2, &Told::Copy(copy)), Applied::New);
    c.of(2).wait_ms(5_000);
    c.of(2).verdict(OUT, flow());
    c.of(2).wait_ms(u64::from(TIMEOUT_MS) + 500);
    let end = |over_ms| aged(&copy, TIMEOUT_MS + 500 + over_ms);
    assert_eq!(c.apply(1, 2, &Told::End(end(100))), Applied::Answered, "an older one it does not know");
    assert_eq!(c.apply(1, 2, &Told::End(end(1))), Applied::Merged);
}

#[test]
fn news_that_comes_back_from_who_was_sent_it_is_still_told_to_the_others() {
    // Red when the echo, younger by the way that it took, counts as told by somebody else: node 3 hears of it from nobody.
    let mut c = Cluster::with(3, &short());
    c.of(1).verdict(OUT, flow());
    c.talk();
    c.nodes.iter_mut().for_each(|lab| lab.wait_ms(u64::from(refresh_ms(TIMEOUT_MS)) + 1_000));
    c.talk();
    c.of(1).verdict(OUT, flow());
    // Node 2 was sent it outside of the log, as by a resync, and says what it has: as old as it came, 20 ms later.
    let told = c.of(2).only();
    let now = c.of(2).now;
    c.of(2).engine.answer(&Question { id: told.id, tuple: told.wings[0].tuple, age_ms: u32::MAX }, now);
    let echo = SessionCopy { age_ms: 0, ..copies(&mut c, 2, 1)[0] };
    c.read(2, 3);
    c.of(1).now.0 += 20;
    assert_eq!(c.apply(2, 1, &Told::Copy(echo)), Applied::Merged);
    c.of(1).wait_ms(2_000);
    assert_eq!(copies(&mut c, 1, 3).len(), 1);
}

#[test]
fn words_of_a_dead_node_that_come_late_are_told_on() {
    // Red when only what came before the death is: what was on its way stays on the one node that it reached.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, flow());
    let words = c.read(1, 2);
    c.view(2, &[2, 3]);
    c.view(3, &[2, 3]);
    let now = c.of(2).now;
    c.of(2).engine.peer_died(Cluster::slot(1), boot(1), now);
    for word in &words {
        assert_eq!(c.apply(1, 2, word), Applied::New);
    }
    assert_eq!(copies(&mut c, 2, 3).len(), 1);
    let end = EndNote { reason: EndReason::Cleared, ..aged(&copies_of(&words)[0], 0) };
    assert_eq!(c.apply(1, 2, &Told::End(end)), Applied::Merged);
    assert!(c.read(2, 3).iter().any(|word| matches!(word, Told::End(_))));
    // Alive after all, it speaks for itself.
    c.view(2, &[1, 2, 3]);
    c.of(1).verdict(OUT, udp(true, 4001, 7777, 1));
    for word in c.read(1, 2) {
        c.apply(1, 2, &word);
    }
    assert_eq!(c.read(2, 3), []);
}

#[test]
fn what_a_node_said_last_is_told_on_however_much_others_have_said_since() {
    // Red when only so many words of the last moments are remembered: a session stays on the one node that was told of it,
    // and so does an end.
    let mut c = Cluster::new(3);
    let cleared = udp(true, 4001, 7777, 1);
    c.of(1).verdict(OUT, flow());
    c.of(1).verdict(OUT, cleared);
    let words = c.read(1, 2);
    for word in &words {
        assert_eq!(c.apply(1, 2, word), Applied::New);
    }
    let end = EndNote { reason: EndReason::Cleared, ..aged(&copies_of(&words)[1], 0) };
    assert_eq!(c.apply(1, 2, &Told::End(end)), Applied::Merged);
    c.of(3).verdict(OUT, udp(true, 4002, 7777, 1));
    let other = copies(&mut c, 3, 2)[0];
    for _ in 0..5_000 {
        c.apply(3, 2, &Told::Copy(other));
    }
    c.view(2, &[2, 3]);
    let now = c.of(2).now;
    c.of(2).engine.peer_died(Cluster::slot(1), boot(1), now);
    c.of(2).wait_ms(100);
    let told = c.read(2, 3);
    assert_eq!(
        copies_of(&told).iter().map(|copy| copy.birth.id).collect::<Vec<_>>(),
        [copies_of(&words)[0].birth.id]
    );
    assert!(told.iter().any(|word| matches!(word, Told::End(e) if e.id == end.id)));
    // What was said long ago has come to everybody.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, flow());
    for word in c.read(1, 2) {
        c.apply(1, 2, &word);
    }
    c.of(2).wait_ms(10_000);
    c.view(2, &[2, 3]);
    let now = c.of(2).now;
    c.of(2).engine.peer_died(Cluster::slot(1), boot(1), now);
    assert_eq!(c.read(2, 3), []);
}

#[test]
fn words_of_a_node_that_died_before_it_seemed_alive_are_told_on() {
    // Red when only a death tells last words on: of one that never seemed alive nobody says that it died, and a session
    // stays on the one node that it told of it, without an owner.
    let mut c = Cluster::new(3);
    c.of(1).verdict(OUT, flow());
    let words = c.read(1, 2);
    let now = c.of(2).now;
    // The link of one that is alive says nothing: it will be there again.
    for (alive, told) in [([1, 2, 3].as_slice(), 0), (&[2, 3], 1)] {
        c.view(2, alive);
        for word in &words {
            c.apply(1, 2, word);
        }
        c.of(2).engine.link_ended(Cluster::slot(1), boot(1), now);
        assert_eq!(copies(&mut c, 2, 3).len(), told);
    }
}

fn copies_of(words: &[Told]) -> Vec<SessionCopy> {
    words.iter().filter_map(|word| if let Told::Copy(copy) = word { Some(*copy) } else { None }).collect()
}
