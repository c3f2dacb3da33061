//! Which sessions an operator means: one filter for list, summary and clear (J10, J11).

use super::Engine;
use crate::addr::Addr;
use crate::names::{AppId, RuleId, ZoneId};
use crate::session::record::SessionId;
use crate::table::SlotId;
use ipnet::IpNet;
use std::net::IpAddr;

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    fn holds(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What a session must be; what is `None` is not asked. All that is asked must hold. Addresses and
/// ports are those of the first direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionFilter {
    /// Just this session.
    pub id: Option<SessionId>,
    /// Upper-layer protocol number.
    pub protocol: Option<u8>,
    /// IPv4 (`true`) or IPv6.
    pub v4: Option<bool>,
    /// Source of the first direction.
    pub source: Option<IpNet>,
    /// Destination of the first direction.
    pub destination: Option<IpNet>,
    /// Source port of the first direction.
    pub source_port: Option<PortRange>,
    /// Destination port of the first direction.
    pub destination_port: Option<PortRange>,
    /// Either zone.
    pub zone: Option<ZoneId>,
    /// Any of these rules. An empty list matches nothing.
    pub rules: Option<Vec<RuleId>>,
    /// Any of these applications. An empty list matches nothing.
    pub applications: Option<Vec<AppId>>,
}

fn within(net: &IpNet, addr: Addr) -> bool {
    match (net, addr.to_ip()) {
        (IpNet::V4(n), IpAddr::V4(a)) => n.contains(&a),
        (IpNet::V6(n), IpAddr::V6(a)) => n.contains(&a),
        _ => false,
    }
}

impl Engine {
    /// Whether the session in a slot is one that the filter means.
    pub(super) fn matches(&self, slot: SlotId, f: &SessionFilter) -> bool {
        let hot = self.table.hot(slot);
        let t = self.first_tuple(slot);
        let asked = |wanted: Option<bool>| wanted.unwrap_or(true);
        let hot_fits = asked(f.protocol.map(|p| p == t.protocol))
            && asked(f.v4.map(|v4| v4 == t.src.is_v4()))
            && asked(f.source.as_ref().map(|n| within(n, t.src)))
            && asked(f.destination.as_ref().map(|n| within(n, t.dst)))
            && asked(f.source_port.map(|r| r.holds(t.src_port)))
            && asked(f.destination_port.map(|r| r.holds(t.dst_port)))
            && asked(f.zone.map(|z| hot.zone.contains(&z)));
        if !hot_fits || (f.id.is_none() && f.rules.is_none() && f.applications.is_none()) {
            return hot_fits;
        }
        let cold = self.table.cold(slot);
        asked(f.id.map(|id| id == cold.id()))
            && asked(f.rules.as_ref().map(|r| r.contains(&cold.rule)))
            && asked(f.applications.as_ref().map(|a| a.contains(&cold.application)))
    }
}
