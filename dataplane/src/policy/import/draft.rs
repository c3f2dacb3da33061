//! The policy file that an import writes: only what the source said.

use super::super::model::Ttl;
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;

/// Longest name in a policy file.
const NAME_MAX: usize = 63;

/// Seconds or `never`, as the file writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time(pub(super) Ttl);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Ttl::Seconds(s) => serializer.serialize_u32(s),
            Ttl::Never => serializer.serialize_str("never"),
        }
    }
}

/// `tcp.time_wait`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum TimeWait {
    /// Seconds.
    Seconds(u32),
    /// `"ageout"`.
    Word(&'static str),
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tcp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initial_timeout: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rst_invalidate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fin_invalidate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time_wait: Option<TimeWait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) half_close_time_wait: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) syn_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strict_syn_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rst_sequence_check: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Mss {
    pub(super) all_tcp: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SessionTtl {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) default: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) port: Vec<PortTtl>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PortTtl {
    pub(super) id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<Time>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Zone {
    pub(super) name: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct AddressSet {
    pub(super) name: String,
    pub(super) prefixes: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Application {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inactivity_timeout: Option<Time>,
    pub(super) term: Vec<Term>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Term {
    pub(super) protocol: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination_port: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) source: Vec<String>,
    pub(super) destination: Vec<String>,
    pub(super) application: Vec<String>,
    pub(super) action: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) log: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
}

/// Everything that an import can set.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Draft {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mss: Option<Mss>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_ttl: Option<SessionTtl>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) zone: Vec<Zone>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) address_set: Vec<AddressSet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) application: Vec<Application>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rule: Vec<Rule>,
}

impl Draft {
    /// The file's text.
    pub(super) fn text(&self) -> String {
        // Plain strings, numbers and lists of them always serialize.
        toml::to_string(self).unwrap_or_default()
    }
}

/// Gives out names that a policy file accepts, each once.
#[derive(Debug, Default)]
pub(super) struct NameBook {
    used: BTreeSet<String>,
}

impl NameBook {
    /// `wanted` if it is legal, new and `free` of another meaning; else the nearest name that is.
    pub(super) fn name(&mut self, wanted: &str, free: impl Fn(&str) -> bool) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
        let mut base: String = wanted.chars().map(legal).take(NAME_MAX).collect();
        if !base.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            base.insert(0, '_');
            base.truncate(NAME_MAX);
        }
        let mut name = base.clone();
        let mut suffix = 2u32;
        while name == "any" || !free(&name) || self.used.contains(&name) {
            let tail = format!("_{suffix}");
            name = base.chars().take(NAME_MAX - tail.len()).chain(tail.chars()).collect();
            suffix += 1;
        }
        self.used.insert(name.clone());
        name
    }
}
