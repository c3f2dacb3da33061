//! `node.toml` as written: every key optional and with its place, so that each finding has one.

use serde::Deserialize;
use toml::Spanned;

type At<T> = Option<Spanned<T>>;

/// The file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) policy: At<String>,
    pub(super) node: Option<Node>,
    pub(super) cluster: Option<Cluster>,
    #[serde(default)]
    pub(super) port: Vec<Spanned<Port>>,
    pub(super) workers: Option<Spanned<Workers>>,
    pub(super) table: Option<Spanned<Table>>,
    pub(super) frames: Option<Spanned<Frames>>,
    pub(super) fragments: Option<Spanned<Fragments>>,
    pub(super) control: Option<Control>,
    pub(super) metrics: Option<Metrics>,
    pub(super) log: Option<Log>,
}

/// `[node]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: At<String>,
    pub(super) id: At<i64>,
    pub(super) role: At<String>,
}

/// `[cluster]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) directory: At<String>,
    pub(super) listen: At<Vec<Spanned<String>>>,
}

/// `[[port]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: At<String>,
    pub(super) zone: At<String>,
    pub(super) interface: At<String>,
    pub(super) address: At<String>,
    pub(super) prefix: At<String>,
    pub(super) partial_checksums: At<toml::Value>,
}

/// `[workers]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) count: At<i64>,
    pub(super) cpus: At<Vec<Spanned<i64>>>,
    pub(super) spin_us: At<i64>,
}

/// `[table]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) capacity: At<i64>,
}

/// `[frames]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Frames {
    pub(super) per_worker: At<i64>,
    pub(super) size_bytes: At<i64>,
}

/// `[fragments]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragments {
    pub(super) datagrams: At<i64>,
    pub(super) timeout_ms: At<i64>,
}

/// `[control]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: At<String>,
}

/// `[metrics]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: At<String>,
}

/// `[log]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: At<String>,
    pub(super) format: At<String>,
    pub(super) rate_per_s: At<i64>,
    #[serde(default)]
    pub(super) syslog: Vec<Spanned<Syslog>>,
}

/// `[[log.syslog]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Syslog {
    pub(super) server: At<String>,
    pub(super) transport: At<String>,
    pub(super) facility: At<String>,
    pub(super) rate_per_s: At<i64>,
    pub(super) enterprise_number: At<i64>,
}
