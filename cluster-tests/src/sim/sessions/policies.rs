//! The policies that the nodes are given, one revision after the other. Each names things in another
//! order, so that the numbers that stand for names differ from node to node.

use super::flows::Kind;
use super::frame::{INSIDE, OUTSIDE, hop_mac, port_mac};
use std::sync::Arc;
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::policy::{self, Policy};
use tidegate_dataplane::route::{NextHop, PortInfo, Route, Snapshot, SnapshotBuilder};

/// Longest that a handshake and a close may be idle, in microseconds (J4, J6).
pub(super) const INITIAL: u64 = 4_000_000;

/// A policy by its revision; every other may deny what is shifty.
pub(super) fn text(revision: u32, denies: bool) -> String {
    let mut out = format!(
        "[tcp]\ninitial_timeout = {}\ntime_wait = 2\n[[zone]]\nname = \"outside\"\n[[zone]]\nname = \"inside\"\n",
        INITIAL / 1_000_000
    );
    let kinds = Kind::ALL;
    let turned = (0..kinds.len()).map(|n| kinds[(n + revision as usize) % kinds.len()]);
    if !revision.is_multiple_of(3) {
        out.push_str("[[application]]\nname = \"filler-");
        out.push_str(&format!(
            "{revision}\"\nprotocol = \"udp\"\ndestination_port = {}\n",
            20_000 + revision
        ));
    }
    for kind in turned.clone() {
        let (protocol, seconds) = (if kind.is_tcp() { "tcp" } else { "udp" }, kind.timeout() / 1_000_000);
        out.push_str(&format!(
            "[[application]]\nname = \"{kind:?}\"\nprotocol = \"{protocol}\"\ndestination_port = {}\n\
             inactivity_timeout = {seconds}\n",
            kind.port(),
        ));
    }
    for kind in turned {
        let action = if denies && kind == Kind::Shifty { "deny" } else { "permit" };
        // Who may open from both sides may open from any zone.
        let (from, to) = if kind == Kind::Both { ("any", "any") } else { ("outside", "inside") };
        out.push_str(&format!(
            "[[rule]]\nname = \"{kind:?}-{}\"\nfrom = \"{from}\"\nto = \"{to}\"\nsource = [\"any\"]\n\
             destination = [\"any\"]\napplication = [\"{kind:?}\"]\naction = \"{action}\"\n",
            revision % 3,
        ));
    }
    out
}

/// The same, compiled with a node's own numbers for names.
pub(super) fn compile(revision: u32, denies: bool, names: &mut Names) -> Result<Arc<Policy>, String> {
    let report = policy::check(&text(revision, denies), "sim.toml");
    let file = report.file.ok_or_else(|| format!("the simulation's policy: {:?}", report.errors))?;
    let compiled = policy::compile(&file, revision, names);
    compiled.map(Arc::new).map_err(|error| format!("the simulation's policy: {error:?}"))
}

/// Every node's ways: one next hop towards the clients, one towards the servers.
pub(super) fn routes(names: &Names) -> Result<Arc<Snapshot>, String> {
    let mut b = SnapshotBuilder::new(1);
    let addr = |host: [u8; 4]| Addr::from(std::net::IpAddr::from(host));
    for (id, name, net) in [(OUTSIDE, "outside", 1), (INSIDE, "inside", 2)] {
        b.port(PortInfo {
            id,
            name: name.into(),
            mac: Mac(port_mac(id)),
            mtu: 1500,
            up: true,
            zone: names.find_zone(name),
            ipv4: Some(addr([10, net, 255, 1])),
            ipv6: None,
            partial_checksums: false,
        });
        b.local(addr([10, net, 255, 1]));
        let hop = addr([10, net, 255, 2]);
        b.neighbour(id, hop, Mac(hop_mac(id)));
        let way = NextHop { port: Some(id), gateway: Some(hop), weight: 1, mtu: None };
        let prefix = format!("10.{net}.0.0/16").parse().map_err(|e| format!("{e}"))?;
        b.route(prefix, Route::Via(vec![way]));
    }
    Ok(Arc::new(b.build()))
}
