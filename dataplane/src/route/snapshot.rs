//! Ports, the forwarding table and the neighbours at one moment.

use super::PortId;
use crate::addr::{Addr, Mac};
use crate::drops::DropReason;
use crate::names::ZoneId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A port as the engine needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number; snapshots index ports by it.
    pub id: PortId,
    /// Its name in the node's configuration.
    pub name: Arc<str>,
    /// Its own MAC: source of what leaves by it, destination of what may come in by it.
    pub mac: Mac,
    /// Largest IP packet that may leave by it, in bytes.
    pub mtu: u32,
    /// Whether it carries traffic now.
    pub up: bool,
    /// The zone that it belongs to.
    pub zone: Option<ZoneId>,
    /// Source of ICMP errors sent to IPv4 senders behind it; without one none are sent.
    pub ipv4: Option<Addr>,
    /// Source of ICMPv6 errors sent to senders behind it (a global address where there is one).
    pub ipv6: Option<Addr>,
    /// Whether frames may hold partial checksums (see [`crate::packet::ParseOptions`]).
    pub partial_checksums: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of one of these next hops, chosen by flow (ECMP, RFC 2992).
    Via(Vec<NextHop>),
    /// Dropped in silence.
    Blackhole,
    /// Dropped; the sender gets "host unreachable".
    Unreachable,
    /// Dropped; the sender gets "administratively prohibited".
    Prohibit,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port, or `None` if the route leaves by an interface that is no port of the dataplane.
    pub port: Option<PortId>,
    /// The gateway, or `None` if the destination itself is the neighbour.
    pub gateway: Option<Addr>,
    /// Share of the flows, at least 1.
    pub weight: u16,
    /// MTU of the route, if it sets one.
    pub mtu: Option<u32>,
}

/// A neighbour's MAC behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Port that leads to it.
    pub port: PortId,
    /// Its MAC.
    pub mac: Mac,
}

/// What a session remembers of a resolved way, valid for one snapshot generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressId(pub u32);

impl EgressId {
    /// Not resolved.
    pub const NONE: EgressId = EgressId(u32::MAX);
}

const ADJACENCY_BITS: u32 = 24;
const ADJACENCIES_MAX: usize = 1 << ADJACENCY_BITS;
const ROUTE_MTUS_MAX: usize = 254;

/// A way out: everything that rewriting needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Port to leave by.
    pub port: PortId,
    /// Destination MAC.
    pub dst_mac: Mac,
    /// Source MAC.
    pub src_mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Zone of the port.
    pub zone: Option<ZoneId>,
}

/// Answer to "where does this destination lead?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The way is known; the neighbour's MAC may still be missing (`egress` is `None`).
    Way {
        /// Port to leave by.
        port: PortId,
        /// The neighbour: the gateway, or the destination itself.
        next_hop: Addr,
        /// Handle to cache, if the neighbour is resolved.
        egress: Option<EgressId>,
    },
    /// There is no way; the reason to drop.
    No(DropReason),
}

/// Ports, routes and neighbours at one moment. Immutable.
#[derive(Clone, Debug)]
pub struct Snapshot {
    generation: u32,
    ports: Vec<Option<PortInfo>>,
    v4: PrefixMap<Ipv4Net, Route>,
    v6: PrefixMap<Ipv6Net, Route>,
    local: BTreeSet<Addr>,
    neighbours: BTreeMap<(PortId, Addr), u32>,
    adjacencies: Vec<Adjacency>,
    route_mtus: Vec<u32>,
}

impl Snapshot {
    /// A snapshot without ports: everything is dropped.
    pub fn empty() -> Self {
        SnapshotBuilder::new(0).build()
    }

    /// Changes with every replacement of the snapshot.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A port by its number.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&PortInfo> {
        self.ports.get(usize::from(id.0)).and_then(Option::as_ref)
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &PortInfo> {
        self.ports.iter().flatten()
    }

    /// Whether an address is the node's own: the kernel answers for it, nothing is forwarded to it.
    pub fn is_local(&self, addr: Addr) -> bool {
        self.local.contains(&addr)
    }

    /// Where `dst` leads. `flow_hash` chooses among equal ways, so that a flow keeps to one.
    /// A way through a port that is down is taken only when there is no other.
    pub fn resolve(&self, dst: Addr, flow_hash: u64) -> Resolution {
        let route = match dst.to_ip() {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, r)| r),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, r)| r),
        };
        let hops = match route {
            None => return Resolution::No(DropReason::NoRoute),
            Some(Route::Via(hops)) => hops,
            Some(_) => return Resolution::No(DropReason::RouteRefused),
        };
        let Some(hop) = self.choose(hops, flow_hash) else {
            return Resolution::No(DropReason::NoRoute);
        };
        let Some(port) = hop.port else { return Resolution::No(DropReason::NoRoute) };
        if !self.port(port).is_some_and(|p| p.up) {
            return Resolution::No(DropReason::PortDown);
        }
        let next_hop = hop.gateway.unwrap_or(dst);
        let egress = self.neighbours.get(&(port, next_hop)).map(|a| self.egress_id(*a, hop.mtu));
        Resolution::Way { port, next_hop, egress }
    }

    /// What kind of refusal the route to `dst` is, to choose the ICMP code by.
    pub fn route(&self, dst: Addr) -> Option<&Route> {
        match dst.to_ip() {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, r)| r),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, r)| r),
        }
    }

    /// The way that a handle of this generation stands for; `None` for a foreign handle.
    #[inline]
    pub fn egress(&self, id: EgressId) -> Option<Egress> {
        let adjacency = self.adjacencies.get((id.0 & (ADJACENCIES_MAX as u32 - 1)) as usize)?;
        let port = self.port(adjacency.port)?;
        let mtu = match id.0 >> ADJACENCY_BITS {
            0 => port.mtu,
            n => port.mtu.min(*self.route_mtus.get(n as usize - 1)?),
        };
        Some(Egress { port: adjacency.port, dst_mac: adjacency.mac, src_mac: port.mac, mtu, zone: port.zone })
    }

    fn choose<'a>(&self, hops: &'a [NextHop], flow_hash: u64) -> Option<&'a NextHop> {
        if let [only] = hops {
            return Some(only);
        }
        let usable = |h: &&NextHop| h.port.and_then(|p| self.port(p)).is_some_and(|p| p.up);
        let total: u64 = hops.iter().filter(usable).map(|h| u64::from(h.weight.max(1))).sum();
        if total == 0 {
            return hops.first();
        }
        let mut point = flow_hash % total;
        hops.iter().filter(usable).find(|h| {
            let weight = u64::from(h.weight.max(1));
            let hit = point < weight;
            point = point.wrapping_sub(weight);
            hit
        })
    }

    fn egress_id(&self, adjacency: u32, mtu: Option<u32>) -> EgressId {
        let n = mtu.and_then(|m| self.route_mtus.iter().position(|r| *r == m)).map_or(0, |i| i as u32 + 1);
        EgressId(adjacency | n << ADJACENCY_BITS)
    }
}

/// Collects what a snapshot holds.
#[derive(Debug)]
pub struct SnapshotBuilder(Snapshot);

impl SnapshotBuilder {
    /// Begins a snapshot of that generation; generations must differ from one snapshot to the next.
    pub fn new(generation: u32) -> Self {
        SnapshotBuilder(Snapshot {
            generation,
            ports: Vec::new(),
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
            local: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            adjacencies: Vec::new(),
            route_mtus: Vec::new(),
        })
    }

    /// Adds a port, or replaces the one of that number.
    pub fn port(&mut self, port: PortInfo) -> &mut Self {
        let i = usize::from(port.id.0);
        if self.0.ports.len() <= i {
            self.0.ports.resize(i + 1, None);
        }
        self.0.ports[i] = Some(port);
        self
    }

    /// Adds a route, or replaces the one of that prefix. More than 254 distinct route MTUs: the
    /// later ones count as unset.
    pub fn route(&mut self, prefix: IpNet, route: Route) -> &mut Self {
        if let Route::Via(hops) = &route {
            for mtu in hops.iter().filter_map(|h| h.mtu) {
                if !self.0.route_mtus.contains(&mtu) && self.0.route_mtus.len() < ROUTE_MTUS_MAX {
                    self.0.route_mtus.push(mtu);
                }
            }
        }
        match prefix {
            IpNet::V4(p) => drop(self.0.v4.insert(p.trunc(), route)),
            IpNet::V6(p) => drop(self.0.v6.insert(p.trunc(), route)),
        }
        self
    }

    /// Adds a resolved neighbour, or replaces it. Beyond 2^24 - 1 they are left out (unresolved).
    pub fn neighbour(&mut self, port: PortId, addr: Addr, mac: Mac) -> &mut Self {
        let s = &mut self.0;
        match s.neighbours.get(&(port, addr)) {
            Some(i) => s.adjacencies[*i as usize].mac = mac,
            None if s.adjacencies.len() < ADJACENCIES_MAX - 1 => {
                s.neighbours.insert((port, addr), s.adjacencies.len() as u32);
                s.adjacencies.push(Adjacency { port, mac });
            }
            None => {}
        }
        self
    }

    /// Adds one of the node's own addresses.
    pub fn local(&mut self, addr: Addr) -> &mut Self {
        self.0.local.insert(addr);
        self
    }

    /// The snapshot.
    pub fn build(self) -> Snapshot {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> Addr {
        s.parse::<IpAddr>().unwrap().into()
    }

    fn port(id: u8, up: bool) -> PortInfo {
        PortInfo {
            id: PortId(id),
            name: "p".into(),
            mac: Mac([2, 0, 0, 0, 0, id]),
            mtu: 1500,
            up,
            zone: None,
            ipv4: None,
            ipv6: None,
            partial_checksums: false,
        }
    }

    fn via(port: u8, gateway: Option<&str>) -> NextHop {
        NextHop { port: Some(PortId(port)), gateway: gateway.map(addr), weight: 1, mtu: None }
    }

    fn ecmp(up: [bool; 2]) -> Snapshot {
        let mut b = SnapshotBuilder::new(1);
        b.port(port(0, up[0])).port(port(1, up[1]));
        b.route(
            "0.0.0.0/0".parse().unwrap(),
            Route::Via(vec![via(0, Some("10.0.0.1")), via(1, Some("10.1.0.1"))]),
        );
        b.neighbour(PortId(0), addr("10.0.0.1"), Mac([1; 6]));
        b.neighbour(PortId(1), addr("10.1.0.1"), Mac([3; 6]));
        b.build()
    }

    fn port_for(s: &Snapshot, hash: u64) -> PortId {
        match s.resolve(addr("8.8.8.8"), hash) {
            Resolution::Way { port, .. } => port,
            Resolution::No(r) => panic!("{r:?}"),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_refusals_are_told_apart() {
        // Red when the lookup takes the first or the shortest prefix.
        let mut b = SnapshotBuilder::new(1);
        b.port(port(0, true)).port(port(1, true));
        b.route("10.0.0.0/8".parse().unwrap(), Route::Via(vec![via(0, None)]));
        b.route("10.9.0.0/16".parse().unwrap(), Route::Via(vec![via(1, None)]));
        b.route("10.9.9.0/24".parse().unwrap(), Route::Blackhole);
        let s = b.build();
        let way = |d| s.resolve(addr(d), 0);
        assert!(matches!(way("10.1.1.1"), Resolution::Way { port: PortId(0), egress: None, .. }));
        assert!(matches!(way("10.9.1.1"), Resolution::Way { port: PortId(1), .. }));
        assert_eq!(way("10.9.9.1"), Resolution::No(DropReason::RouteRefused));
        assert_eq!(way("11.0.0.1"), Resolution::No(DropReason::NoRoute));
        assert_eq!(way("2001:db8::1"), Resolution::No(DropReason::NoRoute));
    }

    #[test]
    fn ecmp_spreads_flows_keeps_each_to_its_way_and_leaves_a_dead_one() {
        // Red when `choose` ignores the hash, or the port's state.
        let both = ecmp([true, true]);
        let ports: Vec<_> = (0..100).map(|h| port_for(&both, h)).collect();
        assert!(ports.contains(&PortId(0)) && ports.contains(&PortId(1)));
        assert_eq!(ports, (0..100).map(|h| port_for(&both, h)).collect::<Vec<_>>());
        let one = ecmp([false, true]);
        assert!((0..100).all(|h| port_for(&one, h) == PortId(1)));
        assert_eq!(ecmp([false, false]).resolve(addr("8.8.8.8"), 0), Resolution::No(DropReason::PortDown));
    }

    #[test]
    fn a_route_mtu_lowers_the_ports() {
        // Red when `egress` takes the port's MTU alone.
        let mut b = SnapshotBuilder::new(1);
        b.port(port(0, true));
        let hop = NextHop { mtu: Some(1400), ..via(0, None) };
        b.route("10.0.0.0/8".parse().unwrap(), Route::Via(vec![hop]));
        b.neighbour(PortId(0), addr("10.0.0.2"), Mac([7; 6]));
        let s = b.build();
        let Resolution::Way { egress: Some(id), .. } = s.resolve(addr("10.0.0.2"), 0) else { panic!() };
        let e = s.egress(id).unwrap();
        assert_eq!((e.mtu, e.dst_mac, e.src_mac), (1400, Mac([7; 6]), Mac([2, 0, 0, 0, 0, 0])));
        assert_eq!(s.egress(EgressId::NONE), None);
    }
}
