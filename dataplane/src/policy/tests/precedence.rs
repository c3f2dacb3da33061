//! Which timeout a session gets, and what says so (F1 to F6, J2).

use super::diagnostics::PAIR;
use super::*;
use crate::addr::proto::{ESP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::policy::TimeWait;
use crate::session::timeouts::TimeoutSource as Source;

fn rule(application: &str, more: &str) -> String {
    format!(
        "{PAIR}[[rule]]\nname = \"r\"\nfrom = \"a\"\nto = \"b\"\nsource = \"any\"\ndestination = \"any\"\n\
         application = {application}\naction = \"permit\"\n{more}\n"
    )
}

fn flow(protocol: u8, port: u16) -> Tuple {
    let port = if matches!(protocol, ICMP | ICMPV6) { crate::addr::ICMP_QUERY_PORT } else { port };
    tuple("192.0.2.1", "198.51.100.1", protocol, 40_000, port)
}

fn class(seconds: u64, source: Source) -> TimeoutClass {
    TimeoutClass { timeout_ms: Some(seconds * 1000), source }
}

/// Every combination of the settable levels, for an application of the policy's own, a predefined one
/// and `any`, over TCP and UDP. Goes red when two levels change places or one is left out.
#[test]
fn f5_precedence_over_every_presence_of_each_level() {
    for present in 0..16u8 {
        let [own, of_rule, port, default] = [0, 1, 2, 3].map(|i| present >> i & 1 == 1);
        for kind in ["own", "http", "any"] {
            for protocol in [TCP, UDP] {
                if kind == "http" && protocol == UDP {
                    continue;
                }
                let mut text = rule(&format!("{kind:?}"), if of_rule { "session_ttl = 102" } else { "" });
                let number = if own { "inactivity_timeout = 101" } else { "" };
                text += &format!(
                    "[[application]]\nname = \"own\"\nprotocol = {protocol}\ndestination_port = 80\n{number}\n"
                );
                if port {
                    text += "[[session_ttl.port]]\nid = 3\nstart_port = 80\nend_port = 80\ntimeout = 103\n";
                }
                if default {
                    text += "[session_ttl]\ndefault = 304\n";
                }
                // TOML wants the table before its entries only for readers; both orders are legal.
                let got = Fixture::new(&text).class(&flow(protocol, 80));
                let expected = if kind == "own" && own {
                    class(101, Source::Application)
                } else if of_rule {
                    class(102, Source::Rule)
                } else if port {
                    class(103, Source::PortEntry(3))
                } else if default && protocol == TCP {
                    class(304, Source::SessionTtlDefault)
                } else if kind != "own" && protocol == TCP {
                    class(300, Source::PredefinedApplication)
                } else {
                    class(if protocol == TCP { 1800 } else { 60 }, Source::Protocol)
                };
                assert_eq!(got, expected, "{kind} {protocol} {present:04b}");
            }
        }
    }
}

/// Goes red when a protocol gets another one's timeout.
#[test]
fn j2_each_protocol_has_its_own_timeout() {
    let text =
        rule("\"any\"", "[timeouts]\ntcp = 11\nudp = 12\nicmp = 13\nicmp_reply = 3\nsctp = 14\nother = 15");
    let fixture = Fixture::new(&text);
    for (protocol, seconds) in
        [(TCP, 11), (UDP, 12), (ICMP, 13), (ICMPV6, 13), (SCTP, 14), (GRE, 15), (ESP, 15), (200, 15), (0, 15)]
    {
        assert_eq!(fixture.class(&flow(protocol, 7)), class(seconds, Source::Protocol), "{protocol}");
    }
    let classes = fixture.policy.classes();
    assert_eq!(classes[usize::from(fixture.policy.icmp_reply_class().0)], class(3, Source::IcmpReply));
}

/// Goes red when the reply timeout overrides a setting that F5 puts before the protocol's.
#[test]
fn j2_f5_icmp_reply_shortens_the_protocols_timeout_only() {
    let plain = Fixture::new(&rule("\"any\"", ""));
    let service = plain.judge("a", "b", &flow(ICMP, 0)).class;
    assert_eq!(plain.policy.icmp_reply_class_for(service), plain.policy.icmp_reply_class());
    let set = Fixture::new(&rule("\"any\"", "session_ttl = 90"));
    let service = set.judge("a", "b", &flow(ICMP, 0)).class;
    assert_eq!(set.policy.icmp_reply_class_for(service), service);
}

/// Goes red when the default reaches other protocols than TCP and SCTP.
#[test]
fn f1_default_is_for_tcp_and_sctp() {
    let fixture = Fixture::new(&rule("\"any\"", "[session_ttl]\ndefault = 777"));
    for protocol in [TCP, SCTP] {
        assert_eq!(fixture.class(&flow(protocol, 9)), class(777, Source::SessionTtlDefault));
    }
    for protocol in [UDP, ICMP, ICMPV6, GRE, ESP, 99] {
        assert_eq!(fixture.class(&flow(protocol, 9)), class(60, Source::Protocol));
    }
}

/// Goes red when an entry with ports reaches protocols without, or one without ports misses any.
#[test]
fn f2_entries_cover_what_they_name() {
    let any_port = "[[session_ttl.port]]\nid = 5\ntimeout = 500";
    let fixture = Fixture::new(&rule("\"any\"", any_port));
    for protocol in [TCP, UDP, SCTP, ICMP, ICMPV6, GRE, ESP, 0, 255] {
        assert_eq!(fixture.class(&flow(protocol, 9)), class(500, Source::PortEntry(5)), "{protocol}");
    }
    let with_ports = format!("{any_port}\nstart_port = 9\nend_port = 65535");
    let fixture = Fixture::new(&rule("\"any\"", &with_ports));
    for protocol in [TCP, UDP, SCTP] {
        assert_eq!(fixture.class(&flow(protocol, 9)).source, Source::PortEntry(5));
        assert_eq!(fixture.class(&flow(protocol, 65_535)).source, Source::PortEntry(5));
        assert_eq!(fixture.class(&flow(protocol, 8)).source, Source::Protocol);
    }
    for protocol in [ICMP, ICMPV6, GRE, ESP, 0, 255] {
        assert_eq!(fixture.class(&flow(protocol, 9)).source, Source::Protocol, "{protocol}");
    }
    let gre = Fixture::new(&rule("\"any\"", "[[session_ttl.port]]\nid = 5\nprotocol = 47"));
    assert_eq!(gre.class(&flow(GRE, 0)), class(300, Source::PortEntry(5)));
    assert_eq!(gre.class(&flow(ESP, 0)).source, Source::Protocol);
}

/// Goes red when the source port, or the reply's direction, counts.
#[test]
fn f3_the_destination_port_of_the_first_direction_counts() {
    let entry = "[[session_ttl.port]]\nid = 5\nprotocol = 6\nstart_port = 5000\nend_port = 5000";
    let fixture = Fixture::new(&rule("\"any\"", entry));
    assert_eq!(fixture.class(&flow(TCP, 5000)).source, Source::PortEntry(5));
    assert_eq!(fixture.class(&flow(TCP, 5000).reversed()).source, Source::Protocol);
}

/// Goes red when one of the three criteria is missing or they change places.
#[test]
fn f4_overlapping_entries_have_an_order() {
    let entry = |id: u16, protocol: u8, first: u16, last: u16| {
        format!(
            "[[session_ttl.port]]\nid = {id}\nprotocol = {protocol}\nstart_port = {first}\nend_port = {last}\n"
        )
    };
    let winner =
        |entries: String, port| match Fixture::new(&rule("\"any\"", &entries)).class(&flow(TCP, port)).source
        {
            Source::PortEntry(id) => id,
            other => panic!("{other:?}"),
        };
    // Exact protocol before a narrower range and a lower id.
    assert_eq!(winner(entry(1, 0, 80, 80) + &entry(9, 6, 1, 1000), 80), 9);
    // A narrower range before a lower id, also when it lies inside.
    assert_eq!(winner(entry(1, 6, 1, 1000) + &entry(9, 6, 80, 90), 80), 9);
    assert_eq!(winner(entry(1, 6, 1, 1000) + &entry(9, 6, 80, 90), 91), 1);
    assert_eq!(winner(entry(1, 6, 1, 1000) + &entry(9, 6, 80, 90), 79), 1);
    // The lower id last, whatever the order in the file.
    assert_eq!(winner(entry(9, 6, 80, 90) + &entry(1, 6, 85, 95), 87), 1);
    assert_eq!(winner(entry(1, 6, 85, 95) + &entry(9, 6, 80, 90), 87), 1);
    // No ports is the widest range.
    assert_eq!(
        winner("[[session_ttl.port]]\nid = 1\nprotocol = 6\n".to_string() + &entry(9, 6, 1, 65_535), 87),
        9
    );
}

/// Goes red when `never` loses its source, or its stand-in is missing, finite elsewhere, or shared.
#[test]
fn f6_never_has_a_stand_in_of_the_longest_timeout_and_the_same_source() {
    let text = rule("\"any\"", "session_ttl = \"never\"");
    let fixture = Fixture::new(&text);
    let never = fixture.judge("a", "b", &flow(TCP, 80)).class;
    let classes = fixture.policy.classes();
    assert_eq!(classes[usize::from(never.0)], TimeoutClass { timeout_ms: None, source: Source::Rule });
    let fallback = fixture.policy.never_fallback(never).unwrap();
    assert_eq!(classes[usize::from(fallback.0)], class(2_764_800, Source::Rule));
    assert_eq!(fixture.policy.never_fallback(fallback), None);
    assert_eq!(crate::policy::NEVER_SHARE_PERCENT, 10);
}

/// Goes red when a `never` of an older revision, which live sessions may still have, loses its stand-in.
#[test]
fn f6_f7_classes_of_older_revisions_stay_valid() {
    let mut names = Names::default();
    let old = check(&rule("\"any\"", "session_ttl = \"never\""), "p").file.unwrap();
    let new = check(&rule("\"any\"", "session_ttl = 5"), "p").file.unwrap();
    let old = compile(&old, 1, &mut names).unwrap();
    let (a, b) = (names.find_zone("a").unwrap(), names.find_zone("b").unwrap());
    let never = old.evaluate(a, b, &flow(TCP, 80)).class;
    let new = compile(&new, 2, &mut names).unwrap();
    assert_eq!((old.revision(), new.revision()), (1, 2));
    assert_eq!(new.classes()[usize::from(never.0)], old.classes()[usize::from(never.0)]);
    assert!(new.never_fallback(never).is_some());
    let now = new.evaluate(a, b, &flow(TCP, 80)).class;
    assert_eq!(new.classes()[usize::from(now.0)], class(5, Source::Rule));
    assert_ne!(new.fingerprint(), old.fingerprint());
}

/// Goes red when a setting is compiled to another one's class or source.
#[test]
fn j4_j5_j6_tcp_settings_are_compiled() {
    let text = rule(
        "\"any\"",
        "[tcp]\ninitial_timeout = 30\ntime_wait = 99\nhalf_close_time_wait = true\nrst_invalidate = true\n\
         fin_invalidate = true\nsyn_check = false",
    );
    let fixture = Fixture::new(&text);
    let tcp = fixture.policy.tcp();
    let get = |id: crate::names::ClassId| fixture.policy.classes()[usize::from(id.0)];
    assert_eq!(get(tcp.initial), class(30, Source::TcpInitial));
    assert_eq!(get(tcp.last_ack), class(2, Source::TcpLastAck));
    let TimeWait::Class(time_wait) = tcp.time_wait else { panic!() };
    assert_eq!(get(time_wait), class(99, Source::TcpTimeWait));
    assert!(tcp.half_close_time_wait && tcp.rst_invalidate && tcp.fin_invalidate && !tcp.syn_check);
    let ageout = Fixture::new(&rule("\"any\"", "[tcp]\ntime_wait = \"ageout\""));
    assert_eq!(ageout.policy.tcp().time_wait, TimeWait::Ageout);
}
