//! Sessions, and the filters that `list`, `summary`, `clear` and `watch` share.

use clap::Args;
use serde::{Deserialize, Serialize};

/// One session, both wings (J11).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// `origin-boot-counter`: never repeats.
    pub id: String,
    /// Protocol name, or its number for those without one.
    pub protocol: String,
    /// Protocol number.
    pub protocol_number: u8,
    /// TCP state (`syn_sent` to `reset`), or `one_way` or `replied` for the rest.
    pub state: String,
    /// Zone of the first direction's ingress.
    pub from_zone: String,
    /// Zone of the reply's ingress.
    pub to_zone: String,
    /// The rule that let it in, as `from/to/name`.
    pub policy: String,
    /// Policy revision that rule and timeout come from.
    pub revision: u32,
    /// The application that it matched as, if the rule names one.
    pub application: Option<String>,
    /// Idle timeout in force, in seconds; null is `never`.
    pub timeout_s: Option<f64>,
    /// What set the timeout (F5, J4, J6).
    pub timeout_source: String,
    /// Seconds until it ends if no packet comes; null with `never`.
    pub remaining_s: Option<f64>,
    /// Seconds since its last packet.
    pub idle_s: f64,
    /// Seconds since its first packet.
    pub age_s: f64,
    /// When its first packet came (RFC 3339, UTC).
    pub started_at: String,
    /// The first direction.
    pub forward: Wing,
    /// The reply direction.
    pub reply: Wing,
    /// The worker whose shard holds it.
    pub worker: u16,
    /// The node that saw its first packet.
    #[serde(default)]
    pub origin: String,
    /// The node that decides its fate.
    #[serde(default)]
    pub owner: String,
    /// Other nodes that hold a copy.
    #[serde(default)]
    pub replicas: Vec<String>,
}

/// One direction of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wing {
    /// Source address.
    pub source: String,
    /// Source port; for an ICMP query its identifier; null where the protocol has none.
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: String,
    /// Destination port; null where the protocol has none.
    pub destination_port: Option<u16>,
    /// Zone that its packets come in by.
    pub zone: String,
    /// Logical port that its last packet came in by; before the first, the one that it would come by.
    pub ingress_port: Option<String>,
    /// Logical port that its packets leave by, where there is a way now.
    pub egress_port: Option<String>,
    /// Packets forwarded.
    pub packets: u64,
    /// IP bytes forwarded.
    pub bytes: u64,
    /// What its sender's TCP said so far; null for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<WingTcp>,
}

/// TCP facts of one direction: each only grows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WingTcp {
    /// Highest sequence number after a segment that it sent.
    pub sequence_max: u32,
    /// Highest acknowledgement number that it sent.
    pub acknowledgement_max: u32,
    /// Largest scaled window that it granted, in bytes.
    pub window_bytes_max: u32,
    /// Window scale of its SYN; null: none seen.
    pub window_scale: Option<u8>,
    /// MSS of its SYN, in bytes; null: none seen.
    pub mss_bytes: Option<u16>,
}

/// Which sessions a verb is about, as the command line takes it and the API; all given parts must hold.
///
/// A field's description is its help text.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Filters (all that are given must hold; README has the grammar)")]
#[serde(default, deny_unknown_fields)]
pub struct SessionQuery {
    /// This session.
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Protocol: tcp, udp, icmp, icmpv6, sctp, gre, esp, or a number.
    #[arg(long, value_name = "PROTOCOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Source of the first direction lies in this prefix (an address is a prefix of one).
    #[arg(long, value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_prefix: Option<String>,
    /// Destination of the first direction lies in this prefix.
    #[arg(long, value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_prefix: Option<String>,
    /// Source port of the first direction: 53 or 1024-2047.
    #[arg(long, value_name = "PORT[-PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// Destination port of the first direction: 443 or 8000-8099.
    #[arg(long, value_name = "PORT[-PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// Either direction comes in or leaves by this port or network interface.
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Either direction comes in by this zone.
    #[arg(long, value_name = "ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The rule that let it in: a name, or from-zone/to-zone/name.
    #[arg(long, value_name = "RULE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The application that it matched as, such as https.
    #[arg(long, value_name = "APPLICATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Address family: ipv4 or ipv6.
    #[arg(long, value_name = "FAMILY", value_parser = ["ipv4", "ipv6"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// State: one_way, replied, syn_sent, syn_received, established, half_closed, time_wait, closed, reset.
    #[arg(long, value_name = "STATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The node that owns it: name or number.
    #[arg(long, value_name = "NODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only on this node: name or number. Each node answers for the sessions that it owns.
    #[arg(long, value_name = "NODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only the table of the node that is asked: copies of other nodes' sessions too.
    #[arg(skip)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// Between nodes: who may own sessions, as the asking node believes (`node.boot`, with commas).
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// At least so much: since its first packet: seconds, or such as 30s, 5m, 2h.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_duration: Option<String>,
    /// At most so much: since its first packet: seconds, or such as 30s, 5m, 2h.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
    /// At least so much: until it ages out; `never` is longer than any.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_remaining: Option<String>,
    /// At most so much: until it ages out; `never` is longer than any.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_remaining: Option<String>,
    /// At least so much: packets of both directions.
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_packets: Option<String>,
    /// At most so much: packets of both directions.
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_packets: Option<String>,
    /// At least so much: bytes of both directions: 1500, 10kB (1000), 5MiB (1024).
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<String>,
    /// At most so much: bytes of both directions: 1500, 10kB (1000), 5MiB (1024).
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<String>,
    /// Tunnel sessions. Refused: this version makes none.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
    /// Sessions that a helper opened. Refused: this version makes none.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resource_manager: bool,
    /// At most so many; a listing's.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `FIELD` or `FIELD:desc`; a listing's.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
}

impl SessionQuery {
    /// Whether nothing narrows it: every session.
    pub fn is_unfiltered(&self) -> bool {
        let all = SessionQuery {
            limit: self.limit,
            sort: self.sort.clone(),
            local: self.local,
            ..SessionQuery::default()
        };
        *self == all
    }
}

/// One line of a session listing. The last line is always `end`: a listing without it was cut off.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListLine {
    /// A session.
    Session(Box<Session>),
    /// The end.
    End(ListEnd),
}

/// [`ListLine`] with the session's JSON as it came, for those who pass it on.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawListLine {
    /// A session's JSON.
    Session(Box<serde_json::value::RawValue>),
    /// The end.
    End(ListEnd),
}

/// How a listing ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ListEnd {
    /// Sessions listed.
    pub listed: u64,
    /// With `sort`: sessions that matched, of which those listed are the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// Workers of this node that did not answer: their sessions are missing.
    pub unanswered_workers: Vec<u16>,
    /// Nodes that did not answer, or not to the end: their sessions are missing.
    #[serde(default)]
    pub unanswered_nodes: Vec<super::UnansweredNode>,
}

/// `session summary`: sums over all nodes, each of which counts the sessions that it owns.
///
/// Every session is one of `valid`, `pending`, `invalidated`, `in_drop`. With filters these four, `unicast`,
/// `multicast` and the breakdowns count what matches; the rest is the tables'.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionSummary {
    /// Sessions between two hosts.
    #[serde(default)]
    pub unicast: u64,
    /// Multicast sessions; this version makes none.
    #[serde(default)]
    pub multicast: u64,
    /// Sessions that forward.
    #[serde(default)]
    pub valid: u64,
    /// TCP sessions whose handshake is not complete.
    #[serde(default)]
    pub pending: u64,
    /// Expired sessions whose slots are not free yet; they match nothing.
    #[serde(default)]
    pub invalidated: u64,
    /// Sessions that the policy in force denies; their packets are dropped, and they are gone in a second.
    #[serde(default)]
    pub in_drop: u64,
    /// Live sessions without a timeout (F6).
    #[serde(default)]
    pub never: u64,
    /// Sessions since start that were refused `never` by its cap and got 2764800 s (F6).
    #[serde(default)]
    pub never_capped: u64,
    /// The same numbers for each node.
    #[serde(default)]
    pub nodes: Vec<NodeSummary>,
    /// Sessions that the table can hold (J14); of a cluster, whose nodes hold copies of each other's, what the
    /// smallest table can.
    pub maximum: u64,
    /// Sessions in the table; of a cluster each once.
    pub in_use: u64,
    /// Copies of sessions that another node owns, over all nodes.
    #[serde(default)]
    pub copies: u64,
    /// Sessions that match the filters, when any were given; the two breakdowns count only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
    /// Sessions in the table by protocol.
    pub by_protocol: std::collections::BTreeMap<String, u64>,
    /// Sessions in the table by state.
    pub by_state: std::collections::BTreeMap<String, u64>,
    /// Sessions that were set up since start.
    pub created: u64,
    /// New sessions refused because the table was full (J14).
    pub failed: u64,
    /// Sessions that ended since start, by cause.
    pub ended: std::collections::BTreeMap<String, u64>,
    /// Workers of this node that did not answer: their part is missing.
    pub unanswered_workers: Vec<u16>,
    /// Nodes that did not answer: their part is missing.
    #[serde(default)]
    pub unanswered_nodes: Vec<super::UnansweredNode>,
}

/// `session summary` of one node; the names are those of [`SessionSummary`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "described at SessionSummary")]
pub struct NodeSummary {
    pub node: String,
    pub node_id: u16,
    pub maximum: u64,
    /// Slots of its table in use: copies of other nodes' sessions too.
    pub in_use: u64,
    /// Of these, sessions that another node owns.
    #[serde(default)]
    pub copies: u64,
    pub unicast: u64,
    pub multicast: u64,
    pub valid: u64,
    pub pending: u64,
    pub invalidated: u64,
    pub in_drop: u64,
    pub failed: u64,
    pub created: u64,
}

/// What `session clear` is asked to do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// Which sessions.
    #[serde(default)]
    pub query: SessionQuery,
    /// Count only, clear nothing; the operator's own connection is looked for.
    #[serde(default)]
    pub preview: bool,
    /// The operator's own connection (SSH_CONNECTION): client address and port, server address
    /// and port.
    #[serde(default)]
    pub own_connection: Option<[String; 4]>,
}

/// What `session clear` did, or would do.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ClearReply {
    /// Sessions cleared, or that would be.
    pub cleared: u64,
    /// How many on each node.
    #[serde(default)]
    pub nodes: Vec<NodeCleared>,
    /// With `preview`: the operator's own connection, if it is among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_connection: Option<Box<Session>>,
    /// Workers of this node that did not answer: their sessions may still be there.
    pub unanswered_workers: Vec<u16>,
    /// Nodes that did not answer: their sessions may still be there.
    #[serde(default)]
    pub unanswered_nodes: Vec<super::UnansweredNode>,
}

/// Sessions cleared on one node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeCleared {
    /// The node.
    pub node: String,
    /// Its number.
    pub node_id: u16,
    /// How many of its own sessions.
    pub cleared: u64,
}
