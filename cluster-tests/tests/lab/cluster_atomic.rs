//! Policies that change as fast as they are acknowledged, under traffic: every packet is judged by one of them as a
//! whole, and none that a policy denies passes once that policy was acknowledged.

use std::process::{Child, Stdio};
use std::time::Duration;

use tidegate_lab::policies;
use tidegate_lab::traffic::Numbered;

use crate::common::cluster::{PATIENCE, apply, apply_in_the_end, cluster, length};
use crate::common::{TestLab, eventually, pause};

/// Between two datagrams of a flow.
const INTERVAL: Duration = Duration::from_millis(5);
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
/// Where iperf3 listens; permitted by both.
const IPERF: u16 = 5_201;

/// One of two policies, and a number that makes each text a new one.
fn policy(lab: &TestLab, first: bool, number: usize) -> String {
    let (client, server) = (&lab.plan().client.ipv4, &lab.plan().server.ipv4);
    let mut text =
        format!("# number {number}\n[[zone]]\nname = \"outside\"\n\n[[zone]]\nname = \"inside\"\n");
    for (set, has_client) in [("mixed", !first), ("mixed-back", first)] {
        let member = if has_client { client } else { "192.0.2.1" };
        text += &format!(
            "\n[[address_set]]\nname = \"{set}\"\nprefixes = [\"198.51.100.0/24\", \"{member}/32\"]\n"
        );
    }
    let mut application = |name: &str, protocol: &str, port: u16| {
        text += &format!(
            "\n[[application]]\nname = \"{name}\"\n[[application.term]]\nprotocol = \"{protocol}\"\n\
             destination_port = {port}\n"
        );
    };
    for port in [BOTH, MIXED, MIXED_BACK, ONLY_FIRST] {
        application(&format!("udp-{port}"), "udp", port);
    }
    application("iperf", "tcp", IPERF);
    let if_first = |yes| if first == yes { "permit" } else { "deny" };
    let mut rule = |name: &str, source: &str, application: &str, action: &str| {
        policies::rule(&mut text, name, [source, &format!("{server}/32"), application], action);
    };
    rule("mixed", "mixed", &format!("udp-{MIXED}"), if_first(true));
    rule("mixed-back", "mixed-back", &format!("udp-{MIXED_BACK}"), if_first(false));
    rule("only-first", "any", &format!("udp-{ONLY_FIRST}"), if_first(true));
    // Another name and source in each: a session has to find its new rule.
    let (name, source) =
        if first { ("both-1", "any".to_owned()) } else { ("both-2", format!("{client}/32")) };
    rule(name, &source, &format!("udp-{BOTH}"), "permit");
    rule("iperf", "any", "iperf", "permit");
    text
}

/// Red when a worker of any node judges a packet by rules of one revision and address sets of another, or when a
/// change loses a packet that both permit, for a moment without a rule.
#[test]
fn under_changes_no_packet_meets_a_mix_of_policies_or_none() {
    let lab = cluster("mix", 3, false, |spec| (spec.queues, spec.workers) = (2, Some(2)));
    let mut number = 0;
    for node in 1..=3 {
        lab.route_via(node).unwrap();
        apply_in_the_end(lab.at(node), &policy(&lab, true, number));
        number += 1;
        let bulk = Iperf::start(&lab);
        let flow =
            |port| Numbered::start(&lab.client(), &lab.server(), lab.server_v4(port), INTERVAL).unwrap();
        let permitted = flow(BOTH);
        let refused = [NEITHER, MIXED, MIXED_BACK].map(flow);
        let denied =
            || lab.at(node).drops("policy_deny").unwrap() + lab.at(node).drops("default_deny").unwrap_or(0);
        let denied_before = denied();
        let sent_in_vain = || refused.iter().map(Numbered::next).sum::<u64>();
        let least = length(50, 334);
        // A fast machine has applied so many before much is sent.
        let is_enough = |turn| turn >= least && permitted.next() > 100 && sent_in_vain() > 300;
        for turn in (0..20 * least).take_while(|turn| !is_enough(*turn)) {
            let text = policy(&lab, turn % 2 == 1, number);
            number += 1;
            let via = u32::try_from(turn % 3).unwrap() + 1;
            apply(lab.at(via), &text, &[]).unwrap_or_else(|refused| panic!("apply {number}: {refused:?}"));
        }
        let sent = permitted.next();
        eventually("every datagram of the permitted flow arrives", PATIENCE, || {
            (permitted.arrived_before(sent) as u64 == sent).then_some(())
        });
        for (flow, what) in refused.iter().zip(["denied by both", "mixed", "mixed the other way round"]) {
            assert_eq!(flow.arrived(), 0, "{what}, through node {node}");
        }
        assert!(denied() - denied_before <= sent_in_vain(), "packets of the permitted flow met no rule");
        assert!(sent > 100 && sent_in_vain() > 300, "hardly anything was sent");
        bulk.end();
    }
}

/// Red when a packet that was sent after the acknowledgement of a policy that denies it passes, on any node.
#[test]
fn nothing_that_a_policy_denies_passes_once_it_was_acknowledged() {
    let lab = cluster("flip", 3, false, |_| ());
    let flow = Numbered::start(&lab.client(), &lab.server(), lab.server_v4(ONLY_FIRST), INTERVAL).unwrap();
    let mut number = 0;
    for round in 0..length(2, 20) {
        for node in 1..=3 {
            lab.route_via(node).unwrap();
            let via = lab.at((node + u32::try_from(round).unwrap()) % 3 + 1);
            apply_in_the_end(via, &policy(&lab, true, number));
            assert!(
                flow.wait_arrival(PATIENCE).is_some(),
                "the first policy permits the flow through node {node}"
            );
            apply_in_the_end(via, &policy(&lab, false, number));
            let from = flow.next();
            number += 1;
            eventually("datagrams were sent", PATIENCE, || (flow.next() > from + 40).then_some(()));
            pause(Duration::from_millis(100));
            assert_eq!(flow.arrived_since(from), 0, "through node {node}, acknowledged at {}", via.name());
        }
    }
}

/// iperf3 through the node at a bounded rate, as other traffic.
struct Iperf {
    server: Child,
    client: Child,
}

impl Iperf {
    fn start(lab: &TestLab) -> Iperf {
        let run = |netns: tidegate_lab::sys::Netns, arguments: &[&str]| {
            let mut command = netns.command("iperf3");
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("iperf3 is installed (make setup)")
        };
        let server = run(lab.server(), &["-s", "-1", "-p", &IPERF.to_string()]);
        eventually("iperf3 listens", PATIENCE, || {
            let listening = format!(":{IPERF:04X} ");
            let tables = ["tcp", "tcp6"].map(|table| lab.server().proc_net(table).unwrap_or_default());
            tables.iter().any(|table| table.contains(&listening)).then_some(())
        });
        let address = lab.plan().server.ipv4.clone();
        let client = run(lab.client(), &["-c", &address, "-p", &IPERF.to_string(), "-t", "600", "-b", "50M"]);
        Iperf { server, client }
    }

    /// Ends it; it must still run.
    fn end(mut self) {
        assert!(self.client.try_wait().unwrap().is_none(), "iperf3 lost its connection");
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
