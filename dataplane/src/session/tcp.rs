//! TCP: segments become facts, facts become a state, the state chooses the timeout class.
//!
//! The facts of a wing only grow, and merge with another node's by or and by sequence-space maximum
//! (`spec/replication.md`); the state is a function of both wings' facts, so a SYN seen on one node
//! and its SYN-ACK on another need no arbiter. Three tables, each with an exhaustive test:
//! [`Connection::observe`] (segment to facts), [`derive`] (facts to state), [`rule_for`] (state to timeout).

mod learn;
mod observe;
mod told;
mod window;

pub use learn::Claims;
pub use observe::{Connection, Observation};
pub use told::{Heard, hear};

use super::State;
use super::record::WingFacts;
use crate::packet::{Tcp, tcp_flags};

/// Fact bits of a wing.
pub mod fact {
    /// The wing sent a SYN.
    pub const SYN: u8 = 1;
    /// The other wing acknowledged that SYN.
    pub const SYN_ACKED: u8 = 2;
    /// The wing sent a FIN.
    pub const FIN: u8 = 4;
    /// The other wing acknowledged that FIN.
    pub const FIN_ACKED: u8 = 8;
    /// The wing sent a RST exactly at its expected sequence number.
    pub const RST: u8 = 16;
    /// The wing sent an ordinary segment of a connection whose handshake nobody here saw
    /// (`tcp.syn_check` off).
    pub const MID: u8 = 32;
    /// Every bit that the state is derived from.
    pub const ALL: u8 = 63;
    /// The wing sent a segment in fragments: its true end is not known from the first one.
    pub const FRAGMENTED: u8 = 64;
}

/// `a <= b` in sequence space (RFC 9293 section 3.4).
#[inline]
pub fn seq_le(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) >= 0
}

/// The later of two sequence numbers.
#[inline]
pub fn seq_max(a: u32, b: u32) -> u32 {
    if seq_le(a, b) { b } else { a }
}

/// The later of two sequence numbers, of which 0 is none: a copy that has not seen a wing acknowledge must not
/// win over one that has.
fn known_max(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 { a | b } else { seq_max(a, b) }
}

/// Notes that a segment acknowledges the other side's SYN.
#[inline]
fn acknowledge_syn(other: &mut WingFacts, t: &Tcp) {
    if !other.has(fact::SYN_ACKED) && acknowledges_syn_of(other, t) {
        other.bits |= fact::SYN_ACKED;
    }
}

/// Whether the segment acknowledges the other side's SYN, alone or with data that came with it
/// (RFC 7413).
fn acknowledges_syn_of(other: &WingFacts, t: &Tcp) -> bool {
    t.flags & tcp_flags::ACK != 0
        && other.has(fact::SYN)
        && seq_le(other.isn.wrapping_add(1), t.ack)
        && seq_le(t.ack, other.seq_max)
}

/// Merges another copy's facts of both wings. One node may have seen a SYN, and another its
/// acknowledgement: together they know what neither could.
pub fn merge(wings: &mut [WingFacts; 2], told: &[WingFacts; 2]) {
    wings[0].merge(&told[0]);
    wings[1].merge(&told[1]);
    for w in 0..2 {
        let (own, ack) = (wings[w], wings[1 - w].ack_max);
        let acked = own.has(fact::SYN)
            && ack != 0
            && seq_le(own.isn.wrapping_add(1), ack)
            && seq_le(ack, own.seq_max);
        if acked {
            wings[w].bits |= fact::SYN_ACKED;
        }
    }
}

impl WingFacts {
    /// Whether all of these fact bits are set.
    #[inline]
    pub fn has(&self, bits: u8) -> bool {
        self.bits & bits == bits
    }

    /// Whether nothing of this wing was seen yet.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.bits & (fact::SYN | fact::MID) == 0
    }

    /// Merges another copy's facts of the same wing: or, and sequence-space maximum. Commutative,
    /// associative and idempotent as long as all that are known lie within half the sequence space.
    pub fn merge(&mut self, other: &WingFacts) {
        self.bits |= other.bits;
        self.seq_max = known_max(self.seq_max, other.seq_max);
        self.ack_max = known_max(self.ack_max, other.ack_max);
        self.edge_max = known_max(self.edge_max, other.edge_max);
        self.window_max = self.window_max.max(other.window_max);
        self.isn = self.isn.max(other.isn);
        self.mss = self.mss.max(other.mss);
        self.scale_plus_1 = self.scale_plus_1.max(other.scale_plus_1);
    }
}

/// State from the fact bits of both wings (wing 0 is the first direction). Total: any combination.
///
/// The long timeout of an established flow needs facts of both wings; FINs before the handshake is
/// complete do not end the initial timeout (J4).
#[inline]
pub fn derive(first: u8, reply: u8) -> State {
    let both = first & reply;
    let open = |w: u8| w & fact::SYN_ACKED != 0 || w & fact::MID != 0;
    if (first | reply) & fact::RST != 0 {
        State::Reset
    } else if both & fact::FIN_ACKED != 0 && both & fact::FIN != 0 {
        State::Closed
    } else if both & fact::FIN != 0 {
        State::TimeWait
    } else if !(open(first) && open(reply)) {
        if both & fact::SYN != 0 { State::SynReceived } else { State::SynSent }
    } else if (first | reply) & fact::FIN != 0 {
        State::HalfClosed
    } else {
        State::Established
    }
}

/// The state without its resets: it chooses the timeout, which a RST does not change (J5). What was
/// refused keeps the initial timeout (J4), and a closing session is not lengthened (J6).
#[inline]
pub fn derive_base(first: u8, reply: u8) -> State {
    derive(first & !fact::RST, reply & !fact::RST)
}

/// Whether a connection that began with a SYN has not finished its handshake (J7 `strict_syn_check`).
#[inline]
pub fn in_handshake(first: u8, reply: u8) -> bool {
    let base = derive_base(first, reply);
    matches!(base, State::SynSent | State::SynReceived) && (first | reply) & fact::MID == 0
}

/// Which timeout a state has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// `tcp.initial_timeout` (J4).
    Initial,
    /// The service's (J3, F5).
    Service,
    /// `tcp.time_wait` (J6).
    TimeWait,
    /// Two seconds (J6).
    LastAck,
}

/// Timeout by base state (J4, J6; see [`derive_base`]). `ageout` is `tcp.time_wait = "ageout"`; `half_close` is
/// `tcp.half_close_time_wait`.
#[inline]
pub fn rule_for(state: State, ageout: bool, half_close: bool) -> Rule {
    match state {
        State::SynSent | State::SynReceived => Rule::Initial,
        State::HalfClosed if half_close && !ageout => Rule::TimeWait,
        State::TimeWait if !ageout => Rule::TimeWait,
        State::Closed if !ageout => Rule::LastAck,
        _ => Rule::Service,
    }
}

/// Whether a packet of a session that was and stays in base state `state` restarts its idle timer. Late data and
/// retransmitted FINs never lengthen a close (J6); in a half-closed connection under
/// `half_close_time_wait` the side that may still send does (`sender_closed` false).
#[inline]
pub fn restarts_timer(state: State, sender_closed: bool, half_close: bool) -> bool {
    match state {
        State::TimeWait | State::Closed => false,
        State::HalfClosed if half_close => !sender_closed,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
