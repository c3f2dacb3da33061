//! Packets that wait for other nodes: answers that are faster than their session (parking), and first packets that
//! are let go once other nodes hold their session (`setup_ack`).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use tidegate_lab::lab::link::Change;
use tidegate_lab::lab::{DEFAULT_POLICY, Member, Routing};
use tidegate_lab::traffic::{TcpEcho, UdpEcho, connect, exchange, udp_flows};

use crate::common::cluster::apply;
use crate::common::repl::{replicating, wait_in_sync, wait_verified};
use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, now};

/// UDP ports of the server whose flows wait for no node, for one, and for all.
const NONE: u16 = 7200;
const ONE: u16 = 7201;
const ALL: u16 = 7202;
/// Flows of each part of a test.
const FLOWS: u16 = 20;
/// How long first packets wait at most.
const HELD: Duration = Duration::from_millis(3_000);

/// The lab's policy, with the choices above and a long time for early packets.
fn policy(on_timeout: &str) -> String {
    let rule = |port: u16, ack: &str| {
        format!(
            "[[application]]\nname = \"wait-{ack}\"\nprotocol = \"udp\"\ndestination_port = {port}\n\n\
             [[rule]]\nname = \"wait-{ack}\"\nfrom = \"outside\"\nto = \"inside\"\nsource = \"any\"\n\
             destination = \"any\"\napplication = \"wait-{ack}\"\naction = \"permit\"\nsetup_ack = \"{ack}\"\n\n"
        )
    };
    let settings = format!(
        "[replication]\npark_ms = 1000\nsetup_ack_timeout_ms = {}\nsetup_ack_on_timeout = \"{on_timeout}\"\n",
        HELD.as_millis()
    );
    let text = DEFAULT_POLICY.replace("[replication]\n", &settings);
    assert_ne!(text, DEFAULT_POLICY);
    let (head, tail) = text.split_at(text.rfind("[[rule]]").unwrap());
    format!("{head}{}{}{tail}", rule(ONE, "one"), rule(ALL, "all"))
}

/// Three nodes: out through node1, back through node2; node3 only holds copies.
fn asymmetric(test: &str) -> (TestLab, [UdpEcho; 3]) {
    let lab = replicating(test, 3, |spec| {
        (spec.routing, spec.policy) = (Routing::Asymmetric, Some(policy("release")));
    });
    let echoes = [NONE, ONE, ALL].map(|port| UdpEcho::start(&lab.server(), lab.server_v4(port)).unwrap());
    // From here on every neighbour is known: nothing waits for one.
    let answered = udp_flows(&lab.client(), lab.server_v4(NONE), flows(0), TRIES, EACH_TRY).unwrap();
    assert_eq!(answered.len(), usize::from(FLOWS));
    (lab, echoes)
}

/// Client ports of one part of a test.
fn flows(part: u16) -> Range<u16> {
    20_000 + 100 * part..20_000 + 100 * part + FLOWS
}

/// Sends one datagram of each flow, and none again; how many were answered, and how long that took.
fn once(lab: &TestLab, to: SocketAddr, part: u16, patience: Duration) -> (usize, Duration) {
    let start = now();
    let answered = udp_flows(&lab.client(), to, flows(part), 1, patience).unwrap();
    (answered.len(), start.elapsed())
}

fn sync_status(member: Member<'_>) -> Value {
    member.json(&["sync", "status"]).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} where a number belongs"))
}

/// What a node counted of packets that waited, since a moment.
struct Waited<'a>(Member<'a>, Value);

impl<'a> Waited<'a> {
    fn at(member: Member<'a>) -> Waited<'a> {
        Waited(member, sync_status(member)["waited_packets"].clone())
    }

    fn since<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let counts = sync_status(self.0)["waited_packets"].clone();
        let metrics = self.0.metrics().unwrap();
        names.map(|name| {
            let count = number(&counts[name]);
            let scraped = metrics.sum("tidegate_waiting_packets_total", &[("result", name)]).unwrap();
            assert!(scraped as u64 >= count, "{name}: {count} in `sync status`, {scraped} in the metrics");
            count - number(&self.1[name])
        })
    }
}

/// Goes red when an answer that overtakes its session is dropped, is not let go when the session comes, or is kept
/// for longer than `park_ms` when it does not; or when `sync status` shows nothing of it.
#[test]
fn answers_that_overtake_their_session_wait_for_it() {
    let (lab, _echoes) = asymmetric("early");
    let (client, udp) = (lab.client(), lab.server_v4(NONE));
    lab.link(1, 2, Change { delay_ms: Some(150.0), ..Change::NOTHING }).unwrap();
    let at_2 = Waited::at(lab.at(2));
    let (answered, _) = once(&lab, udp, 1, PATIENCE);
    assert_eq!(answered, usize::from(FLOWS), "each was sent once");
    let address = lab.server_v4(7000);
    let _tcp = TcpEcho::start(&lab.server(), address).unwrap();
    for _ in 0..3 {
        let mut stream = connect(&client, address, PATIENCE).unwrap();
        exchange(&mut stream, b"over two nodes", PATIENCE).unwrap();
    }
    let [parked, delivered, expired, undelivered] =
        at_2.since(["parked", "park_delivered", "park_expired", "park_undelivered"]);
    assert!(parked > 0, "no answer was faster than its session");
    assert_eq!((delivered, expired, undelivered), (parked, 0, 0));
    assert_eq!(lab.at(2).drops("tcp_no_session").unwrap(), 0);

    // No session comes by a link that is cut: what waits for one goes after its time.
    lab.link(1, 2, Change::CUT).unwrap();
    let mut ports = 30_000..;
    eventually("an early packet in `sync status`", PATIENCE, || {
        udp_flows(&client, udp, ports.next(), 1, Duration::ZERO).unwrap();
        (number(&sync_status(lab.at(2))["parked_packets"]) > 0).then_some(())
    });
    eventually("its time is over", PATIENCE, || (at_2.since(["park_expired"]) > [0]).then_some(()));
    eventually("nothing waits", PATIENCE, || {
        (number(&sync_status(lab.at(2))["parked_packets"]) == 0).then_some(())
    });
    lab.heal_links().unwrap();
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
}

/// Goes red when a first packet leaves before the nodes that its rule names hold its session, waits for others too, or
/// does not get out of the wait by the policy's choice; or when `sync status` shows nothing of it.
#[test]
fn first_packets_wait_until_other_nodes_hold_their_session() {
    let (lab, _echoes) = asymmetric("held");
    let of = |port: u16| lab.server_v4(port);
    let all = u64::from(FLOWS);
    let (at_1, at_2) = (Waited::at(lab.at(1)), Waited::at(lab.at(2)));
    let counted = || at_1.since(["setup_held", "setup_timeouts", "setup_not_held"]);

    // An acknowledgement of node2 takes two ways; then no answer is faster than its session.
    lab.link(1, 2, Change { delay_ms: Some(100.0), ..Change::NOTHING }).unwrap();
    let (answered, took) = once(&lab, of(ALL), 1, PATIENCE);
    assert_eq!(answered, usize::from(FLOWS));
    assert!(took >= Duration::from_millis(200), "answered within {took:?}");
    assert_eq!((counted(), at_2.since(["parked"])), ([all, 0, 0], [0]));
    let (answered, _) = once(&lab, of(NONE), 2, PATIENCE);
    assert_eq!((answered, counted()), (usize::from(FLOWS), [all, 0, 0]), "whose rule names none");

    // Node3 hears of nothing that node1 tells, and all know that it is there.
    lab.heal_links().unwrap();
    lab.link(1, 3, Change::CUT).unwrap();
    let (answered, _) = once(&lab, of(ONE), 3, PATIENCE);
    assert_eq!((answered, counted()), (usize::from(FLOWS), [2 * all, 0, 0]), "node2 is one");
    let (answered, took) = std::thread::scope(|scope| {
        let flows = scope.spawn(|| once(&lab, of(ALL), 4, PATIENCE));
        eventually("held packets in `sync status`", PATIENCE, || {
            (number(&sync_status(lab.at(1))["held_packets"]) == all).then_some(())
        });
        flows.join().unwrap()
    });
    assert_eq!((answered, counted()), (usize::from(FLOWS), [3 * all, all, 0]), "released");
    assert!(took >= HELD, "released after {took:?}");

    lab.heal_links().unwrap();
    wait_in_sync(&lab);
    apply(lab.at(1), &policy("drop"), &[]).unwrap();
    lab.link(1, 3, Change::CUT).unwrap();
    let (answered, _) = once(&lab, of(ALL), 5, HELD + Duration::from_secs(1));
    eventually("their time is over", PATIENCE, || (counted() == [4 * all, 2 * all, 0]).then_some(()));
    assert_eq!((answered, lab.at(1).drops("setup_unacknowledged").unwrap()), (0, all));
    let (answered, _) = once(&lab, of(ONE), 6, PATIENCE);
    assert_eq!((answered, counted()), (usize::from(FLOWS), [5 * all, 2 * all, 0]));
    lab.heal_links().unwrap();
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
    let dropped = format!("{}-{}", flows(5).start, flows(5).end - 1);
    for node in [1, 2, 3] {
        let left = lab.at(node).sessions(&["--local", "--protocol", "udp", "--source-port", &dropped]);
        assert_eq!(left.unwrap(), Vec::<Value>::new(), "node{node}: half made");
    }
}
