//! The two cold lines of a session: facts of both wings, identity, counters.

use crate::names::{AppId, ClassId, RuleId};
use crate::time::Now;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Identity of a session: who saw its first packet. Never changes, never repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SessionId {
    /// Node that made it.
    pub origin: u16,
    /// Boot number of that node.
    pub boot: u32,
    /// Counter within that boot: when it was made, and which one it was ([`SessionId::counter_of`]).
    pub counter: u64,
}

/// Bits of a counter below the second: more sessions than a node makes in one.
const NUMBER_BITS: u32 = 36;

impl SessionId {
    /// The counter of the session with that number (`count * shards + shard`), made `now_ms` after the start of
    /// its node.
    #[inline]
    pub fn counter_of(now: Now, number: u64) -> u64 {
        (now.0 / 1000) << NUMBER_BITS | (number & ((1 << NUMBER_BITS) - 1))
    }

    /// The number that its counter was made with, its low 36 bits.
    #[inline]
    pub fn number(self) -> u64 {
        self.counter & ((1 << NUMBER_BITS) - 1)
    }

    /// The second in which it was made, by its node's clock, counted like boot numbers.
    #[inline]
    pub fn made_s(self) -> u64 {
        u64::from(self.boot) + (self.counter >> NUMBER_BITS)
    }
}

impl std::fmt::Display for SessionId {
    /// `origin-boot-counter`, the boot in hexadecimal: what `session list` shows and `--id` takes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:x}-{}", self.origin, self.boot, self.counter)
    }
}

/// A text that is no session id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no session id; they look like 1-5f3a-42: take one from `tidegate session list`")]
pub struct SessionIdError(String);

impl std::str::FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(s: &str) -> Result<Self, SessionIdError> {
        let parse = || {
            let mut parts = s.split('-');
            let origin = parts.next()?.parse().ok()?;
            let boot = u32::from_str_radix(parts.next()?, 16).ok()?;
            let counter = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(SessionId { origin, boot, counter })
        };
        parse().ok_or_else(|| SessionIdError(s.chars().take(64).collect()))
    }
}

/// Facts of one wing. Each only grows: flags by or, sequence numbers by sequence-space maximum
/// (`spec/replication.md`, "What a session is made of").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WingFacts {
    /// Highest sequence number after a segment that this wing sent.
    pub seq_max: u32,
    /// Highest acknowledgement number that this wing sent.
    pub ack_max: u32,
    /// Highest right edge (acknowledgement plus scaled window) that this wing granted.
    pub edge_max: u32,
    /// Largest scaled window that this wing granted, in bytes.
    pub window_max: u32,
    /// Sequence number of its SYN.
    pub isn: u32,
    /// MSS option of its SYN; 0 without one.
    pub mss: u16,
    /// Fact bits, see [`super::tcp::fact`].
    pub bits: u8,
    /// Window scale of its SYN plus one; 0 without the option.
    pub scale_plus_1: u8,
}

/// What a packet touches beside the hot line: 128 bytes. The first line is for TCP and for showing,
/// the second for every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Cold {
    /// Facts of the first direction (0) and the reply (1).
    pub wings: [WingFacts; 2],
    /// Policy revision that permitted it and that `rule` and `service_class` come from.
    pub revision: u32,
    /// Rule that lets it in.
    pub rule: RuleId,
    /// Timeout class of the service: the one that an established session has.
    pub service_class: ClassId,
    /// Application that the flow matched as.
    pub application: AppId,
    /// Origin part of the identity.
    pub id_origin: u16,
    /// Unused bytes of the first line.
    pub spare: u16,
    /// Packets of each wing.
    pub packets: [u64; 2],
    /// Bytes of each wing (IP length).
    pub bytes: [u64; 2],
    /// Counter part of the identity.
    pub id_counter: u64,
    /// When it was set up, in milliseconds of [`crate::time::Now`]; wraps below 0 for one that is older than this
    /// process. See [`Cold::age_ms`].
    pub created_ms: u64,
    /// Boot part of the identity.
    pub id_boot: u32,
    /// TCP: when this node last saw each wing, in [`crate::time::Now::ms32`]; 0 is never. Not sent to
    /// other nodes: it says which window bounds may be enforced here.
    pub tcp_seen_ms: [u32; 2],
    /// Port that the last packet of each wing came in by, plus one; 0 before the first.
    pub ingress: [u8; 2],
    /// Unused; zero. The table's memory is plain bytes, so there is no hidden padding.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Cold>() == 128 && std::mem::offset_of!(Cold, packets) == 64);

impl Cold {
    /// Milliseconds since it was set up.
    pub fn age_ms(&self, now: Now) -> u64 {
        u64::try_from(now.0.wrapping_sub(self.created_ms) as i64).unwrap_or(0)
    }

    /// The identity.
    pub fn id(&self) -> SessionId {
        SessionId { origin: self.id_origin, boot: self.id_boot, counter: self.id_counter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_may_be_older_than_this_process() {
        // Red with subtraction that ends at 0: such a session would be as young as the process.
        let cold = Cold { created_ms: 1_000_u64.wrapping_sub(5_000), ..Cold::default() };
        assert_eq!((cold.age_ms(Now(1_000)), cold.age_ms(Now(3_000))), (5_000, 7_000));
        let ahead = Cold { created_ms: 1_001, ..Cold::default() };
        assert_eq!(ahead.age_ms(Now(1_000)), 0);
    }

    #[test]
    fn an_id_reads_back_and_nonsense_is_refused() {
        let id = SessionId { origin: 3, boot: 0xbeef, counter: 77 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1-2", "1-2-3-4", "x-1-1", "1--1", "-1-1-1", "99999-1-1"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
