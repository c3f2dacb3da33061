//! Two births of one tuple: which session stays (`spec/replication.md`, "Collisions").

use super::*;
use crate::session::copy::SessionCopy;
use crate::session::record::{SessionId, WingFacts};
use proptest::prelude::*;

/// What the receiver has seen of the session that has the tuple.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Found {
    OneSided,
    Live,
    Closing,
}

/// The copy that node `node` tells of the only session it has, after these segments.
fn copy_after(node: u16, segments: &[(bool, u8, u32, u32)]) -> SessionCopy {
    let mut lab = Lab::of_node(node, POLICY);
    lab.engine.enable_replication(ReplicationConfig::default()).unwrap();
    for (up, flags, seq, ack) in segments {
        let port = if *up { OUT } else { IN };
        lab.verdict(port, tcp(*up, 4000, 80, *flags, *seq, *ack, 0));
    }
    lab.engine.copy(crate::table::SlotId(0), lab.now).unwrap()
}

fn found_copy(node: u16, found: Found) -> SessionCopy {
    let all = [
        (true, SYN, 1000, 0),
        (false, SYN | ACK, 5000, 1001),
        (true, ACK, 1001, 5001),
        (true, FIN | ACK, 1001, 5001),
        (false, FIN | ACK, 5001, 1002),
    ];
    let n = match found {
        Found::OneSided => 1,
        Found::Live => 3,
        Found::Closing => 5,
    };
    copy_after(node, &all[..n])
}

#[test]
fn the_lower_identity_wins_unless_it_is_over_and_the_other_names_it_or_goes_on() {
    // Red when a line of the table differs: the nodes would not agree on which session the tuple has.
    for found in [Found::OneSided, Found::Live, Found::Closing] {
        for (names, told_is_lower, same_syn) in [false, true]
            .into_iter()
            .flat_map(|a| [false, true].map(|b| (a, b)))
            .flat_map(|(a, b)| [false, true].map(|c| (a, b, c)))
        {
            let (holder, teller) = if told_is_lower { (3, 1) } else { (1, 3) };
            let mut c = Cluster::new(3);
            let old = found_copy(holder, found);
            assert_eq!(c.apply(holder, 2, &Told::Copy(old)), Applied::New);
            let mut new = copy_after(teller, &[(true, SYN, if same_syn { 1000 } else { 90_000 }, 0)]);
            new.birth.supersedes = names.then_some(old.birth.id);
            let applied = c.apply(teller, 2, &Told::Copy(new));
            let goes_on = found == Found::Closing && (names || !same_syn);
            let new_wins = told_is_lower || goes_on || (names && found == Found::OneSided);
            let want: SessionId = if new_wins { new.birth.id } else { old.birth.id };
            let s = c.of(2).only();
            let case = format!("{found:?}, names it: {names}, lower: {told_is_lower}, same SYN: {same_syn}");
            assert_eq!(s.id, want, "{case}: {applied:?}");
            let merged = s.wings[1].facts.bits != 0;
            let one_connection = same_syn && !names;
            assert_eq!(merged, found != Found::OneSided && (!new_wins || one_connection), "{case}");
        }
    }
}

#[test]
fn both_sides_that_open_at_once_become_one_session_with_both_syns() {
    // Red when wings are matched by their number and not by their tuple.
    let text = format!(
        "{POLICY}{}",
        POLICY[POLICY.find("[[rule]]").unwrap()..]
            .replace("\"outside\"", "\"x\"")
            .replace("\"inside\"", "\"outside\"")
            .replace("\"x\"", "\"inside\"")
            .split("[[application]]")
            .next()
            .unwrap()
    );
    let mut c = Cluster::with(2, &text);
    assert_eq!(c.of(1).verdict(OUT, tcp(true, 4000, 80, SYN, 1000, 0, 0)), Verdict::Transmit(IN));
    assert_eq!(c.of(2).verdict(IN, tcp(false, 4000, 80, SYN, 5000, 0, 0)), Verdict::Transmit(OUT));
    c.talk();
    for node in 1..=2 {
        let s = c.of(node).only();
        assert_eq!((s.id.origin, s.state), (1, State::SynReceived), "node {node}");
        assert_eq!(s.wings.map(|w| w.facts.isn), [1000, 5000], "node {node}");
        assert_eq!(s.wings.map(|w| w.packets), [1, 1], "node {node}");
    }
    assert_eq!(c.fields()[0], c.fields()[1]);
}

#[test]
fn a_syn_here_and_its_answer_there_make_one_established_session() {
    // Red when the acknowledgement that came before the news of the SYN that it is for is forgotten.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, tcp(true, 4000, 80, SYN, 1000, 0, 0));
    c.talk();
    assert_eq!(c.of(2).verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0)), Verdict::Transmit(OUT));
    // The client is faster than the news.
    assert_eq!(c.of(1).verdict(OUT, tcp(true, 4000, 80, ACK, 1001, 5001, 0)), Verdict::Transmit(IN));
    c.talk();
    for node in 1..=2 {
        assert_eq!(c.of(node).only().state, State::Established, "node {node}");
    }
    assert_eq!(c.fields()[0], c.fields()[1]);
}

#[test]
fn a_half_open_copy_does_not_stop_the_clients_fresh_syn() {
    // Red when a SYN is dropped because a stale copy says that one was answered already.
    let mut c = Cluster::new(2);
    c.of(1).verdict(OUT, tcp(true, 4000, 80, SYN, 1000, 0, 0));
    c.of(1).verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0));
    c.talk();
    assert_eq!(c.of(2).only().state, State::SynReceived);
    for seq in [90_000, 1000] {
        assert_eq!(c.of(2).verdict(OUT, tcp(true, 4000, 80, SYN, seq, 0, 0)), Verdict::Transmit(IN), "{seq}");
    }
}

#[test]
fn a_new_syn_after_the_close_takes_the_tuple_on_every_node() {
    // Red when the closed session, or the news of its facts, stands in the way of the new one (J6).
    let mut c = Cluster::new(3);
    for (up, flags, seq, ack) in [
        (true, SYN, 1000, 0),
        (false, SYN | ACK, 5000, 1001),
        (true, ACK, 1001, 5001),
        (true, FIN | ACK, 1001, 5001),
        (false, FIN | ACK, 5001, 1002),
        (true, ACK, 1002, 5002),
    ] {
        let port = if up { OUT } else { IN };
        c.of(1).verdict(port, tcp(up, 4000, 80, flags, seq, ack, 0));
    }
    let old = c.of(1).only().id;
    c.talk();
    assert_eq!(c.of(2).verdict(OUT, tcp(true, 4000, 80, SYN, 70_000, 0, 0)), Verdict::Transmit(IN));
    c.talk();
    for node in 1..=3 {
        let s = c.of(node).only();
        assert_eq!((s.id.origin, s.state), (2, State::SynSent), "node {node}");
        assert_ne!(s.id, old);
    }
    assert!(c.fields().iter().all(|f| f[0].supersedes == Some(old)));
}

#[test]
fn of_two_connections_that_seem_to_live_the_later_one_stays_once_it_was_answered() {
    // Red when the lower identity stays in any case: the ends have gone on to the other connection, and no packet of it
    // passes any more. Red as well when an unanswered SYN is enough.
    let live = |node, seq: u32, n: usize| {
        let all =
            [(true, SYN, seq, 0), (false, SYN | ACK, seq + 4000, seq + 1), (true, ACK, seq + 1, seq + 4001)];
        copy_after(node, &all[..n])
    };
    for (holder, teller) in [(1, 3), (3, 1)] {
        for (answered, later) in [(3, "told"), (3, "found"), (1, "told"), (3, "neither")] {
            let mut c = Cluster::new(3);
            let found = SessionCopy { age_ms: 1_000, created_age_ms: 60_000, ..live(holder, 1_000, 3) };
            assert_eq!(c.apply(holder, 2, &Told::Copy(found)), Applied::New);
            let age_ms = match later {
                "told" => 100,
                "found" => 50_000,
                _ => 1_100,
            };
            let told = SessionCopy { age_ms, created_age_ms: 60_000, ..live(teller, 90_000, answered) };
            let applied = c.apply(teller, 2, &Told::Copy(told));
            let told_wins = match (answered, later) {
                (3, "told") => true,
                (3, "found") => false,
                _ => teller < holder,
            };
            let want = if told_wins { told.birth.id } else { found.birth.id };
            assert_eq!(c.of(2).only().id, want, "{holder} {teller} {answered} {later}: {applied:?}");
        }
    }
}

/// Red when who answers that a session is over does not say which one has its tuple: the teller had no place for that
/// when it was told, and has not kept it for as long as the answer took.
#[test]
fn who_holds_what_is_over_twice_hears_which_session_has_its_tuple_now() {
    let connection = |seq: u32| {
        [
            (true, SYN, seq, 0),
            (false, SYN | ACK, seq + 50_000, seq + 1),
            (true, ACK, seq + 1, seq + 50_001),
            (true, FIN | ACK, seq + 1, seq + 50_001),
            (false, FIN | ACK, seq + 50_001, seq + 2),
        ]
    };
    let mut c = Cluster::new(2);
    let pass = |c: &mut Cluster, seq: u32| {
        for (up, flags, seq, ack) in connection(seq) {
            let port = if up { OUT } else { IN };
            c.of(1).verdict(port, tcp(up, 4000, 80, flags, seq, ack, 0));
        }
    };
    pass(&mut c, 1_000);
    c.talk();
    let first = c.of(2).only().id;
    pass(&mut c, 2_000_000);
    pass(&mut c, 4_000_000);
    let third = c.of(1).only().id;
    // Node 2 hears of the last one alone: it was too slow for the rest.
    for word in c.read(1, 2) {
        if matches!(word, Told::Copy(copy) if copy.birth.id == third) {
            assert_eq!(c.apply(1, 2, &word), Applied::Answered);
        }
    }
    assert_eq!(c.of(2).only().id, first);
    c.nodes.iter_mut().for_each(|lab| lab.wait_ms(61_000));
    c.talk();
    assert_eq!(c.of(2).only().id, third);
    assert_eq!(c.of(1).only().id, third);
}

fn wing() -> impl Strategy<Value = WingFacts> {
    // Within half the sequence space, around its wrap; 0 is what nobody knows.
    let number =
        || prop_oneof![1 => Just(0u32), 5 => (0..0x3fff_ffffu32).prop_map(|n| n.wrapping_sub(0x1fff_ffff))];
    (0..128u8, number(), number(), number(), 0..1_000_000u32, 0..9u16, 0..15u8).prop_map(
        |(bits, seq_max, ack_max, edge_max, window_max, mss, scale_plus_1)| {
            let isn = 7;
            WingFacts { seq_max, ack_max, edge_max, window_max, isn, mss, bits, scale_plus_1 }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Red when a merge depends on the order, or merging again adds something.
    #[test]
    fn facts_merge_commutatively_associatively_and_idempotently(a in wing(), b in wing(), c in wing()) {
        let merged = |a: &WingFacts, b: &WingFacts| {
            let mut sum = *a;
            sum.merge(b);
            sum
        };
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        let ab = merged(&a, &b);
        prop_assert_eq!(merged(&ab, &b), ab);
        prop_assert_eq!(merged(&ab, &a), ab);
    }
}
