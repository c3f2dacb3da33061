//! Clusters as tests see them: through the command line of their members.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tidegate_lab::lab::{DEFAULT_POLICY, LabSpec, Member};
use tidegate_lab::sys::Output;

use super::{TestLab, eventually, lab};

/// Ends a hang; nothing is expected to take that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A lab whose members have formed a cluster and agree.
pub fn cluster(test: &str, nodes: u32, witness: bool, adjust: impl FnOnce(&mut LabSpec)) -> TestLab {
    let lab = lab(test, |spec| {
        (spec.nodes, spec.witness, spec.capacity) = (nodes, witness, 10_000);
        adjust(spec);
    });
    wait_whole(&lab);
    lab
}

/// Whether this is `make soak`: `TIDEGATE_LONG` is set.
pub fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some_and(|value| value != "0")
}

/// The short version of a test in CI, the long one in `make soak`.
pub fn length(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}

/// The default policy with a number in it: another text, the same rules.
pub fn numbered_policy(number: usize) -> String {
    format!("{DEFAULT_POLICY}\n# number {number}\n")
}

/// SHA-256 in hexadecimal, as the command line shows it.
pub fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cluster as a member sees it: its part of `status`. An error if it does not answer or is in no cluster.
pub fn view(member: Member<'_>) -> Result<Value, String> {
    let mut status = member.json(&["status"]).map_err(|error| error.to_string())?;
    match status["cluster"].take() {
        Value::Null => Err(format!("{} is in no cluster", member.name())),
        cluster => Ok(cluster),
    }
}

/// Waits until all members of the lab have formed one cluster, whoever should vote does, and all nodes enforce the
/// same policy.
pub fn wait_whole(lab: &TestLab) {
    let all: Vec<_> = lab.members().map(|member| member.number()).collect();
    wait_agreed(lab, &all);
}

/// The same of some members, which are all that the cluster is to have.
pub fn wait_agreed(lab: &TestLab, numbers: &[u32]) {
    let mut last = String::new();
    let start = super::now();
    while start.elapsed() < PATIENCE {
        match disagreement(lab, numbers) {
            None => return,
            Some(why) => last = why,
        }
        super::pause(Duration::from_millis(100));
    }
    panic!("the cluster does not agree within {PATIENCE:?}: {last}");
}

/// Why the cluster is not whole.
fn disagreement(lab: &TestLab, numbers: &[u32]) -> Option<String> {
    let mut names: Vec<_> = numbers.iter().map(|number| lab.at(*number).name()).collect();
    names.sort_unstable();
    let mut enforced = Vec::new();
    for member in numbers.iter().map(|number| lab.at(*number)) {
        let view = match view(member) {
            Ok(view) => view,
            Err(error) => return Some(error),
        };
        let seen: Vec<_> = view["members"].as_array().into_iter().flatten().collect();
        let mut known: Vec<_> = seen.iter().filter_map(|member| member["node"].as_str()).collect();
        known.sort_unstable();
        let voters = seen.iter().filter(|member| member["votes"] == true).count();
        let wanted = if numbers.len() < 3 { 1 } else { numbers.len() };
        if known != names || voters != wanted || view["quorum"] != true || view["standing"] != "member" {
            return Some(format!("{} sees {view}", member.name()));
        }
        if let Some(lost) = seen.iter().find(|member| member["connected"] != true) {
            return Some(format!("{} is not connected to {lost}", member.name()));
        }
        if member.plan().ports.is_some() {
            enforced.push(view["policy"]["enforced_sha256"].clone());
        }
    }
    enforced.windows(2).any(|pair| pair[0] != pair[1]).then(|| format!("they enforce {enforced:?}"))
}

/// Who leads, as those see it that run and have a quorum.
pub fn leader(lab: &TestLab) -> Option<u32> {
    let running = lab.members().filter(|member| member.pid().is_some());
    let views: Vec<_> =
        running.filter_map(|member| view(member).ok()).filter(|view| view["quorum"] == true).collect();
    // Right after an election some still know of the last term.
    let newest = views.iter().max_by_key(|view| view["term"].as_u64())?;
    lab.members().find(|member| newest["leader"] == member.name()).map(|member| member.number())
}

/// Waits until somebody leads.
pub fn wait_leader(lab: &TestLab) -> u32 {
    eventually("a leader", PATIENCE, || leader(lab))
}

/// Waits until a node enforces a policy of that text.
pub fn wait_enforced(member: Member<'_>, text: &str) {
    let wanted = sha256(text);
    eventually(&format!("{} enforces the policy", member.name()), PATIENCE, || {
        (view(member).ok()?["policy"]["enforced_sha256"] == wanted.as_str()).then_some(())
    });
}

/// A policy that was applied: its revision; or why not.
pub fn apply(member: Member<'_>, text: &str, options: &[&str]) -> Result<u32, Refused> {
    let path = member.file("apply.toml", text).unwrap().display().to_string();
    let mut verb = vec!["policy", "apply", &path, "-o", "json"];
    verb.extend(options);
    let output = member.tidegate(&verb).unwrap();
    // 5: agreed on, but some member does not enforce it yet.
    if !matches!(output.code, Some(0 | 5)) {
        return Err(Refused::new(&output));
    }
    let applied: Value = serde_json::from_str(&output.stdout).expect("JSON of policy apply");
    Ok(number(&applied["revision"]))
}

/// Applies a policy, again and again until it is in force: after the death of a leader there is none for a moment.
pub fn apply_in_the_end(member: Member<'_>, text: &str) -> u32 {
    let mut last = None;
    let start = super::now();
    while start.elapsed() < PATIENCE {
        match apply(member, text, &[]) {
            Ok(revision) => return revision,
            Err(refused) => last = Some(refused),
        }
        super::pause(Duration::from_millis(100));
    }
    panic!("{} applies nothing: {last:?}", member.name());
}

/// A verb that did not succeed.
#[derive(Debug)]
pub struct Refused {
    /// Exit code.
    pub code: Option<i32>,
    /// What it said.
    pub said: String,
}

impl Refused {
    /// Of a verb that failed.
    pub fn new(output: &Output) -> Refused {
        Refused { code: output.code, said: output.stderr.clone() }
    }
}

/// A line of `policy history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub number: u32,
    /// SHA-256 of its text in hexadecimal.
    pub sha256: String,
    /// What became of it.
    pub standing: String,
}

/// `policy history`, oldest first.
pub fn history(member: Member<'_>) -> Result<Vec<Revision>, String> {
    let history = member.json(&["policy", "history"]).map_err(|error| error.to_string())?;
    if history["current"] != true {
        return Err(format!("{} does not know the newest history", member.name()));
    }
    let lines = history["revisions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |line: &Value| Revision {
        number: number(&line["revision"]),
        sha256: text(&line["sha256"]),
        standing: text(&line["standing"]),
    };
    Ok(lines.iter().map(read).collect())
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or_else(|| panic!("no number: {value}"))
}
