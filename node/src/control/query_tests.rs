use super::*;

fn known() -> Vocabulary {
    let mut n = Names::default();
    n.zone("trust").unwrap();
    n.rule("trust/untrust/web").unwrap();
    n.rule("dmz/untrust/web").unwrap();
    n.application("http").unwrap();
    let ports = vec![("outside".to_owned(), Some("eth0".to_owned())), ("inside".to_owned(), None)];
    Vocabulary { names: Arc::new(n), ports, nodes: vec![(4, "edge-1".to_owned())] }
}

fn query(change: impl FnOnce(&mut SessionQuery)) -> Result<SessionFilter, ApiError> {
    let mut q = SessionQuery::default();
    change(&mut q);
    filter(&q, &known())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn j10_filters_are_read() {
    // Each line fails if its filter is dropped or read as another.
    assert_eq!(query(|_| {}).unwrap(), SessionFilter::default());
    assert_eq!(query(|q| q.protocol = some("TCP")).unwrap().protocol, Some(6));
    assert_eq!(query(|q| q.protocol = some("89")).unwrap().protocol, Some(89));
    let range = Some(PortRange { first: 8000, last: 8099 });
    assert_eq!(query(|q| q.destination_port = some("8000-8099")).unwrap().destination_port, range);
    let one = query(|q| q.source_prefix = some("10.0.0.1")).unwrap();
    assert_eq!(one.source.unwrap().to_string(), "10.0.0.1/32");
    assert_eq!(query(|q| q.family = some("ipv6")).unwrap().v4, Some(false));
    assert_eq!(query(|q| q.application = some("http")).unwrap().applications, Some(vec![AppId(1)]));
    assert_eq!(query(|q| q.zone = some("trust")).unwrap().zone, Some(ZoneId(0)));
    assert_eq!(query(|q| q.policy = some("web")).unwrap().rules, Some(vec![RuleId(0), RuleId(1)]));
    let full = query(|q| q.policy = some("dmz/untrust/web")).unwrap();
    assert_eq!(full.rules, Some(vec![RuleId(1)]));
    assert_eq!(query(|q| q.interface = some("inside")).unwrap().port, Some(PortId(1)));
    assert_eq!(query(|q| q.interface = some("eth0")).unwrap().port, Some(PortId(0)));
}

#[test]
fn j11_filters_are_read_with_their_units() {
    // Take seconds for milliseconds, KiB for kB, or min for max, and a line fails.
    assert_eq!(query(|q| q.state = some("time-wait")).unwrap().state, Some(State::TimeWait));
    let f = query(|q| (q.min_duration, q.max_duration) = (some("90"), some("5m"))).unwrap();
    assert_eq!(f.duration_ms, Bounds { min: Some(90_000), max: Some(300_000) });
    let f = query(|q| q.max_remaining = some("2h")).unwrap();
    assert_eq!(f.remaining_ms, Bounds { min: None, max: Some(7_200_000) });
    let f = query(|q| q.min_packets = some("1000")).unwrap();
    assert_eq!(f.packets, Bounds { min: Some(1000), max: None });
    let f = query(|q| (q.min_bytes, q.max_bytes) = (some("1MB"), some("1 MiB"))).unwrap();
    assert_eq!(f.bytes, Bounds { min: Some(1_000_000), max: Some(1_048_576) });
    for owner in ["edge-1", "4"] {
        let f = query(|q| (q.owner, q.node) = (some(owner), some(owner))).unwrap();
        assert_eq!(f, SessionFilter::default(), "this node owns every session");
    }
}

#[test]
fn nonsense_is_refused_not_ignored() {
    // A filter that is silently dropped would make `clear` clear everything.
    for change in [
        (|q: &mut SessionQuery| q.protocol = some("tpc")) as fn(&mut SessionQuery),
        |q| q.source_prefix = some("10.0.0.0/33"),
        |q| q.destination_port = some("99-1"),
        |q| q.source_port = some("65536"),
        |q| q.zone = some("tryst"),
        |q| q.policy = some("wob"),
        |q| q.application = some("htp"),
        |q| q.family = some("ipx"),
        |q| q.id = some("1-2"),
        |q| q.state = some("stablished"),
        |q| q.interface = some("eth9"),
        |q| q.owner = some("edge-2"),
        |q| q.node = some("5"),
        |q| q.tunnel = true,
        |q| q.resource_manager = true,
        |q| q.min_duration = some("soon"),
        |q| q.min_bytes = some("1 XB"),
        |q| q.min_packets = some("-1"),
        |q| (q.min_bytes, q.max_bytes) = (some("2"), some("1")),
    ] {
        let mut q = SessionQuery::default();
        change(&mut q);
        assert!(filter(&q, &known()).is_err(), "{q:?}");
    }
    for change in
        [(|q: &mut SessionQuery| q.limit = Some(1)) as fn(&mut SessionQuery), |q| q.sort = some("bytes")]
    {
        let mut q = SessionQuery::default();
        change(&mut q);
        assert!(unordered(&q, &known()).is_err(), "{q:?}");
    }
}

#[test]
fn a_slip_is_answered_with_the_word_that_was_meant() {
    // Lose the suggestion, or make it from another list, and the operator searches.
    for (change, meant) in [
        ((|q: &mut SessionQuery| q.state = some("stablished")) as fn(&mut SessionQuery), "established"),
        (|q| q.zone = some("tryst"), "trust"),
        (|q| q.application = some("htp"), "http"),
        (|q| q.interface = some("insde"), "inside"),
        (|q| q.protocol = some("tpc"), "tcp"),
        (|q| q.policy = some("wob"), "web"),
    ] {
        let error = format!("{:?}", query(change).unwrap_err());
        assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
    }
}
