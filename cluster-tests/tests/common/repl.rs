//! Clusters whose nodes replicate sessions, as a test sees them: through `status`, `sync status`, `session list` and
//! `session verify`.

use std::time::Duration;

use serde_json::Value;
use tidegate_lab::lab::{LabSpec, Member};

use super::cluster::{PATIENCE, cluster};
use super::{TestLab, now, pause};

/// A cluster whose nodes all hold what the others know.
pub fn replicating(test: &str, nodes: u32, adjust: impl FnOnce(&mut LabSpec)) -> TestLab {
    let lab = cluster(test, nodes, false, adjust);
    wait_in_sync(&lab);
    lab
}

/// Waits until every node of the lab that runs is in sync with all the others that run.
pub fn wait_in_sync(lab: &TestLab) {
    let start = now();
    loop {
        let running: Vec<_> = lab.members().filter(|member| !member.has_ended()).collect();
        let late = running.iter().find_map(|member| why_not_in_sync(*member, &running));
        match late {
            None => return,
            Some(why) => assert!(start.elapsed() < PATIENCE, "not in sync within {PATIENCE:?}: {why}"),
        }
        pause(Duration::from_millis(100));
    }
}

fn why_not_in_sync(member: Member<'_>, running: &[Member<'_>]) -> Option<String> {
    let sync = match member.json(&["status"]) {
        Ok(mut status) => status["sync"].take(),
        Err(error) => return Some(error.to_string()),
    };
    let seen = |name: &str, flag: &str| {
        let view = sync["view"].as_array().into_iter().flatten();
        view.filter(|one| one["node"] == name).any(|one| one[flag] == true)
    };
    let is_whole = sync["in_sync"] == true
        && running.iter().all(|one| seen(one.name(), "alive") && seen(one.name(), "in_sync"));
    (!is_whole).then(|| format!("{} sees {sync}", member.name()))
}

/// Waits until `session verify` at a node finds that all hold the same sessions.
pub fn wait_verified(member: Member<'_>) {
    let start = now();
    loop {
        let output = member.tidegate(&["session", "verify"]).unwrap();
        if output.code == Some(0) {
            return;
        }
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(start.elapsed() < PATIENCE, "{} verifies: {:?} {said}", member.name(), output.code);
        pause(Duration::from_millis(500));
    }
}

/// What a node holds itself, by identity, whoever owns it: its own answer to a filter of tuples.
pub fn held(member: Member<'_>, filter: &[&str]) -> Vec<Value> {
    member.sessions(filter).unwrap()
}

/// How many of the sessions that a filter names each node owns, by its name.
pub fn owners(member: Member<'_>, filter: &[&str]) -> std::collections::BTreeMap<String, usize> {
    let mut owners = std::collections::BTreeMap::new();
    for session in held(member, filter) {
        *owners.entry(session["owner"].as_str().unwrap_or("nobody").to_owned()).or_default() += 1;
    }
    owners
}

/// Whether the sequence checks of the policy in force are on, as a node tells it.
pub fn sequence_checks(member: Member<'_>) -> [bool; 2] {
    let policy = member.json(&["policy", "show", "--effective"]).unwrap();
    let settings = policy["effective"].as_array().unwrap_or_else(|| panic!("settings in {policy}"));
    ["tcp.sequence_check", "tcp.rst_sequence_check"]
        .map(|key| settings.iter().any(|one| one["key"] == key && one["value"] == "true"))
}
