//! The two cold lines of a session: identity, facts of both wings, counters.

use crate::names::{AppId, ClassId, RuleId};

/// Identity of a session: who saw its first packet. Never changes, never repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SessionId {
    /// Node that made it.
    pub origin: u16,
    /// Boot number of that node.
    pub boot: u32,
    /// Counter within that boot; the low bits hold the shard.
    pub counter: u64,
}

/// Facts of one wing. Each only grows: flags by or, sequence numbers by sequence-space maximum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WingFacts {
    /// Highest sequence number after a segment that this wing sent.
    pub seq_max: u32,
    /// Highest acknowledgement number that this wing sent.
    pub ack_max: u32,
    /// Highest right edge (acknowledgement plus scaled window) that this wing granted.
    pub edge_max: u32,
    /// Largest scaled window that this wing granted.
    pub window_max: u32,
    /// Sequence number of its first SYN.
    pub isn: u32,
    /// MSS option of its SYN; 0 without one.
    pub mss: u16,
    /// Fact bits, see `session::tcp`.
    pub bits: u8,
    /// Window scale option of its SYN; 0xff without one.
    pub scale: u8,
}

/// What a packet seldom touches: 128 bytes beside the hot line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct Cold {
    /// Facts of the first direction (0) and the reply (1).
    pub wings: [WingFacts; 2],
    /// Packets of each wing.
    pub packets: [u64; 2],
    /// Bytes (IP length) of each wing.
    pub bytes: [u64; 2],
    /// Counter part of the identity.
    pub id_counter: u64,
    /// Boot part of the identity.
    pub id_boot: u32,
    /// Origin part of the identity.
    pub id_origin: u16,
    /// Application that the flow matched as.
    pub application: AppId,
    /// Rule that let it in.
    pub rule: RuleId,
    /// When it was set up, milliseconds of [`crate::time::Now`], low 32 bits.
    pub created_ms: u32,
    /// Policy revision that rule and timeout come from.
    pub revision: u32,
    /// Timeout class of the service (the one that an established session has).
    pub service_class: ClassId,
}

const _: () = assert!(size_of::<Cold>() == 128);
