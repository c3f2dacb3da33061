//! The engine's border: frames in, verdicts, extra packets and events out.
//!
//! Order of calls for a worker: [`super::Engine::process`] with a batch, then act on each verdict,
//! then drain [`Outbox`] and the events, then [`super::Engine::sweep`] with the same `now`.

use crate::addr::{Addr, Tuple};
use crate::drops::DropReason;
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::PortId;

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
    /// Another worker's shard: hand it over untouched (index of the worker).
    Handover(u16),
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
    /// A rule with the log flag permitted, denied or rejected a first packet.
    Flow(FlowEvent),
    /// A new session was refused because the table is full (J14).
    TableFull {
        /// The refused flow's first direction.
        tuple: Tuple,
    },
}

/// What a rule with the log flag decided about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// `permit`, `deny` or `reject`.
    pub action: crate::policy::Action,
    /// First direction.
    pub tuple: Tuple,
    /// Ingress zone.
    pub from: ZoneId,
    /// Egress zone.
    pub to: ZoneId,
    /// The rule, or `None` for the default.
    pub rule: Option<RuleId>,
    /// The application that it matched as.
    pub application: AppId,
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
