//! Every range of the file, at both ends.

use super::diagnostics::PAIR;
use super::*;
use crate::policy::{PolicyFile, PortRange, TimeWaitSetting, Ttl};

fn file(text: &str) -> Option<PolicyFile> {
    check(text, "p").file
}

/// The smallest and largest value pass and are kept; one less and one more are refused.
fn range(text: impl Fn(i64) -> String, min: i64, max: i64, read: impl Fn(&PolicyFile) -> u32) {
    for value in [min, max] {
        let file = file(&text(value)).unwrap_or_else(|| panic!("{} is refused", text(value)));
        assert_eq!(i64::from(read(&file)), value, "{}", text(value));
    }
    for value in [min - 1, max + 1] {
        let report = check(&text(value), "p");
        assert_eq!(report.errors.len(), 1, "{}: {}", text(value), print(&report));
    }
}

fn seconds(ttl: Ttl) -> u32 {
    match ttl {
        Ttl::Seconds(s) => s,
        Ttl::Never => panic!("never"),
    }
}

/// Goes red when a bound moves by one, or a key sets another one's value.
#[test]
fn j2_protocol_timeouts_have_their_ranges_and_defaults() {
    let key = |key: &'static str| move |v: i64| format!("[timeouts]\n{key} = {v}\n");
    range(key("tcp"), 1, 2_764_800, |f| f.timeouts.tcp_s);
    range(key("udp"), 1, 2_764_800, |f| f.timeouts.udp_s);
    range(key("icmp"), 1, 2_764_800, |f| f.timeouts.icmp_s);
    range(key("icmp_reply"), 1, 2_764_800, |f| f.timeouts.icmp_reply_s);
    range(key("sctp"), 1, 2_764_800, |f| f.timeouts.sctp_s);
    range(key("other"), 1, 2_764_800, |f| f.timeouts.other_s);
    let t = file("").unwrap().timeouts;
    assert_eq!((t.tcp_s, t.udp_s, t.icmp_s, t.icmp_reply_s, t.sctp_s, t.other_s), (1800, 60, 60, 4, 60, 60));
    assert!(check("[timeouts]\ntcp = \"never\"\n", "p").file.is_none());
}

/// Goes red when a bound moves by one, or the term or `never` is not taken.
#[test]
fn j3_applications_have_their_ranges() {
    let app = |line: String| format!("[[application]]\nname = \"x\"\nprotocol = \"tcp\"\n{line}\n");
    range(
        |v| app(format!("inactivity_timeout = {v}")),
        1,
        2_764_800,
        |f| seconds(f.applications[0].inactivity_timeout.unwrap()),
    );
    range(
        |v| app(format!("destination_port = {v}")),
        0,
        65_535,
        |f| f.applications[0].terms[0].destination.first.into(),
    );
    range(
        |v| app(format!("source_port = {v}")),
        0,
        65_535,
        |f| f.applications[0].terms[0].source.last.into(),
    );
    range(
        |v| format!("[[application]]\nname = \"x\"\nprotocol = {v}\n"),
        1,
        255,
        |f| f.applications[0].terms[0].protocol.into(),
    );
    let never = file(&app("inactivity_timeout = \"never\"".into())).unwrap();
    assert_eq!(never.applications[0].inactivity_timeout, Some(Ttl::Never));
    let span = file(&app("destination_port = \"8000-8010\"".into())).unwrap();
    assert_eq!(span.applications[0].terms[0].destination, PortRange { first: 8000, last: 8010 });
    assert_eq!(span.applications[0].terms[0].source, PortRange::ALL);
    for bad in ["\"8010-8000\"", "\"a\"", "\"1-\"", "\"-1\"", "\"1-2-3\"", "\"0-65536\"", "1.5", "[80]"] {
        assert_eq!(check(&app(format!("destination_port = {bad}")), "p").errors.len(), 1, "{bad}");
    }
}

/// Goes red when ports are taken for a protocol without them, or a name for another protocol.
#[test]
fn j3_ports_go_with_protocols_that_have_them() {
    for (protocol, number, ports) in [
        ("\"tcp\"", 6, true),
        ("\"udp\"", 17, true),
        ("\"SCTP\"", 132, true),
        ("\"icmp\"", 1, false),
        ("\"icmpv6\"", 58, false),
        ("\"gre\"", 47, false),
        ("\"esp\"", 50, false),
        ("89", 89, false),
    ] {
        let text = format!("[[application]]\nname = \"x\"\nprotocol = {protocol}\n");
        assert_eq!(file(&text).unwrap().applications[0].terms[0].protocol, number);
        assert_eq!(file(&format!("{text}destination_port = 1\n")).is_some(), ports, "{protocol}");
        assert_eq!(file(&format!("{text}source_port = 1\n")).is_some(), ports, "{protocol}");
    }
}

/// Goes red when terms and inline keys may stand together, or a term is lost.
#[test]
fn j3_applications_have_one_form_or_the_other() {
    let app = "[[application]]\nname = \"x\"\n";
    let term = "[[application.term]]\nprotocol = \"tcp\"\n";
    assert_eq!(file(&format!("{app}{term}{term}")).unwrap().applications[0].terms.len(), 2);
    assert!(file(&format!("{app}protocol = 6\n{term}")).is_none());
    assert!(file(&format!("{app}term = []\n")).is_none());
    assert!(file(app).is_none());
}

/// Goes red when a bound moves by one or the default changes.
#[test]
fn j4_initial_timeout_has_its_range() {
    range(|v| format!("[tcp]\ninitial_timeout = {v}\n"), 4, 300, |f| f.tcp.initial_timeout_s);
    assert_eq!(file("").unwrap().tcp.initial_timeout_s, 20);
}

/// Goes red when a bound moves by one, a default changes, or a switch sets another.
#[test]
fn j5_j6_j7_tcp_settings_have_their_ranges_and_defaults() {
    range(
        |v| format!("[tcp]\ntime_wait = {v}\n"),
        2,
        600,
        |f| match f.tcp.time_wait {
            TimeWaitSetting::Seconds(s) => s,
            TimeWaitSetting::Ageout => 0,
        },
    );
    let tcp = |text: &str| file(&format!("[tcp]\n{text}\n")).unwrap().tcp;
    let default = tcp("");
    assert_eq!(default.time_wait, TimeWaitSetting::Seconds(150));
    assert!(!default.rst_invalidate && !default.fin_invalidate && !default.half_close_time_wait);
    assert!(default.syn_check);
    assert_eq!(tcp("time_wait = \"ageout\"").time_wait, TimeWaitSetting::Ageout);
    assert_eq!(tcp("rst_invalidate = true"), crate::policy::TcpSettings { rst_invalidate: true, ..default });
    assert_eq!(tcp("fin_invalidate = true"), crate::policy::TcpSettings { fin_invalidate: true, ..default });
    let half = crate::policy::TcpSettings { half_close_time_wait: true, ..default };
    assert_eq!(tcp("half_close_time_wait = true"), half);
    assert_eq!(tcp("syn_check = false"), crate::policy::TcpSettings { syn_check: false, ..default });
    assert!(default.sequence_check && !default.strict_syn_check && !default.rst_sequence_check);
    let off = crate::policy::TcpSettings { sequence_check: false, ..default };
    assert_eq!(tcp("sequence_check = false"), off);
    let strict = crate::policy::TcpSettings { strict_syn_check: true, ..default };
    assert_eq!(tcp("strict_syn_check = true"), strict);
    let rst = crate::policy::TcpSettings { rst_sequence_check: true, ..default };
    assert_eq!(tcp("rst_sequence_check = true"), rst);
}

/// Goes red when a bound moves by one, or an MSS is lowered that nobody asked to lower.
#[test]
fn j8_mss_has_its_range() {
    let all_tcp = |f: &PolicyFile| f.mss.all_tcp.map_or(0, u32::from);
    range(|v| format!("[mss]\nall_tcp = {v}\n"), 64, 65_535, all_tcp);
    assert_eq!(file("[mss]").unwrap().mss.all_tcp, None);
}

/// Goes red when a bound moves by one, or unset is not the protocol's own.
#[test]
fn f1_default_has_its_range() {
    range(
        |v| format!("[session_ttl]\ndefault = {v}\n"),
        300,
        2_764_800,
        |f| seconds(f.session_ttl.default.unwrap()),
    );
    assert_eq!(file("").unwrap().session_ttl.default, None);
    let never = file("[session_ttl]\ndefault = \"never\"\n").unwrap();
    assert_eq!(never.session_ttl.default, Some(Ttl::Never));
}

/// Goes red when a bound moves by one, or a default changes.
#[test]
fn f2_port_entries_have_their_ranges_and_defaults() {
    let entry = |lines: String| format!("[[session_ttl.port]]\n{lines}\n");
    range(|v| entry(format!("id = {v}")), 0, 65_535, |f| f.session_ttl.ports[0].id.into());
    range(|v| entry(format!("id = 1\nprotocol = {v}")), 0, 255, |f| f.session_ttl.ports[0].protocol.into());
    range(
        |v| entry(format!("id = 1\ntimeout = {v}")),
        1,
        2_764_800,
        |f| seconds(f.session_ttl.ports[0].timeout),
    );
    range(
        |v| entry(format!("id = 1\nstart_port = {v}\nend_port = 65535")),
        0,
        65_535,
        |f| f.session_ttl.ports[0].ports.unwrap().first.into(),
    );
    range(
        |v| entry(format!("id = 1\nstart_port = 0\nend_port = {v}")),
        0,
        65_535,
        |f| f.session_ttl.ports[0].ports.unwrap().last.into(),
    );
    let plain = file(&entry("id = 1".into())).unwrap().session_ttl.ports[0];
    assert_eq!((plain.protocol, plain.ports, plain.timeout), (0, None, Ttl::Seconds(300)));
    let never = file(&entry("id = 1\ntimeout = \"never\"".into())).unwrap();
    assert_eq!(never.session_ttl.ports[0].timeout, Ttl::Never);
}

/// Goes red when one of F2's rules is not kept.
#[test]
fn f2_port_entries_are_checked() {
    let one = |lines: &str| check(&format!("[[session_ttl.port]]\nid = 1\n{lines}\n"), "p");
    for (lines, message) in [
        ("start_port = 1", "one port of two"),
        ("end_port = 1", "one port of two"),
        ("start_port = 2\nend_port = 1", "start_port 2 is above end_port 1"),
        ("protocol = 1\nstart_port = 1\nend_port = 1", "protocol 1 has none"),
        ("protocol = \"gre\"\nstart_port = 1\nend_port = 1", "protocol 47 has none"),
    ] {
        let report = one(lines);
        assert_eq!(report.errors.len(), 1, "{lines}");
        assert!(report.errors[0].message.contains(message), "{}", print(&report));
        assert!(report.errors[0].suggestion.is_some());
    }
    for protocol in [0, 6, 17, 132] {
        assert!(one(&format!("protocol = {protocol}\nstart_port = 7\nend_port = 7")).file.is_some());
    }
    let twice = check("[[session_ttl.port]]\nid = 1\n[[session_ttl.port]]\nid = 1\nprotocol = 6\n", "p");
    assert_eq!(twice.errors.len(), 1);
    assert!(twice.errors[0].message.contains("in line 2 already"), "{}", print(&twice));
}

/// Goes red when a bound moves by one, or a default changes.
#[test]
fn j1_rules_have_their_ranges_and_defaults() {
    let rule = |line: String| format!("{PAIR}{}{line}\n", super::diagnostics::ALL);
    range(|v| rule(format!("session_ttl = {v}")), 1, 2_764_800, |f| seconds(f.rules[0].session_ttl.unwrap()));
    let plain = &file(&rule(String::new())).unwrap().rules[0];
    assert_eq!((plain.session_ttl, plain.log, plain.enabled, plain.line), (None, false, true, 5));
    let set = &file(&rule("session_ttl = \"never\"\nlog = true\nenabled = false".into())).unwrap().rules[0];
    assert_eq!((set.session_ttl, set.log, set.enabled), (Some(Ttl::Never), true, false));
}
