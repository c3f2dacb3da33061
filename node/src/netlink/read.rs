//! Netlink messages as plain values. What a message lacks or what is of no use here is `None`.

use super::kernel::{Hop, KernelRoute, Link, LinkAddress, Neighbour, RouteKind};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tidegate_dataplane::addr::Mac;

/// A link.
pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        admin_up: message.header.flags.contains(LinkFlags::Up),
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        partial_checksums: false,
        rx_queues: 1,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(n) => link.rx_queues = *n,
            LinkAttribute::Address(bytes) if message.header.link_layer_type == LinkLayerType::Ether => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::LinkInfo(infos) => {
                link.partial_checksums |= infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Veth)));
            }
            _ => {}
        }
    }
    link.partial_checksums |= is_virtio(&link.name);
    link
}

/// Whether the driver is virtio_net, whose guests may hand over partial checksums like a veth's.
fn is_virtio(name: &str) -> bool {
    std::fs::read_link(format!("/sys/class/net/{name}/device/driver"))
        .is_ok_and(|driver| driver.file_name().is_some_and(|n| n == "virtio_net"))
}

/// An address of a link.
pub(super) fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let mut local = None;
    let mut peer = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(f) => flags |= *f,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end.
    let ip = local.or(peer)?;
    Some(LinkAddress {
        link: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            || flags.contains(AddressFlags::Optimistic),
        secondary: flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated),
    })
}

/// The number of a route's table.
pub(super) fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(t) => Some(*t),
        _ => None,
    });
    long.unwrap_or(u32::from(message.header.table))
}

/// A route of the main or the local table.
pub(super) fn route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) || header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let kind = match (table(message), header.kind) {
        (MAIN, RouteType::Unicast) => RouteKind::Unicast,
        (MAIN, RouteType::BlackHole) => RouteKind::Blackhole,
        (MAIN, RouteType::Unreachable) => RouteKind::Unreachable,
        (MAIN, RouteType::Prohibit) => RouteKind::Prohibit,
        (LOCAL, RouteType::Local | RouteType::Broadcast | RouteType::Anycast) => RouteKind::Local,
        _ => return None,
    };
    let mut route =
        KernelRoute { prefix: unspecified(header)?, metric: 0, kind, hops: Vec::new(), mtu: None };
    let mut single = RouteNextHop::default();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => {
                route.prefix = IpNet::new(ip(a)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Priority(p) => route.metric = *p,
            RouteAttribute::Oif(index) => single.interface_index = *index,
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(hop).collect(),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::EncapType(_) => {
                single.attributes.push(attribute.clone());
            }
            _ => {}
        }
    }
    if kind == RouteKind::Unicast && route.hops.is_empty() && single.interface_index != 0 {
        single.flags = RouteNextHopFlags::from_bits_retain(header.flags.bits() as u8);
        route.hops.push(hop(&single));
    }
    Some(route)
}

/// RT_TABLE_MAIN.
pub(super) const MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
pub(super) const LOCAL: u32 = 255;

/// The default prefix of the family: what a route without a destination attribute means.
fn unspecified(header: &RouteHeader) -> Option<IpNet> {
    let ip: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    IpNet::new(ip, header.destination_prefix_length).ok()
}

fn hop(message: &RouteNextHop) -> Hop {
    let gateway = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(gateway) => ip(gateway),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    Hop {
        link: message.interface_index,
        gateway,
        weight: u16::from(message.hops) + 1,
        dead: message.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
        encapsulated: message.attributes.iter().any(|a| matches!(a, RouteAttribute::EncapType(_))),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// A neighbour: its key, and its MAC if that may be used. `None` for what is no IP neighbour.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), Option<Neighbour>)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLocalAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    let address = address.filter(|ip| !ip.is_multicast())?;
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let stale = message.header.state == NeighbourState::Stale;
    let neighbour =
        mac.filter(|m| usable && *m != Mac::default() && m.0[0] & 1 == 0).map(|mac| Neighbour { mac, stale });
    Some(((message.header.ifindex, address), neighbour))
}
