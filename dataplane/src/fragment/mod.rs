//! Fragments: which datagram each belongs to, whether it fits the others, and the ports that the
//! first one has and the others lack.
//!
//! Nothing is put together here. Every fragment is checked against those of its datagram that were
//! seen before and is then forwarded by itself, with the ports of the first. What would make two
//! receivers put different packets together is dropped, and the rest of its datagram with it
//! (RFC 1858, RFC 3128, RFC 5722).
//!
//! Everything is allocated once. A datagram has an entry of a fixed size that says exactly which of
//! its 8-byte units were seen and where each fragment began; a full cache lets the oldest datagram
//! go. A datagram whose last missing fragment has come is forgotten at once: its identification may
//! be used again.
//!
//! | file | holds |
//! |---|---|
//! | `units` | the units of one datagram: what is new, a repetition, or an overlap |
//! | `cache` | the entries: found by hash, let go by age |

mod cache;
#[cfg(test)]
mod tests;
mod units;

pub use cache::FragmentCache;

use crate::addr::Addr;
use crate::drops::DropReason;
use crate::names::ZoneId;
use crate::packet::{Packet, Piece};
use crate::time::Now;

/// Fragments of one datagram that wait for the first of it, at most: a reversed datagram of 64 KiB
/// has 45 at an MTU of 1,500 and 54 at IPv6's least MTU of 1,280.
pub const WAITING_MAX: u8 = 64;

/// How much a cache holds, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentConfig {
    /// Incomplete datagrams, at least 1. Each takes 2.2 KiB, allocated at start.
    pub datagrams: u32,
    /// Milliseconds from a datagram's first seen fragment until what is missing no longer counts.
    /// The 30 s (RFC 791) and 60 s (RFC 8200) of receivers are far too long for a node between them.
    pub timeout_ms: u32,
}

impl Default for FragmentConfig {
    fn default() -> Self {
        FragmentConfig { datagrams: 4_096, timeout_ms: 5_000 }
    }
}

/// What makes a datagram's fragments belong together: RFC 791 section 3.2, RFC 8200 section 4.5. The
/// ingress zone is part of it, so that nobody can disturb a datagram from another zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramKey {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Identification.
    pub id: u32,
    /// IPv4 protocol; 0 for IPv6, whose fragments are told by addresses and identification alone.
    pub protocol: u8,
    /// Ingress zone.
    pub zone: ZoneId,
}

impl DatagramKey {
    /// The key of a fragment.
    pub fn new(packet: &Packet, piece: &Piece, zone: ZoneId) -> Self {
        DatagramKey {
            src: packet.tuple.src,
            dst: packet.tuple.dst,
            id: piece.id,
            protocol: if packet.v4 { piece.next_header } else { 0 },
            zone,
        }
    }
}

/// What the first fragment says about all of its datagram: a note on each frame that was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentNote {
    /// Source port, as in [`crate::addr::Tuple`].
    pub src_port: u16,
    /// Destination port, as in [`crate::addr::Tuple`].
    pub dst_port: u16,
    /// Upper-layer protocol.
    pub protocol: u8,
}

/// Names a datagram in a cache; never the same for two while fragments of one may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram(pub u64);

/// What becomes of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It fits, and its ports are known.
    Forward(FragmentNote),
    /// It fits, and its first has not come. Keep it, at most until then.
    Await {
        /// What [`Settled`] will name.
        datagram: Datagram,
        /// When waiting ends.
        until: Now,
    },
    /// It does not fit.
    Drop(DropReason),
}

/// What became of a datagram whose fragments waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub datagram: Datagram,
    /// The ports that its first fragment had, or why nothing of it is forwarded.
    pub outcome: Result<FragmentNote, DropReason>,
}

/// What a cache has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    /// Datagrams of which every fragment came.
    pub completed: u64,
    /// Datagrams given up because the cache was full.
    pub evicted: u64,
    /// Datagrams given up because a fragment was missing for too long.
    pub expired: u64,
    /// Datagrams refused because their fragments overlapped or contradicted each other.
    pub refused: u64,
}
