//! The cluster: who is in it, what it agrees on, and the tokens by which nodes join.

use serde::{Deserialize, Serialize};

/// `cluster status`, and the cluster's part of `status`: the cluster as this node sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// Its id, hexadecimal.
    pub cluster_id: String,
    /// 1, and one more for each forced recovery.
    pub generation: u32,
    /// This node's number.
    pub node_id: u64,
    /// This node's name.
    pub node: String,
    /// `node` or `witness`.
    pub role: String,
    /// `member`, `removed`, `fenced` or `store_failed`.
    pub standing: String,
    /// What that means and what to do; null for a member.
    pub standing_note: Option<String>,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub raft_role: String,
    /// Raft term.
    pub term: u64,
    /// Number of the leader that this node knows.
    pub leader_id: Option<u64>,
    /// Its name.
    pub leader: Option<String>,
    /// Whether a change can be agreed on, as far as this node can see.
    pub quorum: bool,
    /// Why a change is refused now; null: it is not.
    pub changes_refused: Option<String>,
    /// Log index of the last committed entry that this node knows.
    pub commit_index: u64,
    /// Log index of the last entry that it applied.
    pub applied_index: u64,
    /// End of this node's certificate (RFC 3339, UTC).
    pub certificate_expires_at: String,
    /// Seconds until then; negative: it has expired.
    pub certificate_remaining_s: i64,
    /// Why it could not be renewed the last time; null: it could, or was not due.
    pub certificate_renewal_error: Option<String>,
    /// The policy, as agreed and as enforced here.
    pub policy: ClusterPolicy,
    /// All members, this one too.
    pub members: Vec<MemberStatus>,
}

/// The policy of a cluster, seen from one node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// The revision that this node is to enforce; null: none was agreed on yet, or it was withdrawn here.
    pub agreed_revision: Option<u32>,
    /// SHA-256 of its text, hexadecimal.
    pub agreed_sha256: Option<String>,
    /// The revision that all engines of this node enforce; null: none, everything is denied.
    pub enforced_revision: Option<u32>,
    /// SHA-256 of its text, hexadecimal.
    pub enforced_sha256: Option<String>,
    /// A revision that waits for its confirmation.
    pub pending: Option<PendingPolicy>,
    /// The newest revision, when its time ran out unconfirmed and this node fell back from it before the
    /// cluster could agree on that.
    pub fell_back_from: Option<u32>,
    /// Why the agreed revision is not enforced here; null: it is, or is about to be.
    pub error: Option<String>,
}

/// A revision that waits for its confirmation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PendingPolicy {
    /// Its number.
    pub revision: u32,
    /// Seconds that are left, by this node's clock.
    pub remaining_s: f64,
    /// The revision that comes back otherwise; null: none, everything would be denied.
    pub fallback_revision: Option<u32>,
}

/// One member, as this node sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub node_id: u64,
    /// Its name.
    pub node: String,
    /// `node` or `witness`.
    pub role: String,
    /// Whether it votes.
    pub votes: bool,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it is the node that answers.
    pub this_node: bool,
    /// Whether this node is connected to it; of this node itself true.
    pub connected: bool,
    /// Why not.
    pub problem: Option<String>,
    /// Where members reach it.
    pub addresses: Vec<String>,
    /// Where this node reaches it.
    pub address: Option<String>,
    /// Round trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its release.
    pub version: Option<String>,
    /// The revision that its engines enforce; null: none, or not known. A witness enforces none.
    pub enforced_revision: Option<u32>,
    /// SHA-256 of its text, hexadecimal.
    pub enforced_sha256: Option<String>,
    /// End of its certificate (RFC 3339, UTC).
    pub certificate_expires_at: Option<String>,
    /// When it joined (RFC 3339, UTC).
    pub joined_at: String,
}

/// `cluster members`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Members {
    /// The cluster's name.
    pub cluster: String,
    /// Its generation.
    pub generation: u32,
    /// Whether this is the newest membership; otherwise, without quorum, what this node last knew.
    pub current: bool,
    /// All members.
    pub members: Vec<MemberStatus>,
    /// Former members: their numbers never return.
    pub removed: Vec<FormerMember>,
}

/// A node that was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FormerMember {
    /// Its number.
    pub node_id: u64,
    /// Its name.
    pub node: String,
}

/// Body of `cluster init`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// The cluster's name.
    pub name: String,
    /// This node's name; null: as configured.
    pub node: Option<String>,
    /// Where other nodes reach it.
    pub addresses: Vec<String>,
}

/// Body of `cluster join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The join token.
    pub token: String,
    /// This node's name; null: as configured.
    pub node: Option<String>,
    /// Where other nodes reach it.
    pub addresses: Vec<String>,
}

/// `cluster init` and `cluster join`: what this node is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// The cluster's name.
    pub cluster: String,
    /// Its id, hexadecimal.
    pub cluster_id: String,
    /// This node's number.
    pub node_id: u64,
    /// This node's name.
    pub node: String,
    /// `node` or `witness`.
    pub role: String,
    /// The policy revision in force; null: none yet.
    pub policy_revision: Option<u32>,
}

/// Body of `cluster token create`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// How long it is good, in milliseconds.
    pub ttl_ms: u64,
    /// What may join with it: `node` or `witness`.
    pub role: String,
}

/// `cluster token create`: the only time that the secret is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenCreated {
    /// Its public part, for `cluster token revoke`.
    pub id: String,
    /// The token.
    pub token: String,
    /// What may join with it.
    pub role: String,
    /// Until when (RFC 3339, UTC).
    pub expires_at: String,
}

/// `cluster token list`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TokenList {
    /// Whether this is the newest state; otherwise, without quorum, what this node last knew.
    pub current: bool,
    /// All that may still matter.
    pub tokens: Vec<TokenShow>,
}

/// One join token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenShow {
    /// Its public part.
    pub id: String,
    /// What may join with it.
    pub role: String,
    /// `open`, `used` or `expired`.
    pub state: String,
    /// Until when it can be used (RFC 3339, UTC).
    pub expires_at: String,
    /// Number of the node that used it.
    pub used_by_id: Option<u64>,
    /// Its name.
    pub used_by: Option<String>,
}

/// Body of `cluster token revoke`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The token's public part, or the token itself.
    pub id: String,
}

/// Body of `cluster remove`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Name or number.
    pub node: String,
    /// Only say what would go.
    #[serde(default)]
    pub preview: bool,
}

/// `cluster remove`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Removal {
    /// The member.
    pub member: MemberStatus,
    /// Members that vote, with it.
    pub voters: u32,
}

/// Body of verbs that take no choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// `cluster rotate`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// Each member.
    pub nodes: Vec<RotatedNode>,
}

/// One member's new certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RotatedNode {
    /// Its number.
    pub node_id: u64,
    /// Its name.
    pub node: String,
    /// End of the new certificate (RFC 3339, UTC).
    pub certificate_expires_at: Option<String>,
    /// Why it has none.
    pub error: Option<String>,
}

/// Body of `cluster recover`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// Only say what would be lost.
    pub preview: bool,
}

/// `cluster recover`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// The cluster's generation, after it or, as a preview, now.
    pub generation: u32,
    /// The node that carries on.
    pub node: String,
    /// Members that are (or would be) fenced.
    pub fenced: Vec<FormerMember>,
    /// The policy revision in force.
    pub policy_revision: Option<u32>,
}

/// `cluster history`: every change that was agreed on, and who asked for it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Whether this is the newest state; otherwise, without quorum, what this node last knew.
    pub current: bool,
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Log index.
    pub index: u64,
    /// When, by the clock of the node that was asked (RFC 3339, UTC).
    pub at: String,
    /// Who asked.
    pub by: String,
    /// The node that was asked.
    pub via: String,
    /// What was asked.
    pub what: String,
    /// What became of it.
    pub outcome: String,
}

/// `cluster reissue`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reissued {
    /// Where the new key and certificate are.
    pub directory: String,
    /// End of the new certificate (RFC 3339, UTC).
    pub certificate_expires_at: String,
}
