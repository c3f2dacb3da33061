//! How the lab's traffic is moved, and trouble made on its sync link. A test that fails here says nothing about the
//! product: the kernel forwards.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tidegate_lab::lab::link::{Change, Report};
use tidegate_lab::lab::{Member, Route, Routing};
use tidegate_lab::sys::{ProcessId, Stop};
use tidegate_lab::traffic::{
    Churn, Streams, Trickle, TrickleFlow, UdpEcho, paced_churn, snmp_value, udp_flows,
};

use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, kernel_lab};

/// Datagrams that a node's kernel has forwarded, IPv4 and IPv6.
fn forwarded(member: Member<'_>) -> [u64; 2] {
    let ipv4 = snmp_value(&member.netns().proc_net("snmp").unwrap(), "Ip", "ForwDatagrams").unwrap();
    let snmp6 = member.netns().proc_net("snmp6").unwrap();
    let ipv6 = snmp6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")).unwrap();
    [ipv4, ipv6.trim().parse().unwrap()]
}

/// How much each node forwards of 200 answered flows over IPv4, and of as many over IPv6.
fn shares(lab: &TestLab) -> Vec<[u64; 2]> {
    let before: Vec<_> = lab.members().map(forwarded).collect();
    for address in [lab.server_v4(7), lab.server_v6(7)] {
        let _echo = UdpEcho::start(&lab.server(), address).unwrap();
        let answered = udp_flows(&lab.client(), address, 20_000..20_200, TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), 200, "{address}");
    }
    let after = lab.members().map(forwarded);
    after.zip(before).map(|(after, before)| [after[0] - before[0], after[1] - before[1]]).collect()
}

/// Red when a host does not spread its flows (the hash is of addresses only), or spreads them over a node that is not
/// named.
#[test]
fn with_ecmp_flows_are_spread_over_the_nodes_that_are_named() {
    let lab = kernel_lab("ecmp", |spec| (spec.nodes, spec.routing) = (3, Routing::Ecmp));
    let all = shares(&lab);
    assert!(all.iter().flatten().all(|share| *share > 60), "{all:?}");
    lab.route(&Route::spread(&[1, 3])).unwrap();
    let two = shares(&lab);
    assert!(two[0].iter().chain(&two[2]).all(|share| *share > 100) && two[1] == [0, 0], "{two:?}");
    lab.route_via(2).unwrap();
    let one = shares(&lab);
    assert!(one[1].iter().all(|share| *share >= 400), "{one:?}");
    assert_eq!((one[0], one[2]), ([0, 0], [0, 0]), "a next hop of before is still used");
}

/// Red when answers come back the way that the requests took.
#[test]
fn with_asymmetric_routes_answers_take_another_way() {
    let lab = kernel_lab("asym", |spec| (spec.nodes, spec.routing) = (3, Routing::Asymmetric));
    let first = shares(&lab);
    assert!(first[..2].iter().flatten().all(|share| (200..400).contains(share)), "{first:?}");
    assert_eq!(first[2], [0, 0], "{first:?}");
    lab.route(&Route::split(3, 1)).unwrap();
    let moved = shares(&lab);
    assert!(moved[0].iter().chain(&moved[2]).all(|share| (200..400).contains(share)), "{moved:?}");
    assert_eq!(moved[1], [0, 0], "{moved:?}");
}

/// Sends numbered datagrams from the first node to the second over the sync segment and returns what arrives, in its
/// order. Afterwards the segment is whole.
fn send(lab: &TestLab, count: u32) -> (Vec<Vec<u8>>, Report) {
    let bind = |node: u32| {
        let address: SocketAddr = format!("10.90.0.{node}:7399").parse().unwrap();
        lab.at(node).netns().run(|| UdpSocket::bind(address)).unwrap().unwrap()
    };
    let (sender, receiver) = (bind(1), bind(2));
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let to = receiver.local_addr().unwrap();
    let number = |number: u32| [&number.to_be_bytes()[..], &[0; 28]].concat();
    let mut arrived = Vec::new();
    let mut buffer = [0; 64];
    let mut drain = |patience: Duration| {
        receiver.set_read_timeout(Some(patience)).unwrap();
        while let Ok(length) = receiver.recv(&mut buffer) {
            if buffer[..length] == *b"end" {
                return true;
            }
            arrived.push(buffer[..length].to_vec());
        }
        false
    };
    for n in 0..count {
        sender.send_to(&number(n), to).unwrap();
        drain(Duration::from_micros(100));
    }
    let report = lab.heal_links().unwrap();
    eventually("the end arrives", PATIENCE, || {
        sender.send_to(b"end", to).unwrap();
        drain(Duration::from_millis(200)).then_some(())
    });
    // What was held back is not behind the end for longer than this.
    drain(Duration::from_millis(200));
    (arrived, report)
}

fn numbers(arrived: &[Vec<u8>]) -> Vec<u32> {
    arrived.iter().filter_map(|one| Some(u32::from_be_bytes(*one.first_chunk()?))).collect()
}

/// Red when the relay loses, doubles, changes or swaps what it is not told to, does not do what it is told, or a second
/// order undoes the first.
#[test]
fn each_trouble_on_the_sync_link_is_what_was_asked_for() {
    let lab = kernel_lab("link", |spec| spec.nodes = 3);
    lab.heal_links().unwrap();
    let (good, _) = send(&lab, 500);
    assert!(numbers(&good).into_iter().eq(0..500), "a healthy relay changes nothing");

    lab.link(1, 2, Change { loss_pct: Some(30.0), ..Change::NOTHING }).unwrap();
    let (lost, report) = send(&lab, 1000);
    assert!((550..850).contains(&lost.len()), "{}", lost.len());
    let way = report.way("node1", "node2").unwrap();
    assert!((150..450).contains(&way.lost) && way.overflowed == 0, "{way:?}");

    // Both at once, in two orders.
    lab.link(1, 2, Change { duplicate_pct: Some(100.0), ..Change::NOTHING }).unwrap();
    lab.link_one_way(1, 2, Change { reorder_pct: Some(30.0), ..Change::NOTHING }).unwrap();
    let (twice, _) = send(&lab, 300);
    let mut seen = numbers(&twice);
    assert!(!seen.is_sorted(), "some overtake others");
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..300).flat_map(|number| [number, number])), "each came twice");

    lab.link(1, 2, Change { corrupt_pct: Some(100.0), ..Change::NOTHING }).unwrap();
    let (changed, _) = send(&lab, 200);
    assert_eq!(changed.len(), 200, "receivers' kernels drop none");
    let bits = |one: &Vec<u8>, number: u32| -> u32 {
        let sent = [&number.to_be_bytes()[..], &[0; 28]].concat();
        one.iter().zip(sent).map(|(a, b)| (a ^ b).count_ones()).sum()
    };
    assert!(changed.iter().zip(0..).all(|(one, number)| bits(one, number) == 1), "one bit of each");
}

/// Red when frames come early, or a cut of one way cuts the other, or a third member is concerned.
#[test]
fn delay_and_cuts_concern_the_ways_that_are_named() {
    let lab = kernel_lab("cut", |spec| (spec.nodes, spec.routing) = (3, Routing::Ecmp));
    lab.link(1, 2, Change { delay_ms: Some(50.0), ..Change::NOTHING }).unwrap();
    let ping = |from: u32, to: &str| {
        let output =
            lab.at(from).netns().command("ping").args(["-n", "-c3", "-i0.2", "-W20", to]).output().unwrap();
        assert!(output.status.success(), "{from} to {to}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let times = text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = ")).unwrap();
        times.split('/').next().unwrap().parse::<f64>().unwrap()
    };
    for address in ["10.90.0.2", "fd90::2"] {
        assert!(ping(1, address) >= 100.0, "50 ms there and 50 ms back");
    }
    ping(1, "10.90.0.3");
    let to_third = lab.heal_links().unwrap();
    assert_eq!(to_third.way("node1", "node3").unwrap().impairment.delay_ms, 0.0);

    lab.link_one_way(1, 2, Change::CUT).unwrap();
    let (none, report) = send(&lab, 100);
    assert_eq!(none.len(), 0);
    assert!(report.way("node1", "node2").unwrap().cut_off >= 100);
    assert_eq!(report.way("node2", "node1").unwrap().cut_off, 0);
}

/// Red when the tests' own connections, trickles or paced connections fail without anything of the product.
#[test]
fn long_lived_traffic_survives_moves_through_kernels_that_hold_no_state() {
    let lab = kernel_lab("long", |spec| spec.nodes = 2);
    let (client, server) = (lab.client(), lab.server());
    let streams =
        Streams::open(&client, &server, lab.server_v4(7000), 50, Duration::from_millis(50)).unwrap();
    let flow = |number: u16| TrickleFlow {
        client_port: 30_000 + number,
        server_port: 7_100 + number % 3,
        every: Duration::from_millis(100),
        phase: Duration::from_millis(u64::from(number)),
    };
    let trickle =
        Trickle::open(&client, &server, lab.server_v4(0).ip(), (0..50).map(flow).collect()).unwrap();
    for node in [2, 1] {
        streams.go_on(PATIENCE).unwrap();
        assert_eq!(trickle.dead(PATIENCE), []);
        lab.route_via(node).unwrap();
    }
    streams.go_on(PATIENCE).unwrap();
    assert!(streams.checked() >= 50 * 3_000 && trickle.sent_least() >= 3);
    let plan = Churn {
        connections: 200,
        concurrency: 8,
        sources: vec![crate::common::ip(&lab.plan().client.ipv4)],
        server: lab.server_v4(0).ip(),
        ports: vec![8000],
    };
    let start = crate::common::now();
    let report = paced_churn(&client, &server, &plan, 200, &Stop::default()).unwrap();
    assert_eq!((report.completed, report.resets), (200, 0), "{:?}", report.errors);
    assert!(start.elapsed() >= Duration::from_millis(990), "no more than 200 a second");
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(arguments)
        .env("TIDEGATE_LAB_BIN", env!("CARGO_BIN_EXE_tidegate-lab"))
        .output()
        .unwrap()
}

/// Red when the verbs do not reach a lab that another process made, when nonsense is taken, or when `down` leaves the
/// relay behind.
#[test]
fn route_and_link_work_on_a_lab_that_is_up_and_down_ends_the_relay() {
    let name = format!("r{}", std::process::id());
    let up =
        tool(&["up", "--forwarder", "kernel", "--name", &name, "--nodes", "2", "--routing", "asymmetric"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let on = |verb: &str, options: &[&str]| {
        let output = tool(&[&[verb, "--name", &name], options].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let moved = on("route", &["--via", "node2"]);
    let routes = Command::new("ip").args(["-n", &format!("tg-{name}-client"), "route"]).output().unwrap();
    let bad_routes = [on("route", &["--via", "node3"]), on("route", &["--via", "1,2,1"])];
    let cut = on("link", &["--between", "node1,2", "--delay", "5", "--cut", "node2-to-node1"]);
    let again = on("link", &["--between", "1,2", "--cut"]);
    let healed = on("link", &["--heal"]);
    let bad_links = [
        on("link", &["--between", "1,3", "--cut"]),
        on("link", &["--between", "1,2", "--cut", "1-to-3"]),
        on("link", &["--between", "1,2", "--loss", "101"]),
        on("link", &["--cut"]),
    ];
    let record = std::fs::read_to_string(Path::new("/run/tidegate-lab").join(&name).join("relay.json"));
    let down = tool(&["down", "--name", &name]);
    assert!(down.status.success());
    assert_eq!(moved.0, Some(0));
    let routes = String::from_utf8(routes.stdout).unwrap();
    assert!(routes.contains("default via 10.81.1.2"), "{routes}");
    assert!(bad_routes.iter().chain(&bad_links).all(|(code, _)| *code == Some(2)), "{bad_links:?}");
    let report = |said: &(Option<i32>, String)| -> Report {
        assert_eq!(said.0, Some(0), "{said:?}");
        serde_json::from_str(&said.1).unwrap()
    };
    let ways = |report: &Report| {
        ["node1", "node2"].map(|from| {
            let to = if from == "node1" { "node2" } else { "node1" };
            let wrong = report.way(from, to).unwrap().impairment;
            (wrong.delay_ms, wrong.cut)
        })
    };
    assert_eq!(ways(&report(&cut)), [(5.0, false), (5.0, true)]);
    assert_eq!(ways(&report(&again)), [(5.0, true), (5.0, true)]);
    assert_eq!(ways(&report(&healed)), [(0.0, false), (0.0, false)]);
    let relay: ProcessId = serde_json::from_str(&record.unwrap()).unwrap();
    assert!(!relay.is_alive(), "{relay:?}");
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains(&name));
}
