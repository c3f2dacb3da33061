//! What a lab is made of, decided before anything is made. Pure: the same name gives the same plan,
//! so `down` finds a half-made lab without any record of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::LabError;

/// Longest lab name: a namespace is then at most 40 characters, a control socket's path well below its 108.
pub const NAME_MAX: usize = 24;
/// Most queues of a port that a lab makes.
pub const QUEUES_MAX: u32 = 16;
/// Where a daemon serves metrics and readiness: an address inside its own namespace.
pub const METRICS_LISTEN: &str = "127.0.0.1:9465";

/// What to build; the plan follows from it.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Name, part of every namespace's.
    pub name: String,
    /// Policy file text; `None` is the lab's default policy.
    pub policy: Option<String>,
    /// Receive and transmit queues of every port.
    pub queues: u32,
    /// Worker threads of the node; `None` is one for each queue.
    pub workers: Option<u32>,
    /// The CPU of each worker; `None` leaves it to the scheduler.
    pub cpus: Option<Vec<u32>>,
    /// Sessions that the node's table holds (J14).
    pub capacity: u32,
    /// Further address pairs of the client beyond its first, for tests that need many.
    pub client_addresses: u32,
    /// A second port towards the server (`inside2`), for routes that move.
    pub second_path: bool,
    /// Further text of the node's configuration, behind all else.
    pub node_extra: String,
    /// Who forwards.
    pub forwarder: Forwarder,
}

/// Who forwards between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarder {
    /// The daemon.
    Tidegate,
    /// The kernel of the node's namespace: what Tidegate is compared with.
    Kernel,
    /// Nobody; the caller brings its own.
    Nobody,
}

impl LabSpec {
    /// A lab of that name with everything else at its default.
    pub fn new(name: impl Into<String>) -> LabSpec {
        LabSpec {
            name: name.into(),
            policy: None,
            queues: 1,
            workers: None,
            cpus: None,
            capacity: 262_144,
            client_addresses: 0,
            second_path: false,
            node_extra: String::new(),
            forwarder: Forwarder::Tidegate,
        }
    }
}

/// A host of the lab as outside programs need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Network namespace.
    pub netns: String,
    /// Interface towards the node.
    pub ifname: String,
    /// Its IPv4 address.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
}

/// A port of a node, or the virtual address on that side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Interface in the node's namespace.
    pub ifname: String,
    /// Its IPv4 address.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
}

/// The two sides of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Towards the client.
    pub outside: Port,
    /// Towards the server.
    pub inside: Port,
}

/// An address pair that hosts use as gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// IPv4 address.
    pub ipv4: String,
    /// IPv6 address.
    pub ipv6: String,
}

/// What client and server use as gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtual {
    /// The client's gateway.
    pub outside: Gateway,
    /// The server's gateway.
    pub inside: Gateway,
}

/// A node and where its daemon keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Node name, `node1`.
    pub name: String,
    /// Network namespace.
    pub netns: String,
    /// Its ports.
    pub ports: Ports,
    /// Directory of everything below.
    pub dir: PathBuf,
    /// Control socket.
    pub control: PathBuf,
    /// Configuration file.
    pub config: PathBuf,
    /// Policy file.
    pub policy: PathBuf,
    /// What the daemon writes to standard output and error.
    pub log: PathBuf,
    /// Process id and start time of the daemon.
    pub process: PathBuf,
}

/// One veth pair between a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Port name, which is also the interface's name in the node's namespace.
    pub port: &'static str,
    /// The host's namespace.
    pub host_netns: String,
    /// Interface in the host's namespace.
    pub host_ifname: &'static str,
    /// The subnet's number: 10.81.N.0/24 and fd81:N::/64. The node is host 1, the other end host 10.
    pub subnet: u32,
}

impl Link {
    /// The node's IPv4 address.
    pub fn node_ipv4(&self) -> String {
        format!("10.81.{}.1", self.subnet)
    }

    /// The node's IPv6 address.
    pub fn node_ipv6(&self) -> String {
        format!("fd81:{}::1", self.subnet)
    }

    /// The host's IPv4 address; `index` 0 is its first.
    pub fn host_ipv4(&self, index: u32) -> String {
        format!("10.81.{}.{}", self.subnet, 10 + index)
    }

    /// The host's IPv6 address; `index` 0 is its first.
    pub fn host_ipv6(&self, index: u32) -> String {
        format!("fd81:{}::{}", self.subnet, 10 + index)
    }
}

/// Everything that a lab is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Lab name.
    pub name: String,
    /// Directory of the lab's files; making it claims the name.
    pub dir: PathBuf,
    /// The host on the outside.
    pub client: Host,
    /// The host on the inside.
    pub server: Host,
    /// The nodes between them.
    pub nodes: Vec<NodePlan>,
    /// What client and server use as gateway.
    pub gateways: Virtual,
    /// The veth pairs of node 1.
    pub links: Vec<Link>,
}

impl Plan {
    /// Checks the name and lays everything out below `base`.
    pub fn new(name: &str, second_path: bool, base: &Path) -> Result<Plan, LabError> {
        check_name(name)?;
        let client_netns = format!("tg-{name}-client");
        let server_netns = format!("tg-{name}-server");
        let link = |port, netns: &String, host_ifname, subnet| Link {
            port,
            host_netns: netns.clone(),
            host_ifname,
            subnet,
        };
        let mut links =
            vec![link("outside", &client_netns, "eth0", 1), link("inside", &server_netns, "eth0", 2)];
        if second_path {
            links.push(link("inside2", &server_netns, "eth1", 3));
        }
        let host = |link: &Link| Host {
            netns: link.host_netns.clone(),
            ifname: link.host_ifname.to_owned(),
            ipv4: link.host_ipv4(0),
            ipv6: link.host_ipv6(0),
        };
        let gateway = |link: &Link| Gateway { ipv4: link.node_ipv4(), ipv6: link.node_ipv6() };
        let dir = base.join(name);
        Ok(Plan {
            name: name.to_owned(),
            client: host(&links[0]),
            server: host(&links[1]),
            gateways: Virtual { outside: gateway(&links[0]), inside: gateway(&links[1]) },
            nodes: vec![node(name, 1, &dir, &links)],
            dir,
            links,
        })
    }

    /// Every namespace that a lab of this name may have, of this or a later size.
    pub fn netns_names(&self) -> Vec<String> {
        let hosts = [self.client.netns.clone(), self.server.netns.clone()];
        let nodes = (1..=9).map(|number| format!("tg-{}-node{number}", self.name));
        hosts.into_iter().chain(nodes).collect()
    }

    /// The link of that port.
    pub fn link(&self, port: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.port == port)
    }
}

fn node(lab: &str, number: u32, dir: &Path, links: &[Link]) -> NodePlan {
    let name = format!("node{number}");
    let dir = dir.join(&name);
    let port =
        |link: &Link| Port { ifname: link.port.to_owned(), ipv4: link.node_ipv4(), ipv6: link.node_ipv6() };
    NodePlan {
        netns: format!("tg-{lab}-{name}"),
        ports: Ports { outside: port(&links[0]), inside: port(&links[1]) },
        control: dir.join("control.sock"),
        config: dir.join("node.toml"),
        policy: dir.join("policy.toml"),
        log: dir.join("daemon.log"),
        process: dir.join("process.json"),
        name,
        dir,
    }
}

fn check_name(name: &str) -> Result<(), LabError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > NAME_MAX || edges || !name.chars().all(legal) {
        return Err(LabError::BadName { name: name.to_owned(), max: NAME_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Result<Plan, LabError> {
        Plan::new(name, true, Path::new("/run/tidegate-lab"))
    }

    #[test]
    fn every_name_fits_where_the_kernel_bounds_it() {
        let plan = plan(&"x".repeat(NAME_MAX)).unwrap();
        assert!(plan.nodes[0].control.as_os_str().len() < 108, "sun_path");
        assert!(plan.netns_names().iter().all(|name| name.len() <= 40));
        assert!(plan.links.iter().all(|link| link.port.len() <= 15 && link.host_ifname.len() <= 15));
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "..", "a/b", "-a", "a-", "A", "a b", "a\n", &"x".repeat(NAME_MAX + 1)] {
            assert!(matches!(plan(name), Err(LabError::BadName { .. })), "{name:?}");
        }
        assert!(plan("a-1").is_ok());
    }

    /// Red when two labs share a namespace: then `down` of one would break the other.
    #[test]
    fn labs_of_different_names_share_no_namespace() {
        let (a, b) = (plan("a").unwrap(), plan("a-client").unwrap());
        assert!(a.netns_names().iter().all(|name| !b.netns_names().contains(name)));
    }

    #[test]
    fn gateways_are_the_addresses_of_the_nodes_ports() {
        let plan = plan("a").unwrap();
        assert_eq!(plan.gateways.outside.ipv4, plan.nodes[0].ports.outside.ipv4);
        assert_eq!(plan.gateways.inside.ipv6, plan.nodes[0].ports.inside.ipv6);
        assert_ne!(plan.client.ipv4, plan.server.ipv4);
    }
}
