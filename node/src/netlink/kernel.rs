//! The kernel's tables as plain values: what the mirror keeps between events.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tidegate_dataplane::addr::Mac;

/// Links, addresses, routes and neighbours of one network namespace at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kernel {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of all links.
    pub addresses: Vec<LinkAddress>,
    /// Routes of the main and the local table.
    pub routes: Vec<KernelRoute>,
    /// Neighbours with a usable MAC, by link and address.
    pub neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// Policy rules beyond the kernel's own three, which the mirror does not follow.
    pub foreign_rules: usize,
    /// Routes in tables that the mirror does not follow.
    pub foreign_routes: usize,
}

/// One network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index; a re-created interface has another.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub admin_up: bool,
    /// Whether it is set up and has a carrier.
    pub up: bool,
    /// Whether frames from it may hold partial checksums: veth and virtio.
    pub partial_checksums: bool,
    /// Receive queues.
    pub rx_queues: u32,
}

/// One address of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkAddress {
    /// Index of the link.
    pub link: u32,
    /// Address with its prefix length.
    pub net: IpNet,
    /// Whether it may be used as a source: not tentative, not a failed duplicate.
    pub usable: bool,
    /// Whether a newer one is preferred (secondary or deprecated).
    pub secondary: bool,
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteKind {
    /// Leads to next hops.
    Unicast,
    /// The node's own address (or broadcast or anycast): delivered here.
    Local,
    /// Dropped in silence.
    Blackhole,
    /// Dropped; host unreachable.
    Unreachable,
    /// Dropped; administratively prohibited.
    Prohibit,
}

/// One route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Preference among routes of one prefix: the lowest wins.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Where it leads; empty unless unicast.
    pub hops: Vec<Hop>,
    /// Its MTU, if it sets one.
    pub mtu: Option<u32>,
}

/// One next hop of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Link that it leaves by.
    pub link: u32,
    /// Gateway, if any.
    pub gateway: Option<IpAddr>,
    /// Share of the flows, at least 1.
    pub weight: u16,
    /// The kernel itself does not use it (its link is down).
    pub dead: bool,
    /// It encapsulates (tunnel, MPLS): nothing that the dataplane could do.
    pub encapsulated: bool,
}

/// A neighbour whose MAC may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: Mac,
    /// The kernel would confirm it before the next use; we ask it to.
    pub stale: bool,
}
