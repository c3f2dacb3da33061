//! A cluster forms by the verbs that an operator has; whoever must not come in is told why.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_lab::lab::{Member, WITNESS};
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Numbered, UdpEcho, udp_flows};
use tidegate_sync::cluster::JoinToken;

use crate::common::cluster::{
    PATIENCE, apply_in_the_end, cluster, length, numbered_policy, view, wait_agreed, wait_leader, wait_whole,
};
use crate::common::{TestLab, eventually, lab};

/// Red when the members do not all know one another, somebody does not vote, a node does not enforce the founder's
/// policy or does not forward, or the witness has a dataplane.
#[test]
fn three_nodes_and_two_with_a_witness_form_a_cluster() {
    let three = cluster("three", 3, false, |_| ());
    let two = cluster("two", 2, true, |_| ());
    for lab in [&three, &two] {
        for member in lab.members() {
            let members = member.json(&["cluster", "members"]).unwrap();
            let all = members["members"].as_array().unwrap();
            assert_eq!(all.len(), 3, "{members}");
            assert!(all.iter().all(|one| one["votes"] == true), "{members}");
        }
        for node in lab.plan().nodes.iter().map(|node| node.number) {
            assert!(answers(lab, node), "through node {node}");
        }
    }
    let witness = view(two.at(WITNESS)).unwrap();
    assert_eq!(
        (&witness["role"], &witness["policy"]["enforced_revision"]),
        (&"witness".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        two.at(WITNESS).json(&["port", "list"]).map_or(0, |list| list.as_array().map_or(0, Vec::len)),
        0
    );
}

/// Whether flows through a node are answered.
fn answers(lab: &TestLab, node: u32) -> bool {
    lab.route_via(node).unwrap();
    let address = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    udp_flows(&lab.client(), address, 23_000..23_010, 5, Duration::from_millis(400)).unwrap().len() == 10
}

/// What `cluster join` says where it must not succeed.
fn refused(member: Member<'_>, token: &str) -> String {
    let address = member.plan().cluster_address().unwrap();
    let output = member.tidegate(&["cluster", "join", token, "--address", &address]).unwrap();
    assert!(matches!(output.code, Some(1..=3)), "{:?} {} {}", output.code, output.stdout, output.stderr);
    let status = member.json(&["status"]).unwrap();
    assert!(status["cluster"].is_null(), "a refused node is a member: {status}");
    output.stderr
}

/// Red when a token that is expired, used, damaged, of another cluster or unknown lets a node in, when two of these
/// are told the same, or when the secret is shown to a cluster that is not the token's.
#[test]
fn every_wrong_token_is_told_what_is_wrong_with_it() {
    let lab = lab("tokens", |spec| (spec.nodes, spec.clustered, spec.capacity) = (4, false, 10_000));
    let [first, second, foreign, late] = [1, 2, 3, 4].map(|number| lab.at(number));
    first.found_cluster("tokens").unwrap();
    let good = first.create_token(second).unwrap();
    second.join_cluster(&good).unwrap();
    wait_agreed(&lab, &[1, 2]);

    let used = refused(late, &good);
    assert!(used.contains("used already") && used.contains("node2"), "{used}");

    let brief = first.json(&["cluster", "token", "create", "--ttl", "1s"]).unwrap();
    let brief = brief["token"].as_str().unwrap().to_owned();
    let state = |member: Member<'_>| {
        let list = member.json(&["cluster", "token", "list"]).unwrap();
        list["tokens"].as_array().unwrap().iter().any(|token| token["state"] == "expired")
    };
    eventually("the token expires", PATIENCE, || state(first).then_some(()));
    let expired = refused(late, &brief);
    assert!(expired.contains("expired"), "{expired}");

    let mut damaged = good.clone();
    damaged.pop();
    let damaged = refused(late, &damaged);
    assert!(damaged.contains("damaged"), "{damaged}");

    // Of another cluster, but with this one's address: the fingerprint must be looked at before the secret is shown.
    foreign.found_cluster("foreign").unwrap();
    let mut strange = JoinToken::parse(&foreign.create_token(late).unwrap()).unwrap();
    let ours = JoinToken::parse(&first.create_token(late).unwrap()).unwrap();
    strange.addresses.clone_from(&ours.addresses);
    let other_ca = refused(late, &strange.to_string());
    assert!(other_ca.contains("another cluster") || other_ca.contains("fingerprint"), "{other_ca}");
    // The right cluster, and a token that it never made.
    strange.ca_sha256 = ours.ca_sha256;
    let unknown = refused(late, &strange.to_string());
    assert!(unknown.contains("not known"), "{unknown}");
    // A secret that is not the token's.
    let wrong = JoinToken { secret: strange.secret, ..ours.clone() };
    let wrong = refused(late, &wrong.to_string());
    assert!(wrong.contains("secret is wrong"), "{wrong}");
    if length(0, 1) == 1 {
        // It is tried for a minute.
        let nowhere = SocketAddr::from(([10, 90, 0, 77], 7400));
        let nobody = refused(late, &JoinToken { addresses: vec![nowhere], ..ours.clone() }.to_string());
        assert!(nobody.contains("10.90.0.77"), "{nobody}");
    }

    let address = late.plan().cluster_address().unwrap();
    let named = ["cluster", "join", &ours.to_string(), "--node", "node2", "--address", &address];
    let taken = late.tidegate(&named).unwrap();
    assert!(!taken.success && taken.stderr.contains("node2"), "{}", taken.stderr);
    // After all that the good token still is good.
    late.join_cluster(&ours.to_string()).unwrap();
    wait_agreed(&lab, &[1, 2, 4]);
}

/// Red when one token lets both in, or neither; and when the second of a pair votes before a third is there.
#[test]
fn of_two_nodes_with_one_token_one_joins() {
    let lab = lab("race", |spec| (spec.nodes, spec.clustered, spec.capacity) = (3, false, 10_000));
    lab.at(1).found_cluster("race").unwrap();
    let token = lab.at(1).create_token(lab.at(2)).unwrap();
    let results = std::thread::scope(|scope| {
        let racers = [2, 3].map(|node| {
            let (member, token) = (lab.at(node), &token);
            scope.spawn(move || member.join_cluster(token).map_err(|error| error.to_string()))
        });
        racers.map(|racer| racer.join().unwrap())
    });
    let (winner, loser) = match &results {
        [Ok(()), Err(error)] => (2, error),
        [Err(error), Ok(())] => (3, error),
        both => panic!("{both:?}"),
    };
    assert!(loser.contains("used already"), "{loser}");
    wait_agreed(&lab, &[1, winner]);
    let other = 5 - winner;
    let token = lab.at(winner).create_token(lab.at(other)).unwrap();
    lab.at(other).join_cluster(&token).unwrap();
    wait_whole(&lab);
}

/// Red when a join that the leader's death interrupted makes a second member of the node, or can never be completed.
#[test]
fn a_join_that_the_leaders_death_interrupts_is_completed_by_the_same_token() {
    let lab = lab("interrupt", |spec| (spec.nodes, spec.clustered, spec.capacity) = (4, false, 10_000));
    lab.at(1).found_cluster("interrupt").unwrap();
    for node in [2, 3] {
        let token = lab.at(1).create_token(lab.at(node)).unwrap();
        lab.at(node).join_cluster(&token).unwrap();
    }
    wait_agreed(&lab, &[1, 2, 3]);
    let token = lab.at(2).create_token(lab.at(4)).unwrap();
    let leader = wait_leader(&lab);
    let joined = std::thread::scope(|scope| {
        let joining = scope.spawn(|| lab.at(4).join_cluster(&token));
        // While it shows the token, is committed, or is answered: each must end well.
        crate::common::pause(Duration::from_millis(20));
        lab.at(leader).kill().unwrap();
        joining.join().unwrap()
    });
    lab.at(leader).start(&Stop::default()).unwrap();
    if joined.is_err() {
        eventually("the same token completes it", PATIENCE, || {
            let again = lab.at(4).join_cluster(&token).map_err(|error| error.to_string());
            let member = again.is_ok() || again.is_err_and(|error| error.contains("member already"));
            member.then_some(())
        });
    }
    wait_whole(&lab);
    let members = lab.at(1).json(&["cluster", "members"]).unwrap();
    assert_eq!(members["removed"].as_array().unwrap().len(), 0, "{members}");
}

/// Red when a removed node forwards, does not say why, or is let in under its old number; when it was removed while
/// it was dead, too.
#[test]
fn a_removed_node_forwards_nothing_and_comes_back_as_another() {
    let lab = cluster("remove", 3, false, |_| ());
    lab.route_via(3).unwrap();
    let flow =
        Numbered::start(&lab.client(), &lab.server(), lab.server_v4(7), Duration::from_millis(5)).unwrap();
    assert!(flow.wait_arrival(PATIENCE).is_some());
    let asked = lab.at(1).tidegate(&["cluster", "remove", "node3"]).unwrap();
    assert_eq!(asked.code, Some(4), "it wants a confirmation: {}", asked.stderr);
    lab.at(1).must(&["cluster", "remove", "node3", "--yes"]).unwrap();
    wait_agreed(&lab, &[1, 2]);
    says_that_it_was_removed(lab.at(3));
    let from = flow.next();
    eventually("datagrams were sent", PATIENCE, || (flow.next() > from + 40).then_some(()));
    assert_eq!(flow.arrived_since(from), 0, "a removed node forwards");
    lab.at(3).kill().unwrap();
    lab.at(3).spawn().unwrap();
    says_that_it_was_removed(lab.at(3));
    let from = flow.next();
    eventually("datagrams were sent", PATIENCE, || (flow.next() > from + 40).then_some(()));
    assert_eq!(flow.arrived_since(from), 0, "a removed node forwards after its restart");

    // As its status says: its directory out of the way, and a new token.
    lab.at(3).kill().unwrap();
    rejoin(&lab, 3, 4);
    assert!(flow.wait_arrival(PATIENCE).is_some(), "it forwards again");

    lab.at(3).kill().unwrap();
    lab.at(2).must(&["cluster", "remove", "node3", "--yes"]).unwrap();
    apply_in_the_end(lab.at(1), &numbered_policy(1));
    lab.at(3).spawn().unwrap();
    says_that_it_was_removed(lab.at(3));
    let from = flow.next();
    eventually("datagrams were sent", PATIENCE, || (flow.next() > from + 40).then_some(()));
    assert_eq!(flow.arrived_since(from), 0, "a node that was removed while it was dead forwards");
}

fn says_that_it_was_removed(member: Member<'_>) {
    eventually("the removed node says so", PATIENCE, || {
        let view = view(member).ok()?;
        let note = view["standing_note"].as_str()?;
        (view["standing"] == "removed" && note.contains("join")).then_some(())
    });
}

/// Moves a dead node's directory away and lets it join anew; it gets that number in the cluster.
fn rejoin(lab: &TestLab, node: u32, id: u64) {
    let member = lab.at(node);
    let dir = &member.plan().cluster_dir;
    std::fs::rename(dir, dir.with_extension("old")).unwrap();
    member.start(&Stop::default()).unwrap();
    let token = lab.at(1).create_token(member).unwrap();
    member.join_cluster(&token).unwrap();
    wait_whole(lab);
    assert_eq!(view(member).unwrap()["node_id"], id);
}
