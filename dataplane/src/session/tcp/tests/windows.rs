//! J7: what lies in the window and what does not.

use super::*;
use Observation::{Ignored, OutOfWindow, RstOutOfWindow, Taken};

#[test]
fn j7_windows_are_scaled_only_when_both_sides_offer_it() {
    // Red when the shift is applied with one option missing, or never.
    for (client, server, far_ok) in [(Some(7), Some(7), true), (Some(7), None, false), (None, Some(7), false)]
    {
        let mut c = Conn::begin(&Tcp { window_scale: client, ..seg(SYN, 1000, 0, 0) });
        c.see(1, &Tcp { window_scale: server, ..seg(SYN | ACK, 5000, 1001, 0) });
        c.see(0, &seg(ACK, 1001, 5001, 0));
        c.see(1, &seg(ACK, 5001, 1001, 0));
        let far = seg(ACK, 1001 + 1_000_000, 5001, 100);
        assert_eq!(c.see(0, &far) == Taken, far_ok, "{client:?} {server:?}");
    }
}

#[test]
fn j7_every_bound_of_the_window_holds_to_the_byte() {
    // Red when a bound is off by one, or missing. Both sides granted 60,000 bytes; what is old may lie
    // twice 66,000 behind.
    let (client, server) = (1001u32, 5001u32);
    let old = 2 * 66_000;
    for (what, t, want) in [
        ("at the edge", seg(ACK, client + 60_000, server, 10), Taken),
        ("beyond the edge", seg(ACK, client + 60_001, server, 10), OutOfWindow),
        ("old, within reach", seg(ACK, client.wrapping_sub(old + 10), server, 10), Taken),
        ("older", seg(ACK, client.wrapping_sub(old + 11), server, 10), OutOfWindow),
        ("acknowledges the last byte sent", seg(ACK, client, server, 0), Taken),
        ("acknowledges what was not sent", seg(ACK, client, server + 1, 0), OutOfWindow),
        ("acknowledges old data", seg(ACK, client, server.wrapping_sub(old), 0), Taken),
        ("acknowledges older data", seg(ACK, client, server.wrapping_sub(old + 1), 0), OutOfWindow),
        ("keep-alive", seg(ACK, client - 1, server, 0), Taken),
        ("keep-alive with a byte", seg(ACK, client - 1, server, 1), Taken),
        ("the other half of the number space", seg(ACK, client ^ 0x8000_0000, server, 0), OutOfWindow),
        ("exact RST", seg(RST, client, 0, 0), Taken),
        ("RST in the window", seg(RST, client + 1, 0, 0), Ignored),
        ("RST at the edge", seg(RST, client + 60_000, 0, 0), Ignored),
        ("RST beyond it", seg(RST, client + 60_001, 0, 0), RstOutOfWindow),
        ("RST within reach", seg(RST, client.wrapping_sub(old), 0, 0), Ignored),
        ("RST from the past", seg(RST, client.wrapping_sub(old + 1), 0, 0), RstOutOfWindow),
    ] {
        let mut c = Conn::established();
        let before = c.wings;
        assert_eq!(c.see(0, &t), want, "{what}");
        assert!(want == Taken || c.wings == before, "{what} changed something");
    }
}

#[test]
fn j7_the_bounds_hold_across_the_wrap_of_the_number_space() {
    // Red when numbers are compared as plain integers.
    let isn = u32::MAX - 5;
    let mut c = Conn::begin(&seg(SYN, isn, 0, 0));
    c.see(1, &seg(SYN | ACK, 5000, isn.wrapping_add(1), 0));
    let mut seq = isn.wrapping_add(1);
    for _ in 0..10 {
        assert_eq!(c.see(0, &seg(ACK, seq, 5001, 1000)), Taken);
        seq = seq.wrapping_add(1000);
        assert_eq!(c.see(1, &seg(ACK, 5001, seq, 0)), Taken);
    }
    assert_eq!(c.see(0, &seg(ACK, seq.wrapping_add(60_001), 5001, 0)), OutOfWindow);
}

#[test]
fn j7_probes_of_a_closed_window_pass() {
    // Red when a zero window admits nothing, or the window is remembered as its latest value.
    let zero = |t: Tcp| Tcp { window: 0, ..t };
    let mut c = Conn::begin(&seg(SYN, 1000, 0, 0));
    c.see(1, &zero(seg(SYN | ACK, 5000, 1001, 0)));
    c.see(0, &seg(ACK, 1001, 5001, 0));
    for probe in [seg(ACK, 1000, 5001, 0), seg(ACK, 1001, 5001, 1), seg(ACK, 1001, 5001, 1)] {
        assert_eq!(c.see(0, &probe), Taken);
        assert_eq!(c.see(1, &zero(seg(ACK, 5001, 1001, 0))), Taken);
    }
    assert_eq!(c.see(0, &seg(ACK, 1003, 5001, 1)), OutOfWindow);
}

#[test]
fn j6_a_fin_counts_only_behind_all_that_was_sent() {
    // Red when a FIN in the window but in front of sent data closes.
    let mut c = Conn::established();
    c.see(0, &seg(ACK, 1001, 5001, 1000));
    assert_eq!(c.see_in_vain(0, &seg(FIN | ACK, 1500, 5001, 0)), Taken);
    assert_eq!(c.see_in_vain(0, &seg(FIN | ACK, 300_000, 5001, 0)), OutOfWindow);
    assert_eq!(c.state(), State::Established);
    // In front of a gap, which is filled later.
    assert_eq!(c.see(0, &seg(FIN | ACK, 3001, 5001, 0)), Taken);
    assert_eq!(c.state(), State::HalfClosed);
    assert_eq!(c.see(0, &seg(ACK, 2001, 5001, 1000)), Taken);
    assert_eq!(c.see(1, &seg(FIN | ACK, 5001, 2001, 0)), Taken);
    assert_eq!(c.wings[0].bits & fact::FIN_ACKED, 0, "not all of it is acknowledged");
}

#[test]
fn the_flags_of_a_fragmented_segment_change_nothing_and_its_numbers_are_checked() {
    // Red when a RST, FIN or SYN in fragments closes, or escapes the checks that it would fail in one piece.
    for (t, want) in [
        (seg(RST, 1001, 0, 0), Ignored),
        (seg(RST, 500_000, 0, 0), RstOutOfWindow),
        (seg(SYN, 90_000, 0, 0), Ignored),
        (seg(FIN | ACK, 1001, 5001, 8), Taken),
        (seg(ACK, 500_000, 5001, 8), OutOfWindow),
    ] {
        let mut c = Conn::established();
        assert_eq!(c.see_piece(0, &t, true), want, "{t:?}");
        assert_eq!(c.state(), State::Established);
    }
}

#[test]
fn a_fragmented_segment_may_be_longer_than_its_first_fragment() {
    // Red when the acknowledgement of what later fragments carried is dropped.
    for (fragmented, want) in [(true, Taken), (false, OutOfWindow)] {
        let mut c = Conn::established();
        c.see_piece(0, &seg(ACK, 1001, 5001, 500), fragmented);
        assert_eq!(c.see(1, &seg(ACK, 5001, 1001 + 1460, 0)), want);
    }
}
