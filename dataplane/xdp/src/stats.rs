//! Every number that this crate counts, in one place.

use tidegate_dataplane::route::PortId;

/// One queue of one port, since its socket was opened; a [`PortStats`] goes on over port flaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received, Ethernet headers included.
    pub rx_bytes: u64,
    /// Frames given to the transmit ring.
    pub tx_packets: u64,
    /// Bytes given to the transmit ring, Ethernet headers included.
    pub tx_bytes: u64,
    /// Frames that found the transmit ring full (dropped as `transmit_full`).
    pub tx_full: u64,
    /// Times that the kernel found nothing in the fill ring (`rx_fill_ring_empty_descs`).
    pub fill_empty: u64,
    /// Frames that the kernel dropped because the receive ring was full (`rx_ring_full`).
    pub rx_ring_full: u64,
    /// Frames that the kernel dropped for any other reason, too large among them (`rx_dropped`).
    pub kernel_dropped: u64,
    /// Descriptors that the kernel refused (`rx_invalid_descs + tx_invalid_descs`): always 0, or a bug.
    pub invalid_descriptors: u64,
    /// Frames that a ring named although the kernel did not have them: always 0, or a bug.
    pub ledger_refused: u64,
    /// Kicks that failed for another reason than a full queue or a device that is down or gone.
    pub kick_errors: u64,
}

impl QueueStats {
    /// Adds another queue's numbers.
    pub fn add(&mut self, o: &QueueStats) {
        let QueueStats {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            tx_full,
            fill_empty,
            rx_ring_full,
            kernel_dropped,
            invalid_descriptors,
            ledger_refused,
            kick_errors,
        } = o;
        self.rx_packets += rx_packets;
        self.rx_bytes += rx_bytes;
        self.tx_packets += tx_packets;
        self.tx_bytes += tx_bytes;
        self.tx_full += tx_full;
        self.fill_empty += fill_empty;
        self.rx_ring_full += rx_ring_full;
        self.kernel_dropped += kernel_dropped;
        self.invalid_descriptors += invalid_descriptors;
        self.ledger_refused += ledger_refused;
        self.kick_errors += kick_errors;
    }
}

/// One queue of one port, and the worker that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// Port.
    pub port: PortId,
    /// Receive queue.
    pub queue: u32,
    /// Worker.
    pub worker: u16,
    /// Its counters, earlier sockets of the same port and worker not included.
    pub stats: QueueStats,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its number.
    pub worker: u16,
    /// Passes through its loop: a worker whose number stands still is stuck.
    pub heartbeat: u64,
    /// Batches given to the engine.
    pub batches: u64,
    /// Times that it slept in poll.
    pub sleeps: u64,
    /// Frames handed to another worker.
    pub handover_out: u64,
    /// Frames taken from another worker.
    pub handover_in: u64,
    /// Frames dropped because the ring to the other worker was full.
    pub handover_full: u64,
    /// Frames that another worker asked it to send from a queue that only it has.
    pub transmit_for_others: u64,
    /// Frames waiting for a neighbour.
    pub held: u64,
    /// Frames waiting for the first fragment of their datagram.
    pub held_fragments: u64,
    /// Frames in its pool.
    pub frames_free: u64,
    /// Frames that its sockets have.
    pub frames_lent: u64,
    /// Packets of the engine's own that found no free frame or no place in a transmit ring.
    pub outbox_dropped: u64,
    /// Events that did not fit into the channel to the control side.
    pub events_left_out: u64,
    /// Times that its pool was empty while a fill ring wanted frames.
    pub pool_empty: u64,
    /// Commands carried out.
    pub commands: u64,
}

/// One port, summed over its queues and over every socket that it has had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Sum over queues and time.
    pub total: QueueStats,
    /// What the XDP program on it counted; zero without one. Begins anew with each attach.
    pub program: ProgramStats,
    /// Times that it was opened.
    pub opened: u64,
}

/// What the XDP program counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Passed to the kernel: destination is an address of this node.
    pub pass_local: u64,
    /// Passed to the kernel: ARP.
    pub pass_arp: u64,
    /// Passed to the kernel: link-local scope, neighbour discovery among it.
    pub pass_link_local: u64,
    /// Passed to the kernel: LLDP, LACP, spanning tree.
    pub pass_link_control: u64,
    /// Dropped: transit, and no socket bound.
    pub drop_no_socket: u64,
}

/// Where all frames are, counted while every worker stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameAudit {
    /// Frames that were made.
    pub total: u32,
    /// Different frames that were found.
    pub found: u32,
    /// Frames that were found a second time: always 0, or memory is shared that must not be.
    pub duplicates: u32,
    /// Of those found: in pools.
    pub free: u32,
    /// Of those found: lent to the kernel or staged.
    pub lent: u32,
    /// Of those found: in rings between workers.
    pub in_rings: u32,
    /// Of those found: waiting for a neighbour or a first fragment.
    pub held: u32,
}

impl FrameAudit {
    /// Whether every frame was found once.
    pub fn is_whole(&self) -> bool {
        self.found == self.total && self.duplicates == 0
    }
}
