//! The kernel beside us: neighbours and routes that change under a flow are followed.

use std::time::Duration;

use tidegate_lab::sys::Netns;
use tidegate_lab::traffic::{Numbered, TcpEcho, connect, exchange};

use crate::common::{PATIENCE, TestLab, eventually, lab};

const EVERY: Duration = Duration::from_millis(2);

fn flows(lab: &TestLab) -> [Numbered; 2] {
    let flows = [
        Numbered::start(&lab.client(), &lab.server(), lab.server_v4(4000), EVERY).unwrap(),
        Numbered::start(&lab.client(), &lab.server(), lab.server_v6(4000), EVERY).unwrap(),
    ];
    for flow in &flows {
        assert!(flow.wait_arrival(PATIENCE).is_some(), "nothing arrives at the start");
    }
    flows
}

fn follows(flows: &[Numbered], what: &str) {
    for (flow, family) in flows.iter().zip(["IPv4", "IPv6"]) {
        assert!(flow.wait_arrival(PATIENCE).is_some(), "{family}: {what} was not followed");
    }
}

/// Red when a session keeps the MAC that it was set up with: frames go to a MAC that nobody has.
#[test]
fn a_neighbour_that_announces_its_new_mac_is_followed() {
    let lab = lab("mac", |_| ());
    let server = lab.server();
    server.set_sysctl("net/ipv4/conf/eth0/arp_notify", "1").unwrap();
    server.set_sysctl("net/ipv6/conf/eth0/ndisc_notify", "1").unwrap();
    let flows = flows(&lab);
    for number in 1..=5 {
        server.ip(&format!("link set eth0 address 02:00:00:00:81:0{number}")).unwrap();
        follows(&flows, &format!("MAC change {number}"));
    }
}

/// Red when nobody asks the kernel to check a neighbour that is in use: the silent change is never noticed.
#[test]
fn a_neighbour_that_changes_its_mac_in_silence_is_found_again() {
    let lab = lab("silent", |_| ());
    for family in ["ipv4", "ipv6"] {
        for (key, value) in [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1")] {
            lab.node().set_sysctl(&format!("net/{family}/neigh/inside/{key}"), value).unwrap();
        }
    }
    let flows = flows(&lab);
    lab.server().ip("link set eth0 address 02:00:00:00:81:99").unwrap();
    follows(&flows, "a silent MAC change");
}

/// Red when a session keeps the egress port that it was set up with: after the route moved, packets still leave
/// through the old port.
#[test]
fn a_route_that_changes_under_a_flow_is_followed() {
    let lab = lab("route", |spec| spec.second_path = true);
    let (node, server) = (lab.node(), lab.server());
    // Addresses behind the server, reached by way of either link.
    server.ip("address add 10.81.9.9/32 dev lo").unwrap();
    server.ip("address add fd81:9::9/128 dev lo").unwrap();
    let routes = |subnet: u32, port: &str| {
        node.ip(&format!("route replace 10.81.9.9/32 via 10.81.{subnet}.10 dev {port}")).unwrap();
        node.ip(&format!("-6 route replace fd81:9::9/128 via fd81:{subnet}::10 dev {port}")).unwrap();
    };
    routes(2, "inside");
    let v4 = "10.81.9.9:7000".parse().unwrap();
    let v6 = "[fd81:9::9]:7000".parse().unwrap();
    let _echoes = [TcpEcho::start(&server, v4).unwrap(), TcpEcho::start(&server, v6).unwrap()];
    // The node hears of a route a moment after the kernel has it.
    let mut streams = [v4, v6].map(|address| {
        eventually("a connection", PATIENCE, || connect(&lab.client(), address, PATIENCE).ok())
    });
    for (turn, (subnet, port, ifname)) in
        [(2, "inside", "eth0"), (3, "inside2", "eth1"), (2, "inside", "eth0"), (3, "inside2", "eth1")]
            .into_iter()
            .enumerate()
    {
        routes(subnet, port);
        for stream in &mut streams {
            eventually(&format!("turn {turn}: traffic on {ifname}"), PATIENCE, || {
                let before = received(&server, ifname);
                for _ in 0..20 {
                    exchange(stream, b"which way", PATIENCE).unwrap();
                }
                (received(&server, ifname) >= before + 20).then_some(())
            });
        }
    }
}

/// Packets that an interface has received.
fn received(netns: &Netns, ifname: &str) -> u64 {
    let table = netns.proc_net("dev").unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{ifname}:"))).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
