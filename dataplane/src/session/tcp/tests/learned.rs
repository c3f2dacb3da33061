//! Windows that are learned again (`spec/replication.md`, "TCP windows on more than one node").

use super::*;
use Observation::{Ignored, Learned, OutOfWindow, Taken};

/// A connection whose client has gone on alone for more than five seconds.
fn one_sided() -> Conn {
    let mut c = Conn::established();
    for _ in 0..12 {
        c.now_ms += 500;
        c.see(0, &seg(ACK, 1001, 5001, 0));
    }
    c
}

#[test]
fn a_bound_whose_other_side_stays_away_is_learned_again() {
    // Red when the bound is enforced for ever, or never.
    let ahead = seg(ACK, 1001, 500_000, 10);
    assert_eq!(Conn::established().see_in_vain(0, &ahead), OutOfWindow);
    let mut c = one_sided();
    assert_eq!(c.see(0, &ahead), Learned);
    assert_eq!(c.see(0, &seg(ACK, 1011, 900_000, 10)), Learned);
    // The other side is back: its bounds hold from its first segment on.
    assert_eq!(c.see(1, &seg(ACK, 960_001, 1021, 0)), OutOfWindow, "beyond what the client granted");
    assert_eq!(c.see(1, &seg(ACK, 940_000, 1021, 0)), Taken);
    assert_eq!(c.see(0, &seg(ACK, 1021, 940_000, 10)), Taken);
    assert_eq!(c.see(0, &seg(ACK, 1031, 1_000_000, 10)), OutOfWindow);
}

#[test]
fn while_it_is_learned_nothing_closes_but_an_exact_rst_or_fin() {
    // Red when an in-window FIN, an acknowledged FIN or an old exact RST counts meanwhile.
    let mut c = one_sided();
    assert_eq!(c.see(0, &seg(FIN | ACK, 1011, 5001, 0)), Learned);
    assert_eq!(c.see_in_vain(0, &seg(RST, 1001, 0, 0)), Ignored, "its wing is at 1012 now");
    assert_eq!(c.state(), State::Established);
    assert_eq!(c.see(0, &seg(FIN | ACK, 1012, 5001, 0)), Learned);
    assert_eq!(c.state(), State::HalfClosed);
    assert_eq!(c.see(0, &seg(RST, 1013, 0, 0)), Taken);
    assert_eq!(c.state(), State::Reset);
    // An acknowledged FIN shortens: not from the side that goes on alone.
    let mut c = Conn::established();
    c.see(0, &seg(FIN | ACK, 1001, 5001, 0));
    c.see(1, &seg(FIN | ACK, 5001, 1002, 0));
    for _ in 0..12 {
        c.now_ms += 500;
        c.see(0, &seg(ACK, 1002, 5001, 0));
    }
    assert_eq!(c.see(0, &seg(ACK, 1002, 5002, 0)), Learned);
    assert_eq!(c.state(), State::TimeWait);
    // The server goes on: it had not heard that.
    assert_eq!(c.see(1, &seg(FIN | ACK, 5001, 1002, 0)), Taken);
    assert_eq!(c.see(0, &seg(ACK, 1002, 5002, 0)), Taken);
    assert_eq!(c.state(), State::Closed);
}

#[test]
fn a_connection_that_is_idle_on_both_sides_keeps_its_bounds() {
    // Red when silence alone, or the first segments after it, unlock the window.
    let mut c = Conn::established();
    c.now_ms += 600_000;
    for n in 0..20 {
        assert_eq!(c.see_in_vain(0, &seg(ACK, 500_000, 5001, 10)), OutOfWindow);
        assert_eq!(c.see(0, &seg(ACK, 1001 + n * 10, 5001, 10)), Taken, "{n}");
        c.now_ms += 10;
    }
    // Keep-alives that nobody answers, each long after the one before.
    let mut c = Conn::established();
    for _ in 0..20 {
        c.now_ms += 75_000;
        assert_eq!(c.see_in_vain(0, &seg(ACK, 500_000, 5001, 10)), OutOfWindow);
        assert_eq!(c.see(0, &seg(ACK, 1000, 5001, 0)), Taken);
    }
}

#[test]
fn strays_neither_unlock_the_window_nor_move_it() {
    // Red when segments that do not go on where the wing was count as its traffic.
    let mut c = Conn::established();
    for _ in 0..100 {
        c.now_ms += 500;
        assert_eq!(c.see_in_vain(0, &seg(ACK, 500_000, 5001, 10)), OutOfWindow);
    }
    let mut c = one_sided();
    assert_eq!(c.see_in_vain(0, &seg(ACK, 500_000_000, 5001, 10)), Learned, "forwarded, not believed");
    assert_eq!(c.see(1, &seg(ACK, 5001, 1001, 0)), Taken);
    assert_eq!(c.see(0, &seg(ACK, 1001, 5001, 10)), Taken);
}

#[test]
fn j7_a_connection_picked_up_in_the_middle_is_learned_and_then_checked() {
    // Red when the first segments are judged by bounds that nobody knows, or later ones by none.
    let mut c = Conn::begin(&seg(ACK, 777_000, 555_000, 10));
    assert_eq!(c.state(), State::SynSent, "one wing is not enough");
    assert_eq!(c.see(1, &seg(ACK, 555_000, 777_010, 1000)), Learned);
    assert_eq!(c.state(), State::Established);
    // Its scale is not known: a large transfer must not run out of a window without one.
    let mut seq = 556_000u32;
    for _ in 0..2_000 {
        for _ in 0..20 {
            assert_eq!(c.see(1, &seg(ACK, seq, 777_010, 1460)), Taken);
            seq = seq.wrapping_add(1460);
        }
        assert_eq!(c.see(0, &Tcp { window: 500, ..seg(ACK, 777_010, seq, 0) }), Taken);
    }
    assert_eq!(c.see(0, &seg(ACK, 777_010, seq.wrapping_add(1), 0)), OutOfWindow);
    // And nothing of it closes by its first segment.
    let mut c = Conn::begin(&seg(FIN | ACK, 777_000, 555_000, 0));
    assert_eq!(c.wings[0].bits, fact::MID);
    assert_eq!(c.see(1, &seg(FIN | ACK, 555_001, 777_001, 0)), Learned, "not where the client expects it");
    assert_eq!(c.state(), State::Established);
}

#[test]
fn of_a_connection_with_one_visible_side_nothing_is_enforced() {
    // Red when segments of an asymmetric route are dropped, or its handshake counts as done.
    let mut c = Conn::begin(&seg(SYN, 1000, 0, 0));
    let mut seq = 1001;
    for _ in 0..100 {
        assert_eq!(c.see(0, &seg(ACK, seq, 3_000_000_000, 1460)), Learned);
        seq += 100_000;
    }
    assert_eq!(c.state(), State::SynSent);
}

/// A connection as another node told of it: none of its wings was ever seen here.
fn told() -> Conn {
    Conn { seen_ms: [0, 0], ..shared() }
}

/// A connection whose handshake this node has seen, and which may go on through others.
fn shared() -> Conn {
    Conn { claims: Some(Claims::default()), ..Conn::established() }
}

/// How far a fast flow gets before its facts are told again.
const FAR: u32 = 3_000_000_000;

#[test]
fn a_copy_of_a_fast_flow_is_learned_where_it_is_now_and_then_checked() {
    // Red when old facts win by sequence-space maximum: the flow would be outside its window for ever.
    let at = |n: u32| 5001u32.wrapping_add(FAR).wrapping_add(n);
    let ack = |n| seg(ACK, 1001, at(n), 0);
    let data = |n| seg(ACK, at(n), 1001, 1460);
    for first in [0, 1] {
        let mut c = told();
        // One alone proves nothing; the two together do.
        let (one, two) =
            if first == 1 { ((1, data(0)), (0, ack(1460))) } else { ((0, ack(0)), (1, data(0))) };
        assert_eq!(c.see_in_vain(one.0, &one.1), Learned);
        assert_eq!(c.see(two.0, &two.1), Learned);
        for n in 1..4 {
            c.see(1, &data(n * 1460));
            c.see(0, &ack((n + 1) * 1460));
        }
        assert_eq!(c.see(1, &data(4 * 1460)), Taken);
        assert_eq!(c.see(0, &ack(5 * 1460)), Taken);
        assert_eq!(c.see_in_vain(1, &data(1_000_000)), OutOfWindow);
        assert_eq!(c.see_in_vain(0, &ack(1_000_000)), OutOfWindow);
    }
}

#[test]
fn a_forged_segment_does_not_say_where_a_copys_wing_is() {
    // Red when a segment is believed for one right number, or for none: the real ones would be outside its window.
    for (seq, ack) in [(400_000_000, 800_000_000), (400_000_000, 5001), (1001, 800_000_000)] {
        let mut c = told();
        for n in 0..10 {
            assert_eq!(c.see_in_vain(0, &seg(ACK, seq + n, ack, 10)), Learned, "forwarded, not believed");
            assert_eq!(c.see_in_vain(1, &seg(ACK, ack + 500_000, seq + n, 10)), Learned);
        }
        if seq != 1001 {
            assert_eq!(
                c.see_in_vain(0, &seg(RST, seq + 19, 0, 0)),
                Ignored,
                "nor is its end a place to reset at"
            );
            assert_eq!(c.see_in_vain(0, &seg(FIN | ACK, seq + 19, ack, 0)), Learned, "or to end at");
        }
        assert_eq!(c.see(0, &seg(ACK, 1001, 5001, 100)), Learned);
        assert_eq!(c.see(1, &seg(ACK, 5001, 1101, 100)), Learned);
        assert_eq!(c.see(0, &seg(ACK, 1101, 5101, 100)), Taken);
        assert_eq!(c.see(1, &seg(ACK, 5101, 1201, 100)), Taken);
    }
}

#[test]
fn what_a_copy_was_told_still_closes_it_exactly() {
    // Red when a wing that is where it was told to be cannot be reset or ended on a node that has just taken over,
    // whatever was forged meanwhile.
    let mut c = told();
    c.see_in_vain(0, &seg(ACK, 400_000_000, 5001, 10));
    assert_eq!(c.see_in_vain(0, &seg(RST, 1002, 0, 0)), Ignored);
    assert_eq!(c.see(0, &seg(RST, 1001, 0, 0)), Taken);
    assert_eq!(c.state(), State::Reset);
    let mut c = told();
    c.see_in_vain(1, &seg(ACK, 400_000_000, 1001, 10));
    assert_eq!(c.see(1, &seg(FIN | ACK, 5001, 1001, 0)), Learned);
    assert_eq!(c.state(), State::HalfClosed);
}

#[test]
fn a_connection_that_may_go_on_elsewhere_is_enforced_only_while_it_is_seen_here() {
    // Red when silence of seconds keeps the bounds though another node may have moved them, or drops them at once.
    let ahead = seg(ACK, 500_000, 5001, 10);
    let mut c = shared();
    c.now_ms += 5_000;
    assert_eq!(c.see_in_vain(0, &ahead), OutOfWindow);
    c.now_ms += 1;
    assert_eq!(c.see_in_vain(0, &ahead), Learned);
    assert_eq!(c.see_in_vain(0, &seg(RST, 500_000, 0, 0)), Ignored);
    // It did not: what fits is taken, and both sides together bring the bounds back.
    assert_eq!(c.see(0, &seg(ACK, 1001, 5001, 10)), Taken);
    assert_eq!(c.see_in_vain(0, &seg(ACK, 500_000, 5001, 10)), Learned);
    assert_eq!(c.see(1, &seg(ACK, 5001, 1011, 0)), Taken);
    assert_eq!(c.see_in_vain(0, &ahead), OutOfWindow);
}

#[test]
fn what_was_sent_through_another_node_may_be_acknowledged_through_this_one() {
    // Red when the side that lost a segment in the middle stands still: what lies behind it came through another
    // node, its retransmission comes through this one, and the acknowledgement is of all.
    let mut c = told();
    assert_eq!(c.see(1, &seg(ACK, 5001, 1001, 1000)), Learned);
    assert_eq!(c.see(0, &seg(ACK, 1001, 5001, 0)), Learned);
    for _ in 0..50 {
        c.now_ms += 200;
        assert_eq!(c.see(1, &seg(ACK, 5001, 1001, 1000)), Taken);
        assert_ne!(c.see(0, &seg(ACK, 1001, 15_001, 0)), OutOfWindow);
    }
    assert_eq!(c.see_in_vain(0, &seg(ACK, 1001, 500_001, 0)), OutOfWindow, "more than two windows");
}

#[test]
fn a_wing_that_is_seen_again_is_for_others_to_hear_of_and_a_forged_one_is_not() {
    // Red when nodes that saw a connection earlier are not told that it has come here, or a forger can tell them so.
    let mut c = told();
    c.see(0, &seg(ACK, 400_000_000, 5001, 10));
    assert!(!c.sighted);
    c.see(0, &seg(ACK, 1001, 5001, 10));
    assert!(c.sighted);
    c.sighted = false;
    c.see(0, &seg(ACK, 1011, 5001, 10));
    assert!(!c.sighted, "once is enough");
}

/// Goes red when the answer to a SYN must have been seen by the node itself, or when the client alone can stand for it.
#[test]
fn j4_a_connection_that_was_answered_through_another_node_is_established_by_what_the_server_says() {
    let opened = |claims: Option<Claims>| {
        let mut c = Conn { claims, ..Conn::begin(&seg(SYN, 1000, 0, 0)) };
        c.see(0, &seg(ACK, 1001, 5001, 0));
        assert_eq!(c.state(), State::SynSent, "the client alone proves nothing");
        c
    };
    let data = seg(ACK, 5001, 1001, 100);
    let mut c = opened(Some(Claims::default()));
    // What acknowledges another SYN, or was acknowledged by nobody, is of another connection.
    assert_eq!(c.see_in_vain(1, &seg(ACK, 5001, 2001, 100)), Ignored);
    assert_eq!(c.see_in_vain(1, &seg(ACK, FAR, 1001, 100)), Ignored);
    assert_eq!(c.see(1, &data), Learned);
    assert_eq!(c.state(), State::Established);
    assert_eq!(c.see(0, &seg(ACK, 1001, 5101, 10)), Taken);
    assert_eq!(c.see_in_vain(0, &seg(ACK, 1011, FAR, 10)), OutOfWindow);
    // Where everything passes, there would have been an answer to see.
    assert_eq!(opened(None).see_in_vain(1, &data), Ignored);
    // The client's acknowledgement went another way, too.
    let mut silent = Conn { claims: Some(Claims::default()), ..Conn::begin(&seg(SYN, 1000, 0, 0)) };
    assert_eq!(silent.see_in_vain(1, &seg(ACK, 5001, 1000, 100)), Ignored, "the answer to an older SYN");
    assert_eq!(silent.see(1, &data), Learned);
    assert_eq!(silent.state(), State::Established);
}
