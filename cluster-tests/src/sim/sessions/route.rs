//! Through which node a packet goes: what routers around the nodes decide, and change.

use super::flows::Flow;
use crate::sim::rng::{Rng, mix};

/// How packets are led.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Routing {
    /// All through one.
    Single(usize),
    /// What goes up through the first, what comes down through the second.
    Asymmetric(usize, usize),
    /// Each direction of each flow through one of them, by a hash.
    Ecmp(Vec<usize>, u64),
    /// Each packet through any of them.
    Spray(Vec<usize>),
}

impl Routing {
    /// Another one over these nodes; at least one.
    pub(super) fn any(nodes: &[usize], rng: &mut Rng) -> Self {
        let one = |rng: &mut Rng| rng.pick(nodes).copied().unwrap_or_default();
        match rng.range(0, 10) {
            0..3 => Routing::Single(one(rng)),
            3..6 => Routing::Asymmetric(one(rng), one(rng)),
            6..9 => Routing::Ecmp(nodes.to_vec(), rng.next()),
            _ => Routing::Spray(nodes.to_vec()),
        }
    }

    /// Where a packet goes.
    pub(super) fn node(&self, flow: &Flow, up: bool, rng: &mut Rng) -> usize {
        let nth = |nodes: &[usize], n: u64| nodes.get(n as usize % nodes.len().max(1)).copied();
        match self {
            Routing::Single(node) => *node,
            Routing::Asymmetric(to, from) => *if up { to } else { from },
            Routing::Ecmp(nodes, key) => {
                let (client, server) = (flow.ends.client, flow.ends.server);
                let ports = u64::from(client.1) << 16 | u64::from(server.1);
                let host = u64::from(u32::from_be_bytes(client.0));
                nth(nodes, mix(key ^ ports ^ mix(host) ^ u64::from(up))).unwrap_or_default()
            }
            Routing::Spray(nodes) => nth(nodes, rng.next()).unwrap_or_default(),
        }
    }
}
