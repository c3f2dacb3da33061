//! It is the dataplane that forwards, and when it is gone nothing does.

use std::time::Duration;

use tidegate_lab::lab::set_kernel_forwarding;
use tidegate_lab::sys::{Netns, Stop, run_in};
use tidegate_lab::traffic::{
    Churn, Numbered, TcpEcho, UdpEcho, churn, connect, exchange, snmp_value, udp_flows,
};

use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, ip, lab};

/// Red when the XDP program passes transit to the kernel and kernel forwarding is on: the kernel's counters of
/// forwarded datagrams move. Red when the node leaves kernel forwarding on: the sysctls say so.
#[test]
fn the_dataplane_forwards_and_the_kernel_does_not() {
    let lab = lab("plane", |_| ());
    let node = lab.node();
    for ifname in ["all", "default", "outside", "inside"] {
        for family in ["ipv4", "ipv6"] {
            let key = format!("net/{family}/conf/{ifname}/forwarding");
            assert_eq!(node.sysctl(&key).unwrap(), "0", "{key}");
        }
    }
    let before = kernel_forwarded(&node);
    let received_before = received(&lab);
    for server in [lab.server_v4(7), lab.server_v6(7)] {
        let _echo = UdpEcho::start(&lab.server(), server).unwrap();
        let answered = udp_flows(&lab.client(), server, 20_000..20_200, TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), 200, "{server}");
        let source = if server.is_ipv4() { &lab.plan().client.ipv4 } else { &lab.plan().client.ipv6 };
        let plan = Churn {
            connections: 200,
            concurrency: 8,
            sources: vec![ip(source)],
            server: server.ip(),
            ports: vec![8000, 8001],
        };
        let report = churn(&lab.client(), &lab.server(), &plan, &Stop::default()).unwrap();
        assert_eq!(report.failed, 0, "{:?}", report.errors);
    }
    assert_eq!(kernel_forwarded(&node), before, "the kernel forwarded something");
    // 400 echoes of two datagrams, 400 connections of at least eight segments.
    eventually("the ports have seen the traffic", PATIENCE, || {
        (received(&lab) - received_before >= 400 * 2 + 400 * 8).then_some(())
    });
}

/// Red without the XDP program that outlives the process: then, with kernel forwarding forced on, numbered
/// datagrams arrive that were sent after the process was reaped. Red when that program drops what is for the
/// node: ARP and ping fail. Red when a restart trips over the leftover program or an old socket.
#[test]
fn kill_9_forwards_nothing_and_a_restart_forwards_again() {
    let mut lab = lab("kill", |_| ());
    let (client, server, node) = (lab.client(), lab.server(), lab.node());
    let every = Duration::from_millis(1);
    let flows = [
        Numbered::start(&client, &server, lab.server_v4(4000), every).unwrap(),
        Numbered::start(&client, &server, lab.server_v6(4000), every).unwrap(),
    ];
    let to_client = (ip(&lab.plan().client.ipv4), 4001).into();
    let back = Numbered::start(&server, &client, to_client, every).unwrap();
    for flow in &flows {
        assert!(flow.wait_arrival(PATIENCE).is_some(), "nothing arrives before the kill");
    }

    lab.daemon().unwrap().kill().unwrap();
    let reaped_at: Vec<u64> = flows.iter().map(Numbered::next).collect();
    let nothing_arrived = |when: &str| {
        for (flow, number) in flows.iter().zip(&reaped_at) {
            let from = flow.next();
            eventually("the sender goes on", PATIENCE, || (flow.next() > from + 500).then_some(()));
            assert_eq!(flow.arrived_since(*number), 0, "sent after the process was reaped, arrived {when}");
        }
        assert_eq!(back.arrived(), 0, "from the server, {when}");
    };
    crate::common::pause(Duration::from_millis(500));
    nothing_arrived("with kernel forwarding off");
    set_kernel_forwarding(&node, true).unwrap();
    crate::common::pause(Duration::from_millis(500));
    nothing_arrived("with kernel forwarding forced on");
    node_answers(&lab);
    set_kernel_forwarding(&node, false).unwrap();

    lab.restart(&Stop::default()).unwrap();
    for flow in &flows {
        assert!(flow.wait_arrival(PATIENCE).is_some(), "a restart does not forward");
    }
    for address in [lab.server_v4(7000), lab.server_v6(7000)] {
        let _echo = TcpEcho::start(&server, address).unwrap();
        let mut stream = connect(&client, address, PATIENCE).unwrap();
        exchange(&mut stream, b"after the restart", PATIENCE).unwrap();
    }
}

/// ARP, neighbour discovery and ping to the node itself, from both sides, with forgotten neighbours.
fn node_answers(lab: &TestLab) {
    let gateways = &lab.plan().gateways;
    for (host, gateway) in [(lab.client(), &gateways.outside), (lab.server(), &gateways.inside)] {
        host.ip("neigh flush dev eth0").unwrap();
        for address in [&gateway.ipv4, &gateway.ipv6] {
            let ping = run_in(Some(&host), "ping", &["-c", "2", "-i", "0.2", "-W", "10", address]).unwrap();
            assert!(ping.success, "{} does not reach {address}: {}", host.name(), ping.stdout);
        }
    }
}

/// Datagrams that the kernel of a namespace has forwarded, IPv4 and IPv6.
fn kernel_forwarded(node: &Netns) -> (u64, u64) {
    let snmp = node.proc_net("snmp").unwrap();
    let snmp6 = node.proc_net("snmp6").unwrap();
    let ipv6 = snmp6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")?.trim().parse().ok());
    (snmp_value(&snmp, "Ip:", "ForwDatagrams").unwrap(), ipv6.unwrap())
}

fn received(lab: &TestLab) -> u64 {
    let list = lab.json(&["port", "list"]).unwrap();
    list["ports"].as_array().unwrap().iter().map(|port| port["rx_packets"].as_u64().unwrap()).sum()
}
