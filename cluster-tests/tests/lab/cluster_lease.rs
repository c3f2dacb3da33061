//! A policy that is not confirmed in time goes again, on every node by itself, whoever is dead by then.

use std::time::Duration;

use tidegate_lab::sys::Stop;

use crate::common::cluster::{
    PATIENCE, apply, apply_in_the_end, cluster, history, numbered_policy, sha256, view, wait_enforced,
    wait_leader, wait_whole,
};
use crate::common::{TestLab, eventually, now, pause};

/// What the history of every node says of a revision, once they all say the same.
fn standing(lab: &TestLab, revision: u32) -> String {
    let of =
        |member| Some(history(member).ok()?.iter().find(|line| line.number == revision)?.standing.clone());
    eventually("all histories say the same", PATIENCE, || {
        let all: Vec<_> = lab.members().map(of).collect::<Option<_>>()?;
        all.windows(2).all(|pair| pair[0] == pair[1]).then(|| all[0].clone()).filter(|one| one != "pending")
    })
}

/// Red when nodes go on under an unconfirmed policy after the death of the leader, or without a quorum and with the
/// operator's node dead; or when the histories do not say so once all are back.
#[test]
fn an_unconfirmed_policy_goes_again_without_leader_and_without_quorum() {
    let lab = cluster("lease", 3, false, |_| ());
    let old = numbered_policy(0);
    apply_in_the_end(lab.at(1), &old);

    let leader = wait_leader(&lab);
    let text = numbered_policy(1);
    let revision = apply(lab.at(leader), &text, &["--confirm-within", "10s"]).unwrap();
    let survivors: Vec<_> = lab.members().filter(|member| member.number() != leader).collect();
    for member in &survivors {
        assert_eq!(view(*member).unwrap()["policy"]["enforced_sha256"], sha256(&text).as_str());
    }
    lab.at(leader).kill().unwrap();
    for member in &survivors {
        wait_enforced(*member, &old);
    }
    lab.at(leader).start(&Stop::default()).unwrap();
    wait_whole(&lab);
    assert_eq!(standing(&lab, revision), "expired");
    lab.members().for_each(|member| wait_enforced(member, &old));

    // Without a quorum, and without the node at which it was applied.
    let text = numbered_policy(2);
    let revision = apply(lab.at(1), &text, &["--confirm-within", "10s"]).unwrap();
    lab.at(1).kill().unwrap();
    lab.at(2).kill().unwrap();
    assert_eq!(view(lab.at(3)).unwrap()["policy"]["enforced_sha256"], sha256(&text).as_str());
    wait_enforced(lab.at(3), &old);
    let alone = view(lab.at(3)).unwrap();
    assert_eq!(alone["quorum"], false, "{alone}");
    assert_eq!(alone["policy"]["fell_back_from"], revision, "{alone}");
    for node in [1, 2] {
        lab.at(node).start(&Stop::default()).unwrap();
    }
    wait_whole(&lab);
    assert_eq!(standing(&lab, revision), "expired");
    lab.members().for_each(|member| wait_enforced(member, &old));
    apply_in_the_end(lab.at(2), &numbered_policy(3));
}

/// Red when a confirmation is not heard, or comes too late without being told so.
#[test]
fn a_confirmed_policy_stays() {
    let lab = cluster("confirm", 2, true, |_| ());
    let text = numbered_policy(1);
    let start = now();
    let revision = apply(lab.at(1), &text, &["--confirm-within", "10s"]).unwrap();
    let pending = view(lab.at(2)).unwrap()["policy"]["pending"].clone();
    assert_eq!(pending["revision"], revision, "{pending}");
    lab.at(2).must(&["policy", "confirm"]).unwrap();
    assert_eq!(standing_of_nodes(&lab, revision), ["confirmed"; 2]);
    let none = lab.at(1).tidegate(&["policy", "confirm"]).unwrap();
    assert_eq!(none.code, Some(1), "nothing waits for a confirmation: {}", none.stdout);
    pause(Duration::from_secs(11).saturating_sub(start.elapsed()));
    for node in [1, 2] {
        assert_eq!(view(lab.at(node)).unwrap()["policy"]["enforced_sha256"], sha256(&text).as_str());
    }
}

fn standing_of_nodes(lab: &TestLab, revision: u32) -> Vec<String> {
    let of = |node| {
        history(lab.at(node)).unwrap().iter().find(|line| line.number == revision).unwrap().standing.clone()
    };
    [1, 2].map(of).into()
}
