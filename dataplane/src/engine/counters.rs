//! What an engine counts. Plain numbers: each worker has its own, the node adds them up.

use super::{ReplicationCounters, WaitingCounters};
use crate::drops::DropCounters;
use crate::session::EndReason;

/// Counters of one engine, since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions set up.
    pub created: u64,
    /// Sessions that ended, by [`EndReason`].
    pub ended: [u64; EndReason::ALL.len()],
    /// New sessions refused because the table was full (J14).
    pub failed: u64,
    /// Packets forwarded.
    pub forwarded_packets: u64,
    /// Bytes forwarded (IP length).
    pub forwarded_bytes: u64,
    /// TCP segments that were forwarded but changed nothing: outside the window with the check off,
    /// or a SYN, RST or ACK that does not fit its connection.
    pub tcp_ignored: u64,
    /// TCP segments for which a window bound was not enforced but learned, because a side of the
    /// connection was not seen here of late (`spec/replication.md`).
    pub tcp_relearned: u64,
    /// ICMP errors that this engine wrote.
    pub icmp_errors_sent: u64,
    /// ICMP errors that the rate limit or a full outbox left out.
    pub icmp_errors_limited: u64,
    /// TCP resets that this engine wrote, for `reject` and `tcp_rst`.
    pub resets_sent: u64,
    /// IPv4 packets cut into fragments for a smaller MTU.
    pub fragmented: u64,
    /// Sessions set up with `never`, now live (F6).
    pub never_sessions: u64,
    /// Sessions that wanted `never` and got the longest timeout, because of the cap (F6).
    pub never_capped: u64,
    /// Events that the control side did not hear of because the list was full.
    pub events_left_out: u64,
    /// Packets for another worker.
    pub handovers: u64,
    /// Full passes of the sweep over the table.
    pub sweep_passes: u64,
    /// What replication did.
    pub replication: ReplicationCounters,
    /// Packets that waited for sessions, or for peers to hold them.
    pub waiting: WaitingCounters,
    /// Drops by reason.
    pub drops: DropCounters,
}

impl Counters {
    /// Adds another engine's counts.
    pub fn add(&mut self, other: &Counters) {
        // Destructured in full, so that a new counter cannot be forgotten.
        let Counters {
            created,
            ended,
            failed,
            forwarded_packets,
            forwarded_bytes,
            tcp_ignored,
            tcp_relearned,
            icmp_errors_sent,
            icmp_errors_limited,
            resets_sent,
            fragmented,
            never_sessions,
            never_capped,
            events_left_out,
            handovers,
            sweep_passes,
            replication,
            waiting,
            drops,
        } = other;
        self.created += created;
        for (mine, theirs) in self.ended.iter_mut().zip(ended) {
            *mine += theirs;
        }
        self.failed += failed;
        self.forwarded_packets += forwarded_packets;
        self.forwarded_bytes += forwarded_bytes;
        self.tcp_ignored += tcp_ignored;
        self.tcp_relearned += tcp_relearned;
        self.icmp_errors_sent += icmp_errors_sent;
        self.icmp_errors_limited += icmp_errors_limited;
        self.resets_sent += resets_sent;
        self.fragmented += fragmented;
        self.never_sessions += never_sessions;
        self.never_capped += never_capped;
        self.events_left_out += events_left_out;
        self.handovers += handovers;
        self.sweep_passes += sweep_passes;
        self.replication.add(replication);
        self.waiting.add(waiting);
        self.drops.add(drops);
    }
}
