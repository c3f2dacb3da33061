//! The policy in force, and the checks of a policy file.

use crate::diagnostic::Diagnostic;
use serde::{Deserialize, Serialize};

/// `policy check FILE`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyCheck {
    /// The file.
    pub file: String,
    /// Whether it could be put in force.
    pub ok: bool,
    /// How many errors.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// All findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// `policy show [REV]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyShow {
    /// Number of the policy.
    pub revision: u32,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
    /// Where it came from: a file, or the cluster.
    pub source: String,
    /// When it came in force here (RFC 3339, UTC); null for a revision that is not in force.
    pub loaded_at: Option<String>,
    /// Rules in the order in which they are tried.
    pub rules: Vec<RuleShow>,
    /// First packets that no rule matched; null for a revision that is not in force.
    pub default_deny_hits: Option<u64>,
    /// Every flow setting in force and where it comes from (`--effective`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<Setting>,
    /// Workers that did not answer: their counts are missing.
    pub unanswered_workers: Vec<u16>,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleShow {
    /// Ingress zone.
    pub from: String,
    /// Egress zone.
    pub to: String,
    /// Name.
    pub name: String,
    /// Source address sets, prefixes, or `any`.
    pub source: Vec<String>,
    /// Destination address sets, prefixes, or `any`.
    pub destination: Vec<String>,
    /// Applications, or `any`.
    pub application: Vec<String>,
    /// `permit`, `deny` or `reject`.
    pub action: String,
    /// Idle timeout of its sessions in seconds, or `never`; null: none of its own.
    pub session_ttl: Option<String>,
    /// Whether first packets are logged.
    pub log: bool,
    /// Whether a TCP packet that is no SYN and belongs to no session is answered with a RST.
    pub tcp_rst: bool,
    /// Whether peers are told of its sessions; null: by `replication.protocols`.
    pub sync: Option<bool>,
    /// Whether its first packets wait for peers: `none`, `one` or `all`; null: as `replication.setup_ack` says.
    pub setup_ack: Option<String>,
    /// A rule that is not enabled matches nothing.
    pub enabled: bool,
    /// First packets that it matched since its name first came in force; null in a revision that is not in
    /// force.
    pub hits: Option<u64>,
}

/// One flow setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Key, as in the policy file.
    pub key: String,
    /// Value in force.
    pub value: String,
    /// `file` or `default`.
    pub from: String,
}

/// `policy export`, and what `policy diff` compares with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyText {
    /// Number of the policy.
    pub revision: u32,
    /// Where it came from: a file, or the cluster.
    pub source: String,
    /// Its text, comments included.
    pub text: String,
}

/// `policy diff FILE|REV [REV]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// Number of the policy that was compared: the one in force, unless two were named.
    pub revision: u32,
    /// The file that it was compared with; null: another revision.
    pub file: Option<String>,
    /// The revision that it was compared with; null: a file.
    pub with_revision: Option<u32>,
    /// Whether the texts differ.
    pub changed: bool,
    /// The differences in the unified format: `-` is in the first, `+` in the second.
    pub diff: String,
}

/// `policy reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyReload {
    /// Number of the policy now in force.
    pub revision: u32,
    /// The file that it was read from.
    pub source: String,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
    /// Workers that did not confirm it in time; they take it as soon as they run.
    pub unanswered_workers: Vec<u16>,
}

/// Body of `policy apply`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The file, as the operator named it: for findings.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The revision that is to be in force now; null: whichever is.
    #[serde(default)]
    pub base: Option<u32>,
    /// Check, and say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Fall back after so many milliseconds without a confirmation.
    #[serde(default)]
    pub confirm_within_ms: Option<u64>,
}

/// Body of `policy rollback`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision whose text comes back.
    pub revision: u32,
    /// The revision that is to be in force now; null: whichever is.
    #[serde(default)]
    pub base: Option<u32>,
    /// Fall back after so many milliseconds without a confirmation.
    #[serde(default)]
    pub confirm_within_ms: Option<u64>,
}

/// Body of `policy confirm`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// Which revision; null: the one that waits.
    #[serde(default)]
    pub revision: Option<u32>,
}

/// `policy apply`, `policy rollback` and `policy confirm`: what is in force now, and where.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyApplied {
    /// The revision in force (with `dry_run`: before the change).
    pub revision: u32,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
    /// Whether the same text was in force already, and nothing changed.
    pub unchanged: bool,
    /// Whether this was only a check.
    pub dry_run: bool,
    /// Seconds until it must be confirmed; null: it needs no confirmation.
    pub confirm_within_s: Option<f64>,
    /// With `dry_run`: the differences in the unified format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
    /// Every full member, and whether it enforces the revision.
    pub nodes: Vec<NodeEnforcement>,
}

/// Whether a member enforces a revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEnforcement {
    /// Its number.
    pub node_id: u64,
    /// Its name.
    pub node: String,
    /// Whether it enforces that revision or a newer one.
    pub enforced: bool,
    /// Whether it was reached.
    pub connected: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// `policy history`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyHistory {
    /// Whether this is the newest state; otherwise, without quorum, what this node last knew.
    pub current: bool,
    /// Oldest first.
    pub revisions: Vec<RevisionShow>,
}

/// One policy revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RevisionShow {
    /// Its number.
    pub revision: u32,
    /// Whether it is in force.
    pub in_force: bool,
    /// `confirmed`, `pending`, `expired` (not confirmed in time) or `replaced` (before it was confirmed).
    pub standing: String,
    /// `init`, `apply` or `rollback`.
    pub source: String,
    /// Of a rollback: the revision whose text it has.
    pub rollback_to: Option<u32>,
    /// When, by the clock of the node that was asked (RFC 3339, UTC).
    pub at: String,
    /// Who asked.
    pub by: String,
    /// The node that was asked.
    pub via: String,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
    /// Length of its text in bytes.
    pub bytes: u64,
    /// Whether its text is kept: only then can it be shown, or come back.
    pub text_kept: bool,
}
