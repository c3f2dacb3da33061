//! What a member knows of itself and its peers.

use super::Standing;
use std::net::SocketAddr;
use tidegate_sync::cluster::{ClusterId, NodeId, Role};
use tidegate_sync::raft::RaftRole;

/// One look at a member.
#[derive(Clone, Debug)]
pub struct Health {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// What it does.
    pub role: Role,
    /// The generation that it belongs to.
    pub generation: u32,
    /// What it is to the cluster.
    pub standing: Standing,
    /// Its part in Raft.
    pub raft: RaftRole,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Whether a change can be agreed on, as far as this node can see: a leader with a quorum is heard.
    pub quorum: bool,
    /// Index of the last committed entry that it knows.
    pub commit: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// All other members.
    pub peers: Vec<PeerHealth>,
    /// End of its certificate, Unix time in seconds.
    pub certificate_not_after_unix_s: u64,
    /// Why the certificate could not be renewed the last time.
    pub renewal_error: Option<String>,
    /// What was refused or dropped since the start.
    pub counters: Counters,
}

/// The connection to another member.
#[derive(Clone, Debug)]
pub struct PeerHealth {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Whether this node's own connection to it stands.
    pub connected: bool,
    /// Whether its connection to this node stands.
    pub connected_from: bool,
    /// Where it was reached last.
    pub address: Option<SocketAddr>,
    /// Round trip time in milliseconds, as QUIC estimates it.
    pub rtt_ms: Option<f64>,
    /// Why it was not reached the last time; `None` while connected.
    pub last_error: Option<String>,
    /// Its build, as it said.
    pub build: Option<String>,
}

/// What was refused or dropped since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Handshakes that failed: a strange certificate, no common protocol.
    pub handshakes_refused: u64,
    /// Hellos that were refused: version, membership, generation, store.
    pub hellos_refused: u64,
    /// Messages that were malformed, too long, or from the wrong sender.
    pub messages_refused: u64,
    /// Raft messages that were dropped because a queue was full; Raft sends again.
    pub messages_dropped: u64,
    /// Join requests that were refused.
    pub joins_refused: u64,
    /// Proposals that this node was asked for.
    pub proposals: u64,
    /// Elections that this node saw: changes of the leader's term.
    pub elections: u64,
}

/// Whether a member enforces a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enforcement {
    /// Which member.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// `Ok`: it does; otherwise why not, or why that is not known.
    pub result: Result<(), String>,
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct NodeReport {
    /// Its build.
    pub build: String,
    /// Revision and SHA-256 of the policy that its engines enforce; `None`: none, it denies.
    pub enforced: Option<(u32, [u8; 32])>,
    /// End of its certificate, Unix time in seconds.
    pub certificate_not_after_unix_s: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// SHA-256 over its copy of the state at that index.
    pub state_sha256: [u8; 32],
    /// Seconds since it started.
    pub uptime_s: u64,
}
