//! `[replication]` as a trusted value: what peers are told, how soon a dead one is seen, and what waits
//! for whom (`spec/replication.md`). Read by `read_replication`, asked by engines, shards and detector.

use crate::addr::proto;

/// Longest time that a change waits for others to fill its batch, in milliseconds.
pub const FLUSH_MS: u32 = 1;
/// Longest time from a node's last heartbeat until it counts as dead, in milliseconds.
pub const DETECTION_MS_MAX: u32 = 10_000;
/// Bounds of the parking time that is not configured, in milliseconds.
const PARK_MS: std::ops::RangeInclusive<u64> = 20..=200;

/// Whether a flow's first packet waits until peers hold its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SetupAck {
    /// It does not wait.
    #[default]
    None,
    /// Until one peer has it.
    One,
    /// Until every connected peer has it.
    All,
}

impl SetupAck {
    /// As written in the file.
    pub fn name(self) -> &'static str {
        match self {
            SetupAck::None => "none",
            SetupAck::One => "one",
            SetupAck::All => "all",
        }
    }
}

/// What becomes of a first packet that no peer acknowledged in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnTimeout {
    /// It is forwarded.
    #[default]
    Release,
    /// It is dropped, and its session ends.
    Drop,
}

impl OnTimeout {
    /// As written in the file.
    pub fn name(self) -> &'static str {
        match self {
            OnTimeout::Release => "release",
            OnTimeout::Drop => "drop",
        }
    }
}

/// A set of protocol numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocols([u64; 4]);

impl Protocols {
    /// No protocol.
    pub const NONE: Protocols = Protocols([0; 4]);
    /// Every protocol.
    pub const ALL: Protocols = Protocols([u64::MAX; 4]);

    /// The set and one more. Returns whether it is new.
    pub fn add(&mut self, protocol: u8) -> bool {
        let new = !self.holds(protocol);
        self.0[usize::from(protocol / 64)] |= 1 << (protocol % 64);
        new
    }

    /// Whether the set holds a protocol.
    #[inline]
    pub fn holds(&self, protocol: u8) -> bool {
        self.0[usize::from(protocol / 64)] >> (protocol % 64) & 1 != 0
    }

    /// Its protocols, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|p| self.holds(*p))
    }
}

/// Every protocol but ICMP and ICMPv6: who pings another node after a failure gets an answer anyway.
impl Default for Protocols {
    fn default() -> Self {
        let mut bits = Protocols::ALL.0;
        for protocol in [proto::ICMP, proto::ICMPV6] {
            bits[usize::from(protocol / 64)] &= !(1 << (protocol % 64));
        }
        Protocols(bits)
    }
}

/// `[replication]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicationSettings {
    /// Time between two heartbeats.
    pub heartbeat_interval_ms: u32,
    /// A node from which so many in a row were not heard is dead.
    pub heartbeat_misses: u32,
    /// Whether first packets wait for peers; a rule's own setting comes first.
    pub setup_ack: SetupAck,
    /// How long they wait.
    pub setup_ack_timeout_ms: u32,
    /// What becomes of them then.
    pub setup_ack_on_timeout: OnTimeout,
    /// How long a packet without a session waits for it; 0: it does not; `None`: as the round trip to the
    /// peers wants it.
    pub park_ms: Option<u32>,
    /// Protocols whose sessions peers are told of, where a rule does not say otherwise.
    pub protocols: Protocols,
    /// Age from which peers are told of a session.
    pub min_age_s: u32,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        ReplicationSettings {
            heartbeat_interval_ms: 20,
            heartbeat_misses: 5,
            setup_ack: SetupAck::None,
            setup_ack_timeout_ms: 150,
            setup_ack_on_timeout: OnTimeout::Release,
            park_ms: None,
            protocols: Protocols::default(),
            min_age_s: 0,
        }
    }
}

impl ReplicationSettings {
    /// Time from a node's last heartbeat until it counts as dead.
    pub fn detection_ms(&self) -> u32 {
        self.heartbeat_interval_ms.saturating_mul(self.heartbeat_misses)
    }

    /// How long a packet without a session waits for it, with that round trip to the peers: if the file
    /// does not say, twice the round trip and the flush interval, between 20 and 200 ms.
    pub fn parking_ms(&self, round_trip_us: u64) -> u64 {
        match self.park_ms {
            Some(ms) => u64::from(ms),
            None => {
                let wanted = round_trip_us.saturating_mul(2).div_ceil(1000) + u64::from(FLUSH_MS);
                wanted.clamp(*PARK_MS.start(), *PARK_MS.end())
            }
        }
    }
}
