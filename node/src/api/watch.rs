//! What happens to sessions and flows: a line of `session watch`, and a record of the log.

use serde::{Deserialize, Serialize};

/// One line of `session watch -o json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchLine {
    /// The first line: from here on every event is told.
    Watching {
        /// The node.
        node: String,
        /// Every node whose sessions are told of.
        #[serde(default)]
        nodes: Vec<String>,
        /// Workers that did not answer: their sessions are not told of.
        unanswered_workers: Vec<u16>,
        /// Nodes that did not answer: they are asked again.
        #[serde(default)]
        unanswered_nodes: Vec<super::UnansweredNode>,
    },
    /// A node is not heard of any more; it is asked again. What happens there meanwhile is not told.
    Lost(super::UnansweredNode),
    /// A node that was lost, or did not answer at first, is heard of again.
    Found {
        /// The node.
        node: String,
    },
    /// A session was set up.
    Created(Box<FlowRecord>),
    /// A session's state is another one.
    Changed(Box<FlowRecord>),
    /// A session is gone.
    Ended(Box<FlowRecord>),
    /// So many events were left out here, because they came faster than they were read. They are counted
    /// before filters where a worker left them out.
    LeftOut {
        /// How many.
        count: u64,
    },
}

/// What happened to a session or a refused flow, at one moment. Addresses and ports are those of the first
/// direction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FlowRecord {
    /// When (RFC 3339, UTC).
    pub time: String,
    /// The node that saw it.
    pub node: String,
    /// Session id; null for a flow that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Protocol name or number.
    pub protocol: String,
    /// Protocol number.
    pub protocol_number: u8,
    /// State, of an ended session the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The state before, when it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_state: Option<String>,
    /// Why the session ended: `aged`, `closed`, `reset`, `cleared`, `denied`, `superseded`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Source address.
    pub source: String,
    /// Source port, or identifier of an ICMP query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: String,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Zone that it comes from.
    pub from_zone: String,
    /// Zone that it leads to.
    pub to_zone: String,
    /// Logical port that it comes in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_port: Option<String>,
    /// Logical port that it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_port: Option<String>,
    /// The rule, as `from/to/name`, or `default`.
    pub policy: String,
    /// The application that it matched as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Policy revision that rule and timeout come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// When the session's first packet came (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Seconds since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Packets of the first direction; of a refused flow the one that was refused.
    pub packets: u64,
    /// IP bytes of the first direction.
    pub bytes: u64,
    /// Packets of the reply.
    pub reply_packets: u64,
    /// IP bytes of the reply.
    pub reply_bytes: u64,
}
