//! With a quorum the policy can be changed; without one the nodes forward on under the last that was agreed, and
//! refuse changes.

use std::time::Duration;

use tidegate_lab::lab::{Member, WITNESS};
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{UdpEcho, udp_flows};

use crate::common::cluster::{
    PATIENCE, Refused, apply, apply_in_the_end, cluster, numbered_policy, sha256, view, wait_agreed,
    wait_whole,
};
use crate::common::{TestLab, eventually};

/// Whether any of some new flows is answered through a node.
fn forwards(lab: &TestLab, node: u32) -> bool {
    lab.route_via(node).unwrap();
    let address = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    let ports = 21_000..21_005;
    !udp_flows(&lab.client(), address, ports, 3, Duration::from_millis(300)).unwrap().is_empty()
}

/// Waits until a node knows that it has no quorum, and shows that a change is refused with exit code 3 and a reason.
fn refuses_changes(member: Member<'_>) -> Refused {
    eventually(&format!("{} notices", member.name()), PATIENCE, || {
        (view(member).ok()?["quorum"] == false).then_some(())
    });
    let refused = apply(member, &numbered_policy(999), &[]).unwrap_err();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.said.contains("quorum"), "{refused:?}");
    let status = member.tidegate(&["status"]).unwrap();
    assert_eq!(status.code, Some(5), "without a quorum a node is not whole: {}", status.stdout);
    assert!(status.stdout.contains("quorum"), "{}", status.stdout);
    refused
}

/// Red when the death of one of three stops changes, when a node without a quorum forwards nothing or takes a
/// change, or when the others' return does not end that.
#[test]
fn of_two_nodes_and_a_witness_any_one_may_die() {
    let lab = cluster("any", 2, true, |_| ());
    for (number, victim) in [1, 2, WITNESS].into_iter().enumerate() {
        lab.at(victim).kill().unwrap();
        let survivor = lab.at(if victim == 1 { 2 } else { 1 });
        apply_in_the_end(survivor, &numbered_policy(number));
        assert!(forwards(&lab, survivor.number()), "{victim} is dead");
        lab.at(victim).start(&Stop::default()).unwrap();
        wait_whole(&lab);
    }
    lab.at(2).kill().unwrap();
    lab.at(WITNESS).kill().unwrap();
    let agreed = view(lab.at(1)).unwrap()["policy"]["enforced_sha256"].clone();
    refuses_changes(lab.at(1));
    assert!(forwards(&lab, 1), "without a quorum the last agreed policy is in force");
    assert_eq!(view(lab.at(1)).unwrap()["policy"]["enforced_sha256"], agreed);
    lab.at(WITNESS).start(&Stop::default()).unwrap();
    apply_in_the_end(lab.at(1), &numbered_policy(3));
    lab.at(2).start(&Stop::default()).unwrap();
    wait_whole(&lab);
}

/// Red when the death of a pair's non-voter stops changes, when that of the voter does not, when `recover` does not
/// bring them back, or when the old voter, returning, forwards or says nothing.
#[test]
fn a_pair_without_witness_outlives_its_non_voter_and_recovers_from_its_voters_death() {
    let lab = cluster("pair", 2, false, |_| ());
    let votes = |number: u32| {
        let view = view(lab.at(1)).unwrap();
        let members = view["members"].as_array().unwrap().clone();
        members.iter().any(|member| member["node"] == lab.at(number).name() && member["votes"] == true)
    };
    let (voter, other) = if votes(1) { (1, 2) } else { (2, 1) };

    lab.at(other).kill().unwrap();
    apply_in_the_end(lab.at(voter), &numbered_policy(1));
    assert!(forwards(&lab, voter), "the non-voter is dead");
    lab.at(other).start(&Stop::default()).unwrap();
    wait_whole(&lab);

    lab.at(voter).kill().unwrap();
    let refused = refuses_changes(lab.at(other));
    assert!(forwards(&lab, other), "the voter is dead");
    let asked = lab.at(other).tidegate(&["cluster", "recover", "--force"]).unwrap();
    assert_eq!(asked.code, Some(4), "it wants a confirmation: {} {}", asked.stdout, asked.stderr);
    lab.at(other).must(&["cluster", "recover", "--force", "--yes"]).unwrap();
    let text = numbered_policy(2);
    apply_in_the_end(lab.at(other), &text);
    assert_eq!(view(lab.at(other)).unwrap()["generation"], 2, "{refused:?}");

    lab.at(voter).spawn().unwrap();
    eventually("the old voter says that it is fenced", PATIENCE, || {
        let view = view(lab.at(voter)).ok()?;
        let note = view["standing_note"].as_str()?;
        (view["standing"] == "fenced" && note.contains("join")).then_some(())
    });
    assert!(!forwards(&lab, voter), "a fenced node forwards");
    let refused = apply(lab.at(voter), &numbered_policy(3), &[]).unwrap_err();
    assert!(refused.said.contains("fenced"), "{refused:?}");
    assert!(forwards(&lab, other));
    let policy = view(lab.at(other)).unwrap()["policy"].clone();
    assert_eq!(policy["enforced_sha256"], sha256(&text).as_str());
    wait_agreed(&lab, &[other]);
}

/// Red when a node that starts alone with its store forgets its policy, or takes one of its own file.
#[test]
fn a_node_that_starts_alone_forwards_under_its_last_agreed_policy() {
    let lab = cluster("alone", 3, false, |_| ());
    let text = numbered_policy(1).replace("destination_port = 9\n", "destination_port = 8\n");
    apply_in_the_end(lab.at(1), &text);
    wait_whole(&lab);
    for member in lab.members() {
        member.kill().unwrap();
    }
    lab.at(2).start(&Stop::default()).unwrap();
    crate::common::cluster::wait_enforced(lab.at(2), &text);
    assert!(forwards(&lab, 2));
    // Port 9, which the file denies and the agreed policy permits.
    let address = lab.server_v4(9);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    let answered = udp_flows(&lab.client(), address, 22_000..22_005, 3, Duration::from_millis(500)).unwrap();
    assert!(!answered.is_empty(), "the policy of the file is in force");
    refuses_changes(lab.at(2));
}

/// Red when a node whose cluster never had a policy forwards, before or after a restart alone.
#[test]
fn a_node_that_never_had_a_policy_denies() {
    let lab = cluster("bare", 2, false, |spec| spec.without_policy = true);
    assert!(!forwards(&lab, 1) && !forwards(&lab, 2));
    for member in lab.members() {
        member.kill().unwrap();
    }
    lab.at(2).spawn().unwrap();
    eventually("node2 answers", PATIENCE, || view(lab.at(2)).ok());
    assert!(!forwards(&lab, 2));
    lab.at(1).spawn().unwrap();
    apply_in_the_end(lab.at(2), &numbered_policy(1));
    wait_whole(&lab);
    assert!(forwards(&lab, 1) && forwards(&lab, 2));
}
