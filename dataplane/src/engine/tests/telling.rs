//! What is told of sessions to watchers and logs (J11), and the filters beyond addresses and names.

use super::*;
use crate::session::EndReason;

fn events(lab: &mut Lab) -> Vec<Event> {
    let mut all = Vec::new();
    lab.engine.take_events(|e| all.push(e));
    all
}

fn told(lab: &mut Lab) -> Vec<SessionEvent> {
    let session = |e| match e {
        Event::Session(e) => Some(e),
        _ => None,
    };
    events(lab).into_iter().filter_map(session).collect()
}

#[test]
fn j11_a_watcher_hears_of_birth_changes_and_end_and_otherwise_nobody_does() {
    // Red when an event is made without a watcher, or one of the three kinds is not made with one.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    assert_eq!(events(&mut lab), []);
    lab.engine.set_watched(true);
    lab.connect(4001, 80);
    let heard = told(&mut lab);
    let what: Vec<Happened> = heard.iter().map(|e| e.what).collect();
    assert_eq!(
        what,
        [
            Happened::Created,
            Happened::Changed { from: State::SynSent },
            Happened::Changed { from: State::SynReceived }
        ]
    );
    let [created, .., open] = heard[..] else { panic!("{heard:?}") };
    assert_eq!((created.packets, open.packets, open.state), ([1, 0], [2, 1], State::Established));
    assert_eq!((created.ports, created.zones.len(), created.logged), ([Some(OUT), Some(IN)], 2, false));
    assert_eq!(open.id, created.id);
    lab.wait_ms(1_000);
    lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
    let ended = told(&mut lab);
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|e| e.what == Happened::Ended(EndReason::Cleared)), "{ended:?}");
    assert_eq!(ended[1].at.since(ended[1].created), 1_000);
    lab.engine.set_watched(false);
    lab.connect(4002, 80);
    assert_eq!(events(&mut lab), []);
}

#[test]
fn a_rule_that_logs_tells_of_birth_and_end_with_both_wings_counts() {
    // Red when the end of a logged session is not told, or its counts are those of one wing.
    let text = POLICY.replace("name = \"out\"", "name = \"out\"\nlog = true");
    let mut lab = Lab::new(&format!("{text}\n[tcp]\nfin_invalidate = true"), 1000);
    lab.connect(4000, 80);
    lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1001, 5001, 100));
    lab.verdict(IN, tcp(false, 4000, 80, ACK, 5001, 1101, 0));
    let heard = told(&mut lab);
    assert_eq!(heard.len(), 1, "a change of state is no log record: {heard:?}");
    assert!(heard[0].logged && heard[0].what == Happened::Created);
    lab.wait_ms(1_801_500);
    let heard = told(&mut lab);
    assert_eq!((heard.len(), heard[0].what), (1, Happened::Ended(EndReason::Aged)));
    assert_eq!((heard[0].packets, heard[0].bytes), ([3, 2], [40 * 3 + 100, 80]));
    assert_eq!(heard[0].ports, [Some(OUT), Some(IN)]);
}

#[test]
fn a_reload_starts_and_stops_the_log_of_a_live_session() {
    // Red when the flag of the rule at birth decides about the end.
    let logging = POLICY.replace("name = \"out\"", "name = \"out\"\nlog = true");
    for (before, after, records) in [(POLICY, logging.as_str(), 1), (logging.as_str(), POLICY, 0)] {
        let mut lab = Lab::new(before, 1000);
        lab.verdict(OUT, udp(true, 4000, 53, 1));
        events(&mut lab);
        lab.policy(after);
        lab.verdict(OUT, udp(true, 4000, 53, 1));
        lab.engine.clear(0, u32::MAX, &SessionFilter::default(), lab.now);
        assert_eq!(told(&mut lab).len(), records);
    }
}

#[test]
fn refused_flows_are_told_where_the_rule_or_the_default_asks_for_it() {
    // Red when deny, reject or the default is told without being asked for, or not told when it is.
    let default_deny = |on| format!("{POLICY}\n[log]\ndefault_deny = {on}");
    for (text, want) in [
        (POLICY.to_owned(), 0),
        (POLICY.replace("action = \"deny\"", "action = \"deny\"\nlog = true"), 1),
        (POLICY.replace("action = \"reject\"", "action = \"reject\"\nlog = true"), 1),
        (default_deny(false), 0),
        (default_deny(true), 1),
    ] {
        let mut lab = Lab::new(&text, 1000);
        lab.verdict(OUT, tcp(true, 4000, 9, SYN, 1, 0, 0));
        lab.verdict(OUT, tcp(true, 4000, 23, SYN, 1, 0, 0));
        // From inside nothing new is permitted: the default.
        lab.verdict(IN, tcp(false, 4000, 80, SYN, 1, 0, 0));
        let refused: Vec<_> = events(&mut lab)
            .into_iter()
            .filter_map(|e| match e {
                Event::Refused(r) => Some(r),
                _ => None,
            })
            .collect();
        assert_eq!(refused.len(), want, "{text}");
        assert!(refused.iter().all(|r| r.ports.iter().all(Option::is_some) && r.bytes == 40));
    }
}

#[test]
fn events_that_find_no_room_are_counted_and_told_first() {
    // Red when the list grows beyond its bound, or the number that was left out is lost.
    let mut lab = Lab::new(POLICY, 10_000);
    lab.engine.set_watched(true);
    for sport in 1..=6_000 {
        lab.verdict(OUT, udp(true, sport, 7777, 1));
    }
    let all = events(&mut lab);
    let room = EVENTS_MAX - EVENTS_RESERVED;
    assert_eq!(all[0], Event::LeftOut(6_000 - room as u64));
    assert_eq!(all.len(), room + 1);
    assert_eq!(lab.engine.counters().events_left_out, 6_000 - room as u64);
    assert_eq!(events(&mut lab), []);
}

#[test]
fn j11_bounds_state_and_ports_filter_and_events_are_filtered_alike() {
    // Red when a bound is ignored, read the other way round, or asked of one wing only.
    let mut lab = Lab::new(POLICY, 1000);
    lab.engine.set_watched(true);
    lab.verdict(OUT, udp(true, 4000, 7777, 72));
    lab.wait_ms(10_000);
    lab.verdict(OUT, udp(true, 4001, 7777, 72));
    lab.verdict(IN, udp(false, 4001, 7777, 72));
    let base = SessionFilter::default;
    let at_least = |n| Bounds { min: Some(n), max: None };
    let at_most = |n| Bounds { min: None, max: Some(n) };
    let sports = |lab: &Lab, filter: &SessionFilter| {
        let mut out = Vec::new();
        lab.engine.list(0, u32::MAX, filter, lab.now, &mut out);
        out.iter().map(|s| s.wings[0].tuple.src_port).collect::<Vec<_>>()
    };
    for (filter, want) in [
        (SessionFilter { duration_ms: at_least(5_000), ..base() }, vec![4000]),
        (SessionFilter { duration_ms: at_most(5_000), ..base() }, vec![4001]),
        (SessionFilter { remaining_ms: at_most(50_000), ..base() }, vec![4000]),
        (SessionFilter { remaining_ms: at_least(50_001), ..base() }, vec![4001]),
        (SessionFilter { packets: at_least(2), ..base() }, vec![4001]),
        (SessionFilter { packets: at_most(1), ..base() }, vec![4000]),
        (SessionFilter { bytes: Bounds { min: Some(200), max: Some(200) }, ..base() }, vec![4001]),
        (SessionFilter { bytes: at_most(100), ..base() }, vec![4000]),
        (SessionFilter { state: Some(State::Replied), ..base() }, vec![4001]),
        (SessionFilter { state: Some(State::OneWay), ..base() }, vec![4000]),
        (SessionFilter { port: Some(IN), ..base() }, vec![4000, 4001]),
        (SessionFilter { port: Some(PortId(9)), ..base() }, vec![]),
    ] {
        assert_eq!(sports(&lab, &filter), want, "{filter:?}");
        // The last event of each session shows it as it is now.
        lab.engine.clear(0, u32::MAX, &filter, lab.now);
        let heard = told(&mut lab);
        let ended: Vec<_> = heard.iter().filter(|e| matches!(e.what, Happened::Ended(_))).collect();
        assert_eq!(ended.len(), want.len());
        assert!(ended.iter().all(|e| filter.fits_event(e)), "{filter:?}");
        lab.engine.clear(0, u32::MAX, &base(), lab.now);
        assert!(told(&mut lab).iter().all(|e| !filter.fits_event(e)), "{filter:?}");
        // Everything again as it was.
        let fresh = Now(lab.now.0);
        lab = Lab::new(POLICY, 1000);
        lab.engine.set_watched(true);
        lab.now = Now(fresh.0 - 10_000);
        lab.verdict(OUT, udp(true, 4000, 7777, 72));
        lab.now = fresh;
        lab.verdict(OUT, udp(true, 4001, 7777, 72));
        lab.verdict(IN, udp(false, 4001, 7777, 72));
        told(&mut lab);
    }
}

#[test]
fn j11_every_session_is_valid_pending_invalidated_or_in_drop() {
    // Red when a session is counted twice or not at all, or under another heading.
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    lab.verdict(OUT, tcp(true, 4001, 80, SYN, 1, 0, 0));
    lab.verdict(OUT, udp(true, 4002, 9999, 1));
    let tally = |lab: &Lab| {
        let mut t = Tally::default();
        assert_eq!(lab.engine.tally(0, u32::MAX, &SessionFilter::default(), lab.now, &mut t), None);
        (t.valid, t.pending, t.invalidated, t.in_drop)
    };
    assert_eq!(tally(&lab), (2, 1, 0, 0));
    // No sweep: what is expired is still in its slot.
    lab.now = Now(lab.now.0 + 61_000);
    assert_eq!(tally(&lab), (1, 0, 2, 0));
    lab.policy(&POLICY.replace("action = \"permit\"", "action = \"deny\""));
    assert_eq!(tally(&lab), (0, 0, 2, 1));
}
