//! Protocols, ports and prefixes as the file writes them.

use super::model::PortRange;
use super::reader::{Value, at, kind};
use super::report::{Reporter, quote};
use super::suggest::nearest;
use crate::addr::proto;
use ipnet::IpNet;
use std::net::IpAddr;
use toml::de::DeValue;

/// Protocol names that the file may use instead of numbers (IANA registry, and common short forms).
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", proto::ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("gre", proto::GRE),
    ("esp", proto::ESP),
    ("ah", 51),
    ("icmpv6", proto::ICMPV6),
    ("icmp6", proto::ICMPV6),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", proto::SCTP),
];

/// A protocol: a name, or a number from `min` to 255.
pub(super) fn protocol(value: Value<'_>, min: u8, label: &str, r: &mut Reporter<'_>) -> Option<u8> {
    let wanted = format!("a protocol name or a number from {min} to 255");
    match value.get_ref() {
        DeValue::Integer(n) => {
            let number = u8::from_str_radix(n.as_str(), n.radix()).ok().filter(|p| *p >= min);
            if number.is_none() {
                let message = format!("`protocol` in {label} is {}, not {wanted}", quote(n.as_str()));
                r.error(at(value), message, None);
            }
            number
        }
        DeValue::String(text) => {
            let found = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, p)| *p);
            if found.is_none() {
                let guess = nearest(text, PROTOCOLS.iter().map(|(name, _)| *name), &mut r.comparisons_left);
                let help = match (guess, text.parse::<u8>()) {
                    (_, Ok(number)) => format!("write {number}, without quotes"),
                    (Some(guess), _) => format!("did you mean \"{guess}\"?"),
                    _ => {
                        let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                        format!("known names: {}", names.join(", "))
                    }
                };
                let message = format!("`protocol` in {label} is {}, not {wanted}", quote(text));
                r.error(at(value), message, help);
            }
            found
        }
        _ => {
            r.error(at(value), format!("`protocol` in {label} is {}, not {wanted}", kind(value)), None);
            None
        }
    }
}

/// A port number, or a string `"a"` or `"a-b"`.
pub(super) fn port_range(
    value: Value<'_>,
    key: &str,
    label: &str,
    r: &mut Reporter<'_>,
) -> Option<PortRange> {
    let parsed = match value.get_ref() {
        DeValue::Integer(n) => u16::from_str_radix(n.as_str(), n.radix()).ok().map(|p| (p, p)),
        DeValue::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            first.trim().parse().ok().zip(last.trim().parse().ok())
        }
        _ => None,
    };
    match parsed {
        Some((first, last)) if first <= last => Some(PortRange { first, last }),
        Some((first, last)) => {
            let message = format!("`{key}` in {label}: {first} is above {last}");
            r.error(at(value), message, format!("write \"{last}-{first}\""));
            None
        }
        None => {
            let what = match value.get_ref() {
                DeValue::Integer(n) => quote(n.as_str()),
                _ => kind(value),
            };
            let message = format!("`{key}` in {label} is {what}, not a port or a range of ports");
            r.error(at(value), message, "write 80 or \"8000-8010\", from 0 to 65535".to_string());
            None
        }
    }
}

/// Whether a rule's address is meant as a prefix and not as the name of a set.
pub(super) fn looks_like_address(text: &str) -> bool {
    text.contains(['/', ':'])
        || (text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        || text.parse::<IpAddr>().is_ok()
}

/// An address or a prefix of either family, without host bits.
pub(super) fn prefix(text: &str, at: usize, r: &mut Reporter<'_>) -> Option<IpNet> {
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok(),
    };
    let Some(prefix) = parsed else {
        let help = "write 192.0.2.0/24, 192.0.2.1, 2001:db8::/32 or 2001:db8::1";
        r.error(at, format!("{} is not an address or a prefix", quote(text)), help.to_string());
        return None;
    };
    if let IpAddr::V6(v6) = prefix.addr()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let help = format!("write the IPv4 address: {v4}");
        r.error(at, format!("{} is an IPv4 address written as IPv6", quote(text)), help);
        return None;
    }
    if prefix.trunc() != prefix {
        let help = format!("write {} for the prefix, or {} for the address", prefix.trunc(), prefix.addr());
        r.error(at, format!("{} has bits behind its prefix length", quote(text)), help);
        return None;
    }
    Some(prefix)
}
