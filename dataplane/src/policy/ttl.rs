//! Which idle timeout a flow gets: the precedence of F5, compiled to timeout classes.

use super::model::{PolicyFile, PortRange, PortTtl, Ttl};
use crate::addr::{Tuple, proto};
use crate::names::{ClassId, Names, NamesFull};
use crate::session::timeouts::{TIMEOUT_S_MAX, TimeoutClass, TimeoutSource};

/// Protocols whose flows have ports: those a port entry with ports is about (F2).
pub(super) const PORT_PROTOCOLS: [u8; 3] = [proto::TCP, proto::UDP, proto::SCTP];

/// What a policy's own settings say about a flow's timeout, by level of F5.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Levels {
    /// `inactivity_timeout` of an application written in the policy.
    pub(super) application: Option<ClassId>,
    /// The rule's `session_ttl`.
    pub(super) rule: Option<ClassId>,
    /// A predefined application's own.
    pub(super) predefined: Option<ClassId>,
}

/// Destination ports where an entry starts to count, ascending, and its class.
type PortTable = Box<[(u16, Option<ClassId>)]>;

/// The levels that depend on protocol and port alone.
#[derive(Debug)]
pub(super) struct TtlTable {
    /// For each of [`PORT_PROTOCOLS`].
    ports: [PortTable; 3],
    /// For protocols without ports, by protocol number.
    portless: Box<[Option<ClassId>]>,
    default: Option<ClassId>,
    tcp: ClassId,
    udp: ClassId,
    icmp: ClassId,
    sctp: ClassId,
    other: ClassId,
}

impl TtlTable {
    pub(super) fn new(file: &PolicyFile, names: &mut Names) -> Result<Self, NamesFull> {
        let entries = &file.session_ttl.ports;
        let classes = entries
            .iter()
            .map(|e| names.class(class(e.timeout, TimeoutSource::PortEntry(e.id))))
            .collect::<Result<Vec<_>, _>>()?;
        let mut protocol = |s| names.class(class(Ttl::Seconds(s), TimeoutSource::Protocol));
        let t = &file.timeouts;
        Ok(TtlTable {
            ports: PORT_PROTOCOLS.map(|p| port_table(entries, &classes, p)),
            portless: (0..=u8::MAX).map(|p| portless(entries, &classes, p)).collect(),
            tcp: protocol(t.tcp_s)?,
            udp: protocol(t.udp_s)?,
            icmp: protocol(t.icmp_s)?,
            sctp: protocol(t.sctp_s)?,
            other: protocol(t.other_s)?,
            default: file
                .session_ttl
                .default
                .map(|ttl| names.class(class(ttl, TimeoutSource::SessionTtlDefault)))
                .transpose()?,
        })
    }

    /// The class of a flow's first direction (F5).
    #[inline]
    pub(super) fn class(&self, tuple: &Tuple, levels: Levels) -> ClassId {
        levels
            .application
            .or(levels.rule)
            .or_else(|| self.port_entry(tuple))
            .or_else(|| self.default.filter(|_| matches!(tuple.protocol, proto::TCP | proto::SCTP)))
            .or(levels.predefined)
            .unwrap_or_else(|| self.protocol(tuple.protocol))
    }

    /// F2 to F4: by the destination port of the first direction.
    #[inline]
    fn port_entry(&self, tuple: &Tuple) -> Option<ClassId> {
        let Some(i) = PORT_PROTOCOLS.iter().position(|p| *p == tuple.protocol) else {
            return self.portless[usize::from(tuple.protocol)];
        };
        let table = &self.ports[i];
        let after = table.partition_point(|(first, _)| *first <= tuple.dst_port);
        after.checked_sub(1).and_then(|at| table[at].1)
    }

    /// J2.
    fn protocol(&self, protocol: u8) -> ClassId {
        match protocol {
            proto::TCP => self.tcp,
            proto::UDP => self.udp,
            proto::ICMP | proto::ICMPV6 => self.icmp,
            proto::SCTP => self.sctp,
            _ => self.other,
        }
    }
}

/// A class from a setting.
pub(super) fn class(timeout: Ttl, source: TimeoutSource) -> TimeoutClass {
    TimeoutClass { timeout_ms: timeout.timeout_ms(), source }
}

/// What stands in for a `never` class beyond the share of the table that it may take (F6).
pub(super) fn fallback(never: TimeoutClass) -> TimeoutClass {
    class(Ttl::Seconds(TIMEOUT_S_MAX), never.source)
}

/// F4: the smaller, the sooner it counts. An entry without ports is as wide as can be.
pub(super) fn precedence(entry: &PortTtl) -> (bool, u32, u16) {
    (entry.protocol == 0, entry.ports.unwrap_or(PortRange::ALL).width(), entry.id)
}

/// Paints the entries that cover a protocol over its ports, the weakest first.
fn port_table(entries: &[PortTtl], classes: &[ClassId], protocol: u8) -> PortTable {
    let mut covering: Vec<_> =
        entries.iter().zip(classes).filter(|(e, _)| e.protocol == protocol || e.protocol == 0).collect();
    if covering.is_empty() {
        return PortTable::default();
    }
    covering.sort_by_key(|(e, _)| std::cmp::Reverse(precedence(e)));
    let mut painted: Vec<Option<ClassId>> = vec![None; 1 << 16];
    for (entry, class) in covering {
        let ports = entry.ports.unwrap_or(PortRange::ALL);
        painted[usize::from(ports.first)..=usize::from(ports.last)].fill(Some(*class));
    }
    let mut table: Vec<(u16, Option<ClassId>)> = Vec::new();
    for (port, class) in painted.into_iter().enumerate() {
        if table.last().is_none_or(|last| last.1 != class) {
            table.push((port as u16, class));
        }
    }
    table.into()
}

/// The entry for a protocol without ports: only one that names no ports can cover it.
fn portless(entries: &[PortTtl], classes: &[ClassId], protocol: u8) -> Option<ClassId> {
    entries
        .iter()
        .zip(classes)
        .filter(|(e, _)| e.ports.is_none() && (e.protocol == protocol || e.protocol == 0))
        .min_by_key(|(e, _)| precedence(e))
        .map(|(_, class)| *class)
}
