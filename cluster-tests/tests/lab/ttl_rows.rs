//! Which idle timeout a session gets and what `session show` says of it (F1 to F7). Where a range forbids a timeout
//! that a test could wait for, the lab shows the timeout and the engine's own tests show that it runs out.

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{TcpEcho, connect, exchange};

use crate::common::raw::{RawPair, SOON, Segment, raw_pair_without_sessions, v4};
use crate::common::{PATIENCE, TestLab, eventually, lab};

fn lab_with(name: &str, more: &str) -> TestLab {
    lab(name, |spec| spec.policy = Some(format!("{DEFAULT_POLICY}\n{more}")))
}

/// Sends a datagram from client to server, and waits until it is there.
fn udp(pair: &RawPair, source: u16, destination: u16) {
    let (client, server) = v4(pair);
    pair.client.udp((client, source), (server, destination), b"x");
    assert!(pair.server.udp_arrival(destination, SOON).is_some(), "UDP {source} to {destination}");
}

/// Timeout in seconds (null is `never`) and what set it, of the session to that port.
fn ttl(lab: &TestLab, protocol: &str, port: u16) -> (Option<f64>, String) {
    let found = lab.sessions(&["--protocol", protocol, "--destination-port", &port.to_string()]).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let id = found[0]["id"].as_str().unwrap();
    let shown = lab.json(&["session", "show", id]).unwrap();
    (shown["timeout_s"].as_f64(), shown["timeout_source"].as_str().unwrap().to_owned())
}

fn set(seconds: f64, by: &str) -> (Option<f64>, String) {
    (Some(seconds), by.to_owned())
}

/// An established TCP connection to that port of the server, and what it needs.
fn established(lab: &TestLab, port: u16) -> (TcpEcho, std::net::TcpStream) {
    let echo = TcpEcho::start(&lab.server(), lab.server_v4(port)).unwrap();
    let mut stream = connect(&lab.client(), lab.server_v4(port), PATIENCE).unwrap();
    exchange(&mut stream, b"hello", PATIENCE).unwrap();
    (echo, stream)
}

/// What `policy check` prints of the default policy with more behind it, and its exit code.
fn check(lab: &TestLab, more: &str) -> (Option<i32>, String) {
    let file = lab.plan().dir.join("checked.toml");
    std::fs::write(&file, format!("{DEFAULT_POLICY}\n{more}")).unwrap();
    let done = lab.tidegate(&["policy", "check", file.to_str().unwrap()]).unwrap();
    (done.code, done.stdout)
}

/// Red when the default reaches UDP, does not reach TCP, or a value out of range is taken.
#[test]
fn f1_the_default_is_for_tcp_and_sctp() {
    let lab = lab_with("f1", "[session_ttl]\ndefault = 300\n");
    let pair = raw_pair_without_sessions(&lab);
    let _open = established(&lab, 8080);
    udp(&pair, 4000, 7000);
    assert_eq!(ttl(&lab, "tcp", 8080), set(300.0, "session_ttl.default"));
    assert_eq!(ttl(&lab, "udp", 7000), set(60.0, "protocol"));
    for (value, ok) in
        [("300", true), ("2764800", true), ("\"never\"", true), ("299", false), ("2764801", false)]
    {
        let (code, said) = check(&lab, &format!("[session_ttl]\ndefault = {value}\n"));
        assert_eq!(code == Some(0), ok, "{value}: {said}");
    }
}

fn entry(id: u16, protocol: u8, ports: Option<(u16, u16)>, timeout: u32) -> String {
    let ports = ports.map_or(String::new(), |(a, b)| format!("start_port = {a}\nend_port = {b}\n"));
    format!("[[session_ttl.port]]\nid = {id}\nprotocol = {protocol}\n{ports}timeout = {timeout}\n")
}

/// Red when a port outside its range gets the entry's timeout, one inside does not, the session stays beyond it, or
/// nonsense is taken.
#[test]
fn f2_a_port_entry_sets_the_timeout_of_its_ports() {
    let lab = lab_with("f2", &(entry(7, 17, Some((7000, 7001)), 6) + &entry(8, 6, None, 900)));
    let pair = raw_pair_without_sessions(&lab);
    for (port, want) in [
        (6999, set(60.0, "protocol")),
        (7002, set(60.0, "protocol")),
        (7000, set(6.0, "session_ttl.port 7")),
        (7001, set(6.0, "session_ttl.port 7")),
    ] {
        udp(&pair, 4000, port);
        assert_eq!(ttl(&lab, "udp", port), want, "{port}");
    }
    let _open = established(&lab, 8080);
    assert_eq!(ttl(&lab, "tcp", 8080), set(900.0, "session_ttl.port 8"));
    eventually("the short ones leave", PATIENCE, || {
        (lab.sessions(&["--protocol", "udp"]).unwrap().len() == 2).then_some(())
    });
    for wrong in [
        entry(1, 6, Some((9, 8)), 300),
        entry(1, 1, Some((8, 9)), 300),
        entry(1, 6, Some((8, 9)), 0),
        entry(1, 6, None, 300) + &entry(1, 17, None, 300),
        entry(1, 6, None, 300).replace("id = 1", "id = 1\nstart_port = 5"),
    ] {
        let (code, said) = check(&lab, &wrong);
        assert_eq!(code, Some(2), "{wrong}: {said}");
    }
}

/// Red when the source port, or the port that a reply goes to, is looked at.
#[test]
fn f3_the_port_that_counts_is_the_first_directions_destination() {
    let lab = lab_with("f3", &entry(1, 17, Some((7000, 7000)), 500));
    let pair = raw_pair_without_sessions(&lab);
    udp(&pair, 7000, 5000);
    assert_eq!(ttl(&lab, "udp", 5000), set(60.0, "protocol"));
    // The reply goes to port 7000, and changes nothing.
    let (client, server) = v4(&pair);
    pair.server.udp((server, 5000), (client, 7000), b"back");
    assert!(pair.client.udp_arrival(7000, SOON).is_some());
    assert_eq!(ttl(&lab, "udp", 5000), set(60.0, "protocol"));
    udp(&pair, 5000, 7000);
    assert_eq!(ttl(&lab, "udp", 7000), set(500.0, "session_ttl.port 1"));
}

/// Red when two of the three orders change places, or the overlap is not warned about.
#[test]
fn f4_overlapping_entries_have_an_order() {
    let entries = [
        entry(1, 0, Some((7000, 7000)), 101),
        entry(9, 17, Some((7000, 7010)), 109),
        entry(8, 17, Some((7005, 7006)), 108),
        entry(6, 17, Some((7006, 7007)), 106),
    ]
    .concat();
    let lab = lab_with("f4", &entries);
    let pair = raw_pair_without_sessions(&lab);
    for (port, id, why) in [
        (7000, 9, "an exact protocol before any, though wider and later"),
        (7005, 8, "the narrower range"),
        (7006, 6, "equally narrow: the lower id"),
        (7010, 9, "no other covers it"),
    ] {
        udp(&pair, 4000, port);
        assert_eq!(
            ttl(&lab, "udp", port),
            set(f64::from(100 + id), &format!("session_ttl.port {id}")),
            "{why}"
        );
    }
    let (code, said) = check(&lab, &entries);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning") && said.contains("session_ttl.port 1 and 9 overlap"), "{said}");
}

/// A rule for one application before all others.
fn rule(name: &str, application: &str, more: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nfrom = \"outside\"\nto = \"inside\"\nsource = \"any\"\ndestination = \"any\"\n\
         application = \"{application}\"\naction = \"permit\"\n{more}\n"
    )
}

fn application(name: &str, port: u16, more: &str) -> String {
    format!("[[application]]\nname = \"{name}\"\nprotocol = \"udp\"\ndestination_port = {port}\n{more}\n")
}

/// Each level of F5 is set for a flow that all weaker levels cover too. Red when two of them change places or
/// `session show` names another one.
#[test]
fn f5_the_most_specific_setting_counts_and_is_named() {
    let (head, tail) = DEFAULT_POLICY.rsplit_once("[[rule]]").unwrap();
    let rules = [
        application("own-timeout", 7001, "inactivity_timeout = 401"),
        application("plain", 7002, ""),
        rule("first", "own-timeout", "session_ttl = 402"),
        rule("second", "plain", "session_ttl = 402"),
    ]
    .concat();
    let ttls = entry(3, 0, Some((7001, 7003)), 403) + "[session_ttl]\ndefault = 404\n";
    // TOML has the table before its entries.
    let (entries, default) = ttls.split_once("[session_ttl]").unwrap();
    let policy = format!("{head}{rules}[[rule]]{tail}\n[session_ttl]{default}{entries}");
    let lab = lab("f5", |spec| spec.policy = Some(policy.clone()));
    let pair = raw_pair_without_sessions(&lab);
    for port in 7001..=7004 {
        udp(&pair, 4000, port);
    }
    assert_eq!(ttl(&lab, "udp", 7001), set(401.0, "application"));
    assert_eq!(ttl(&lab, "udp", 7002), set(402.0, "rule"));
    assert_eq!(ttl(&lab, "udp", 7003), set(403.0, "session_ttl.port 3"));
    assert_eq!(ttl(&lab, "udp", 7004), set(60.0, "protocol"));
    let _open = [established(&lab, 80), established(&lab, 8080), established(&lab, 7003)];
    assert_eq!(ttl(&lab, "tcp", 80), set(404.0, "session_ttl.default"));
    assert_eq!(ttl(&lab, "tcp", 7003), set(403.0, "session_ttl.port 3"));
    // Without the default, a predefined application's own, and then the protocol's.
    std::fs::write(&lab.plan().nodes[0].policy, policy.replace("default = 404\n", "")).unwrap();
    lab.json(&["policy", "reload"]).unwrap();
    lab.json(&["--yes", "session", "clear", "--protocol", "tcp"]).unwrap();
    drop(_open);
    let _open = [established(&lab, 80), established(&lab, 8080)];
    assert_eq!(ttl(&lab, "tcp", 80), set(300.0, "predefined application"));
    assert_eq!(ttl(&lab, "tcp", 8080), set(1800.0, "protocol"));
}

/// Red when `never` ages out, is shown as a number, outlives a clear, takes more than its share of the table, or when
/// what the share refused is not counted.
#[test]
fn f6_never_is_shown_stays_and_has_a_cap() {
    let never = "[[session_ttl.port]]\nid = 1\nprotocol = 17\nstart_port = 7000\nend_port = 7000\ntimeout = \"never\"\n";
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 1\n{never}");
    let lab = lab("f6", |spec| {
        spec.capacity = 1000;
        spec.policy = Some(policy);
    });
    let pair = raw_pair_without_sessions(&lab);
    udp(&pair, 4000, 7000);
    udp(&pair, 4000, 7001);
    assert_eq!(ttl(&lab, "udp", 7000), (None, "session_ttl.port 1".to_owned()));
    let id = lab.sessions(&["--destination-port", "7000"]).unwrap()[0]["id"].as_str().unwrap().to_owned();
    let text = lab.tidegate(&["session", "show", &id]).unwrap().stdout;
    assert!(text.contains("never, set by session_ttl.port 1"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("remaining:") && l.ends_with("never")), "{text}");
    let count = |key: &str| lab.json(&["session", "summary"]).unwrap()[key].as_u64().unwrap();
    // Its slot too: an expired session is in use until the sweep collects it.
    eventually("the other one leaves", PATIENCE, || (count("in_use") == 1).then_some(()));

    // A tenth of 1,000 may have it.
    for source in 4001..4120 {
        udp(&pair, source, 7000);
    }
    assert_eq!((count("never"), count("never_capped"), count("in_use")), (100, 20, 120));
    let metrics = lab.metrics().unwrap();
    assert_eq!(metrics.sum("tidegate_sessions_never_capped_total", &[]), Some(20.0));
    let capped = lab.sessions(&["--source-port", "4119"]).unwrap();
    let shown = (capped[0]["timeout_s"].as_f64(), capped[0]["timeout_source"].as_str());
    assert_eq!(shown, (Some(2_764_800.0), Some("session_ttl.port 1")));
    // `never` is longer than any bound, and a clear ends it all the same.
    assert_eq!(lab.sessions(&["--min-remaining", "40d"]).unwrap().len(), 100);
    lab.json(&["--yes", "session", "clear", "--source-port", "4000-4049"]).unwrap();
    assert_eq!((count("never"), count("in_use")), (50, 70));
    let (code, said) = check(&lab, never);
    assert!(code == Some(0) && said.contains("warning") && said.contains("never"), "{said}");
}

/// Red when `never` outlives a RST that ends sessions.
#[test]
fn f6_never_does_not_survive_a_reset() {
    let lab = lab_with("f6r", "[tcp]\nrst_invalidate = true\n[session_ttl]\ndefault = \"never\"\n");
    let pair = raw_pair_without_sessions(&lab);
    let (client, server) = v4(&pair);
    let (near, far) = ((client, 4000), (server, 7000));
    let segment = |flags, seq, ack| Segment { flags, seq, ack, window: 1000, ..Segment::default() };
    pair.client.tcp(near, far, &segment("S", 100, 0));
    assert!(pair.server.tcp_arrival(7000, SOON).is_some());
    pair.server.tcp(far, near, &segment("SA", 500, 101));
    assert!(pair.client.tcp_arrival(4000, SOON).is_some());
    pair.client.tcp(near, far, &segment("A", 101, 501));
    assert!(pair.server.tcp_arrival(7000, SOON).is_some());
    assert_eq!(ttl(&lab, "tcp", 7000), (None, "session_ttl.default".to_owned()));
    pair.client.tcp(near, far, &segment("R", 101, 0));
    assert!(pair.server.tcp_arrival(7000, SOON).is_some());
    eventually("the session ends", PATIENCE, || lab.sessions(&[]).unwrap().is_empty().then_some(()));
}

/// Red when a live session keeps its old timeout after its next packet, or when a new session gets the old one.
#[test]
fn f7_a_changed_timeout_reaches_live_sessions_with_their_next_packet() {
    let lab = lab_with("f7", "[timeouts]\nudp = 500\n");
    let pair = raw_pair_without_sessions(&lab);
    udp(&pair, 4000, 7000);
    udp(&pair, 4000, 7001);
    assert_eq!(ttl(&lab, "udp", 7000), set(500.0, "protocol"));
    let id = |lab: &TestLab| lab.sessions(&["--destination-port", "7000"]).unwrap()[0]["id"].clone();
    let before = id(&lab);
    std::fs::write(&lab.plan().nodes[0].policy, format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 40\n")).unwrap();
    lab.json(&["policy", "reload"]).unwrap();
    udp(&pair, 4000, 7002);
    assert_eq!(ttl(&lab, "udp", 7002), set(40.0, "protocol"), "a new session");
    udp(&pair, 4000, 7000);
    assert_eq!(ttl(&lab, "udp", 7000), set(40.0, "protocol"), "a live one after its next packet");
    assert_eq!(id(&lab), before, "it is the same session");
    assert_eq!(ttl(&lab, "udp", 7001), set(500.0, "protocol"), "a live one that is silent");
}
