//! The policy: its file, its checks, and the compiled form that engines evaluate.

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
