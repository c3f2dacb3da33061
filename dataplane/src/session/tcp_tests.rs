//! The tables of TCP, each walked in full, and whole connections.

use super::*;
use tcp_flags::{ACK, FIN, RST, SYN};

fn seg(flags: u8, seq: u32, ack: u32, len: u16) -> Tcp {
    Tcp { flags, seq, ack, payload_len: len, window: 60_000, ..Tcp::default() }
}

fn state(w: &[WingFacts; 2]) -> State {
    derive(w[0].bits, w[1].bits)
}

/// A connection whose handshake is complete: client at 1001, server at 5001.
fn established() -> [WingFacts; 2] {
    let mut w = first_segment(&seg(SYN, 1000, 0, 0));
    assert_eq!(state(&w), State::SynSent);
    assert_eq!(observe(&mut w, 1, &seg(SYN | ACK, 5000, 1001, 0)), Observation::Taken);
    assert_eq!(state(&w), State::SynReceived);
    assert_eq!(observe(&mut w, 0, &seg(ACK, 1001, 5001, 0)), Observation::Taken);
    assert_eq!(state(&w), State::Established);
    w
}

/// An independent statement of `derive`, by what an operator would say.
fn derive_in_words(a: u8, b: u8) -> State {
    let any = |bit| a & bit != 0 || b & bit != 0;
    let all = |bit| a & bit != 0 && b & bit != 0;
    let handshake_done = [a, b].iter().all(|w| w & fact::SYN_ACKED != 0 || w & fact::MID != 0);
    if any(fact::RST) {
        return State::Reset;
    }
    if all(fact::FIN) {
        return if all(fact::FIN_ACKED) { State::Closed } else { State::TimeWait };
    }
    if !handshake_done {
        return if all(fact::SYN) { State::SynReceived } else { State::SynSent };
    }
    if any(fact::FIN) { State::HalfClosed } else { State::Established }
}

#[test]
fn j4_j6_every_combination_of_facts_has_its_state() {
    // Red when any arm of `derive` is changed.
    for a in 0..=fact::ALL {
        for b in 0..=fact::ALL {
            assert_eq!(derive(a, b), derive_in_words(a, b), "{a:06b} {b:06b}");
        }
    }
}

/// How far along a connection is; merging facts may only raise it.
fn rank(s: State) -> u8 {
    match s {
        State::OneWay | State::Replied => 0,
        State::SynSent => 1,
        State::SynReceived => 2,
        State::Established => 3,
        State::HalfClosed => 4,
        State::TimeWait => 5,
        State::Closed => 6,
        State::Reset => 7,
    }
}

#[test]
fn facts_only_grow_and_the_state_never_moves_backwards() {
    // Red when `derive` lets an added fact lower the state (a stale record would reopen a session).
    for a in 0..=fact::ALL {
        for b in 0..=fact::ALL {
            for bit in [fact::SYN, fact::SYN_ACKED, fact::FIN, fact::FIN_ACKED, fact::RST, fact::MID] {
                assert!(rank(derive(a | bit, b)) >= rank(derive(a, b)), "{a:06b}|{bit:06b} {b:06b}");
                assert!(rank(derive(a, b | bit)) >= rank(derive(a, b)), "{a:06b} {b:06b}|{bit:06b}");
            }
        }
    }
}

#[test]
fn j4_j6_timeout_by_state_as_a_table() {
    // Red when `rule_for` gives a state another timeout.
    use Rule::*;
    let table = [
        // state, plain, ageout, half_close, both
        (State::OneWay, [Service, Service, Service, Service]),
        (State::Replied, [Service, Service, Service, Service]),
        (State::SynSent, [Initial, Initial, Initial, Initial]),
        (State::SynReceived, [Initial, Initial, Initial, Initial]),
        (State::Established, [Service, Service, Service, Service]),
        (State::HalfClosed, [Service, Service, TimeWait, Service]),
        (State::TimeWait, [TimeWait, Service, TimeWait, Service]),
        (State::Closed, [LastAck, Service, LastAck, Service]),
        (State::Reset, [Service, Service, Service, Service]),
    ];
    for (state, want) in table {
        for (i, (ageout, half)) in
            [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
        {
            assert_eq!(rule_for(state, ageout, half), want[i], "{state:?} ageout={ageout} half_close={half}");
        }
    }
}

#[test]
fn j6_late_packets_never_lengthen_a_close() {
    // Red when `restarts_timer` returns true for a closing state.
    for state in State::ALL {
        for closed in [false, true] {
            for half in [false, true] {
                let want = match state {
                    State::TimeWait | State::Closed => false,
                    State::HalfClosed => !(half && closed),
                    _ => true,
                };
                assert_eq!(restarts_timer(state, closed, half), want, "{state:?} {closed} {half}");
            }
        }
    }
}

/// In every reachable state, every flag combination from either side, in place: the next state.
#[test]
fn every_state_flag_and_direction_leads_where_the_table_says() {
    // Red when a transition of `observe` changes. Rows: state x direction x flags -> next.
    type Make = fn() -> [WingFacts; 2];
    let syn_sent: Make = || first_segment(&seg(SYN, 1000, 0, 0));
    let syn_received: Make = || {
        let mut w = first_segment(&seg(SYN, 1000, 0, 0));
        observe(&mut w, 1, &seg(SYN | ACK, 5000, 1001, 0));
        w
    };
    let half: Make = || {
        let mut w = established();
        observe(&mut w, 0, &seg(FIN | ACK, 1001, 5001, 0));
        w
    };
    let time_wait: Make = || {
        let mut w = established();
        observe(&mut w, 0, &seg(FIN | ACK, 1001, 5001, 0));
        observe(&mut w, 1, &seg(FIN | ACK, 5001, 1001, 0));
        w
    };
    let closed: Make = || {
        let mut w = established();
        observe(&mut w, 0, &seg(FIN | ACK, 1001, 5001, 0));
        observe(&mut w, 1, &seg(FIN | ACK, 5001, 1002, 0));
        observe(&mut w, 0, &seg(ACK, 1002, 5002, 0));
        w
    };
    let est: Make = established;
    use Observation::{Ignored, NewConnection, Taken};
    use State::*;
    // Client next seq: 1001 (1002 after its FIN); server next: 5001 (5002 after its FIN).
    let rows: &[(&str, Make, usize, Tcp, Observation, State)] = &[
        ("syn again", syn_sent, 0, seg(SYN, 1000, 0, 0), Taken, SynSent),
        ("syn, other isn", syn_sent, 0, seg(SYN, 7777, 0, 0), NewConnection, SynSent),
        ("ack too early", syn_sent, 0, seg(ACK, 1001, 5001, 0), Taken, SynSent),
        ("rst by the client", syn_sent, 0, seg(RST, 1001, 0, 0), Taken, Reset),
        ("syn-ack", syn_sent, 1, seg(SYN | ACK, 5000, 1001, 0), Taken, SynReceived),
        ("syn-ack of another syn", syn_sent, 1, seg(SYN | ACK, 5000, 1002, 0), Ignored, SynSent),
        ("simultaneous syn", syn_sent, 1, seg(SYN, 5000, 0, 0), Taken, SynReceived),
        ("ack without syn", syn_sent, 1, seg(ACK, 5000, 1001, 0), Ignored, SynSent),
        ("fin without syn", syn_sent, 1, seg(FIN | ACK, 5000, 1001, 0), Ignored, SynSent),
        ("refusal", syn_sent, 1, seg(RST | ACK, 0, 1001, 0), Taken, Reset),
        ("refusal of another syn", syn_sent, 1, seg(RST | ACK, 0, 999, 0), Ignored, SynSent),
        ("rst without ack", syn_sent, 1, seg(RST, 5000, 0, 0), Ignored, SynSent),
        ("handshake ack", syn_received, 0, seg(ACK, 1001, 5001, 0), Taken, Established),
        ("syn again, answered", syn_received, 0, seg(SYN, 1000, 0, 0), Taken, SynReceived),
        ("other syn, answered", syn_received, 0, seg(SYN, 9000, 0, 0), Ignored, SynReceived),
        ("syn-ack again", syn_received, 1, seg(SYN | ACK, 5000, 1001, 0), Taken, SynReceived),
        ("rst at the handshake", syn_received, 0, seg(RST, 1001, 0, 0), Taken, Reset),
        ("data with the ack", syn_received, 0, seg(ACK, 1001, 5001, 100), Taken, Established),
        ("fin with the ack", syn_received, 0, seg(FIN | ACK, 1001, 5001, 0), Taken, HalfClosed),
        ("data", est, 0, seg(ACK, 1001, 5001, 100), Taken, Established),
        ("reply data", est, 1, seg(ACK, 5001, 1001, 100), Taken, Established),
        ("syn in the middle", est, 0, seg(SYN, 3000, 0, 0), Ignored, Established),
        ("syn-ack in the middle", est, 1, seg(SYN | ACK, 3000, 1001, 0), Ignored, Established),
        ("fin", est, 0, seg(FIN | ACK, 1001, 5001, 0), Taken, HalfClosed),
        ("reply fin", est, 1, seg(FIN | ACK, 5001, 1001, 0), Taken, HalfClosed),
        ("exact rst", est, 0, seg(RST, 1001, 0, 0), Taken, Reset),
        ("exact reply rst", est, 1, seg(RST, 5001, 0, 0), Taken, Reset),
        ("inexact rst", est, 0, seg(RST, 1002, 0, 0), Ignored, Established),
        ("ack of what was not sent", est, 0, seg(ACK, 1001, 6000, 0), Ignored, Established),
        ("fin beyond the window", est, 0, seg(FIN | ACK, 1001 + 70_000, 5001, 0), Ignored, Established),
        (
            "fin from the past",
            est,
            0,
            seg(FIN | ACK, 1001u32.wrapping_sub(200_000), 5001, 0),
            Ignored,
            Established,
        ),
        ("fin again", half, 0, seg(FIN | ACK, 1001, 5001, 0), Taken, HalfClosed),
        ("data to the closed side", half, 1, seg(ACK, 5001, 1002, 10), Taken, HalfClosed),
        ("second fin", half, 1, seg(FIN | ACK, 5001, 1002, 0), Taken, TimeWait),
        ("syn while half closed", half, 0, seg(SYN, 3000, 0, 0), Ignored, HalfClosed),
        ("last ack, other fin unacked", time_wait, 0, seg(ACK, 1002, 5002, 0), Taken, TimeWait),
        ("fin again", time_wait, 1, seg(FIN | ACK, 5001, 1002, 0), Taken, TimeWait),
        ("new syn", time_wait, 0, seg(SYN, 90_000, 0, 0), NewConnection, TimeWait),
        ("new syn, other side", time_wait, 1, seg(SYN, 90_000, 0, 0), NewConnection, TimeWait),
        ("late ack", closed, 1, seg(ACK, 5002, 1002, 0), Taken, Closed),
        ("new syn", closed, 0, seg(SYN, 90_000, 0, 0), NewConnection, Closed),
        ("new syn-ack", closed, 1, seg(SYN | ACK, 90_000, 1002, 0), Ignored, Closed),
    ];
    for (what, make, w, t, want, next) in rows {
        let mut wings = make();
        let got = observe(&mut wings, *w, t);
        assert_eq!((got, state(&wings)), (*want, *next), "{what}");
    }
}

#[test]
fn a_close_from_both_sides_ends_closed() {
    // Red when FIN acknowledgements are not recorded.
    let mut w = established();
    observe(&mut w, 0, &seg(FIN | ACK, 1001, 5001, 0));
    observe(&mut w, 1, &seg(ACK, 5001, 1002, 0));
    assert_eq!(state(&w), State::HalfClosed);
    observe(&mut w, 1, &seg(FIN | ACK, 5001, 1002, 0));
    assert_eq!(state(&w), State::TimeWait);
    observe(&mut w, 0, &seg(ACK, 1002, 5002, 0));
    assert_eq!(state(&w), State::Closed);
}

#[test]
fn windows_are_scaled_only_when_both_sides_offer_it() {
    // Red when the shift is applied with one option missing, or never.
    for (client, server, far_ok) in [(Some(7), Some(7), true), (Some(7), None, false), (None, Some(7), false)]
    {
        let mut w = first_segment(&Tcp { window_scale: client, ..seg(SYN, 1000, 0, 0) });
        observe(&mut w, 1, &Tcp { window_scale: server, ..seg(SYN | ACK, 5000, 1001, 0) });
        observe(&mut w, 0, &seg(ACK, 1001, 5001, 0));
        observe(&mut w, 1, &seg(ACK, 5001, 1001, 0));
        let far = seg(ACK, 1001 + 1_000_000, 5001, 100);
        assert_eq!(observe(&mut w, 0, &far) == Observation::Taken, far_ok, "{client:?} {server:?}");
    }
}

#[test]
fn copies_merge_in_any_order_to_the_same_facts() {
    // Red when `merge` takes the newer record instead of the greater fact.
    let segments = [
        (0, seg(SYN, 1000, 0, 0)),
        (1, seg(SYN | ACK, 5000, 1001, 0)),
        (0, seg(ACK, 1001, 5001, 50)),
        (1, seg(ACK, 5001, 1051, 70)),
        (0, seg(FIN | ACK, 1051, 5071, 0)),
    ];
    let mut copies = Vec::new();
    let mut w = [WingFacts::default(); 2];
    for (dir, t) in segments {
        observe(&mut w, dir, &t);
        copies.push(w);
    }
    for i in 0..copies.len() {
        for j in 0..copies.len() {
            let (mut ab, mut ba) = (copies[i], copies[j]);
            for k in 0..2 {
                ab[k].merge(&copies[j][k]);
                ba[k].merge(&copies[i][k]);
            }
            assert_eq!(ab, ba);
            assert_eq!(ab, copies[i.max(j)], "the later copy holds all facts of the earlier one");
        }
    }
}
