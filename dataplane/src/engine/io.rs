//! The engine's border: frames in, verdicts, extra packets and events out.
//!
//! Order of calls for a worker: [`super::Engine::process`] with a batch, then act on each verdict,
//! then drain [`Outbox`] and the events, then [`super::Engine::sweep`] with the same `now`.

use super::SessionEvent;
use crate::addr::{Addr, Tuple};
use crate::drops::DropReason;
use crate::fragment::{Datagram, FragmentNote};
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::PortId;
use crate::time::Now;

/// Most frames in one call of `process`.
pub const BATCH_MAX: usize = 64;

/// A received Ethernet frame in memory that the engine may rewrite in place. Implemented by the
/// AF_XDP frame and by the in-memory twin.
pub trait Frame {
    /// The port that it came in by.
    fn port(&self) -> PortId;
    /// The bytes on the wire, from the destination MAC on.
    fn data(&self) -> &[u8];
    /// The same bytes, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// What the check of fragments noted on it; `None` on a frame as received.
    fn note(&self) -> Option<FragmentNote>;
    /// Notes it. It stays with the frame over hand-overs and waiting.
    fn set_note(&mut self, note: FragmentNote);
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it, as it now is, out of that port.
    Transmit(PortId),
    /// Free it. Already counted.
    Drop(DropReason),
    /// Free it: what becomes of it (its fragments) is in the [`Outbox`]. Not a drop.
    Consumed,
    /// Another worker's shard: hand it over untouched (index of the worker). A fragment goes to the
    /// worker that checks its datagram, and from there, with a note, to the one of its flow: never on.
    Handover(u16),
    /// A fragment whose ports are not known yet: keep it untouched until [`super::Engine::next_settled`]
    /// names its datagram. The worker's queue is bounded; what does not fit or waits too long is
    /// dropped through [`super::Engine::count_drop`].
    AwaitFragment {
        /// Its datagram.
        datagram: Datagram,
        /// When waiting ends.
        until: Now,
    },
    /// Keep it untouched until the next hop is known, then process it again; nothing was counted
    /// or set up for it. The worker's queue is bounded; what does not fit or waits too long is
    /// dropped through [`super::Engine::count_drop`].
    AwaitNeighbour {
        /// Port of the next hop.
        port: PortId,
        /// Address whose MAC is missing.
        next_hop: Addr,
    },
}

/// Something that the control side must hear of. Bounded: when the list is full, the event is
/// left out and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The MAC of a next hop is missing: ask the kernel to resolve it.
    NeighbourMissing {
        /// Port of the next hop.
        port: PortId,
        /// Address to resolve.
        next_hop: Addr,
    },
    /// A rule with the log flag denied or rejected a first packet.
    Refused(RefusedFlow),
    /// Something happened to a session that is watched or logged.
    Session(SessionEvent),
    /// So many events about sessions and refused flows were left out before those that follow.
    LeftOut(u64),
    /// A new session was refused because the table is full (J14).
    TableFull {
        /// The refused flow's first direction.
        tuple: Tuple,
    },
}

/// A first packet that a rule with the log flag refused, or the default where that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedFlow {
    /// When.
    pub at: Now,
    /// `deny` or `reject`.
    pub action: crate::policy::Action,
    /// First direction.
    pub tuple: Tuple,
    /// Ingress zone, and the zone that it would have left to.
    pub zones: [ZoneId; 2],
    /// Port that it came in by, and the one that it would have left by, where known.
    pub ports: [Option<PortId>; 2],
    /// The rule, or `None` for the default.
    pub rule: Option<RuleId>,
    /// The application that it matched as.
    pub application: AppId,
    /// IP length of the packet.
    pub bytes: u16,
}

/// Bytes for each packet that the engine writes itself: the largest that it ever sends.
pub const OUTBOX_PACKET_MAX: usize = 1792;
/// Packets that the engine can write during one call of `process`.
pub const OUTBOX_PACKETS: usize = 64;

/// Packets that the engine writes itself (ICMP errors, RSTs, fragments): allocated once, emptied
/// by the worker after each batch. When it is full, the packet is left out and counted.
pub struct Outbox {
    buffers: Box<[[u8; OUTBOX_PACKET_MAX]]>,
    meta: arrayvec::ArrayVec<(PortId, u16), OUTBOX_PACKETS>,
    /// Packets left out because the box was full.
    pub left_out: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            buffers: vec![[0; OUTBOX_PACKET_MAX]; OUTBOX_PACKETS].into_boxed_slice(),
            meta: arrayvec::ArrayVec::new(),
            left_out: 0,
        }
    }
}

impl Outbox {
    /// Lets `write` fill the next buffer; it returns the frame's length, or `None` for no frame.
    /// Returns whether a frame was queued.
    pub fn push(&mut self, port: PortId, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let i = self.meta.len();
        if i == OUTBOX_PACKETS {
            self.left_out += 1;
            return false;
        }
        match write(&mut self.buffers[i]) {
            Some(len) => {
                self.meta.push((port, len as u16));
                true
            }
            None => false,
        }
    }

    /// How many more packets fit.
    pub fn room(&self) -> usize {
        OUTBOX_PACKETS - self.meta.len()
    }

    /// The packets, with the port that each leaves by.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, &[u8])> {
        self.meta.iter().zip(&self.buffers).map(|((port, len), b)| (*port, &b[..usize::from(*len)]))
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.meta.clear();
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }
}
