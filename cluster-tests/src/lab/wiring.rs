//! Namespaces, interfaces, addresses and routes: the commands that make them, in order.

use std::time::Duration;

use super::plan::{Forwarder, LabSpec, Link, Plan};
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

/// Makes all namespaces and what is inside them.
pub(crate) fn build(plan: &Plan, spec: &LabSpec, stop: &Stop) -> Result<(), LabError> {
    let node = Netns::new(&plan.nodes[0].netns);
    for netns in [&node, &Netns::new(&plan.client.netns), &Netns::new(&plan.server.netns)] {
        stop.check()?;
        netns.create()?;
        netns.ip("link set lo up")?;
        for (key, value) in EVERYWHERE {
            netns.set_sysctl(key, value)?;
        }
    }
    // Addresses of a port that is taken down are there again when it comes up, as on a configured router.
    node.set_sysctl("net/ipv6/conf/all/keep_addr_on_down", "1")?;
    for link in &plan.links {
        stop.check()?;
        make_link(&node, link, spec)?;
    }
    for link in &plan.links {
        wait_link_ready(&node, link.port, stop)?;
        wait_link_ready(&Netns::new(&link.host_netns), link.host_ifname, stop)?;
    }
    if spec.forwarder == Forwarder::Kernel {
        set_kernel_forwarding(&node, true)?;
    }
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

/// Makes a veth pair between node and host, with addresses and the host's routes.
pub(crate) fn make_link(node: &Netns, link: &Link, spec: &LabSpec) -> Result<(), LabError> {
    let queues = format!("numrxqueues {0} numtxqueues {0}", spec.queues);
    let host = Netns::new(&link.host_netns);
    let (port, host_ifname) = (link.port, link.host_ifname);
    node.ip(&format!(
        "link add {port} {queues} type veth peer name {host_ifname} {queues} netns {}",
        link.host_netns
    ))?;
    address(node, port, &link.node_ipv4(), &link.node_ipv6())?;
    let further = if link.port == "outside" { spec.client_addresses } else { 0 };
    for index in 0..=further {
        address(&host, host_ifname, &link.host_ipv4(index), &link.host_ipv6(index))?;
    }
    // The far end first: a port that comes up finds its carrier.
    host.ip(&format!("link set {host_ifname} up"))?;
    node.ip(&format!("link set {port} up"))?;
    route_host(link)
}

/// Routes the host towards the node; the first link of a host carries its default route.
fn route_host(link: &Link) -> Result<(), LabError> {
    let host = Netns::new(&link.host_netns);
    let metric = if link.port == "inside2" { 200 } else { 100 };
    let ifname = link.host_ifname;
    host.ip(&format!("route replace default via {} dev {ifname} metric {metric}", link.node_ipv4()))?;
    host.ip(&format!("-6 route replace default via {} dev {ifname} metric {metric}", link.node_ipv6()))?;
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
