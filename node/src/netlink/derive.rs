//! From the kernel's tables to what the engines forward by. Pure: the same tables give the same answer.

use super::kernel::{Hop, Kernel, KernelRoute, Link, LinkAddress, RouteKind};
use crate::config::{PartialChecksums, PortConfig, Select};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::names::ZoneId;
use tidegate_dataplane::route::{NextHop, PortId, PortInfo, Route, Snapshot, SnapshotBuilder};

/// A configured port and the zone number of its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortBinding {
    /// Its number: the place in the configuration.
    pub id: PortId,
    /// Its configuration.
    pub config: PortConfig,
    /// Its zone; `None` while no policy knows the zone's name.
    pub zone: Option<ZoneId>,
}

/// A configured port as the kernel has it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortState {
    /// Its number.
    pub id: PortId,
    /// The interface that it selects, if there is exactly one to take.
    pub link: Option<Link>,
    /// Why there is none.
    pub problem: Option<String>,
    /// Whether frames may hold partial checksums, `auto` resolved.
    pub partial_checksums: bool,
    /// Addresses of the interface.
    pub addresses: Vec<IpNet>,
}

/// Everything that forwarding depends on. A change of it, and nothing else, makes a new snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Derived {
    /// Configured ports, in their order.
    pub ports: Vec<PortState>,
    /// What the snapshot says about each port that has an interface.
    pub infos: Vec<PortInfo>,
    /// The forwarding table.
    pub routes: BTreeMap<IpNet, Route>,
    /// The node's own addresses, broadcast and anycast ones included.
    pub local: BTreeSet<Addr>,
    /// MACs of the neighbours behind ports.
    pub neighbours: BTreeMap<(PortId, Addr), Mac>,
}

/// Derives it. `open` says whether the dataplane has a port's interface open: one that is not
/// carries no traffic, whatever the kernel says about its link.
pub fn derive(kernel: &Kernel, bindings: &[PortBinding], open: &dyn Fn(PortId, u32) -> bool) -> Derived {
    let ports = select_all(kernel, bindings);
    let by_link: BTreeMap<u32, PortId> =
        ports.iter().filter_map(|p| p.link.as_ref().map(|l| (l.index, p.id))).collect();
    let infos = ports
        .iter()
        .zip(bindings)
        .filter_map(|(state, binding)| {
            let link = state.link.as_ref()?;
            Some(info(kernel, state, link, binding, link.up && open(state.id, link.index)))
        })
        .collect();
    let neighbours = kernel
        .neighbours
        .iter()
        .filter_map(|((link, ip), n)| Some(((*by_link.get(link)?, Addr::from(*ip)), n.mac)))
        .collect();
    Derived { ports, infos, routes: routes(kernel, &by_link), local: local(kernel), neighbours }
}

/// The snapshot of what was derived.
pub fn snapshot(derived: &Derived, generation: u32) -> Snapshot {
    let mut b = SnapshotBuilder::new(generation);
    for info in &derived.infos {
        b.port(info.clone());
    }
    for (prefix, route) in &derived.routes {
        b.route(*prefix, route.clone());
    }
    for addr in &derived.local {
        b.local(*addr);
    }
    for ((port, addr), mac) in &derived.neighbours {
        b.neighbour(*port, *addr, *mac);
    }
    b.build()
}

fn select_all(kernel: &Kernel, bindings: &[PortBinding]) -> Vec<PortState> {
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    bindings
        .iter()
        .map(|binding| {
            let mut found = select(kernel, &binding.config.select);
            if let Ok(link) = &found
                && let Some(other) = taken.get(&link.index)
            {
                found = Err(format!("{} is port \"{other}\" already", link.name));
            }
            if let Ok(link) = &found {
                taken.insert(link.index, binding.config.name.clone());
            }
            let (link, problem) = match found {
                Ok(link) => (Some(link.clone()), None),
                Err(problem) => (None, Some(problem)),
            };
            let partial_checksums = match binding.config.partial_checksums {
                PartialChecksums::Auto => link.as_ref().is_some_and(|l| l.partial_checksums),
                PartialChecksums::On => true,
                PartialChecksums::Off => false,
            };
            let index = link.as_ref().map(|l| l.index);
            let addresses =
                kernel.addresses.iter().filter(|a| Some(a.link) == index).map(|a| a.net).collect();
            PortState { id: binding.id, link, problem, partial_checksums, addresses }
        })
        .collect()
}

/// The one Ethernet interface that a port means, or why there is none.
fn select<'a>(kernel: &'a Kernel, select: &Select) -> Result<&'a Link, String> {
    let with_address = |hit: &dyn Fn(&LinkAddress) -> bool| -> BTreeSet<u32> {
        kernel.addresses.iter().filter(|a| hit(a)).map(|a| a.link).collect()
    };
    let indexes: BTreeSet<u32> = match select {
        Select::Interface(name) => {
            kernel.links.values().filter(|l| l.name == *name).map(|l| l.index).collect()
        }
        Select::Address(address) => with_address(&|a| a.net.addr() == *address),
        Select::Prefix(prefix) => with_address(&|a| prefix.contains(&a.net.addr())),
    };
    let links: Vec<&Link> = indexes.iter().filter_map(|i| kernel.links.get(i)).collect();
    match links.as_slice() {
        [] => Err(match select {
            Select::Interface(name) => format!("there is no interface {name}"),
            Select::Address(address) => format!("no interface has the address {address}"),
            Select::Prefix(prefix) => format!("no interface has an address in {prefix}"),
        }),
        [link] if link.mac.is_none() => Err(format!("{} is no Ethernet interface", link.name)),
        [link] => Ok(link),
        many => {
            let names: Vec<&str> = many.iter().map(|l| l.name.as_str()).collect();
            Err(format!("{select} fits more than one interface: {}", names.join(", ")))
        }
    }
}

fn info(kernel: &Kernel, state: &PortState, link: &Link, binding: &PortBinding, up: bool) -> PortInfo {
    PortInfo {
        id: state.id,
        name: Arc::from(binding.config.name.as_str()),
        mac: link.mac.unwrap_or_default(),
        mtu: link.mtu,
        up,
        zone: binding.zone,
        ipv4: source(kernel, link.index, false),
        ipv6: source(kernel, link.index, true),
        partial_checksums: state.partial_checksums,
    }
}

/// The address that ICMP errors are sent from: primary before secondary, global before link-local.
fn source(kernel: &Kernel, link: u32, v6: bool) -> Option<Addr> {
    kernel
        .addresses
        .iter()
        .filter(|a| a.link == link && a.usable && a.net.addr().is_ipv6() == v6)
        .min_by_key(|a| (link_local(a.net.addr()), a.secondary))
        .map(|a| Addr::from(a.net.addr()))
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn routes(kernel: &Kernel, by_link: &BTreeMap<u32, PortId>) -> BTreeMap<IpNet, Route> {
    let mut best: BTreeMap<IpNet, &KernelRoute> = BTreeMap::new();
    for route in kernel.routes.iter().filter(|r| usable(r)) {
        let prefix = route.prefix.trunc();
        // At equal metric the kernel's first stands: its dump comes in the order of its lookups.
        match best.get(&prefix) {
            Some(other) if other.metric <= route.metric => {}
            _ => drop(best.insert(prefix, route)),
        }
    }
    best.into_iter().map(|(prefix, route)| (prefix, forwarding(route, by_link))).collect()
}

/// A local route is no forwarding route, and one whose ways are all dead counts as absent: the next
/// best of its prefix, or a shorter prefix, takes over, as in the kernel.
fn usable(route: &KernelRoute) -> bool {
    match route.kind {
        RouteKind::Local => false,
        RouteKind::Unicast => route.hops.iter().any(|h| !h.dead),
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => true,
    }
}

fn forwarding(route: &KernelRoute, by_link: &BTreeMap<u32, PortId>) -> Route {
    match route.kind {
        RouteKind::Blackhole => Route::Blackhole,
        RouteKind::Unreachable => Route::Unreachable,
        RouteKind::Prohibit => Route::Prohibit,
        RouteKind::Unicast | RouteKind::Local => {
            Route::Via(route.hops.iter().filter(|h| !h.dead).map(|h| hop(h, route.mtu, by_link)).collect())
        }
    }
}

fn hop(hop: &Hop, mtu: Option<u32>, by_link: &BTreeMap<u32, PortId>) -> NextHop {
    NextHop {
        port: by_link.get(&hop.link).copied().filter(|_| !hop.encapsulated),
        gateway: hop.gateway.map(Addr::from),
        weight: hop.weight.max(1),
        mtu,
    }
}

fn local(kernel: &Kernel) -> BTreeSet<Addr> {
    let host = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    let own = kernel.addresses.iter().map(|a| a.net.addr());
    let table = kernel
        .routes
        .iter()
        .filter(|r| r.kind == RouteKind::Local && host(&r.prefix))
        .map(|r| r.prefix.addr());
    own.chain(table)
        .filter(|ip| !ip.is_loopback() && *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .map(Addr::from)
        .collect()
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
