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

/// `policy show`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyShow {
    /// Number of the policy in force.
    pub revision: u32,
    /// The file that it was read from.
    pub source: String,
    /// When it came in force (RFC 3339, UTC).
    pub loaded_at: String,
    /// Rules in the order in which they are tried.
    pub rules: Vec<RuleShow>,
    /// First packets that no rule matched.
    pub default_deny_hits: u64,
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
    /// A rule that is not enabled matches nothing.
    pub enabled: bool,
    /// First packets that it matched since its name first came in force.
    pub hits: u64,
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
    /// Number of the policy in force.
    pub revision: u32,
    /// The file that it was read from.
    pub source: String,
    /// Its text, comments included.
    pub text: String,
}

/// `policy diff FILE`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// Number of the policy in force.
    pub revision: u32,
    /// The file that it was compared with.
    pub file: String,
    /// Whether the texts differ.
    pub changed: bool,
    /// The differences in the unified format: `-` is in force, `+` is in the file.
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
