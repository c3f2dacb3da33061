//! The hot line of a session: what every packet of it reads or writes, in one cache line.

use crate::addr::{Addr, Key};
use crate::names::{ClassId, ZoneId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`HotLine::flags`].
pub mod flag {
    /// The slot holds a session. The table sets and clears it, nobody else.
    pub const IN_USE: u8 = 1;
    /// The first direction runs from the key's low end to its high end.
    pub const FIRST_FORWARD: u8 = 1 << 1;
}

/// Which of an engine's policies it was, as a session's hot line remembers it: the low 24 bits of a count
/// of policies put in force. Not the revision: a revision can come back (a rollback that nobody
/// confirmed), or mean another text once the node has joined a cluster. Only compared for equality: a
/// session would have to sleep through exactly 2^24 policies to be mistaken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PolicyStamp([u8; 3]);

impl From<u32> for PolicyStamp {
    #[inline]
    fn from(count: u32) -> Self {
        let [a, b, c, _] = count.to_le_bytes();
        PolicyStamp([a, b, c])
    }
}

/// What a packet of an established session touches: exactly one cache line. All zero is a slot
/// that was never used; a freed slot links the free list through `egress[0]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct HotLine {
    /// Key: the lower of the two ends.
    pub low: Addr,
    /// Key: the higher end.
    pub high: Addr,
    /// Key: port of the lower end.
    pub low_port: u16,
    /// Key: port of the higher end.
    pub high_port: u16,
    /// Key: upper-layer protocol number.
    pub protocol: u8,
    /// Derived state, see `session`; opaque to the table.
    pub state: u8,
    /// Timeout class in force (J2 to J6): the sweep compares idle time with this class's cutoff.
    pub class: ClassId,
    /// Ingress zone of each wing; 0 is the first direction.
    pub zone: [ZoneId; 2],
    /// When the last packet of either wing came: [`crate::time::Now::ms32`].
    pub last_seen_ms: u32,
    /// Where each wing leaves; opaque to the table.
    pub egress: [u32; 2],
    /// Which route snapshot `egress` comes from; opaque to the table.
    pub egress_generation: u32,
    /// Which policy permitted it last; opaque to the table.
    pub judged_by: PolicyStamp,
    /// Bits of [`flag`].
    pub flags: u8,
}

const _: () = assert!(size_of::<HotLine>() == 64);

impl HotLine {
    /// The key that the line holds.
    #[inline]
    pub fn key(&self) -> Key {
        Key {
            low: self.low,
            high: self.high,
            low_port: self.low_port,
            high_port: self.high_port,
            protocol: self.protocol,
        }
    }

    /// Whether the slot holds a session with that key. No early exit: the line is one miss anyway.
    #[inline]
    pub fn holds(&self, key: &Key) -> bool {
        let ends = (self.low.0 ^ key.low.0) | (self.high.0 ^ key.high.0);
        let ports = (self.low_port ^ key.low_port) | (self.high_port ^ key.high_port);
        (ends == 0) & (ports == 0) & (self.protocol == key.protocol) & self.in_use()
    }

    /// Whether the slot holds a session.
    #[inline]
    pub fn in_use(&self) -> bool {
        self.flags & flag::IN_USE != 0
    }

    /// Whether the first direction runs from the key's low end to its high end.
    #[inline]
    pub fn first_forward(&self) -> bool {
        self.flags & flag::FIRST_FORWARD != 0
    }

    /// Milliseconds since the last packet at `now_ms32`; right across the wrap at 49 days.
    #[inline]
    pub fn idle_ms(&self, now_ms32: u32) -> u32 {
        now_ms32.wrapping_sub(self.last_seen_ms)
    }

    pub(super) fn for_key(key: &Key) -> Self {
        HotLine {
            low: key.low,
            high: key.high,
            low_port: key.low_port,
            high_port: key.high_port,
            protocol: key.protocol,
            flags: flag::IN_USE,
            ..HotLine::default()
        }
    }
}
