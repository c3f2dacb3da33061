//! What a router says back: time exceeded, packet too big, and fragments where they are allowed.

use std::net::UdpSocket;
use std::time::Duration;

use tidegate_lab::sys::{Netns, run_in};
use tidegate_lab::traffic::{TcpEcho, connect, exchange};

use crate::common::{PATIENCE, TestLab, eventually, lab};

fn ping(netns: &Netns, arguments: &str) -> String {
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let output = run_in(Some(netns), "ping", &arguments).unwrap();
    output.stdout + &output.stderr
}

/// Red when a packet whose hop limit runs out is dropped in silence, or answered from an address that is not the
/// node's on that side: traceroute shows a star.
#[test]
fn time_exceeded_names_the_node_as_the_first_hop() {
    let lab = lab("ttl", |_| ());
    let plan = lab.plan();
    let v4 = ping(&lab.client(), &format!("-n -c 1 -t 1 -W 20 {}", plan.server.ipv4));
    let from = format!("From {}", plan.gateways.outside.ipv4);
    assert!(v4.contains(&from) && v4.contains("Time to live exceeded"), "{v4}");
    let v6 = ping(&lab.client(), &format!("-6 -n -c 1 -t 1 -W 20 {}", plan.server.ipv6));
    let from = format!("From {}", plan.gateways.outside.ipv6);
    assert!(v6.contains(&from) && v6.contains("Hop limit"), "{v6}");
    let through = ping(&lab.client(), &format!("-n -c 1 -t 2 -W 20 {}", plan.server.ipv4));
    assert!(through.contains("ttl=63"), "one hop takes one: {through}");
}

/// A lab whose link to the server carries 1,400 bytes.
fn narrow(test: &str) -> TestLab {
    let lab = lab(test, |_| ());
    lab.node().ip("link set inside mtu 1400").unwrap();
    lab.server().ip("link set eth0 mtu 1400").unwrap();
    // The server claims to take 1,500 bytes all the same: only the node's answer tells the client otherwise.
    let plan = lab.plan();
    let (v4, v6) = (&plan.gateways.inside.ipv4, &plan.gateways.inside.ipv6);
    lab.server().ip(&format!("route replace default via {v4} dev eth0 metric 100 advmss 1460")).unwrap();
    lab.server().ip(&format!("-6 route replace default via {v6} dev eth0 metric 100 advmss 1440")).unwrap();
    eventually("the node has the new MTU", PATIENCE, || {
        let ports = lab.json(&["port", "list"]).unwrap();
        ports["ports"].as_array().unwrap().iter().any(|port| port["mtu"] == 1400).then_some(())
    });
    lab
}

/// Red when what does not fit is dropped in silence, or the MTU in the answer is wrong: ping does not learn it.
#[test]
fn too_big_tells_the_mtu_of_the_next_link() {
    let lab = narrow("big");
    let plan = lab.plan();
    let (outside, server) = (&plan.gateways.outside, &plan.server);
    for (family, size, from, to, says) in [
        ("-4", 1450, &outside.ipv4, &server.ipv4, "mtu = 1400"),
        ("-6", 1440, &outside.ipv6, &server.ipv6, "mtu=1400"),
    ] {
        // The workers hear of the MTU a moment after the node has it: until then nobody answers.
        let said = eventually("an answer", PATIENCE, || {
            let said = ping(&lab.client(), &format!("{family} -n -c 1 -W 3 -M do -s {size} {to}"));
            said.contains("From").then_some(said)
        });
        assert!(said.contains(from) && said.contains(says), "{said}");
    }
}

/// Red when the answer does not reach the sending TCP: it sends the same large segment until it gives up.
#[test]
fn tcp_finds_the_path_mtu() {
    let lab = narrow("pmtu");
    for address in [lab.server_v4(7000), lab.server_v6(7000)] {
        let _echo = TcpEcho::start(&lab.server(), address).unwrap();
        let mut stream = connect(&lab.client(), address, PATIENCE).unwrap();
        exchange(&mut stream, &[0x42; 30_000], PATIENCE).unwrap();
    }
    assert!(lab.drops("too_big").unwrap() >= 2, "nothing was too big: the test did not test");
}

/// Red when a router does not fragment what may be fragmented (RFC 791), or makes fragments that do not fit
/// together: the large datagram does not arrive.
#[test]
fn datagrams_that_may_be_fragmented_are() {
    let lab = narrow("frag");
    let server = lab.server_v4(7);
    let receiver = lab.server().run(|| UdpSocket::bind(server)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // Without path MTU discovery the kernel sends without the don't-fragment bit.
    lab.client().set_sysctl("net/ipv4/ip_no_pmtu_disc", "1").unwrap();
    let datagram: Vec<u8> = (0..1450u16).map(|number| number as u8).collect();
    let sender = lab.client().run(|| UdpSocket::bind("0.0.0.0:4000")).unwrap().unwrap();
    let mut buffer = [0; 2000];
    // The workers hear of the MTU a moment after the node has it: until then it is lost.
    let length = eventually("the datagram arrives", PATIENCE, || {
        sender.send_to(&datagram, server).unwrap();
        receiver.recv(&mut buffer).ok()
    });
    assert_eq!(&buffer[..length], datagram);
}
