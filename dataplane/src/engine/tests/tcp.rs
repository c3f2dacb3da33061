//! The TCP switches through the engine (J4 to J8): what passes, what is dropped and why, what closes.

use super::*;
use crate::packet::{L4, ParseOptions, parse};
use crate::session::EndReason;

fn with(extra: &str) -> String {
    format!("{POLICY}\n[tcp]\n{extra}")
}

fn passes(lab: &mut Lab, up: bool, flags: u8, seq: u32, ack: u32, len: usize) {
    let (from, to) = if up { (OUT, IN) } else { (IN, OUT) };
    let verdict = lab.verdict(from, tcp(up, 4000, 80, flags, seq, ack, len));
    assert_eq!(verdict, Verdict::Transmit(to), "{flags:#x} {seq} {ack} {len}");
}

fn refused(lab: &mut Lab, up: bool, flags: u8, seq: u32, ack: u32, len: usize) -> DropReason {
    let from = if up { OUT } else { IN };
    dropped(lab.verdict(from, tcp(up, 4000, 80, flags, seq, ack, len)))
}

fn state(lab: &Lab) -> (State, Option<u64>) {
    let s = lab.only();
    (s.state, s.remaining_ms)
}

#[test]
fn j4_a_refused_connection_keeps_the_initial_timeout() {
    // Red when a RST gives the session its service's timeout.
    let mut lab = Lab::new(POLICY, 1000);
    passes(&mut lab, true, SYN, 1000, 0, 0);
    passes(&mut lab, false, RST | ACK, 0, 1001, 0);
    assert_eq!(state(&lab), (State::Reset, Some(20_000)));
    lab.wait_ms(22_000);
    assert!(lab.sessions().is_empty());
}

#[test]
fn j5_a_rst_lengthens_no_close() {
    // Red when a RST behind the close gives the session its service's timeout back.
    let mut lab = Lab::new(&with("time_wait = 50"), 1000);
    lab.connect(4000, 80);
    passes(&mut lab, true, FIN | ACK, 1001, 5001, 0);
    passes(&mut lab, false, FIN | ACK, 5001, 1002, 0);
    lab.wait_ms(10_000);
    passes(&mut lab, true, RST, 1002, 0, 0);
    assert_eq!(state(&lab), (State::Reset, Some(40_000)));
    passes(&mut lab, true, ACK, 1002, 5002, 0);
    assert_eq!(state(&lab), (State::Reset, Some(2_000)));
}

#[test]
fn j7_sequence_check_drops_what_is_outside_the_window_and_changes_nothing() {
    // Red when the switch is ignored either way, or what is outside closes, counts or restarts the timer.
    for on in [true, false] {
        let mut lab = Lab::new(&with(&format!("sequence_check = {on}")), 1000);
        lab.connect(4000, 80);
        lab.wait_ms(1_000);
        let before = lab.only();
        for (flags, seq, ack, len) in [
            (ACK, 1001 + 60_001, 5001, 10),
            (FIN | ACK, 1001 + 60_001, 5001, 0),
            (ACK, 1001u32.wrapping_sub(200_000), 5001, 10),
            (ACK, 1001, 5002, 10),
            (ACK, 1001, 5001u32.wrapping_sub(200_000), 10),
        ] {
            if on {
                assert_eq!(refused(&mut lab, true, flags, seq, ack, len), DropReason::TcpOutOfWindow);
                assert_eq!(lab.only(), before);
            } else {
                passes(&mut lab, true, flags, seq, ack, len);
                assert_eq!(state(&lab), (State::Established, Some(300_000)), "any packet restarts it (J2)");
            }
        }
        passes(&mut lab, true, ACK, 1001, 5001, 10);
        assert_eq!(lab.engine.counters().tcp_ignored, if on { 0 } else { 5 });
    }
}

#[test]
fn j7_rst_sequence_check_drops_a_rst_outside_the_window() {
    // Red when the switch is ignored either way, or a RST that is not exact closes.
    for on in [false, true] {
        let mut lab = Lab::new(&with(&format!("rst_invalidate = true\nrst_sequence_check = {on}")), 1000);
        lab.connect(4000, 80);
        lab.wait_ms(1_000);
        let before = lab.only();
        passes(&mut lab, false, RST, 5001 + 10, 0, 0);
        if on {
            let reason = refused(&mut lab, false, RST, 5001 + 60_001, 0, 0);
            assert_eq!(reason, DropReason::TcpRstOutOfWindow);
        } else {
            passes(&mut lab, false, RST, 5001 + 60_001, 0, 0);
        }
        let after = lab.only();
        assert_eq!((after.state, after.remaining_ms), (before.state, before.remaining_ms));
        passes(&mut lab, false, RST, 5001, 0, 0);
        assert!(lab.sessions().is_empty());
        assert_eq!(lab.engine.counters().ended[EndReason::Reset as usize], 1);
    }
}

#[test]
fn j7_strict_syn_check_refuses_payload_before_the_handshake_is_done() {
    // Red when the switch is ignored either way, or data with the ACK that completes the handshake is lost.
    for on in [false, true] {
        let mut lab = Lab::new(&with(&format!("strict_syn_check = {on}")), 1000);
        let early = |lab: &mut Lab, up, flags, seq, ack| {
            if on {
                assert_eq!(refused(lab, up, flags, seq, ack, 5), DropReason::TcpEarlyData);
            } else {
                passes(lab, up, flags, seq, ack, 5);
            }
        };
        early(&mut lab, true, SYN, 1000, 0);
        assert_eq!(lab.sessions().len(), usize::from(!on), "it sets up nothing");
        passes(&mut lab, true, SYN, 1000, 0, 0);
        early(&mut lab, true, SYN, 1000, 0);
        early(&mut lab, false, SYN | ACK, 5000, 1001);
        assert_eq!(lab.only().state, if on { State::SynSent } else { State::SynReceived });
        passes(&mut lab, false, SYN | ACK, 5000, 1001, 0);
        early(&mut lab, false, ACK, 5001, 1001);
        passes(&mut lab, true, ACK, 1001, 5001, 5);
        assert_eq!(lab.only().state, State::Established);
        passes(&mut lab, false, ACK, 5001, 1006, 5);
    }
}

#[test]
fn j7_a_syn_in_a_live_connection_passes_and_changes_nothing() {
    // Red when it is dropped, so that nobody can challenge it, or restarts the timer.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    lab.wait_ms(1_000);
    let before = state(&lab);
    passes(&mut lab, true, SYN, 90_000, 0, 0);
    passes(&mut lab, false, SYN | ACK, 90_000, 1001, 0);
    assert_eq!(state(&lab), before);
    // The challenge, and the RST of a client that knows nothing of the connection.
    passes(&mut lab, false, ACK, 5001, 1001, 0);
    passes(&mut lab, true, RST, 1001, 0, 0);
    assert_eq!(lab.only().state, State::Reset);
    passes(&mut lab, true, SYN, 90_000, 0, 0);
    assert_eq!(lab.only().state, State::SynSent);
}

#[test]
fn j7_a_rule_may_answer_what_is_no_syn() {
    // Red when the key is ignored either way, or answers for a flow that the rule would not permit.
    let text = POLICY.replace("action = \"permit\"", "action = \"permit\"\ntcp_rst = true");
    let mut lab = Lab::new(&text, 1000);
    let mut answers = |up: bool, dport: u16, flags: u8| {
        let port = if up { OUT } else { IN };
        let verdict = lab.verdict(port, tcp(up, 4000, dport, flags, 700, 900, 10));
        assert_eq!(dropped(verdict), DropReason::TcpNoSession);
        let sent: Vec<(PortId, Vec<u8>)> =
            lab.engine.outbox().iter().map(|(port, bytes)| (port, bytes.to_vec())).collect();
        sent
    };
    let sent = answers(true, 80, ACK);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, OUT);
    let L4::Tcp(t) = parse(&sent[0].1, ParseOptions::default()).unwrap().l4_info else { panic!("no TCP") };
    assert_eq!((t.flags, t.seq), (RST, 900));
    assert!(answers(true, 80, RST).is_empty(), "a RST is never answered");
    assert!(answers(true, 9, ACK).is_empty(), "denied");
    assert!(answers(false, 80, ACK).is_empty(), "the other way: denied");
    assert_eq!(lab.engine.counters().resets_sent, 1);
    for _ in 0..1000 {
        lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1, 1, 0));
    }
    assert!(lab.engine.counters().resets_sent < 20, "at a bounded rate");
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, tcp(true, 4000, 80, ACK, 700, 900, 10));
    assert!(lab.engine.outbox().is_empty(), "silent without the key");
}

#[test]
fn learned_segments_are_counted_and_pass() {
    // Red when an asymmetric connection is dropped by the check, or nobody can see that it is one.
    let mut lab = Lab::new(POLICY, 1000);
    passes(&mut lab, true, SYN, 1000, 0, 0);
    for n in 0..5 {
        passes(&mut lab, true, ACK, 1001 + n * 100_000, 3_000_000_000, 100);
    }
    assert_eq!(lab.engine.counters().tcp_relearned, 5);
    assert_eq!(state(&lab), (State::SynSent, Some(20_000)));
}

/// The frame with a TCP option list put in; checksums made right again.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let (src, dst) = if frame[29] == 2 && frame[27] == 1 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut l4 = frame[34..].to_vec();
    l4[12] = ((20 + options.len()) / 4 * 16) as u8;
    l4.splice(20..20, options.iter().copied());
    ipv4(src, dst, 64, proto::TCP, Some(16), &l4)
}

#[test]
fn j8_the_mss_of_both_syns_is_lowered_and_never_raised() {
    // Red when the switch is ignored, one direction is missed, or a smaller value is raised.
    for (all_tcp, offered, want) in
        [(Some(1200), 1460, 1200), (Some(1200), 536, 536), (Some(1200), 1200, 1200), (None, 1460, 1460)]
    {
        let text = all_tcp.map_or(POLICY.to_string(), |v| format!("{POLICY}\n[mss]\nall_tcp = {v}"));
        let mut lab = Lab::new(&text, 1000);
        let option = [&[1, 2, 4][..], &u16::to_be_bytes(offered), &[1, 1, 0]].concat();
        let syn = with_options(&tcp(true, 4000, 80, SYN, 1000, 0, 0), &option);
        let syn_ack = with_options(&tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0), &option);
        for (from, to, frame) in [(OUT, IN, &syn), (IN, OUT, &syn_ack), (OUT, IN, &syn)] {
            let (verdict, sent) = lab.pass(from, frame.clone());
            assert_eq!(verdict, Verdict::Transmit(to));
            let parsed = parse(&sent, ParseOptions::default()).expect("a right checksum");
            let L4::Tcp(t) = parsed.l4_info else { panic!("no TCP") };
            assert_eq!(t.mss, Some(want), "{all_tcp:?}");
        }
    }
}
