//! Replication: who is there, how far each peer is behind, and what copies differ in.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `sync status`, and part of `status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SyncStatus {
    /// The node.
    pub node: String,
    /// Its number.
    pub node_id: u16,
    /// Boot number of its engines, as in the ids of its sessions.
    pub boot: u32,
    /// Whether it holds all that it needs to take over, as it says to everybody.
    pub in_sync: bool,
    /// What it waits for when it is not: `start`, `paused`, `cut_off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Nodes in sync that have not sent all their sessions yet.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Whether its table has no room for sessions of others.
    #[serde(default)]
    pub no_room: bool,
    /// Times that this process was stopped for longer than it takes to count as dead.
    #[serde(default)]
    pub pauses: u64,
    /// Workers where nothing ages, because they were stopped and what they missed is still to come.
    #[serde(default)]
    pub workers_held: u16,
    /// Sessions whose end waits for other nodes' word.
    #[serde(default)]
    pub asking: u64,
    /// Early packets that wait for their session.
    #[serde(default)]
    pub parked_packets: u64,
    /// First packets that wait until other nodes hold their session (`setup_ack`).
    #[serde(default)]
    pub held_packets: u64,
    /// What became of such packets since the daemon's start, by name: as `tidegate_waiting_packets_total` has it.
    #[serde(default)]
    pub waited_packets: BTreeMap<String, u64>,
    /// How long it takes until a dead node is noticed, in milliseconds.
    #[serde(default)]
    pub detection_ms: u32,
    /// Who is there, as this node believes; this node too.
    pub view: Vec<ViewNode>,
    /// Every other full member.
    pub peers: Vec<SyncPeer>,
    /// What the engines counted of replication, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Workers that did not answer: their part is missing.
    #[serde(default)]
    pub unanswered_workers: Vec<u16>,
}

/// One node of a view.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ViewNode {
    /// Its number.
    pub node_id: u16,
    /// Its name.
    pub node: String,
    /// Its boot.
    pub boot: u32,
    /// Whether it is alive.
    pub alive: bool,
    /// Whether it is in sync: only such nodes own sessions.
    pub in_sync: bool,
}

/// One peer, sums over all workers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SyncPeer {
    /// Its number.
    pub node_id: u16,
    /// Its name.
    pub node: String,
    /// Whether records can flow, both ways.
    pub connected: bool,
    /// Whether it counts as alive.
    pub alive: bool,
    /// Whether it is in sync, with room for what this node owns.
    pub in_sync: bool,
    /// Its boot; null: never heard of.
    pub boot: Option<u32>,
    /// What its heartbeats say: `unknown`, `one_way`, `hung`, `alive`, `silent`.
    pub heartbeat: String,
    /// Whether only a third node hears it.
    pub indirect: bool,
    /// Age of its newest heartbeat in milliseconds; null: none yet.
    pub last_heartbeat_age_ms: Option<u64>,
    /// It said that it has no room for what this node owns.
    pub has_no_room: bool,
    /// Whether all that it owns has come.
    pub caught_up: bool,
    /// Changes that were not sent to it yet.
    pub lag_entries: u64,
    /// Bytes made for it that it has not acknowledged yet.
    pub pending_bytes: u64,
    /// Batches that it has not acknowledged yet.
    pub pending_batches: u64,
    /// Bytes sent to it.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
    /// Records sent, by kind: `changes`, `resync`, `ends`, `questions`.
    pub records_sent: BTreeMap<String, u64>,
    /// Records received, by what became of them.
    pub records_received: BTreeMap<String, u64>,
    /// Resyncs that were needed, by reason.
    pub resyncs_by_reason: BTreeMap<String, u64>,
    /// Records of it that were refused, by reason.
    pub refused_by_reason: BTreeMap<String, u64>,
    /// Sessions of the resync that is on its way to it; null: none is.
    pub resync_sent_sessions: Option<u64>,
    /// Whether a resync of it is coming in.
    pub resync_coming: bool,
    /// Where it was reached.
    #[serde(default)]
    pub address: Option<String>,
    /// Why it is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Round trip to it in microseconds.
    #[serde(default)]
    pub rtt_us: Option<u64>,
}

/// `sync resync`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncRequest {
    /// Name or number of one peer; null: all.
    #[serde(default)]
    pub peer: Option<String>,
}

/// What it began.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResyncBegun {
    /// Peers that exchange everything with this node now.
    pub peers: Vec<String>,
    /// Peers that are not connected: they do when they are.
    pub unconnected: Vec<String>,
}

/// `session verify`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Verification {
    /// Whether all nodes that answered hold the same sessions.
    pub agree: bool,
    /// Sessions on each node that answered.
    pub nodes: Vec<VerifiedNode>,
    /// Sessions that are not the same everywhere, the first so many.
    pub differing: Vec<DifferingSession>,
    /// Buckets of sessions that differ: more than `differing` names when there are too many.
    pub differing_buckets: u32,
    /// How often it was compared: what is on its way is given a moment.
    pub rounds: u32,
    /// Nodes that did not answer.
    pub unanswered_nodes: Vec<UnansweredNode>,
}

/// One node's part.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifiedNode {
    /// The node.
    pub node: String,
    /// Its number.
    pub node_id: u16,
    /// Sessions that others are to have too.
    pub sessions: u64,
}

/// A session that is not the same everywhere.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DifferingSession {
    /// Its id.
    pub id: String,
    /// Nodes that do not hold it.
    pub missing_on: Vec<String>,
    /// Fields that differ: the value of each node that holds it.
    pub fields: BTreeMap<String, BTreeMap<String, String>>,
}

/// A node that did not answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct UnansweredNode {
    /// Its name.
    pub node: String,
    /// Its number.
    pub node_id: u16,
    /// Why not.
    pub why: String,
}

/// One node's digests, for `session verify`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Digests {
    /// Digest and number of sessions, by bucket.
    pub buckets: Vec<(u64, u32)>,
}

/// One node's sessions of one bucket: their fields by name, by id.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BucketSessions {
    /// By id.
    pub sessions: BTreeMap<String, BTreeMap<String, String>>,
    /// Sessions that are here and idle beyond their timeout, as far as is known here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub idle: BTreeSet<String>,
}
