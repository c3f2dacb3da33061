//! Idle timeouts (J2), the sweep's pace, and the filters of list and clear (J10, J11).

use super::*;
use crate::session::EndReason;

#[test]
fn j2_any_packet_of_either_wing_restarts_the_timeout() {
    // Red when only one wing writes `last_seen`.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 7777, 1));
    for wing in [false, true, false, true] {
        lab.wait_ms(50_000);
        let port = if wing { OUT } else { IN };
        assert!(matches!(lab.verdict(port, udp(wing, 4000, 7777, 1)), Verdict::Transmit(_)));
    }
    lab.wait_ms(59_000);
    assert_eq!(lab.sessions().len(), 1);
    lab.wait_ms(3_000);
    assert_eq!(lab.engine.summary().in_use, 0);
}

#[test]
fn j2_every_protocol_ages_at_its_own_timeout() {
    // Red when a protocol has another's timeout: alive just before, gone just after.
    let text = format!("{POLICY}\n[timeouts]\ntcp = 100\nudp = 20\nicmp = 30\nsctp = 40\nother = 50");
    for (protocol, seconds) in
        [(proto::UDP, 20u64), (proto::ICMP, 30), (proto::GRE, 50), (proto::ESP, 50), (99, 50)]
    {
        let mut lab = Lab::new(&text, 1000);
        let frame = match protocol {
            proto::UDP => udp(true, 4000, 7777, 8),
            proto::ICMP => echo(CLIENT, SERVER, false, 1),
            proto::GRE => ipv4(CLIENT, SERVER, 64, protocol, None, &[0, 0, 8, 0, 1, 2, 3, 4]),
            _ => ipv4(CLIENT, SERVER, 64, protocol, None, &[0, 0, 0, 9, 0, 0, 0, 1, 5, 5, 5, 5]),
        };
        assert_eq!(lab.verdict(OUT, frame), Verdict::Transmit(IN), "{protocol}");
        lab.now = Now(lab.now.0 + seconds * 1000);
        assert_eq!(lab.sessions().len(), 1, "{protocol} at its timeout");
        lab.now = Now(lab.now.0 + 1);
        assert_eq!(lab.sessions().len(), 0, "{protocol} after it");
    }
}

#[test]
fn the_sweep_passes_the_table_about_once_a_second_whatever_the_calls() {
    // Red when the pace follows the number of calls instead of time.
    for step in [1, 7, 40] {
        let mut lab = Lab::new(POLICY, 1000);
        for sport in 1..=1000 {
            lab.verdict(OUT, udp(true, sport, 7777, 1));
        }
        lab.engine.sweep(lab.now);
        let before = lab.engine.counters().sweep_passes;
        for _ in 0..10_000 / step {
            lab.now = Now(lab.now.0 + step);
            lab.engine.sweep(lab.now);
        }
        let passes = lab.engine.counters().sweep_passes - before;
        assert!((9..=12).contains(&passes), "step {step} ms: {passes} passes in 10 s");
    }
}

#[test]
fn a_freed_session_is_wiped_before_its_slot_is_used_again() {
    // Red when counters or facts of the old session show in the new one.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
    lab.verdict(OUT, udp(true, 4000, 53, 1));
    let s = lab.only();
    assert_eq!((s.wings[0].packets, s.wings[1].packets), (1, 0));
    assert_eq!(s.wings[0].facts, crate::session::record::WingFacts::default());
    assert_eq!(lab.engine.counters().ended[EndReason::Cleared as usize], 1);
}

#[test]
fn j10_j11_each_filter_means_just_its_sessions_and_filters_combine() {
    // Red when a filter is ignored: it would mean all four sessions.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    lab.verdict(OUT, udp(true, 4001, 53, 1));
    lab.verdict(OUT, udp(true, 4002, 7777, 1));
    lab.verdict(OUT, echo(CLIENT, SERVER, false, 9));
    let port = |n| Some(PortRange { first: n, last: n });
    let base = SessionFilter::default;
    let id = lab.sessions()[1].id;
    let rule = lab.sessions()[0].rule;
    let http = lab.sessions()[0].application;
    let cases = [
        (base(), 4),
        (SessionFilter { protocol: Some(6), ..base() }, 1),
        (SessionFilter { protocol: Some(17), ..base() }, 2),
        (SessionFilter { protocol: Some(17), destination_port: port(53), ..base() }, 1),
        (SessionFilter { protocol: Some(6), destination_port: port(53), ..base() }, 0),
        (SessionFilter { source_port: Some(PortRange { first: 4000, last: 4001 }), ..base() }, 2),
        (SessionFilter { v4: Some(false), ..base() }, 0),
        (SessionFilter { source: Some("10.1.0.0/24".parse().unwrap()), ..base() }, 4),
        (SessionFilter { source: Some("10.2.0.0/24".parse().unwrap()), ..base() }, 0),
        (SessionFilter { destination: Some("10.2.0.2/32".parse().unwrap()), ..base() }, 4),
        (SessionFilter { zone: lab.names.find_zone("inside"), ..base() }, 4),
        (SessionFilter { zone: Some(crate::names::ZoneId(999)), ..base() }, 0),
        (SessionFilter { id: Some(id), ..base() }, 1),
        (SessionFilter { rules: Some(vec![rule]), ..base() }, 4),
        (SessionFilter { rules: Some(vec![]), ..base() }, 0),
        (SessionFilter { applications: Some(vec![http]), ..base() }, 1),
    ];
    for (filter, want) in cases {
        let mut out = Vec::new();
        assert_eq!(lab.engine.list(0, u32::MAX, &filter, lab.now, &mut out), None);
        assert_eq!(out.len(), want, "{filter:?}");
        let mut tally = Tally::default();
        lab.engine.tally(0, u32::MAX, &filter, lab.now, &mut tally);
        assert_eq!((tally.live(), tally.by_state.iter().sum()), (want as u64, want as u64));
        assert_eq!(tally.by_protocol.iter().sum::<u64>(), want as u64);
    }
    let udp_only = SessionFilter { protocol: Some(17), ..base() };
    assert_eq!(lab.engine.clear(0, u32::MAX, &udp_only, lab.now), (None, 2));
    assert_eq!(lab.sessions().len(), 2);
}
