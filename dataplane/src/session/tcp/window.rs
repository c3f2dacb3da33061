//! The bounds of a tracked connection (RFC 9293 section 3.4, RFC 7323; after G. van Rooij, "Real
//! stateful TCP packet filtering in IPFilter"), and when they may be enforced.

use super::{fact, seq_le, seq_max};
use crate::packet::{Tcp, tcp_flags};
use crate::session::record::WingFacts;

/// How long one wing may go on alone before the other's half of its bounds is learned again, in ms
/// (`spec/replication.md`, "TCP windows on more than one node").
pub(super) const LEARN_AFTER_MS: i32 = 5_000;

/// The smallest window that a bound on old segments is computed with: a receiver may have advertised
/// as much without scaling.
const WINDOW_MIN: u32 = 66_000;
/// Farther than this nothing is compared: a quarter of the sequence space.
const REACH_MAX: u32 = 1 << 30;
/// What the fragments behind a first one may add to a segment.
const FRAGMENTS_MAX: u32 = 65_535;
/// RFC 7323 section 2.3: the largest shift.
const SHIFT_MAX: u32 = 14;

impl WingFacts {
    /// The shift of the window in this wing's segments that are no SYN: in force only when both SYNs
    /// carried the option (RFC 7323 section 2.2). Where a SYN was not seen, the largest that is
    /// possible, so that nothing is refused for it.
    #[inline]
    pub(super) fn shift(&self, other: &WingFacts) -> u32 {
        if !self.has(fact::SYN) {
            SHIFT_MAX
        } else if other.has(fact::SYN) && other.scale_plus_1 == 0 {
            0
        } else {
            u32::from(self.scale_plus_1.saturating_sub(1))
        }
    }

    /// Whether this wing has acknowledged anything, so that `ack_max` means something.
    #[inline]
    pub(super) fn has_acked(&self, other: &WingFacts) -> bool {
        self.has(fact::MID) || other.has(fact::SYN_ACKED)
    }

    /// Takes the acknowledgement number of a segment in place.
    #[inline]
    pub(super) fn acknowledge(&mut self, other: &WingFacts, ack: u32) {
        self.ack_max = if self.has_acked(other) { seq_max(self.ack_max, ack) } else { ack };
    }

    /// Takes acknowledgement and window of a segment in place that is no SYN.
    #[inline]
    pub(super) fn grant(&mut self, other: &WingFacts, t: &Tcp) {
        let window = u32::from(t.window) << self.shift(other);
        // A zero window still admits a probe of one byte.
        let edge = t.ack.wrapping_add(window.max(1));
        let known = self.has_acked(other) || (self.has(fact::SYN) && other.has(fact::SYN));
        self.edge_max = if known { seq_max(self.edge_max, edge) } else { edge };
        self.window_max = self.window_max.max(window).max(1);
        self.acknowledge(other, t.ack);
    }
}

/// How far behind what was sent a segment or an acknowledgement may lie: twice the window, for it
/// may have been overtaken by a whole window on its way.
#[inline]
pub(super) fn reach(window: u32) -> u32 {
    window.max(WINDOW_MIN).saturating_mul(2).min(REACH_MAX)
}

/// Whether `number` lies more than `reach` behind `newest`.
#[inline]
fn is_behind(number: u32, newest: u32, reach: u32) -> bool {
    // At most a quarter of the number space, so it fits.
    newest.wrapping_sub(number) as i32 > reach as i32
}

/// Whether `own` may send sequence numbers from `seq` to `end`: not beyond what the other side
/// granted, and not older than a window.
#[inline]
pub(super) fn sequence_fits(own: &WingFacts, other: &WingFacts, seq: u32, end: u32) -> bool {
    seq_le(seq, other.edge_max) && !is_behind(end, own.seq_max, reach(other.window_max))
}

/// Whether a segment of `own` is inside its window: the sequence numbers fit, and it acknowledges
/// nothing that was not sent, and nothing older than a window (RFC 5961 section 5).
#[inline]
pub(super) fn is_inside(own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
    let end = t.seq.wrapping_add(t.segment_len());
    if !sequence_fits(own, other, t.seq, end) {
        return false;
    }
    if t.flags & tcp_flags::ACK == 0 {
        return true;
    }
    let unseen = if other.has(fact::FRAGMENTED) { FRAGMENTS_MAX } else { 0 };
    let sent = other.seq_max.wrapping_add(unseen);
    // What was acknowledged once, while the other side was not seen here, may be again.
    let sent = if own.has_acked(other) { seq_max(sent, own.ack_max) } else { sent };
    seq_le(t.ack, sent) && !is_behind(t.ack, other.seq_max, reach(own.window_max))
}

/// Whether a segment goes on where its own wing was last seen, within a window: the one bound that
/// needs nothing of the other side. Before that side is seen there is no window to measure by.
#[inline]
pub(super) fn is_near(own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
    other.is_silent() || away(t.seq, own.seq_max) <= reach(other.window_max)
}

/// How far apart two numbers are, either way.
#[inline]
pub(super) fn away(a: u32, b: u32) -> u32 {
    (a.wrapping_sub(b) as i32).unsigned_abs()
}

/// Whether the bounds of wing `w` must be learned (again): a side was never seen by this node, or the
/// wing has gone on for seconds without the other. `seen_ms` is when each was last seen here, 0 for
/// never. Both idle for the same time is no reason: nobody moved the bounds meanwhile.
#[inline]
pub(super) fn is_stale(seen_ms: &[u32; 2], w: usize) -> bool {
    let alone = seen_ms[w].wrapping_sub(seen_ms[1 - w]) as i32;
    seen_ms[0] == 0 || seen_ms[1] == 0 || alone > LEARN_AFTER_MS
}
