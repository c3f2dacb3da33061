//! What a cluster has acknowledged stays: whoever dies, whenever.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_lab::lab::Member;
use tidegate_lab::sys::Stop;

use crate::common::cluster::{
    PATIENCE, apply, apply_in_the_end, cluster, history, leader, length, numbered_policy, sha256, view,
    wait_leader, wait_whole,
};
use crate::common::{TestLab, eventually, now, pause};

/// Between two deaths of leaders.
const BETWEEN_KILLS: Duration = Duration::from_secs(2);

/// Red when an acknowledged revision is missing on a node after the death of leaders or of all at once, stands at
/// another place, has another text, or is not what the engines enforce.
#[test]
fn every_acknowledged_revision_survives_the_death_of_leaders_and_of_all_at_once() {
    let lab = cluster("kills", 3, false, |_| ());
    let (applies, kills) = (length(100, 1_000), length(3, 30));
    let (enough, killed) = (AtomicBool::new(false), AtomicBool::new(false));
    let acknowledged = std::thread::scope(|scope| {
        let applying = scope.spawn(|| apply_in_turn(&lab, applies, &killed));
        let killing = scope.spawn(|| kill_leaders(&lab, kills, &enough));
        let deaths = killing.join();
        killed.store(true, Ordering::SeqCst);
        assert!(deaths.expect("the killer's own trouble is above") >= kills);
        applying.join().expect("the trouble of whoever applies is above")
    });
    assert!(acknowledged.len() >= applies);
    wait_whole(&lab);
    check(&lab, &acknowledged);

    for member in lab.members() {
        member.kill().unwrap();
    }
    lab.start_all(&Stop::default()).unwrap();
    wait_whole(&lab);
    check(&lab, &acknowledged);
    let text = numbered_policy(usize::MAX);
    assert!(apply_in_the_end(lab.at(2), &text) > *acknowledged.last_key_value().unwrap().0);
}

/// Applies numbered policies from the nodes in turn, so many at least and until the killing is over. Returns the
/// texts' hashes by acknowledged revision.
fn apply_in_turn(lab: &TestLab, applies: usize, killed: &AtomicBool) -> BTreeMap<u32, String> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0;
    while number < applies || !killed.load(Ordering::SeqCst) {
        let text = numbered_policy(number);
        let revision = apply_somewhere(lab, number, &text);
        let newest = acknowledged.last_key_value().map_or(0, |(newest, _)| *newest);
        assert!(revision > newest, "revision {revision} was acknowledged after {newest}");
        acknowledged.insert(revision, sha256(&text));
        number += 1;
    }
    acknowledged
}

/// Applies one policy at the node whose turn it is, or at the next one where that cannot.
fn apply_somewhere(lab: &TestLab, turn: usize, text: &str) -> u32 {
    let start = now();
    let mut refusals = Vec::new();
    for node in (0..3).cycle().skip(turn % 3) {
        match apply(lab.at(node + 1), text, &[]) {
            Ok(revision) => return revision,
            Err(refused) => refusals.push(refused),
        }
        let last = refusals.last();
        assert!(start.elapsed() < PATIENCE, "nobody applies number {turn} for {PATIENCE:?}: {last:?}");
        pause(Duration::from_millis(50));
    }
    unreachable!("an endless iterator has ended")
}

/// Kills whoever leads and starts it again, so many times. Returns how many.
fn kill_leaders(lab: &TestLab, kills: usize, enough: &AtomicBool) -> usize {
    let mut killed = 0;
    while killed < kills && !enough.load(Ordering::SeqCst) {
        pause(BETWEEN_KILLS);
        let Some(leader) = leader(lab) else { continue };
        lab.at(leader).kill().unwrap();
        killed += 1;
        pause(BETWEEN_KILLS / 4);
        lab.at(leader).start(&Stop::default()).unwrap();
    }
    killed
}

/// Every node's history is the same, holds all that was acknowledged, and ends with what its engines enforce.
fn check(lab: &TestLab, acknowledged: &BTreeMap<u32, String>) {
    let histories: Vec<_> = lab.members().map(|member| history(member).unwrap()).collect();
    assert!(histories.windows(2).all(|pair| pair[0] == pair[1]), "histories differ: {histories:#?}");
    let history = &histories[0];
    assert!(
        history.windows(2).all(|pair| pair[0].number + 1 == pair[1].number),
        "not in order: {history:#?}"
    );
    for (number, sha256) in acknowledged {
        let found = history.iter().find(|revision| revision.number == *number);
        assert_eq!(found.map(|revision| &revision.sha256), Some(sha256), "revision {number}");
    }
    let newest = history.last().expect("there is a policy");
    for member in lab.members() {
        let policy = view(member).unwrap()["policy"].clone();
        assert_eq!(policy["enforced_revision"], newest.number, "{} enforces {policy}", member.name());
        assert_eq!(policy["enforced_sha256"], newest.sha256.as_str(), "{} enforces {policy}", member.name());
    }
}

/// Red when both of two operators who saw the same revision get theirs through without the second being told, when
/// the same text again makes a revision, or when rollback, diff, show and export do not name what they are asked for.
#[test]
fn policy_verbs_answer_for_the_cluster_on_any_node() {
    let lab = cluster("verbs", 3, false, |_| ());
    let texts: Vec<_> = (1..=3).map(numbered_policy).collect();
    let first = apply_in_the_end(lab.at(1), &texts[0]);
    assert_eq!(apply(lab.at(2), &texts[0], &[]).unwrap(), first, "the same text is no new revision");

    let path = lab.at(3).file("other.toml", &texts[1]).unwrap().display().to_string();
    let dry = lab.at(3).json(&["policy", "apply", &path, "--dry-run"]).unwrap();
    assert!(dry["diff"].as_str().unwrap().contains("+# number 2"), "{dry}");
    assert_eq!(history(lab.at(1)).unwrap().last().unwrap().number, first, "a dry run changed something");

    let second = apply(lab.at(3), &texts[1], &[]).unwrap();
    assert_eq!(second, first + 1);
    // Of two who began at the same revision one is told that it moved; the other is in force.
    let racing: Vec<_> = std::thread::scope(|scope| {
        let at = |node, text: &str| apply(lab.at(node), text, &["--base", &second.to_string()]);
        let racers = [
            scope.spawn(move || at(1, &numbered_policy(10))),
            scope.spawn(move || at(2, &numbered_policy(20))),
        ];
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = racing.iter().partition(|result| result.is_ok());
    assert_eq!((won.len(), lost.len()), (1, 1), "{racing:?}");
    let lost = lost[0].as_ref().unwrap_err();
    assert!(lost.said.contains("moved") && lost.said.contains(&second.to_string()), "{lost:?}");

    let exported = must(lab.at(2), &["policy", "export"]);
    let number = exported.lines().find(|line| line.starts_with("# number")).unwrap();
    assert_eq!(number, if racing[0].is_ok() { "# number 10" } else { "# number 20" });
    let diff = must(lab.at(1), &["policy", "diff", &second.to_string()]);
    assert!(diff.contains("number 2") && diff.contains(number), "{diff}");
    let rolled = lab.at(2).json(&["policy", "rollback", &first.to_string(), "--yes"]).unwrap();
    assert_eq!(rolled["revision"], second + 2, "{rolled}");
    let shown = lab.at(1).json(&["policy", "show"]).unwrap();
    assert_eq!(shown["sha256"], sha256(&texts[0]).as_str(), "{shown}");
    assert_eq!(must(lab.at(3), &["policy", "export"]), texts[0]);

    let reload = lab.at(1).tidegate(&["policy", "reload"]).unwrap();
    assert_eq!(reload.code, Some(1), "{}", reload.stderr);
    assert!(reload.stderr.contains("policy apply"), "{}", reload.stderr);
    let bad = apply(lab.at(1), "[[rule]]\nname = 7\n", &[]).unwrap_err();
    assert_eq!(bad.code, Some(2), "{bad:?}");
}

/// Red when a leader that ends in order leaves the others waiting for an election, or leads on.
#[test]
fn a_leader_that_ends_in_order_hands_over() {
    let lab = cluster("handover", 3, false, |_| ());
    let leader_then = wait_leader(&lab);
    assert_eq!(lab.at(leader_then).terminate().unwrap(), Some(0));
    let other = lab.members().find(|member| member.number() != leader_then).unwrap();
    assert_ne!(eventually("another leader", PATIENCE, || leader(&lab)), leader_then);
    apply_in_the_end(other, &numbered_policy(1));
    lab.at(leader_then).start(&Stop::default()).unwrap();
    wait_whole(&lab);
}

fn must(member: Member<'_>, verb: &[&str]) -> String {
    let output = member.tidegate(verb).unwrap();
    assert_eq!(output.code, Some(0), "{verb:?} at {}: {}", member.name(), output.stderr);
    output.stdout
}
