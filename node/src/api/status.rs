//! The node's state: what runs, what forwards, what is wrong.

use serde::{Deserialize, Serialize};

/// `tidegate status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Release.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The node's number: in its cluster, or the configured one.
    pub node_id: u16,
    /// `node`, or `witness`, which votes and has no dataplane.
    pub role: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_s: f64,
    /// Number of the policy in force; null: none is loaded.
    pub policy_revision: Option<u32>,
    /// SHA-256 of its text, hexadecimal.
    pub policy_sha256: Option<String>,
    /// The cluster; null: the node is in none.
    pub cluster: Option<super::ClusterStatus>,
    /// Replication; null: the node is in no cluster.
    #[serde(default)]
    pub sync: Option<super::SyncStatus>,
    /// Ports that carry traffic.
    pub ports_up: u32,
    /// Ports that are configured.
    pub ports_configured: u32,
    /// Workers that answered within their time.
    pub workers_alive: u16,
    /// Workers that were started.
    pub workers_started: u16,
    /// The session table.
    pub table: TableUse,
    /// The fragment cache.
    pub fragments: FragmentUse,
    /// What keeps transit from bypassing the dataplane.
    pub walls: Walls,
    /// The mirror of the kernel's tables.
    pub routes: RouteStatus,
    /// Everything that should work and does not. Empty: the node is whole.
    pub degraded: Vec<String>,
}

/// Use of the session table.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TableUse {
    /// Sessions that it can hold.
    pub capacity: u64,
    /// Sessions that it holds.
    pub in_use: u64,
    /// The share in percent.
    pub occupancy_percent: f64,
}

/// Use of the fragment cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FragmentUse {
    /// Incomplete datagrams that it can hold (`fragments.datagrams`).
    pub capacity: u64,
    /// Incomplete datagrams that it holds.
    pub in_use: u64,
    /// Datagrams given up since start because it was full.
    pub evicted: u64,
}

/// Both walls of fail closed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Walls {
    /// Kernel forwarding, redirects and router advertisements are off where they must be.
    pub kernel_forwarding_off: bool,
    /// Settings that were wrong at the last check, each as `path = value`.
    pub wrong_settings: Vec<String>,
    /// Times that a setting was found wrong and set right since start.
    pub settings_repaired: u64,
    /// Every open port has the XDP program that drops transit when no daemon runs.
    pub xdp_program_attached: bool,
}

/// State of the netlink mirror.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Generation of the snapshot in force.
    pub generation: u32,
    /// Routes in it.
    pub routes: u64,
    /// Resolved neighbours in it.
    pub neighbours: u64,
    /// Times that the mirror lost events and read everything again.
    pub resyncs: u64,
    /// What the mirror leaves out, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why the mirror does not follow the kernel now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One port of `port list`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Logical name.
    pub name: String,
    /// Its number.
    pub id: u8,
    /// Zone.
    pub zone: String,
    /// How it selects its interface.
    pub select: String,
    /// The interface, if one is there.
    pub interface: Option<String>,
    /// Its index.
    pub ifindex: Option<u32>,
    /// `up`, `down` (no carrier or set down) or `absent` (no such interface, or not opened).
    pub state: String,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its MAC.
    pub mac: Option<String>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Queues bound.
    pub queues: u16,
    /// Whether frames may come with partial checksums.
    pub partial_checksums: bool,
    /// Times that it was opened.
    pub opened: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// What kernel and XDP program counted on it, by cause.
    pub kernel_counters: std::collections::BTreeMap<String, u64>,
}

/// `port list`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PortList {
    /// In the order of the configuration.
    pub ports: Vec<Port>,
}

/// `tidegate drops`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Sum over all reasons.
    pub total: u64,
    /// Every reason.
    pub reasons: Vec<Drop>,
    /// Workers that did not answer: their part is missing.
    pub unanswered_workers: Vec<u16>,
}

/// One reason to drop a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drop {
    /// Stable name.
    pub reason: String,
    /// Packets since start.
    pub packets: u64,
    /// One sentence.
    pub description: String,
}

/// `/livez` and `/readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    pub problems: Vec<String>,
}
