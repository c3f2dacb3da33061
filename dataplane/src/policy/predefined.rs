//! Applications that every policy knows without writing them (J3).
//!
//! Only `http` has an idle timeout of its own (300 s): the vendor's table gives the others their
//! protocol's, so a changed `timeouts.tcp` must reach them.

use super::model::{PortRange, Term};
use crate::addr::{ICMP_QUERY_PORT, proto};

/// A predefined application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Predefined {
    /// Its name.
    pub name: &'static str,
    /// A flow that matches any of them is of this application.
    pub terms: &'static [Term],
    /// Its own idle timeout (fifth in F5), in seconds.
    pub timeout_s: Option<u32>,
    /// Whether a flow under a rule for `any` application is labelled with it. The ones that stand
    /// for a whole protocol are not: that label would say nothing.
    pub labels_any: bool,
}

const fn port(protocol: u8, first: u16, last: u16) -> Term {
    Term { protocol, source: PortRange::ALL, destination: PortRange { first, last } }
}

const fn tcp(port_number: u16) -> Term {
    port(proto::TCP, port_number, port_number)
}

const fn udp(port_number: u16) -> Term {
    port(proto::UDP, port_number, port_number)
}

const fn whole(protocol: u8) -> Term {
    port(protocol, 0, u16::MAX)
}

const fn service(name: &'static str, terms: &'static [Term]) -> Predefined {
    Predefined { name, terms, timeout_s: None, labels_any: true }
}

const fn protocol(name: &'static str, terms: &'static [Term]) -> Predefined {
    Predefined { name, terms, timeout_s: None, labels_any: false }
}

/// Every predefined application. Their terms (of those that label `any`) are disjoint.
pub const PREDEFINED: &[Predefined] = &[
    service("ssh", &[tcp(22)]),
    service("telnet", &[tcp(23)]),
    service("ftp", &[tcp(21)]),
    service("smtp", &[tcp(25)]),
    service("dns", &[udp(53), tcp(53)]),
    service("tftp", &[udp(69)]),
    Predefined { name: "http", terms: &[tcp(80)], timeout_s: Some(300), labels_any: true },
    service("https", &[tcp(443)]),
    service("imap", &[tcp(143)]),
    service("imaps", &[tcp(993)]),
    service("pop3", &[tcp(110)]),
    service("pop3s", &[tcp(995)]),
    service("ntp", &[udp(123)]),
    service("snmp", &[port(proto::UDP, 161, 162)]),
    service("syslog", &[udp(514)]),
    service("sip", &[udp(5060), tcp(5060)]),
    service("rtsp", &[tcp(554)]),
    service("ike", &[udp(500), udp(4500)]),
    service("bgp", &[tcp(179)]),
    service("ldap", &[tcp(389)]),
    service("rdp", &[tcp(3389)]),
    // A query's far port marks it as one (`addr::ICMP_QUERY_PORT`), so errors are never a ping.
    service(
        "ping",
        &[
            port(proto::ICMP, ICMP_QUERY_PORT, ICMP_QUERY_PORT),
            port(proto::ICMPV6, ICMP_QUERY_PORT, ICMP_QUERY_PORT),
        ],
    ),
    protocol("icmp-any", &[whole(proto::ICMP), whole(proto::ICMPV6)]),
    protocol("tcp-any", &[whole(proto::TCP)]),
    protocol("udp-any", &[whole(proto::UDP)]),
    protocol("sctp-any", &[whole(proto::SCTP)]),
    protocol("gre", &[whole(proto::GRE)]),
    protocol("esp", &[whole(proto::ESP)]),
];

/// The index of the predefined application of that name.
pub(super) fn find(name: &str) -> Option<u16> {
    PREDEFINED.iter().position(|p| p.name == name).map(|i| i as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when an entry of the row is removed, or http loses its 300 s.
    #[test]
    fn j3_predefined_applications_are_there() {
        for name in [
            "ssh", "telnet", "ftp", "smtp", "dns", "tftp", "http", "https", "imap", "pop3", "ntp", "snmp",
            "syslog", "sip", "rtsp", "ike", "ping",
        ] {
            assert!(find(name).is_some(), "{name}");
        }
        let http = PREDEFINED[usize::from(find("http").unwrap())];
        assert_eq!(http.timeout_s, Some(300));
        let dns = PREDEFINED[usize::from(find("dns").unwrap())];
        assert!(dns.terms.contains(&udp(53)) && dns.terms.contains(&tcp(53)));
    }

    /// Goes red when two entries claim one port: a flow under `any` would have two labels.
    #[test]
    fn j3_predefined_terms_are_disjoint_and_names_distinct() {
        let labelled: Vec<_> = PREDEFINED.iter().filter(|p| p.labels_any).flat_map(|p| p.terms).collect();
        for (i, a) in labelled.iter().enumerate() {
            assert_eq!(a.source, PortRange::ALL, "{a:?}");
            for b in &labelled[i + 1..] {
                let apart =
                    a.destination.last < b.destination.first || b.destination.last < a.destination.first;
                assert!(a.protocol != b.protocol || apart, "{a:?} {b:?}");
            }
        }
        for (i, a) in PREDEFINED.iter().enumerate() {
            assert_eq!(find(a.name), Some(i as u16), "{}", a.name);
        }
    }
}
