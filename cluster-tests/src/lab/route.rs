//! Which nodes client and server send through: at first, and after they were moved.

use std::path::PathBuf;

use super::plan::{Link, Plan, WITNESS};
use super::spec::Routing;
use super::{Lab, removal};
use crate::LabError;
use crate::sys::{Netns, read_file, require_root, write_file};

/// The nodes that each of the two hosts sends through. Several share a host's flows by a hash of addresses and ports,
/// and the two hosts' hashes know nothing of each other: the answers of a flow may come back another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the client sends.
    pub out: Vec<u32>,
    /// What the server sends.
    pub back: Vec<u32>,
}

impl Route {
    /// Both directions through one node.
    pub fn through(node: u32) -> Route {
        Route { out: vec![node], back: vec![node] }
    }

    /// Out through one node, back through another.
    pub fn split(out: u32, back: u32) -> Route {
        Route { out: vec![out], back: vec![back] }
    }

    /// Each host spreads its flows over these nodes.
    pub fn spread(nodes: &[u32]) -> Route {
        Route { out: nodes.to_vec(), back: nodes.to_vec() }
    }

    /// The route of a lab that has just been made.
    pub(super) fn at_first(routing: Routing, nodes: u32) -> Route {
        match routing {
            Routing::Single => Route::through(1),
            Routing::Asymmetric => Route::split(1, 2),
            Routing::Ecmp => Route::spread(&(1..=nodes).collect::<Vec<_>>()),
        }
    }

    /// What a list of nodes means in a lab of that routing.
    fn of_list(routing: Routing, via: &[u32]) -> Result<Route, LabError> {
        match (routing, via) {
            (_, [node]) => Ok(Route::through(*node)),
            (Routing::Ecmp, [_, ..]) => Ok(Route::spread(via)),
            (_, [out, back]) => Ok(Route::split(*out, *back)),
            _ => Err(LabError::BadOption {
                option: "via",
                reason:
                    "one node, or two: out through the first, back through the second; any number in a lab \
                         with --routing ecmp"
                        .into(),
            }),
        }
    }
}

impl Lab {
    /// Sends client and server through other nodes from now on.
    pub fn route(&self, route: &Route) -> Result<(), LabError> {
        set(self.plan(), route)
    }

    /// Both directions through one node.
    pub fn route_via(&self, node: u32) -> Result<(), LabError> {
        self.route(&Route::through(node))
    }
}

/// Moves client and server of a lab by its name.
pub fn reroute(name: &str, via: &[String]) -> Result<Route, LabError> {
    require_root()?;
    let plan = removal::existing(name)?;
    let via = via.iter().map(|text| node_number(&plan, text)).collect::<Result<Vec<_>, _>>()?;
    let route = Route::of_list(recorded(&plan)?, &via)?;
    set(&plan, &route)?;
    Ok(route)
}

pub(super) fn set(plan: &Plan, route: &Route) -> Result<(), LabError> {
    route_host(&plan.links[0], &route.out)?;
    route_host(&plan.links[1], &route.back)
}

/// Routes a host towards nodes; the first link of a host carries its default route.
pub(super) fn route_host(link: &Link, nodes: &[u32]) -> Result<(), LabError> {
    let host = Netns::new(&link.host_netns);
    let metric = if link.port == "inside2" { 200 } else { 100 };
    let ifname = link.host_ifname;
    for (family, address) in [
        ("", Link::node_ipv4 as fn(&Link, u32) -> String),
        ("-6", Link::node_ipv6 as fn(&Link, u32) -> String),
    ] {
        let hop = |word: &str, node: &u32| format!("{word} via {} dev {ifname}", address(link, *node));
        let hops = match nodes {
            [node] => hop("", node),
            _ => nodes.iter().map(|node| hop(" nexthop", node)).collect(),
        };
        host.ip(&format!("{family} route replace default metric {metric} {hops}"))?;
    }
    Ok(())
}

/// Lets a host choose among several next hops by addresses and ports.
pub(super) fn hash_by_layer_4(host: &Netns) -> Result<(), LabError> {
    host.set_sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    host.set_sysctl("net/ipv6/fib_multipath_hash_policy", "1")
}

/// Notes a lab's routing for those who move its traffic later.
pub(super) fn record(plan: &Plan, routing: Routing) -> Result<(), LabError> {
    write_file(&record_path(plan), routing.name())
}

fn recorded(plan: &Plan) -> Result<Routing, LabError> {
    let name = read_file(&record_path(plan))?;
    Routing::ALL
        .into_iter()
        .find(|routing| routing.name() == name)
        .ok_or_else(|| LabError::Check(format!("lab {}: no such routing: {name}", plan.name)))
}

fn record_path(plan: &Plan) -> PathBuf {
    plan.dir.join("routing")
}

/// A node of a lab by its name or number.
fn node_number(plan: &Plan, text: &str) -> Result<u32, LabError> {
    match member_number(plan, text) {
        Some(WITNESS) | None => Err(LabError::BadOption {
            option: "via",
            reason: format!("{text:?} is no node of lab {}: write node1 or 1", plan.name),
        }),
        Some(node) => Ok(node),
    }
}

/// A member by its name or number, if the lab has it.
pub(super) fn member_number(plan: &Plan, text: &str) -> Option<u32> {
    let is_meant = |name: &str, number: u32| name == text || number.to_string() == text;
    let found = plan.members().find(|member| is_meant(&member.name, member.number))?;
    Netns::new(&found.netns).exists().then_some(found.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a list moves other hosts than it says.
    #[test]
    fn a_list_means_what_the_labs_routing_makes_of_it() {
        let of = |routing, via: &[u32]| Route::of_list(routing, via).ok();
        for routing in Routing::ALL {
            assert_eq!(of(routing, &[2]), Some(Route::through(2)));
            assert_eq!(of(routing, &[]), None);
        }
        assert_eq!(of(Routing::Single, &[1, 2]), Some(Route::split(1, 2)));
        assert_eq!(of(Routing::Asymmetric, &[3, 2]), Some(Route::split(3, 2)));
        assert_eq!(of(Routing::Ecmp, &[1, 3]), Some(Route::spread(&[1, 3])));
        assert_eq!(of(Routing::Ecmp, &[1, 2, 3]), Some(Route::spread(&[1, 2, 3])));
        assert_eq!(of(Routing::Single, &[1, 2, 3]), None);
    }
}
