//! Where the wings of a connection are that this node has not seen all along (`spec/replication.md`, "TCP windows on
//! more than one node").
//!
//! What others told of it may be old, and a single segment may be forged. So a segment says where its wing is only
//! when both of its numbers go on from what is known, or when the other wing, which no forger of this one sees, says
//! the same: each acknowledges what the other sends. Everything else passes, so that the endpoints, which know better,
//! can judge it, and moves nothing.

use super::window::{LEARN_AFTER_MS, away, reach};
use super::{acknowledge_syn, acknowledges_syn_of, fact, seq_max};
use crate::packet::{Tcp, tcp_flags};
use crate::session::record::WingFacts;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The last segment of each wing that fitted nothing: believed when one of the other wing says the same. Never told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Claims {
    /// Sequence number after it.
    end: [u32; 2],
    /// Its acknowledgement number.
    ack: [u32; 2],
    /// Its window as it stands there, at least 1; 0 without a claim.
    window: [u16; 2],
}

impl Claims {
    fn note(&mut self, w: usize, t: &Tcp) {
        self.end[w] = t.seq.wrapping_add(t.segment_len());
        self.ack[w] = t.ack;
        self.window[w] = t.window.max(1);
    }

    /// Whether a segment of wing `w` says the same as the other wing's claim: each acknowledges about what the other
    /// sends, as far as their windows let one be ahead.
    fn are_of(&self, w: usize, own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
        let window = self.window[1 - w];
        let granted = other.window_max.max(u32::from(window) << other.shift(own));
        window != 0
            && away(t.seq, self.ack[1 - w]) <= reach(granted)
            && away(t.ack, self.end[1 - w]) <= reach(window_with(own, other, t))
    }

    /// Puts both wings where the claim of the other one and this segment say that they are. What was in flight may
    /// have been acknowledged already.
    fn settle(&mut self, w: usize, own: &mut WingFacts, other: &mut WingFacts, t: &Tcp) {
        let (end, ack, window) = (self.end[1 - w], self.ack[1 - w], self.window[1 - w]);
        own.seq_max = seq_max(t.seq.wrapping_add(t.segment_len()), ack);
        (own.ack_max, own.edge_max) = (t.ack, t.ack);
        other.seq_max = seq_max(end, t.ack);
        let window = u32::from(window) << other.shift(own);
        other.window_max = other.window_max.max(window).max(1);
        (other.ack_max, other.edge_max) = (ack, ack.wrapping_add(window.max(1)));
        *self = Claims::default();
    }
}

/// The largest window that a wing is known to have granted, with this segment.
fn window_with(own: &WingFacts, other: &WingFacts, t: &Tcp) -> u32 {
    own.window_max.max(u32::from(t.window) << own.shift(other))
}

/// Whether nobody has seen one of the wings here for so long that the connection may have gone on elsewhere.
#[inline]
pub(super) fn is_idle(seen_ms: &[u32; 2], now: u32) -> bool {
    seen_ms.iter().any(|seen| now.wrapping_sub(*seen) > LEARN_AFTER_MS as u32)
}

/// Whether both numbers of a segment go on from what is known: each where its own wing was, or where the other one
/// expects it.
pub(super) fn goes_on(own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
    let sends = |known| away(t.seq, known) <= reach(other.window_max);
    let acks = |known| away(t.ack, known) <= reach(own.window_max);
    let (own_acks, other_acks) = (own.has_acked(other), !other.is_silent() && other.has_acked(own));
    let nothing_known = other.is_silent() && !own_acks;
    (sends(own.seq_max) || (other_acks && sends(other.ack_max)))
        && (nothing_known || (!other.is_silent() && acks(other.seq_max)) || (own_acks && acks(own.ack_max)))
}

/// Whether a wing of which nothing was seen here has answered the other one's SYN elsewhere: it sends what is no SYN and
/// acknowledges that very SYN, which an end does whose connection stands (RFC 9293 section 3.10.7), or for whose client a
/// cookie stands (RFC 7413), and sends it where the other one expects it, as far as that has said.
pub(super) fn is_answered(own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
    own.is_silent()
        && acknowledges_syn_of(other, t)
        && (other.ack_max == 0 || away(t.seq, other.ack_max) <= reach(other.window_max))
}

/// Takes a segment whose numbers both go on.
fn believe(own: &mut WingFacts, other: &mut WingFacts, t: &Tcp) {
    let end = t.seq.wrapping_add(t.segment_len());
    if away(t.seq, own.seq_max) <= reach(other.window_max) {
        own.seq_max = seq_max(own.seq_max, end);
    } else {
        if t.flags & tcp_flags::FIN != 0 && t.seq == other.ack_max {
            own.bits |= fact::FIN;
        }
        own.seq_max = end;
    }
    if own.has_acked(other) && away(t.ack, own.ack_max) > reach(own.window_max) {
        (own.ack_max, own.edge_max) = (t.ack, t.ack);
    }
    own.grant(other, t);
    acknowledge_syn(other, t);
}

/// Weighs a segment of wing `w` whose bounds are not enforced. `true`: it shows where its wing is.
pub(super) fn weigh(
    claims: &mut Claims,
    w: usize,
    own: &mut WingFacts,
    other: &mut WingFacts,
    t: &Tcp,
) -> bool {
    if t.flags & tcp_flags::ACK == 0 {
        return false;
    }
    if t.flags & tcp_flags::FIN != 0 && t.seq == own.seq_max {
        // Exactly where its wing was expected to go on: the one FIN that counts in any case.
        own.bits |= fact::FIN;
        own.seq_max = t.seq.wrapping_add(t.segment_len());
    }
    if goes_on(own, other, t) {
        believe(own, other, t);
        return true;
    }
    if claims.are_of(w, own, other, t) {
        claims.settle(w, own, other, t);
        believe(own, other, t);
        return true;
    }
    claims.note(w, t);
    false
}
