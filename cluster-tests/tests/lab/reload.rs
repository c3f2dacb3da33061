//! A policy of 10,000 rules is replaced under load, again and again, by another: every packet is judged by one of
//! them as a whole, and what both permit never notices.

use std::time::Duration;

use tidegate_dataplane::addr::{Tuple, proto};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::policy::{check, compile};
use tidegate_lab::policies::{self, Shape};
use tidegate_lab::traffic::{Numbered, TcpEcho, connect, exchange};

use crate::common::{PATIENCE, eventually, lab, pause};

const RULES: u32 = 10_000;
const PREFIXES: u32 = 20_000;
/// An even number: then the first policy is in force at the end.
const RELOADS: usize = 50;
/// Between two datagrams of a flow.
const INTERVAL: Duration = Duration::from_millis(10);

/// Permitted by both policies.
const BOTH: u16 = 7_100;
/// Denied by both.
const NEITHER: u16 = 7_200;
/// Denied by both, permitted by the rules of the first with the address sets of the second.
const MIXED: u16 = 7_300;
/// The same the other way round.
const MIXED_BACK: u16 = 7_301;
/// Permitted by the first alone.
const ONLY_FIRST: u16 = 7_400;

/// One of the two policies: thousands of rules that match nothing here, and a few that do, at different places and
/// under different names. With `sets_of_first` unlike `first` it is a mix that must never be in force.
fn policy(first: bool, sets_of_first: bool, client: &str, server: &str) -> String {
    let (seed, shape) = if first { (1, Shape::Prefixes) } else { (2, Shape::Sets) };
    let made = policies::policy(shape, RULES, PREFIXES, seed);
    let (objects, rules) = made.split_at(made.find("\n[[rule]]").expect("there are rules"));
    let mut text = objects.to_owned();
    for (set, has_client) in [("mixed", !sets_of_first), ("mixed-back", sets_of_first)] {
        let member = if has_client { client } else { "192.0.2.1" };
        text += &format!(
            "\n[[address_set]]\nname = \"{set}\"\nprefixes = [\"198.51.100.0/24\", \"{member}/32\"]\n"
        );
    }
    let ports = [BOTH, NEITHER, MIXED, MIXED_BACK, ONLY_FIRST];
    for (protocol, port) in ["udp", "tcp"].iter().flat_map(|p| ports.map(|port| (p, port))) {
        text += &format!(
            "\n[[application]]\nname = \"{protocol}-{port}\"\n[[application.term]]\nprotocol = \"{protocol}\"\n\
             destination_port = {port}\n"
        );
    }
    let if_first = |yes| if first == yes { "permit" } else { "deny" };
    let mut few = String::new();
    let mut add = |name: &str, source: &str, application: String, action: &str| {
        policies::rule(&mut few, name, [source, &format!("{server}/32"), &application], action);
    };
    add("mixed", "mixed", format!("udp-{MIXED}"), if_first(true));
    add("mixed-back", "mixed-back", format!("udp-{MIXED_BACK}"), if_first(false));
    add("only-first", "any", format!("udp-{ONLY_FIRST}"), if_first(true));
    let name = |what: &str| format!("{what}-{}", if first { "first" } else { "second" });
    add(&name("udp"), &format!("{client}/32"), format!("udp-{BOTH}"), "permit");
    add(&name("tcp"), "any", format!("tcp-{BOTH}"), "permit");
    if first { text + &few + rules } else { text + rules + &few }
}

/// What the other test looks for would be seen. Red when a mix of both policies permits no more than they do.
#[test]
fn a_mix_of_both_policies_would_permit_what_both_deny() {
    let (client, server) = ("10.81.1.10", "10.81.2.10");
    let permits = |first, sets_of_first| {
        let text = policy(first, sets_of_first, client, server);
        let mut names = Names::default();
        let file = check(&text, "p").file.expect("the policy has no errors");
        let policy = compile(&file, 1, &mut names).expect("the policy compiles");
        let [from, to] = ["outside", "inside"].map(|zone| names.find_zone(zone).expect("the zone is there"));
        let flow = |dst_port| {
            let (src, dst) = (crate::common::ip(client).into(), crate::common::ip(server).into());
            Tuple { src, dst, src_port: 40_000, dst_port, protocol: proto::UDP }
        };
        [BOTH, NEITHER, MIXED, MIXED_BACK, ONLY_FIRST].map(|port| policy.permits(from, to, &flow(port)))
    };
    assert_eq!(permits(true, true), [true, false, false, false, true]);
    assert_eq!(permits(false, false), [true, false, false, false, false]);
    assert_eq!(permits(true, false), [true, false, true, false, true]);
    assert_eq!(permits(false, true), [true, false, false, true, false]);
}

/// Red when a worker forwards by new rules and old address sets or the other way round, when a reload loses packets
/// (a stall, a moment without policy), ends sessions that the new policy permits, or leaves those that it denies.
#[test]
fn a_reload_of_10000_rules_under_load_is_all_old_or_all_new() {
    let lab = lab("atomic", |spec| (spec.queues, spec.workers) = (2, Some(2)));
    let plan = lab.plan();
    let texts = [true, false].map(|first| policy(first, first, &plan.client.ipv4, &plan.server.ipv4));
    let reload = |number: usize| {
        std::fs::write(&plan.nodes[0].policy, &texts[number % 2]).unwrap();
        let taken = lab.tidegate(&["policy", "reload"]).unwrap();
        assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    };
    let flow = |port| Numbered::start(&lab.client(), &lab.server(), lab.server_v4(port), INTERVAL).unwrap();
    reload(0);
    let permitted = flow(BOTH);
    let refused = [NEITHER, MIXED, MIXED_BACK].map(flow);
    let changing = flow(ONLY_FIRST);
    let tcp = lab.server_v4(BOTH);
    let _echo = TcpEcho::start(&lab.server(), tcp).unwrap();
    let mut streams: Vec<_> = (0..4).map(|_| connect(&lab.client(), tcp, PATIENCE).unwrap()).collect();
    eventually("the first policy's flow passes", PATIENCE, || (changing.arrived() > 0).then_some(()));

    for number in 1..=RELOADS {
        reload(number);
        for stream in &mut streams {
            exchange(stream, format!("after reload {number}").as_bytes(), PATIENCE).unwrap();
        }
        let mut new = connect(&lab.client(), tcp, PATIENCE).unwrap();
        exchange(&mut new, b"a new connection", PATIENCE).unwrap();
    }
    assert!(changing.wait_arrival(PATIENCE).is_some(), "the first policy permits its flow again");
    reload(1);
    pause(Duration::from_millis(200));
    let from = changing.next();
    pause(Duration::from_millis(500));
    assert_eq!(changing.arrived_since(from), 0, "a session that the new policy denies goes on");

    let sent = permitted.next();
    eventually("every datagram of the permitted flow arrives", PATIENCE, || {
        (permitted.arrived_before(sent) as u64 == sent).then_some(())
    });
    for (flow, what) in refused.iter().zip(["denied by both", "mixed", "mixed the other way round"]) {
        assert_eq!(flow.arrived(), 0, "{what}");
        assert!(flow.next() > RELOADS as u64, "{what}: hardly anything was sent");
    }
    for stream in &mut streams {
        exchange(stream, b"the end", PATIENCE).unwrap();
    }
}
