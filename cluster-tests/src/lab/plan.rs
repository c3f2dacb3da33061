//! What a lab is made of, decided before anything is made. Pure: the same name gives the same plan,
//! so `down` finds a half-made lab without any record of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::{Forwarder, LabSpec, NODES_MAX, QUEUES_MAX, Routing};
use crate::LabError;

/// Longest lab name: a namespace is then at most 40 characters, a control socket's path well below its 108.
pub const NAME_MAX: usize = 24;
/// The number of the witness, where nodes count from 1.
pub const WITNESS: u32 = 9;
/// UDP port that cluster members listen on.
pub const CLUSTER_PORT: u16 = 7400;
/// What joins several members.
const SEGMENTS: [&str; 3] = ["outside", "inside", "sync"];
/// Where a daemon serves metrics and readiness: an address inside its own namespace.
pub const METRICS_LISTEN: &str = "127.0.0.1:9465";

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

/// A member of the lab, node or witness, and where its daemon keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Nodes count from 1; the witness is [`WITNESS`].
    pub number: u32,
    /// Its name, `node1` or `witness`.
    pub name: String,
    /// Network namespace.
    pub netns: String,
    /// Its ports; a witness has none.
    pub ports: Option<Ports>,
    /// Its interface towards the other members, which is the kernel's own; none where it has no others.
    pub sync: Option<Port>,
    /// Directory of everything below.
    pub dir: PathBuf,
    /// Control socket.
    pub control: PathBuf,
    /// Configuration file.
    pub config: PathBuf,
    /// Policy file.
    pub policy: PathBuf,
    /// Identity, keys and store of a cluster member.
    pub cluster_dir: PathBuf,
    /// What the daemon writes to standard output and error.
    pub log: PathBuf,
    /// Process id and start time of the daemon.
    pub process: PathBuf,
}

impl NodePlan {
    /// Where other members reach it, as `--address` takes it.
    pub fn cluster_address(&self) -> Option<String> {
        self.sync.as_ref().map(|sync| format!("{}:{CLUSTER_PORT}", sync.ipv4))
    }

    /// All its addresses.
    pub fn addresses(&self) -> Vec<&str> {
        let ports = self.ports.iter().flat_map(|ports| [&ports.outside, &ports.inside]);
        ports.chain(&self.sync).flat_map(|port| [port.ipv4.as_str(), port.ipv6.as_str()]).collect()
    }
}

/// One side of the nodes: a subnet, with a host at its far end. With one node a veth pair, with several members a
/// segment that all nodes are plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Port name, which is also the interface's name in a node's namespace.
    pub port: &'static str,
    /// The host's namespace.
    pub host_netns: String,
    /// Interface in the host's namespace.
    pub host_ifname: &'static str,
    /// The subnet's number: 10.81.N.0/24 and fd81:N::/64. Node K is host K, the other end host 10.
    pub subnet: u32,
}

impl Link {
    /// A node's IPv4 address.
    pub fn node_ipv4(&self, number: u32) -> String {
        format!("10.81.{}.{number}", self.subnet)
    }

    /// A node's IPv6 address.
    pub fn node_ipv6(&self, number: u32) -> String {
        format!("fd81:{}::{number}", self.subnet)
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

/// A Linux bridge in a namespace of its own, which stands for a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// What it joins: `outside`, `inside` or `sync`. Nodes have an interface of that name.
    pub name: &'static str,
    /// Network namespace of the bridge. Its ports are called after what is plugged in: `node1`, `client`.
    pub netns: String,
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
    /// The member that only votes.
    pub witness: Option<NodePlan>,
    /// What client and server use as gateway at first.
    pub gateways: Virtual,
    /// The sides of the nodes.
    pub links: Vec<Link>,
    /// The switches between several members; none where there is one.
    pub segments: Vec<Segment>,
}

impl Plan {
    /// Checks the name and lays everything out below `base`.
    pub fn new(spec: &LabSpec, base: &Path) -> Result<Plan, LabError> {
        let name = &spec.name;
        check_name(name)?;
        check_size(spec)?;
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
        if spec.second_path {
            links.push(link("inside2", &server_netns, "eth1", 3));
        }
        let host = |link: &Link| Host {
            netns: link.host_netns.clone(),
            ifname: link.host_ifname.to_owned(),
            ipv4: link.host_ipv4(0),
            ipv6: link.host_ipv6(0),
        };
        let gateway = |link: &Link| Gateway { ipv4: link.node_ipv4(1), ipv6: link.node_ipv6(1) };
        let several = spec.members() > 1;
        let segments =
            SEGMENTS.map(|segment| Segment { name: segment, netns: format!("tg-{name}-{segment}") });
        let dir = base.join(name);
        Ok(Plan {
            name: name.clone(),
            client: host(&links[0]),
            server: host(&links[1]),
            gateways: Virtual { outside: gateway(&links[0]), inside: gateway(&links[1]) },
            nodes: (1..=spec.nodes).map(|number| member(name, number, several, &dir, &links)).collect(),
            witness: spec.witness.then(|| member(name, WITNESS, several, &dir, &links)),
            segments: if several { segments.into() } else { Vec::new() },
            dir,
            links,
        })
    }

    /// The largest lab of that name: whatever a lab of that name left is part of it.
    pub(super) fn largest(name: &str, base: &Path) -> Result<Plan, LabError> {
        Plan::new(&LabSpec { nodes: NODES_MAX, witness: true, ..LabSpec::new(name) }, base)
    }

    /// Nodes and witness.
    pub fn members(&self) -> impl Iterator<Item = &NodePlan> {
        self.nodes.iter().chain(&self.witness)
    }

    /// Every namespace that a lab of this name may have, of this or a later size.
    pub fn netns_names(&self) -> Vec<String> {
        let others = ["client", "server", "witness"].into_iter().chain(SEGMENTS).map(str::to_owned);
        let nodes = (1..=9).map(|number| format!("node{number}"));
        others.chain(nodes).map(|which| format!("tg-{}-{which}", self.name)).collect()
    }

    /// The link of that port.
    pub fn link(&self, port: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.port == port)
    }
}

fn member(lab: &str, number: u32, several: bool, dir: &Path, links: &[Link]) -> NodePlan {
    let name = if number == WITNESS { "witness".to_owned() } else { format!("node{number}") };
    let dir = dir.join(&name);
    let port = |link: &Link| Port {
        ifname: link.port.to_owned(),
        ipv4: link.node_ipv4(number),
        ipv6: link.node_ipv6(number),
    };
    let sync = || Port {
        ifname: "sync".to_owned(),
        ipv4: format!("10.90.0.{number}"),
        ipv6: format!("fd90::{number}"),
    };
    let ports = || Ports { outside: port(&links[0]), inside: port(&links[1]) };
    NodePlan {
        number,
        netns: format!("tg-{lab}-{name}"),
        ports: (number != WITNESS).then(ports),
        sync: several.then(sync),
        control: dir.join("control.sock"),
        config: dir.join("node.toml"),
        policy: dir.join("policy.toml"),
        cluster_dir: dir.join("cluster"),
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

fn check_size(spec: &LabSpec) -> Result<(), LabError> {
    let refuse = |option, reason| Err(LabError::BadOption { option, reason });
    if !(1..=NODES_MAX).contains(&spec.nodes) {
        return refuse("nodes", format!("{} is not within 1 to {NODES_MAX}", spec.nodes));
    }
    if !(1..=QUEUES_MAX).contains(&spec.queues) {
        return refuse("queues", format!("{} is not within 1 to {QUEUES_MAX}", spec.queues));
    }
    if spec.second_path && spec.members() > 1 {
        return refuse("second-path", "only a lab of one node has a second path".to_owned());
    }
    if spec.routing != Routing::Single && spec.nodes < 2 {
        return refuse("routing", format!("{} takes two nodes or more", spec.routing.name()));
    }
    if spec.witness && spec.forwarder != Forwarder::Tidegate {
        return refuse("witness", "a witness is a daemon; the kernel cannot stand in for it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Result<Plan, LabError> {
        Plan::new(&LabSpec { second_path: true, ..LabSpec::new(name) }, Path::new("/run/tidegate-lab"))
    }

    fn largest(name: &str) -> Plan {
        Plan::largest(name, Path::new("/run/tidegate-lab")).unwrap()
    }

    #[test]
    fn every_name_fits_where_the_kernel_bounds_it() {
        let plan = largest(&"x".repeat(NAME_MAX));
        assert!(plan.members().all(|member| member.control.as_os_str().len() < 108), "sun_path");
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

    #[test]
    fn sizes_that_cannot_be_built_are_refused() {
        let with = |adjust: fn(&mut LabSpec)| {
            let mut spec = LabSpec::new("a");
            adjust(&mut spec);
            Plan::new(&spec, Path::new("/x"))
        };
        assert!(matches!(with(|spec| spec.nodes = 0), Err(LabError::BadOption { option: "nodes", .. })));
        assert!(matches!(with(|spec| spec.nodes = 5), Err(LabError::BadOption { option: "nodes", .. })));
        assert!(matches!(with(|spec| spec.queues = 17), Err(LabError::BadOption { option: "queues", .. })));
        assert!(matches!(
            with(|spec| spec.routing = Routing::Ecmp),
            Err(LabError::BadOption { option: "routing", .. })
        ));
        assert!(with(|spec| (spec.nodes, spec.witness) = (4, true)).is_ok());
        assert!(with(|spec| (spec.nodes, spec.routing) = (2, Routing::Asymmetric)).is_ok());
    }

    /// Red when two labs share a namespace: then `down` of one would break the other.
    #[test]
    fn labs_of_different_names_share_no_namespace() {
        let (a, b) = (plan("a").unwrap(), plan("a-client").unwrap());
        assert!(a.netns_names().iter().all(|name| !b.netns_names().contains(name)));
    }

    /// Red when `down` does not know of a namespace that `up` made.
    #[test]
    fn every_namespace_of_the_largest_lab_is_among_those_that_are_removed() {
        let (plan, names) = (largest("a"), largest("a").netns_names());
        assert!(plan.members().all(|member| names.contains(&member.netns)));
        assert!(plan.segments.iter().all(|segment| names.contains(&segment.netns)));
    }

    #[test]
    fn no_address_is_given_twice() {
        let plan = largest("a");
        let mut all: Vec<_> = plan.members().flat_map(NodePlan::addresses).collect();
        for host in [&plan.client, &plan.server] {
            all.extend([host.ipv4.as_str(), host.ipv6.as_str()]);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn gateways_are_the_addresses_of_the_first_nodes_ports() {
        let plan = plan("a").unwrap();
        let ports = plan.nodes[0].ports.as_ref().unwrap();
        assert_eq!(plan.gateways.outside.ipv4, ports.outside.ipv4);
        assert_eq!(plan.gateways.inside.ipv6, ports.inside.ipv6);
        assert_ne!(plan.client.ipv4, plan.server.ipv4);
    }
}
