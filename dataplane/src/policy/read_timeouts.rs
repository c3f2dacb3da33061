//! Reads `[timeouts]` (J2) and `[session_ttl]` (F1, F2).

use super::fields::protocol;
use super::model::{PortRange, PortTtl, SessionTtl, Timeouts, Ttl};
use super::reader::{Keys, Section, at};
use super::report::Reporter;
use super::ttl::PORT_PROTOCOLS;
use crate::session::timeouts::TIMEOUT_S_MAX;
use std::collections::BTreeMap;
use toml::de::DeTable;

/// Port entries in a policy.
pub(super) const PORT_ENTRIES_MAX: usize = 4096;

const TIMEOUTS: Keys =
    Keys { known: &["tcp", "udp", "icmp", "icmp_reply", "sctp", "other"], later: &[], node: &[] };

const SESSION_TTL: Keys = Keys { known: &["default", "port"], later: &[], node: &[] };

const PORT_ENTRY: Keys =
    Keys { known: &["id", "protocol", "start_port", "end_port", "timeout"], later: &[], node: &[] };

/// F2: what an entry gets that names no timeout, in seconds.
const PORT_ENTRY_TIMEOUT_S: u32 = 300;

/// J2.
pub(super) fn timeouts(root: &Section<'_>, r: &mut Reporter<'_>) -> Timeouts {
    let mut t = Timeouts::default();
    let Some((at, table)) = root.table("timeouts", r) else { return t };
    let section = Section::open(table, at, "[timeouts]".into(), TIMEOUTS, r);
    for (key, value) in [
        ("tcp", &mut t.tcp_s),
        ("udp", &mut t.udp_s),
        ("icmp", &mut t.icmp_s),
        ("icmp_reply", &mut t.icmp_reply_s),
        ("sctp", &mut t.sctp_s),
        ("other", &mut t.other_s),
    ] {
        if let Some(seconds) = section.integer(key, 1..=TIMEOUT_S_MAX, r) {
            *value = seconds;
        }
    }
    t
}

/// F1, F2.
pub(super) fn session_ttl(root: &Section<'_>, r: &mut Reporter<'_>) -> SessionTtl {
    let mut ttl = SessionTtl::default();
    let Some((at, table)) = root.table("session_ttl", r) else { return ttl };
    let section = Section::open(table, at, "[session_ttl]".into(), SESSION_TTL, r);
    ttl.default = section.ttl("default", 300, r);
    let entries = section.tables("port", "session_ttl.port", r);
    if let Some((at, _)) = entries.get(PORT_ENTRIES_MAX) {
        r.error(*at, format!("more than {PORT_ENTRIES_MAX} [[session_ttl.port]] entries"), None);
    }
    let mut ids = BTreeMap::new();
    for (at, table) in entries.into_iter().take(PORT_ENTRIES_MAX) {
        if let Some(entry) = port_entry(at, table, &mut ids, r) {
            ttl.ports.push(entry);
        }
    }
    ttl
}

/// F2. `ids` maps the ids so far to their place.
fn port_entry(
    start: usize,
    table: &DeTable<'_>,
    ids: &mut BTreeMap<u16, usize>,
    r: &mut Reporter<'_>,
) -> Option<PortTtl> {
    let section = Section::open(table, start, "[[session_ttl.port]]".into(), PORT_ENTRY, r);
    section.require("id", "give each entry a number of its own from 0 to 65535", r);
    let id = section.integer("id", 0..=65_535, r).map(|id| id as u16);
    if let (Some(id), Some(value)) = (id, section.get("id"))
        && let Some(first) = ids.insert(id, at(value))
    {
        let (line, _) = r.lines.position(first);
        let message = format!("id {id} is used by the [[session_ttl.port]] entry in line {line} already");
        r.error(at(value), message, "give each entry a number of its own".to_string());
    }
    let protocol = match section.get("protocol") {
        None => Some(0),
        Some(value) => protocol(value, 0, &section.label, r),
    };
    let ports = ports(&section, protocol, r);
    let timeout = match section.get("timeout") {
        None => Some(Ttl::Seconds(PORT_ENTRY_TIMEOUT_S)),
        Some(_) => section.ttl("timeout", 1, r),
    };
    Some(PortTtl { id: id?, protocol: protocol?, ports: ports?, timeout: timeout?, at: start })
}

/// F2: both ports or neither, in order, and only for a protocol that has ports (or for any).
fn ports(section: &Section<'_>, protocol: Option<u8>, r: &mut Reporter<'_>) -> Option<Option<PortRange>> {
    let (start, end) = (section.get("start_port"), section.get("end_port"));
    let first = section.integer("start_port", 0..=65_535, r);
    let last = section.integer("end_port", 0..=65_535, r);
    let place = match (start, end) {
        (None, None) => return Some(None),
        (Some(there), Some(_)) => at(there),
        (Some(there), None) | (None, Some(there)) => {
            let missing = if end.is_none() { "end_port" } else { "start_port" };
            let message = format!("{} has one port of two", section.label);
            let help = match first.or(last) {
                Some(port) => format!("for one port add {missing} = {port}; for every port remove both"),
                None => format!("add {missing}; for every port remove both"),
            };
            r.error(at(there), message, help);
            return None;
        }
    };
    if let Some(protocol) = protocol.filter(|p| *p != 0 && !PORT_PROTOCOLS.contains(p)) {
        let message = format!("{} has ports, but protocol {protocol} has none", section.label);
        r.error(place, message, "ports go with protocol 6, 17, 132 or 0 (any); remove them".to_string());
        return None;
    }
    let (first, last) = (first?, last?);
    if first > last {
        let message = format!("start_port {first} is above end_port {last}");
        r.error(place, message, format!("write start_port = {last} and end_port = {first}"));
        return None;
    }
    Some(Some(PortRange { first: first as u16, last: last as u16 }))
}
