//! Which sessions an operator means: one filter for list, summary, clear and watch (J10, J11).
//!
//! A filter is asked in two steps, so that a walk over the table reads a session's cold lines only
//! when the hot one fits: [`SessionFilter::fits_outline`], then [`SessionFilter::fits_detail`].

use super::Engine;
use crate::addr::{Addr, Tuple};
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::PortId;
use crate::session::State;
use crate::session::owner::View;
use crate::session::record::SessionId;
use crate::table::SlotId;
use crate::time::Now;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

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

/// A number within bounds, both included; what is `None` is not asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Smallest.
    pub min: Option<u64>,
    /// Largest.
    pub max: Option<u64>,
}

impl Bounds {
    fn is_asked(self) -> bool {
        self.min.is_some() || self.max.is_some()
    }

    fn holds(self, n: u64) -> bool {
        self.min.is_none_or(|min| min <= n) && self.max.is_none_or(|max| n <= max)
    }
}

/// Whose sessions are meant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Whose {
    /// Anybody's.
    #[default]
    Anybodys,
    /// What this node owns, as it believes.
    Own,
    /// What this node (the view's `me`) owns as another one believes: so several nodes answer by one view.
    OwnBy(Arc<View>),
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
    /// Derived state.
    pub state: Option<State>,
    /// Either wing comes in or leaves by this port.
    pub port: Option<PortId>,
    /// Any of these rules. An empty list matches nothing.
    pub rules: Option<Vec<RuleId>>,
    /// Any of these applications. An empty list matches nothing.
    pub applications: Option<Vec<AppId>>,
    /// Milliseconds since it was set up.
    pub duration_ms: Bounds,
    /// Milliseconds until it ages out; `never` is longer than any bound.
    pub remaining_ms: Bounds,
    /// Packets of both wings.
    pub packets: Bounds,
    /// Bytes of both wings.
    pub bytes: Bounds,
    /// Whose they are. Not asked of events.
    pub whose: Whose,
}

/// What the first step of a filter asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outline {
    /// First direction.
    pub tuple: Tuple,
    /// Ingress zone of each wing.
    pub zones: [ZoneId; 2],
    /// Derived state.
    pub state: State,
}

/// What the second step of a filter asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Detail {
    /// Identity.
    pub id: SessionId,
    /// Rule that permits it.
    pub rule: RuleId,
    /// Application that it matched as.
    pub application: AppId,
    /// Every port that it is known to come in or leave by.
    pub ports: [Option<PortId>; 4],
    /// Milliseconds since it was set up.
    pub duration_ms: u64,
    /// Milliseconds until it ages out; `None` for `never`.
    pub remaining_ms: Option<u64>,
    /// Packets of both wings.
    pub packets: u64,
    /// Bytes of both wings.
    pub bytes: u64,
}

fn within(net: &IpNet, addr: Addr) -> bool {
    match (net, addr.to_ip()) {
        (IpNet::V4(n), IpAddr::V4(a)) => n.contains(&a),
        (IpNet::V6(n), IpAddr::V6(a)) => n.contains(&a),
        _ => false,
    }
}

/// What is not asked holds.
fn asked(wanted: Option<bool>) -> bool {
    wanted.unwrap_or(true)
}

impl SessionFilter {
    /// Whether everything that is asked of the outline holds.
    pub fn fits_outline(&self, o: &Outline) -> bool {
        let t = &o.tuple;
        asked(self.protocol.map(|p| p == t.protocol))
            && asked(self.v4.map(|v4| v4 == t.src.is_v4()))
            && asked(self.state.map(|s| s == o.state))
            && asked(self.source.as_ref().map(|n| within(n, t.src)))
            && asked(self.destination.as_ref().map(|n| within(n, t.dst)))
            && asked(self.source_port.map(|r| r.holds(t.src_port)))
            && asked(self.destination_port.map(|r| r.holds(t.dst_port)))
            && asked(self.zone.map(|z| o.zones.contains(&z)))
    }

    /// Whether anything beyond the outline is asked.
    pub fn needs_detail(&self) -> bool {
        let bounds = [self.duration_ms, self.remaining_ms, self.packets, self.bytes];
        self.id.is_some()
            || self.port.is_some()
            || self.rules.is_some()
            || self.applications.is_some()
            || bounds.iter().any(|b| b.is_asked())
    }

    /// Whether everything that is asked of the detail holds.
    pub fn fits_detail(&self, d: &Detail) -> bool {
        asked(self.id.map(|id| id == d.id))
            && asked(self.port.map(|p| d.ports.contains(&Some(p))))
            && asked(self.rules.as_ref().map(|r| r.contains(&d.rule)))
            && asked(self.applications.as_ref().map(|a| a.contains(&d.application)))
            && self.duration_ms.holds(d.duration_ms)
            && self.remaining_ms.holds(d.remaining_ms.unwrap_or(u64::MAX))
            && self.packets.holds(d.packets)
            && self.bytes.holds(d.bytes)
    }
}

impl Engine {
    /// Whether the session in a slot is one that the filter means.
    pub(super) fn matches(&self, slot: SlotId, f: &SessionFilter, now: Now) -> bool {
        let hot = self.table.hot(slot);
        let outline =
            Outline { tuple: self.first_tuple(slot), zones: hot.zone, state: State::from_u8(hot.state) };
        f.fits_outline(&outline)
            && self.is_of(slot, &f.whose)
            && (!f.needs_detail() || f.fits_detail(&self.detail(slot, f, now)))
    }

    fn is_of(&self, slot: SlotId, whose: &Whose) -> bool {
        match whose {
            Whose::Anybodys => true,
            Whose::Own => self.is_mine(slot),
            Whose::OwnBy(view) => view.is_mine(self.table.cold(slot).id()),
        }
    }

    /// The ports are looked up only when the filter asks for one.
    fn detail(&self, slot: SlotId, f: &SessionFilter, now: Now) -> Detail {
        let cold = self.table.cold(slot);
        let (packets, bytes) = self.others(slot);
        let ports = if f.port.is_some() { self.ports_of(slot) } else { [None; 4] };
        Detail {
            id: cold.id(),
            rule: cold.rule,
            application: cold.application,
            ports,
            duration_ms: cold.age_ms(now),
            remaining_ms: self.remaining_ms(slot, now),
            packets: cold.packets.iter().chain(&packets).fold(0, |sum, n| sum.saturating_add(*n)),
            bytes: cold.bytes.iter().chain(&bytes).fold(0, |sum, n| sum.saturating_add(*n)),
        }
    }
}
