//! Namespaces, interfaces, addresses and routes: the commands that make them, in order.

use std::path::Path;

use std::time::Duration;

use super::plan::{Link, NodePlan, Plan, Port};
use super::route::{self, Route, route_host};
use super::spec::{Forwarder, LabSpec};
use crate::LabError;
use crate::sys::{Netns, Stop};

/// Settings of every namespace: addresses usable at once, no router advertisements.
const EVERYWHERE: [(&str, &str); 5] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Whether frames on bridges are shown to the packet filters of a namespace.
const BRIDGE_FILTERS: [&str; 3] = [
    "net/bridge/bridge-nf-call-arptables",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];
/// Name of the bridge in a segment's namespace.
const BRIDGE: &str = "br0";

/// Makes all namespaces and what is inside them.
pub(crate) fn build(plan: &Plan, spec: &LabSpec, stop: &Stop) -> Result<(), LabError> {
    let members = plan.members().map(|member| &member.netns);
    for name in members.chain([&plan.client.netns, &plan.server.netns]) {
        stop.check()?;
        make_netns(&Netns::new(name))?;
    }
    for node in plan.members().map(|member| Netns::new(&member.netns)) {
        // Addresses of a port that is taken down are there again when it comes up, as on a configured router.
        node.set_sysctl("net/ipv6/conf/all/keep_addr_on_down", "1")?;
    }
    if plan.segments.is_empty() {
        let node = Netns::new(&plan.nodes[0].netns);
        for link in &plan.links {
            stop.check()?;
            make_link(&node, link, spec)?;
        }
    } else {
        build_segments(plan, spec, stop)?;
        for host in [&plan.client.netns, &plan.server.netns] {
            route::hash_by_layer_4(&Netns::new(host))?;
        }
        route::set(plan, &Route::at_first(spec.routing, spec.nodes))?;
    }
    for link in &plan.links {
        wait_link_ready(&Netns::new(&link.host_netns), link.host_ifname, stop)?;
    }
    for node in plan.members() {
        let netns = Netns::new(&node.netns);
        let ports = plan.links.iter().map(|link| link.port).filter(|_| node.ports.is_some());
        for ifname in ports.chain(node.sync.as_ref().map(|sync| sync.ifname.as_str())) {
            wait_link_ready(&netns, ifname, stop)?;
        }
        if spec.forwarder == Forwarder::Kernel {
            set_kernel_forwarding(&netns, true)?;
        }
    }
    Ok(())
}

fn make_netns(netns: &Netns) -> Result<(), LabError> {
    netns.create()?;
    netns.ip("link set lo up")?;
    for (key, value) in EVERYWHERE {
        netns.set_sysctl(key, value)?;
    }
    Ok(())
}

/// Makes the switches of a lab with several members, and plugs everything in.
fn build_segments(plan: &Plan, spec: &LabSpec, stop: &Stop) -> Result<(), LabError> {
    for segment in &plan.segments {
        stop.check()?;
        let netns = Netns::new(&segment.netns);
        make_netns(&netns)?;
        // A switch has no address of its own, and floods multicast: neighbour discovery must not wait for a querier.
        netns.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        netns.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        // Where the kernel can filter what passes a bridge (Docker loads that), it looks at every frame.
        for key in BRIDGE_FILTERS.iter().filter(|key| Path::new("/proc/sys").join(key).exists()) {
            netns.set_sysctl(key, "0")?;
        }
        netns.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0 stp_state 0"))?;
        netns.ip(&format!("link set {BRIDGE} up"))?;
        let link = plan.link(segment.name);
        for member in plan.members() {
            stop.check()?;
            if let Some(port) = port_in(member, segment.name) {
                let node = Netns::new(&member.netns);
                plug(&netns, &node, &member.name, &port.ifname, spec)?;
                address(&node, &port.ifname, &port.ipv4, &port.ipv6)?;
                node.ip(&format!("link set {} up", port.ifname))?;
            }
        }
        if let Some(link) = link {
            let host = Netns::new(&link.host_netns);
            plug(&netns, &host, host_name(plan, link), link.host_ifname, spec)?;
            address_host(&host, link, spec)?;
            host.ip(&format!("link set {} up", link.host_ifname))?;
        }
    }
    Ok(())
}

/// The interface of a member in a segment.
fn port_in<'a>(member: &'a NodePlan, segment: &str) -> Option<&'a Port> {
    match (segment, &member.ports) {
        ("sync", _) => member.sync.as_ref(),
        ("outside", Some(ports)) => Some(&ports.outside),
        ("inside", Some(ports)) => Some(&ports.inside),
        _ => None,
    }
}

fn host_name(plan: &Plan, link: &Link) -> &'static str {
    if link.host_netns == plan.client.netns { "client" } else { "server" }
}

/// Makes a veth pair between a switch, where its end is called `socket` and is up, and a namespace.
fn plug(switch: &Netns, netns: &Netns, socket: &str, ifname: &str, spec: &LabSpec) -> Result<(), LabError> {
    let queues = format!("numrxqueues {0} numtxqueues {0}", spec.queues);
    switch.ip(&format!(
        "link add {socket} {queues} type veth peer name {ifname} {queues} netns {}",
        netns.name()
    ))?;
    switch.ip(&format!("link set {socket} master {BRIDGE} up"))?;
    Ok(())
}

/// Waits until IPv6 works on an interface. The kernel looks at a new carrier only up to a second later, and
/// until then there is no link-local address to solicit neighbours with.
fn wait_link_ready(netns: &Netns, ifname: &str, stop: &Stop) -> Result<(), LabError> {
    for _ in 0..250 {
        let table = netns.proc_net("if_inet6")?;
        if table.lines().any(|line| line.starts_with("fe80") && line.ends_with(&format!(" {ifname}"))) {
            return Ok(());
        }
        stop.sleep(Duration::from_millis(20))?;
    }
    Err(LabError::Check(format!("{ifname} in {} got no link-local address", netns.name())))
}

/// Makes the veth pair between the only node and a host, with addresses and the host's routes.
pub(crate) fn make_link(node: &Netns, link: &Link, spec: &LabSpec) -> Result<(), LabError> {
    let queues = format!("numrxqueues {0} numtxqueues {0}", spec.queues);
    let host = Netns::new(&link.host_netns);
    let (port, host_ifname) = (link.port, link.host_ifname);
    node.ip(&format!(
        "link add {port} {queues} type veth peer name {host_ifname} {queues} netns {}",
        link.host_netns
    ))?;
    address(node, port, &link.node_ipv4(1), &link.node_ipv6(1))?;
    address_host(&host, link, spec)?;
    // The far end first: a port that comes up finds its carrier.
    host.ip(&format!("link set {host_ifname} up"))?;
    node.ip(&format!("link set {port} up"))?;
    route_host(link, &[1])
}

fn address_host(host: &Netns, link: &Link, spec: &LabSpec) -> Result<(), LabError> {
    let further = if link.port == "outside" { spec.client_addresses } else { 0 };
    for index in 0..=further {
        address(host, link.host_ifname, &link.host_ipv4(index), &link.host_ipv6(index))?;
    }
    Ok(())
}

fn address(netns: &Netns, ifname: &str, ipv4: &str, ipv6: &str) -> Result<(), LabError> {
    netns.ip(&format!("address add {ipv4}/24 dev {ifname}"))?;
    netns.ip(&format!("address add {ipv6}/64 dev {ifname} nodad"))?;
    Ok(())
}

/// Switches the kernel's own forwarding in a namespace: on all, default and every interface that it has.
pub fn set_kernel_forwarding(node: &Netns, on: bool) -> Result<(), LabError> {
    let value = if on { "1" } else { "0" };
    for family in ["ipv4", "ipv6"] {
        let conf = format!("/proc/sys/net/{family}/conf");
        let names: Vec<String> = node.run(|| {
            let entries = std::fs::read_dir(&conf).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        })?;
        // `all` last would reset the others again; first, it sets them, and each is then set by itself.
        node.set_sysctl(&format!("net/{family}/conf/all/forwarding"), value)?;
        for name in names.iter().filter(|name| *name != "all") {
            node.set_sysctl(&format!("net/{family}/conf/{name}/forwarding"), value)?;
        }
    }
    Ok(())
}
