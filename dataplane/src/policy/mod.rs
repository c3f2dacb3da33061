//! The policy: its file, its checks, and the compiled form that engines evaluate.
//!
//! Why it exists: an operator writes one TOML file; an engine must answer "may this flow pass, and
//! how long may it idle?" for every first packet. [`check`] turns the text into a [`PolicyFile`]
//! and says everything that is wrong with it in one go; [`compile`] turns a file that passed into an
//! immutable [`Policy`]. A [`PolicyFile`] only comes from [`check`], so nothing behind it checks again.
//!
//! [`mod@format`] describes every key of the file; `deploy/examples/policy.toml` is one to start from.
//!
//! It must not do I/O, and [`Policy::evaluate`] must not allocate, block or log.

mod applications;
mod bitmaps;
mod check;
mod compiled;
mod fields;
pub mod import;
mod intervals;
mod matcher;
mod model;
mod order;
mod predefined;
mod read_log;
mod read_objects;
mod read_replication;
mod read_rules;
mod read_tcp;
mod read_timeouts;
mod reader;
mod replication;
mod report;
mod search;
mod shadow;
mod suggest;
#[cfg(test)]
mod tests;
mod ttl;
mod warnings;

#[doc = include_str!("format.md")]
pub mod format {}

pub use check::{CheckReport, FILE_BYTES_MAX, check};
pub use compiled::{
    CompileError, Judgement, NEVER_SHARE_PERCENT, Policy, RuleInfo, TcpPolicy, TimeWait, ZoneInfo, compile,
};
pub use matcher::Place;
pub use model::{
    AddressRef, AddressSet, Application, ApplicationRef, LogSettings, MssSettings, PolicyFile, PortRange,
    PortTtl, Rule, SessionTtl, TcpSettings, Term, TimeWaitSetting, Timeouts, Ttl, Zone, ZoneRef,
};
pub use predefined::{PREDEFINED, Predefined};
pub use replication::{DETECTION_MS_MAX, FLUSH_MS, OnTimeout, Protocols, ReplicationSettings, SetupAck};
pub use report::{DIAGNOSTICS_MAX, Diagnostic, Severity};

/// What a rule does with a flow (J1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it pass and set up a session.
    Permit,
    /// Drop it in silence.
    Deny,
    /// Drop it and tell the sender: TCP RST, or ICMP unreachable.
    Reject,
}
