//! The policy file as a trusted value: every number is in its range, every reference points at
//! something. Only [`super::check`] makes one, so the fields are for reading.

use super::Action;
use super::replication::{ReplicationSettings, SetupAck};
use crate::session::timeouts::TIMEOUT_S_MAX;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// An idle timeout as written: seconds, or `never` (F6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ttl {
    /// So many seconds (1..2764800 or narrower, by the key).
    Seconds(u32),
    /// It does not end by being idle (F6).
    Never,
}

impl Ttl {
    /// In milliseconds; `None` is `never`.
    pub fn timeout_ms(self) -> Option<u64> {
        match self {
            Ttl::Seconds(s) => Some(u64::from(s) * 1000),
            Ttl::Never => None,
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ttl::Seconds(s) => write!(f, "{s}"),
            Ttl::Never => f.write_str("never"),
        }
    }
}

impl serde::Serialize for Ttl {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Ttl::Seconds(n) => s.serialize_u32(*n),
            Ttl::Never => s.serialize_str("never"),
        }
    }
}

/// `[timeouts]`: idle timeouts by protocol, in seconds (J2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP once the handshake is done.
    pub tcp_s: u32,
    /// UDP.
    pub udp_s: u32,
    /// ICMP and ICMPv6.
    pub icmp_s: u32,
    /// ICMP and ICMPv6 queries that were answered.
    pub icmp_reply_s: u32,
    /// SCTP.
    pub sctp_s: u32,
    /// GRE, ESP and all others.
    pub other_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { tcp_s: 1800, udp_s: 60, icmp_s: 60, icmp_reply_s: 4, sctp_s: 60, other_s: 60 }
    }
}

/// `tcp.time_wait` (J6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeWaitSetting {
    /// So many seconds (2..600).
    Seconds(u32),
    /// A closed session keeps its service timeout.
    Ageout,
}

/// `[tcp]` (J4 to J7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpSettings {
    /// Until the handshake completes, in seconds (J4).
    pub initial_timeout_s: u32,
    /// A valid RST ends the session at once (J5).
    pub rst_invalidate: bool,
    /// The completed close ends the session at once (J6).
    pub fin_invalidate: bool,
    /// Idle timeout after the second FIN (J6).
    pub time_wait: TimeWaitSetting,
    /// `time_wait` counts from the first FIN (J6).
    pub half_close_time_wait: bool,
    /// A first packet that is no SYN is dropped (J7).
    pub syn_check: bool,
    /// Payload before the handshake is done is dropped (J7).
    pub strict_syn_check: bool,
    /// A segment outside its window is dropped (J7).
    pub sequence_check: bool,
    /// A RST outside its window is dropped (J7).
    pub rst_sequence_check: bool,
}

/// `[mss]` (J8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MssSettings {
    /// Largest MSS option that a SYN passes on, in bytes (64..65535); unset: as it is.
    pub all_tcp: Option<u16>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        TcpSettings {
            initial_timeout_s: 20,
            rst_invalidate: false,
            fin_invalidate: false,
            time_wait: TimeWaitSetting::Seconds(150),
            half_close_time_wait: false,
            syn_check: true,
            strict_syn_check: false,
            sequence_check: true,
            rst_sequence_check: false,
        }
    }
}

/// Ports from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    /// Whether the range holds that port.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports it holds.
    pub fn width(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A `[[session_ttl.port]]` entry (F2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortTtl {
    /// Its unique number.
    pub id: u16,
    /// Protocol number; 0 is any.
    pub protocol: u8,
    /// Destination ports of the first direction (F3); `None`: every flow of the protocol.
    pub ports: Option<PortRange>,
    /// The idle timeout.
    pub timeout: Ttl,
    pub(super) at: usize,
}

/// `[session_ttl]` (F1, F2).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionTtl {
    /// For TCP and SCTP sessions that nothing more specific covers; `None`: the protocol's own.
    pub default: Option<Ttl>,
    /// Port entries, in file order.
    pub ports: Vec<PortTtl>,
}

/// `[log]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogSettings {
    /// First packets that no rule matches are logged, as those of a rule with `log = true`.
    pub default_deny: bool,
}

/// A `[[zone]]`: a name for a set of ports. Which ports is the node's own configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its name.
    pub name: Arc<str>,
    /// What an operator says about it.
    pub description: Option<Arc<str>>,
    pub(super) at: usize,
}

/// An `[[address_set]]`: a name for prefixes of either family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressSet {
    /// Its name.
    pub name: Arc<str>,
    /// Its prefixes, without host bits.
    pub prefixes: Vec<IpNet>,
    pub(super) at: usize,
}

/// One protocol and port combination of an application.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Term {
    /// Protocol number.
    pub protocol: u8,
    /// Source ports of the first direction.
    pub source: PortRange,
    /// Destination ports of the first direction.
    pub destination: PortRange,
}

impl Term {
    /// Whether a flow's first direction is of this protocol and these ports.
    #[inline]
    pub fn matches(&self, protocol: u8, source: u16, destination: u16) -> bool {
        self.protocol == protocol && self.destination.contains(destination) && self.source.contains(source)
    }
}

/// An `[[application]]` (J3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Application {
    /// Its name.
    pub name: Arc<str>,
    /// A flow that matches any of them is of this application.
    pub terms: Vec<Term>,
    /// Its own idle timeout (first in F5).
    pub inactivity_timeout: Option<Ttl>,
    pub(super) at: usize,
}

/// A zone in a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ZoneRef {
    /// Every zone that the policy declares.
    Any,
    /// Index into [`PolicyFile::zones`].
    Zone(u16),
}

/// An element of a rule's `source` or `destination`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressRef {
    /// Every address of both families.
    Any,
    /// Index into [`PolicyFile::address_sets`].
    Set(u32),
    /// A prefix written in the rule itself.
    Prefix(IpNet),
}

/// An element of a rule's `application`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ApplicationRef {
    /// Every flow; the application's label is the predefined one of its port, if there is one.
    Any,
    /// Index into [`super::PREDEFINED`].
    Predefined(u16),
    /// Index into [`PolicyFile::applications`].
    Own(u16),
}

/// A `[[rule]]` (J1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name, unique for its zones.
    pub name: Arc<str>,
    /// Zone that the flow's first packet comes from.
    pub from: ZoneRef,
    /// Zone that it leads to.
    pub to: ZoneRef,
    /// The source is in one of them.
    pub source: Vec<AddressRef>,
    /// The destination is in one of them.
    pub destination: Vec<AddressRef>,
    /// The first of them that matches names the flow's application.
    pub application: Vec<ApplicationRef>,
    /// What happens to the flow.
    pub action: Action,
    /// Idle timeout of its sessions (second in F5).
    pub session_ttl: Option<Ttl>,
    /// Whether its flows are logged.
    pub log: bool,
    /// A TCP packet that would be its first but is no SYN is answered with a RST (J7).
    pub tcp_rst: bool,
    /// Whether peers are told of its sessions; `None`: by `replication.protocols`.
    pub sync: Option<bool>,
    /// Whether its flows' first packets wait for peers; `None`: as `replication.setup_ack` says.
    pub setup_ack: Option<SetupAck>,
    /// A rule that is not enabled matches nothing.
    pub enabled: bool,
    /// What an operator says about it.
    pub description: Option<Arc<str>>,
    /// Line in the file.
    pub line: u32,
    pub(super) at: usize,
}

/// A policy file that passed [`super::check`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyFile {
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[tcp]`.
    pub tcp: TcpSettings,
    /// `[mss]`.
    pub mss: MssSettings,
    /// `[session_ttl]`.
    pub session_ttl: SessionTtl,
    /// `[log]`.
    pub log: LogSettings,
    /// `[replication]`.
    pub replication: ReplicationSettings,
    /// `[[zone]]`, in file order.
    pub zones: Vec<Zone>,
    /// `[[address_set]]`, in file order.
    pub address_sets: Vec<AddressSet>,
    /// `[[application]]`, in file order.
    pub applications: Vec<Application>,
    /// `[[rule]]`, in file order: the order in which they are matched.
    pub rules: Vec<Rule>,
    pub(super) text: Arc<str>,
    /// Rules that match no flow, for those before them cover them ([`super::shadow`]): no flow need be compared with them.
    pub(super) shadowed: BTreeSet<u32>,
}

impl PolicyFile {
    /// The text that it was read from.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The name of a zone in a rule.
    pub fn zone_name(&self, zone: ZoneRef) -> &str {
        match zone {
            ZoneRef::Any => "any",
            ZoneRef::Zone(i) => self.zones.get(usize::from(i)).map_or("?", |z| &z.name),
        }
    }

    /// An address of a rule, as written.
    pub fn address_name(&self, address: AddressRef) -> String {
        match address {
            AddressRef::Any => "any".into(),
            AddressRef::Set(i) => {
                self.address_sets.get(i as usize).map_or("?".into(), |s| s.name.to_string())
            }
            AddressRef::Prefix(p) => p.to_string(),
        }
    }

    /// An application of a rule, as written.
    pub fn application_name(&self, application: ApplicationRef) -> &str {
        match application {
            ApplicationRef::Any => "any",
            ApplicationRef::Predefined(i) => super::PREDEFINED.get(usize::from(i)).map_or("?", |p| p.name),
            ApplicationRef::Own(i) => self.applications.get(usize::from(i)).map_or("?", |a| &a.name),
        }
    }

    /// The prefixes of an address in a rule; `None` is every address.
    pub fn prefixes<'a>(&'a self, address: &'a AddressRef) -> Option<&'a [IpNet]> {
        match address {
            AddressRef::Any => None,
            AddressRef::Set(i) => Some(self.address_sets.get(*i as usize).map_or(&[], |s| &s.prefixes)),
            AddressRef::Prefix(p) => Some(std::slice::from_ref(p)),
        }
    }

    /// The terms of an application in a rule; `None` is every flow.
    pub fn terms(&self, application: ApplicationRef) -> Option<&[Term]> {
        match application {
            ApplicationRef::Any => None,
            ApplicationRef::Predefined(i) => {
                Some(super::PREDEFINED.get(usize::from(i)).map_or(&[], |p| p.terms))
            }
            ApplicationRef::Own(i) => {
                Some(self.applications.get(usize::from(i)).map_or(&[], |a| a.terms.as_slice()))
            }
        }
    }
}

const _: () = assert!(TIMEOUT_S_MAX as u64 * 1000 <= u32::MAX as u64);
