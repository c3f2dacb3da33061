//! `node.toml`: what this machine is to the cluster, its ports, its workers, its table.
//!
//! Nothing is read and then ignored: an unknown key is an error, and every error names its file,
//! line and column, and what to write instead. What comes out of [`load`] needs no further check.

mod check;
mod check_cluster;
mod check_log;
mod raw;
pub(crate) mod recover;

use crate::diagnostic::Diagnostic;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tidegate_dataplane::fragment::FragmentConfig;
pub use tidegate_sync::cluster::Role;

/// Capacity of the session table when none is written (J14).
pub const CAPACITY_DEFAULT: u32 = 262_144;
/// Least and most that `table.capacity` takes (J14).
pub const CAPACITY_RANGE: std::ops::RangeInclusive<u32> = 1_000..=50_000_000;
/// Where the control socket is when none is written.
pub const SOCKET_DEFAULT: &str = "/run/tidegate/control.sock";
/// Where a member keeps its identity, keys and Raft store when no other place is written.
pub const CLUSTER_DIRECTORY_DEFAULT: &str = "/var/lib/tidegate";
/// Port on which members reach one another when none is written (UDP).
pub const CLUSTER_PORT: u16 = 7400;
/// Most addresses of a member.
pub const CLUSTER_ADDRESSES_MAX: usize = 8;
/// Most workers of a node.
pub const WORKERS_MAX: u16 = 64;
/// Least and most frames of a worker's packet memory.
pub const FRAMES_RANGE: std::ops::RangeInclusive<u32> = 4_096..=4_194_304;
/// Most frames of all workers together.
pub const FRAMES_TOTAL_MAX: u32 = 4_194_304;
/// Least and most datagrams of the fragment cache, for the whole node.
pub const FRAGMENT_DATAGRAMS_RANGE: std::ops::RangeInclusive<u32> = 64..=262_144;
/// Least and most milliseconds that the fragments of a datagram may lie apart.
pub const FRAGMENT_TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u32> = 100..=60_000;
/// Frames that a worker has for each port when none are written: twice what one queue's rings hold.
pub const FRAMES_PER_PORT: u32 = 8_192;

/// A checked configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// The node's name.
    pub name: String,
    /// The node's number while it is in no cluster, from 1; a cluster gives its members theirs.
    pub node_id: u16,
    /// What it does. A witness has no ports, no workers and no policy of its own.
    pub role: Role,
    /// Membership in a cluster.
    pub cluster: ClusterConfig,
    /// Ports, in the order of the file; a port's place is its `PortId`.
    pub ports: Vec<PortConfig>,
    /// Worker threads.
    pub workers: WorkersConfig,
    /// Sessions that the table holds (J14).
    pub capacity: u32,
    /// Packet memory.
    pub frames: FramesConfig,
    /// The fragment cache.
    pub fragments: FragmentConfig,
    /// The control socket.
    pub control_socket: PathBuf,
    /// Where `/metrics` is served, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Log level.
    pub log_level: LogLevel,
    /// Log format.
    pub log_format: LogFormat,
    /// Records of flows on stderr in a second, at most.
    pub log_rate_per_s: u32,
    /// Servers that records of flows go to.
    pub syslog: Vec<SyslogConfig>,
    /// The policy file, relative paths taken from the configuration's folder. In force while the node is
    /// in no cluster, and the first revision of one that it founds.
    pub policy: Option<PathBuf>,
}

/// `[cluster]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Identity, keys, certificates and Raft store.
    pub directory: PathBuf,
    /// Where it listens for other members; empty: on the addresses by which it founded or joined.
    pub listen: Vec<SocketAddr>,
}

/// One `[[port]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Logical name.
    pub name: String,
    /// Zone that it belongs to.
    pub zone: String,
    /// Which network interface it is.
    pub select: Select,
    /// Whether frames may come with partial checksums.
    pub partial_checksums: PartialChecksums,
}

/// How a port finds its network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Select {
    /// By name.
    Interface(String),
    /// The interface that has this address.
    Address(IpAddr),
    /// The interface that has an address in this prefix.
    Prefix(IpNet),
}

impl std::fmt::Display for Select {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Select::Interface(name) => write!(f, "interface {name}"),
            Select::Address(address) => write!(f, "address {address}"),
            Select::Prefix(prefix) => write!(f, "prefix {prefix}"),
        }
    }
}

/// `partial_checksums` of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartialChecksums {
    /// On for veth and virtio, where a local stack may sit behind the port; off for the rest.
    Auto,
    /// Frames may carry only the pseudo-header sum: complete it.
    On,
    /// Every frame carries a full checksum.
    Off,
}

/// `[workers]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkersConfig {
    /// How many.
    pub count: u16,
    /// The CPU of each, when written; otherwise the scheduler's choice.
    pub cpus: Option<Vec<u16>>,
    /// How long an idle worker looks before it sleeps, in microseconds.
    pub spin_us: u32,
}

/// `[frames]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FramesConfig {
    /// Frames of each worker.
    pub per_worker: u32,
    /// Bytes of a frame, 2048 or 4096.
    pub size_bytes: u32,
}

/// `log.level`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One readable line for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

/// One `[[log.syslog]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogConfig {
    /// Its address.
    pub server: SocketAddr,
    /// How messages travel.
    pub transport: Transport,
    /// Facility number (RFC 5424 section 6.2.1).
    pub facility: u8,
    /// Records in a second, at most.
    pub rate_per_s: u32,
    /// Private enterprise number in the name of the structured data.
    pub enterprise_number: u32,
}

/// `log.syslog.transport`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One datagram a message (RFC 5426).
    Udp,
    /// A connection, with octet counting (RFC 6587).
    Tcp,
}

impl Transport {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}\n  help: name an existing file with --config; deploy/examples/node.toml is a commented example", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is wrong; every finding.
    #[error("{}", render(findings, text))]
    Invalid {
        /// What is wrong.
        findings: Vec<Diagnostic>,
        /// The file's text.
        text: String,
    },
}

fn render(findings: &[Diagnostic], text: &str) -> String {
    let mut out: String = findings.iter().map(|d| d.render(Some(text))).collect();
    let plural = if findings.len() == 1 { "" } else { "s" };
    out.push_str(&format!("{} error{plural} in {}", findings.len(), findings[0].file));
    out
}

/// An address at which other nodes reach this one: `10.0.0.1`, `10.0.0.1:7400`, `[2001:db8::1]:7400`. Without
/// a port, [`CLUSTER_PORT`].
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn cluster_address(text: &str) -> Result<SocketAddr, String> {
    let address = socket_address(text)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(format!(
            "{} cannot be reached by another node; write one of this node's own",
            address.ip()
        ));
    }
    Ok(address)
}

/// An address with a port, or without one for [`CLUSTER_PORT`].
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let without = || Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, CLUSTER_PORT));
    with_port.or_else(without).ok_or_else(|| {
        format!(
            "\"{text}\" is no IP address; write one such as 10.0.0.1, 10.0.0.1:{CLUSTER_PORT} or [2001:db8::1]:{CLUSTER_PORT}"
        )
    })
}

/// Reads and checks a configuration file.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
    parse(file, text)
}

/// Checks a configuration's text.
pub fn parse(file: &Path, text: String) -> Result<Config, ConfigError> {
    let name = file.display().to_string();
    let (raw, mut findings) = recover::read::<raw::File>(&name, &text);
    let read_whole = findings.is_empty();
    match check::check(file, &name, &text, raw, read_whole, &mut findings) {
        Some(config) if findings.is_empty() => Ok(config),
        _ => {
            findings.sort_by_key(|d| (d.line, d.column));
            Err(ConfigError::Invalid { findings, text })
        }
    }
}

#[cfg(test)]
mod tests;
