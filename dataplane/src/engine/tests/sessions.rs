//! TCP through the engine (J4 to J6), ICMP, table full (J14), and live sessions under a new policy.

use super::*;
use crate::session::EndReason;
use crate::session::timeouts::TimeoutSource;

fn with(extra: &str) -> String {
    format!("{POLICY}\n{extra}")
}

fn ended(lab: &Lab, reason: EndReason) -> u64 {
    lab.engine.counters().ended[reason as usize]
}

/// Closes the connection on `sport` from the client's side, up to the last ACK.
fn close(lab: &mut Lab, sport: u16) {
    lab.verdict(OUT, tcp(true, sport, 80, FIN | ACK, 1001, 5001, 0));
    lab.verdict(IN, tcp(false, sport, 80, FIN | ACK, 5001, 1002, 0));
    lab.verdict(OUT, tcp(true, sport, 80, ACK, 1002, 5002, 0));
}

#[test]
fn j4_the_initial_timeout_is_restarted_by_each_handshake_packet_and_then_the_service_takes_over() {
    // Red when SynSent has the service's timeout, or the SYN-ACK does not restart the timer.
    let mut lab = Lab::new(&with("[tcp]\ninitial_timeout = 10"), 1000);
    lab.verdict(OUT, tcp(true, 4000, 80, SYN, 1000, 0, 0));
    assert_eq!(lab.only().timeout.unwrap().source, TimeoutSource::TcpInitial);
    lab.wait_ms(9_000);
    lab.verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0));
    lab.wait_ms(9_000);
    let s = lab.only();
    assert_eq!((s.state, s.remaining_ms), (State::SynReceived, Some(1_000)));
    lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1001, 5001, 0));
    let s = lab.only();
    // The predefined application http has 300 s of its own (J3).
    assert_eq!((s.state, s.remaining_ms), (State::Established, Some(300_000)));
    assert_eq!(s.timeout.unwrap().source, TimeoutSource::PredefinedApplication);
}

#[test]
fn j4_a_half_open_session_goes_when_the_initial_timeout_runs_out() {
    // Red when the sweep never collects, or lookups do not ask whether a session is expired.
    let mut lab = Lab::new(&with("[tcp]\ninitial_timeout = 10"), 1000);
    lab.verdict(OUT, tcp(true, 4000, 80, SYN, 1000, 0, 0));
    lab.now = Now(lab.now.0 + 10_001);
    assert!(lab.sessions().is_empty(), "expired at once, before the sweep");
    let late = lab.verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0));
    assert_eq!(dropped(late), DropReason::TcpNoSession);
    assert_eq!(ended(&lab, EndReason::Aged), 1);
}

#[test]
fn j5_a_valid_rst_ends_the_session_only_with_rst_invalidate() {
    // Red when the switch is ignored either way, or an inexact RST counts.
    for (switch, live) in [("false", 1), ("true", 0)] {
        let mut lab = Lab::new(&with(&format!("[tcp]\nrst_invalidate = {switch}")), 1000);
        lab.connect(4000, 80);
        assert_eq!(lab.verdict(IN, tcp(false, 4000, 80, RST, 5009, 0, 0)), Verdict::Transmit(OUT));
        assert_eq!(lab.only().state, State::Established, "an inexact RST closes nothing");
        assert_eq!(lab.verdict(IN, tcp(false, 4000, 80, RST, 5001, 0, 0)), Verdict::Transmit(OUT));
        assert_eq!(lab.sessions().len(), live, "rst_invalidate = {switch}");
        assert_eq!(ended(&lab, EndReason::Reset), 1 - live as u64);
    }
}

#[test]
fn j6_fin_close_waits_time_wait_then_two_seconds() {
    // Red when the second FIN or the last ACK does not change the timeout.
    let mut lab = Lab::new(&with("[tcp]\ntime_wait = 100"), 1000);
    lab.connect(4000, 80);
    lab.verdict(OUT, tcp(true, 4000, 80, FIN | ACK, 1001, 5001, 0));
    assert_eq!(lab.only().timeout.unwrap().timeout_ms, Some(300_000), "half closed: the service's");
    lab.verdict(IN, tcp(false, 4000, 80, FIN | ACK, 5001, 1002, 0));
    let s = lab.only();
    assert_eq!((s.state, s.remaining_ms), (State::TimeWait, Some(100_000)));
    lab.wait_ms(5_000);
    // Retransmitted FINs and late data never lengthen it.
    lab.verdict(IN, tcp(false, 4000, 80, FIN | ACK, 5001, 1002, 0));
    assert_eq!(lab.only().remaining_ms, Some(95_000));
    lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1002, 5002, 0));
    let s = lab.only();
    assert_eq!((s.state, s.remaining_ms), (State::Closed, Some(2_000)));
    lab.wait_ms(4_000);
    assert!(lab.sessions().is_empty());
    assert_eq!(ended(&lab, EndReason::Aged), 1);
}

#[test]
fn j6_every_switch_of_the_close() {
    // Red when a switch is ignored: (settings, remaining after first FIN, after second, after last ACK).
    type Row = (&'static str, Option<u64>, Option<u64>, Option<u64>);
    let rows: [Row; 4] = [
        ("time_wait = 50", Some(300), Some(50), Some(2)),
        ("time_wait = \"ageout\"", Some(300), Some(300), Some(300)),
        ("time_wait = 50\nhalf_close_time_wait = true", Some(50), Some(50), Some(2)),
        ("time_wait = 50\nfin_invalidate = true", Some(300), Some(50), None),
    ];
    for (settings, first, second, last) in rows {
        let mut lab = Lab::new(&with(&format!("[tcp]\n{settings}")), 1000);
        lab.connect(4000, 80);
        let left = |lab: &Lab| lab.sessions().first().map(|s| s.remaining_ms.unwrap() / 1000);
        lab.verdict(OUT, tcp(true, 4000, 80, FIN | ACK, 1001, 5001, 0));
        assert_eq!(left(&lab), first, "{settings}");
        lab.verdict(IN, tcp(false, 4000, 80, FIN | ACK, 5001, 1002, 0));
        assert_eq!(left(&lab), second, "{settings}");
        assert_eq!(lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1002, 5002, 0)), Verdict::Transmit(IN));
        assert_eq!(left(&lab), last, "{settings}");
    }
}

#[test]
fn j6_a_new_syn_in_a_closed_session_starts_a_new_one() {
    // Red when the SYN falls into the old session.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    let old = lab.only().id;
    assert_eq!(lab.verdict(OUT, tcp(true, 4000, 80, SYN, 9000, 0, 0)), Verdict::Transmit(IN));
    assert_eq!(lab.only().id, old, "a SYN in a live connection begins nothing");
    close(&mut lab, 4000);
    assert_eq!(lab.verdict(OUT, tcp(true, 4000, 80, SYN, 90_000, 0, 0)), Verdict::Transmit(IN));
    let new = lab.only();
    assert_ne!(new.id, old);
    assert_eq!((new.state, new.wings[0].packets), (State::SynSent, 1));
    assert_eq!(ended(&lab, EndReason::Superseded), 1);
    // From the other side policy denies it, and the closed session stays what it was.
    close(&mut lab, 4001);
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    close(&mut lab, 4000);
    let refused = lab.verdict(IN, tcp(false, 4000, 80, SYN, 90_000, 0, 0));
    assert_eq!(dropped(refused), DropReason::PolicyDefault);
    assert_eq!(lab.only().state, State::Closed);
}

#[test]
fn j7_syn_check_refuses_a_first_packet_that_is_no_syn() {
    // Red when the switch is ignored either way.
    let mut lab = Lab::new(POLICY, 1000);
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        let v = lab.verdict(OUT, tcp(true, 4000, 80, flags, 1, 1, 0));
        assert_eq!(dropped(v), DropReason::TcpNoSession, "{flags:#x}");
    }
    let mut lab = Lab::new(&with("[tcp]\nsyn_check = false"), 1000);
    assert_eq!(dropped(lab.verdict(OUT, tcp(true, 1, 80, RST, 1, 1, 0))), DropReason::TcpNoSession);
    assert_eq!(lab.verdict(OUT, tcp(true, 1, 80, ACK, 777, 555, 10)), Verdict::Transmit(IN));
    assert_eq!(lab.only().timeout.unwrap().source, TimeoutSource::TcpInitial, "one wing is not enough");
    assert_eq!(lab.verdict(IN, tcp(false, 1, 80, ACK, 555, 787, 10)), Verdict::Transmit(OUT));
    assert_eq!(lab.only().state, State::Established);
}

#[test]
fn j2_an_answered_ping_waits_the_reply_timeout() {
    // Red when the reply does not shorten the timeout, or the next request does not restore it.
    let mut lab = Lab::new(POLICY, 1000);
    assert_eq!(dropped(lab.verdict(IN, echo(SERVER, CLIENT, true, 5))), DropReason::IcmpReplyUnmatched);
    assert_eq!(lab.verdict(OUT, echo(CLIENT, SERVER, false, 5)), Verdict::Transmit(IN));
    assert_eq!(lab.only().remaining_ms, Some(60_000));
    assert_eq!(lab.verdict(IN, echo(SERVER, CLIENT, true, 5)), Verdict::Transmit(OUT));
    assert_eq!(lab.only().remaining_ms, Some(4_000));
    // A ping the other way with the same identifier is a flow of its own, which policy denies.
    assert_eq!(dropped(lab.verdict(IN, echo(SERVER, CLIENT, false, 5))), DropReason::PolicyDefault);
    lab.verdict(OUT, echo(CLIENT, SERVER, false, 5));
    assert_eq!(lab.only().remaining_ms, Some(60_000));
    lab.verdict(IN, echo(SERVER, CLIENT, true, 5));
    lab.wait_ms(6_000);
    assert!(lab.sessions().is_empty());
}

#[test]
fn icmp_errors_follow_the_session_of_the_embedded_tuple_and_forged_ones_change_nothing() {
    // Red when the error is judged by its outer addresses alone, or restarts the timer.
    let mut lab = Lab::new(POLICY, 1000);
    let up = udp(true, 4000, 33434, 10);
    let error = icmp_error("10.2.0.77", CLIENT, 11, 0, &up);
    assert_eq!(dropped(lab.verdict(IN, error.clone())), DropReason::IcmpErrorUnmatched);
    lab.verdict(OUT, up.clone());
    lab.wait_ms(1_000);
    let before = lab.only();
    assert_eq!(lab.verdict(IN, error), Verdict::Transmit(OUT));
    assert_eq!(lab.only(), before);
    // Sent to somebody else, or about a packet that went the other way: not ours.
    let elsewhere = icmp_error("10.2.0.77", "10.1.0.99", 11, 0, &up);
    assert_eq!(dropped(lab.verdict(IN, elsewhere)), DropReason::IcmpErrorUnmatched);
    let wrong_way = icmp_error("10.1.0.77", SERVER, 11, 0, &up);
    assert_eq!(dropped(lab.verdict(OUT, wrong_way)), DropReason::IcmpErrorUnmatched);
}

#[test]
fn icmp_errors_about_tcp_must_name_a_sequence_number_that_was_sent() {
    // Red when the embedded sequence number is not compared.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    let genuine = icmp_error(SERVER, CLIENT, 3, 3, &tcp(true, 4000, 80, ACK, 1000, 5001, 0));
    assert_eq!(lab.verdict(IN, genuine), Verdict::Transmit(OUT));
    let forged = icmp_error(SERVER, CLIENT, 3, 3, &tcp(true, 4000, 80, ACK, 500_000, 5001, 0));
    assert_eq!(dropped(lab.verdict(IN, forged)), DropReason::IcmpErrorUnmatched);
}

#[test]
fn j14_a_full_table_refuses_new_sessions_and_keeps_the_old_ones() {
    // Red when something live is thrown out, or the refused are not counted.
    let mut lab = Lab::new(POLICY, 1000);
    let mut refused = 0;
    for sport in 1..=2000 {
        match lab.verdict(OUT, udp(true, sport, 53, 1)) {
            Verdict::Transmit(_) => assert!(sport <= 1000),
            v => refused += u64::from(dropped(v) == DropReason::TableFull),
        }
    }
    let s = lab.engine.summary();
    assert_eq!((s.in_use, s.maximum, s.failed, refused), (1000, 1000, 1000, 1000));
    for sport in 1..=1000 {
        assert_eq!(lab.verdict(IN, udp(false, sport, 53, 1)), Verdict::Transmit(OUT), "{sport}");
    }
    lab.wait_ms(63_000);
    assert_eq!(lab.engine.summary().in_use, 0);
    for sport in 1001..=2000 {
        assert_eq!(lab.verdict(OUT, udp(true, sport, 53, 1)), Verdict::Transmit(IN), "{sport}");
    }
}

#[test]
fn a_session_that_a_new_policy_denies_forwards_nothing_and_is_gone() {
    // Red when live sessions are not judged again: by their next packet, or by the sweep.
    for sweep_first in [false, true] {
        let mut lab = Lab::new(POLICY, 1000);
        lab.verdict(OUT, udp(true, 4000, 53, 1));
        lab.verdict(OUT, udp(true, 4001, 80, 1));
        lab.policy(&POLICY.replace(
            "protocol = \"tcp\"\ndestination_port = 9",
            "protocol = \"udp\"\ndestination_port = 53",
        ));
        if sweep_first {
            lab.wait_ms(2_500);
            assert_eq!(lab.sessions().len(), 1);
        } else {
            assert_eq!(dropped(lab.verdict(IN, udp(false, 4000, 53, 1))), DropReason::PolicyRevoked);
        }
        assert_eq!(ended(&lab, EndReason::Denied), 1);
        assert_eq!(lab.verdict(IN, udp(false, 4001, 80, 1)), Verdict::Transmit(OUT), "still permitted");
    }
}

#[test]
fn live_sessions_are_judged_again_also_by_another_policy_of_the_same_number() {
    // Red when sessions remember the revision's number: a node that joins a cluster may get the number
    // that its own policy had.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 53, 1));
    lab.revision -= 1;
    lab.policy(
        &POLICY
            .replace("protocol = \"tcp\"\ndestination_port = 9", "protocol = \"udp\"\ndestination_port = 53"),
    );
    assert_eq!(dropped(lab.verdict(IN, udp(false, 4000, 53, 1))), DropReason::PolicyRevoked);
}

#[test]
fn a_withdrawn_policy_ends_live_sessions_and_denies_new_ones() {
    // Red when sessions go on by the policy before: by their packets, or in the sweep.
    for sweep_first in [false, true] {
        let mut lab = Lab::new(POLICY, 1000);
        lab.verdict(OUT, udp(true, 4000, 53, 1));
        assert!(lab.engine.withdraw_policy().is_some());
        if sweep_first {
            lab.wait_ms(2_500);
            assert!(lab.sessions().is_empty());
        } else {
            assert_eq!(dropped(lab.verdict(IN, udp(false, 4000, 53, 1))), DropReason::PolicyRevoked);
        }
        assert_eq!(ended(&lab, EndReason::Denied), 1);
        assert_eq!(dropped(lab.verdict(OUT, udp(true, 4000, 53, 1))), DropReason::NoPolicy);
    }
}

#[test]
fn f7_a_changed_timeout_applies_to_live_sessions_from_their_next_packet() {
    // Red when the sweep applies it before a packet, or no packet ever does.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 7777, 1));
    assert_eq!(lab.only().timeout.unwrap().timeout_ms, Some(60_000));
    lab.policy(&with("[timeouts]\nudp = 5"));
    lab.wait_ms(10_000);
    assert_eq!(lab.only().timeout.unwrap().timeout_ms, Some(60_000), "no packet yet");
    lab.verdict(OUT, udp(true, 4000, 7777, 1));
    assert_eq!(lab.only().remaining_ms, Some(5_000));
    lab.wait_ms(7_000);
    assert!(lab.sessions().is_empty());
}

#[test]
fn f6_never_is_capped_at_a_share_of_the_table() {
    // Red when the cap is not kept, or an ended session does not give its share back.
    let mut lab = Lab::new(&with("[[session_ttl.port]]\nid = 1\nprotocol = 17\ntimeout = \"never\""), 1000);
    for sport in 1..=150 {
        lab.verdict(OUT, udp(true, sport, 7777, 1));
    }
    let never = lab.sessions().iter().filter(|s| s.remaining_ms.is_none()).count();
    assert_eq!(never, 100);
    let capped: Vec<_> = lab.sessions().iter().filter_map(|s| s.remaining_ms).collect();
    assert!(capped.iter().all(|ms| *ms == 2_764_800_000), "{capped:?}");
    assert_eq!((lab.engine.counters().never_sessions, lab.engine.counters().never_capped), (100, 50));
    let all = SessionFilter::default();
    lab.engine.clear(0, u32::MAX, &all, lab.now);
    assert_eq!(lab.engine.counters().never_sessions, 0);
}
