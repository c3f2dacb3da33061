//! Fragmented packets between real stacks, in every size and over several workers.

use std::time::Duration;

use tidegate_lab::sys::run_in;
use tidegate_lab::traffic::UdpEcho;

use crate::common::fragments::{asking, echoed, sum};
use crate::common::{PATIENCE, TestLab, eventually, lab};

/// Red when later fragments are dropped, or do not find the worker of their flow: with two workers half of all
/// datagrams would get lost; also when a fragment makes a session of its own.
fn large_datagrams_pass(test: &str, queues: u32) -> TestLab {
    let lab = lab(test, |spec| spec.queues = queues);
    for (server, largest) in [(lab.server_v4(7), 65_507), (lab.server_v6(7), 65_527)] {
        let _echo = UdpEcho::start(&lab.server(), server).unwrap();
        let first_port = if server.is_ipv4() { 20_000 } else { 20_100 };
        for port in first_port..first_port + 16 {
            let socket = asking(&lab, server, port);
            // The first finds the neighbours.
            for length in [10, 1_473, 3_000, 20_000, largest] {
                echoed(&socket, length).unwrap();
            }
        }
        let sessions = lab.sessions(&["--destination-port", "7", "--protocol", "udp"]).unwrap();
        let family = |s: &&serde_json::Value| s.to_string().contains(&server.ip().to_string());
        assert_eq!(sessions.iter().filter(family).count(), 16, "one session for each source port");
    }
    for reason in ["fragment_untracked", "fragment_overlap", "fragment_timeout", "fragment_queue_full"] {
        assert_eq!(lab.drops(reason).unwrap(), 0, "{reason}");
    }
    let completed = sum(&lab, "tidegate_fragments_datagrams_total", &[("result", "completed")]);
    assert_eq!(completed, 2 * 2 * 16 * 4, "each datagram, both ways, was seen whole");
    assert_eq!(sum(&lab, "tidegate_fragments_in_use_datagrams", &[]), 0);
    lab
}

#[test]
fn large_datagrams_pass_with_one_worker() {
    large_datagrams_pass("frag1", 1);
}

#[test]
fn large_datagrams_pass_with_two_workers() {
    let lab = large_datagrams_pass("frag2", 2);
    for worker in ["0", "1"] {
        let done =
            sum(&lab, "tidegate_fragments_datagrams_total", &[("worker", worker), ("result", "completed")]);
        assert!(done > 50, "worker {worker} checked {done} datagrams: the test did not test");
    }
    let frames = sum(&lab, "tidegate_frames", &[]);
    eventually("all frames are accounted for", PATIENCE, || {
        (sum(&lab, "tidegate_frames", &[]) == frames).then_some(())
    });
}

/// Red when fragments of a ping or of its reply find no session.
#[test]
fn large_pings_pass() {
    let lab = lab("fragping", |spec| spec.queues = 2);
    for (family, address) in [("-4", &lab.plan().server.ipv4), ("-6", &lab.plan().server.ipv6)] {
        // The small ones find the neighbours: what waits for one is bounded below a datagram of this size.
        for size in ["10", "60000"] {
            let arguments = [family, "-n", "-c", "5", "-i", "0.2", "-W", "20", "-s", size, address.as_str()];
            let output = run_in(Some(&lab.client()), "ping", &arguments).unwrap();
            assert!(output.stdout.contains("5 received"), "{}{}", output.stdout, output.stderr);
        }
    }
}

/// A lab whose link to the server carries 1,280 bytes, the least that IPv6 allows.
fn narrow(test: &str) -> TestLab {
    let lab = lab(test, |_| ());
    lab.node().ip("link set inside mtu 1280").unwrap();
    lab.server().ip("link set eth0 mtu 1280").unwrap();
    eventually("the node has the new MTU", PATIENCE, || {
        let ports = lab.json(&["port", "list"]).unwrap();
        ports["ports"].as_array().unwrap().iter().any(|port| port["mtu"] == 1280).then_some(())
    });
    lab
}

/// Red when IPv4 fragments that do not fit the next link are dropped instead of cut again.
#[test]
fn fragments_are_cut_again_for_a_smaller_mtu() {
    let lab = narrow("fragmtu");
    // Without path MTU discovery the kernel sends without the don't-fragment bit.
    lab.client().set_sysctl("net/ipv4/ip_no_pmtu_disc", "1").unwrap();
    let server = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let socket = asking(&lab, server, 4_000);
    echoed(&socket, 10).unwrap();
    // The workers hear of the MTU a moment after the node has it.
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    eventually("the workers have the new MTU", PATIENCE, || echoed(&socket, 1_400).ok());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for length in [9_000, 40_000] {
        // What was asked twice may be answered twice.
        eventually("the answer", PATIENCE, || echoed(&socket, length).ok());
    }
    assert!(sum(&lab, "tidegate_fragmented_packets_total", &[]) > 30);
}

/// Red when nobody tells the sender of IPv6 fragments that they are too big: it would never send smaller ones.
#[test]
fn the_sender_of_ipv6_fragments_learns_the_mtu() {
    let lab = narrow("fragptb");
    let server = lab.server_v6(7);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let socket = asking(&lab, server, 4_000);
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    eventually("the neighbours are known", PATIENCE, || echoed(&socket, 10).ok());
    eventually("smaller fragments come", PATIENCE, || echoed(&socket, 20_000).ok());
    assert!(lab.drops("too_big").unwrap() > 10, "nothing was too big: the test did not test");
}
