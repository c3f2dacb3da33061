//! TCP: segments become facts, facts become a state, the state chooses the timeout class.
//!
//! The facts of a wing only grow, and merge with another node's by or and by sequence-space maximum
//! (`spec/replication.md`); the state is a function of both wings' facts, so a SYN seen on one node
//! and its SYN-ACK on another need no arbiter. Three tables, each with an exhaustive test:
//! [`observe`] (segment to facts), [`derive`] (facts to state), [`rule_for`] (state to timeout).

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
    /// All of them.
    pub const ALL: u8 = 63;
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

/// The smallest window that a bound on acknowledgements is computed with: a receiver may have
/// advertised as much without scaling.
const ACK_WINDOW_MIN: u32 = 66_000;

impl WingFacts {
    #[inline]
    fn has(&self, bits: u8) -> bool {
        self.bits & bits == bits
    }

    /// Whether nothing of this wing was seen yet.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.bits & (fact::SYN | fact::MID) == 0
    }

    /// The window scale shift of this wing's segments that are no SYN: in force only when both
    /// SYNs carried the option (RFC 7323 section 2.2).
    #[inline]
    fn shift(&self, other: &WingFacts) -> u32 {
        if self.scale_plus_1 > 0 && other.scale_plus_1 > 0 { u32::from(self.scale_plus_1 - 1) } else { 0 }
    }

    /// Merges another copy's facts of the same wing: or, and sequence-space maximum. Commutative,
    /// associative and idempotent as long as both lie within half the sequence space.
    pub fn merge(&mut self, other: &WingFacts) {
        if other.is_silent() {
            self.bits |= other.bits;
            return;
        }
        if self.is_silent() {
            *self = WingFacts { bits: self.bits | other.bits, ..*other };
            return;
        }
        self.bits |= other.bits;
        self.seq_max = seq_max(self.seq_max, other.seq_max);
        self.ack_max = seq_max(self.ack_max, other.ack_max);
        self.edge_max = seq_max(self.edge_max, other.edge_max);
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

/// What a segment does to a session beyond its facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// The segment is in place: its facts are taken.
    Taken,
    /// Out of the window, or a SYN, RST or ACK that does not fit (RFC 5961): it changes nothing.
    Ignored,
    /// A SYN that begins a new connection with this tuple (J6).
    NewConnection,
}

/// Takes the facts of a segment that wing `w` (0 first direction, 1 reply) sent.
pub fn observe(wings: &mut [WingFacts; 2], w: usize, t: &Tcp) -> Observation {
    let state = derive(wings[0].bits, wings[1].bits);
    let (own, other) = split(wings, w);
    if t.flags & tcp_flags::RST != 0 {
        return observe_rst(own, other, t);
    }
    if t.flags & tcp_flags::SYN != 0 {
        return observe_syn(state, own, other, w, t);
    }
    if own.is_silent() {
        // The side that never sent a SYN: only a connection picked up mid-stream begins so.
        if other.has(fact::SYN) || t.flags & tcp_flags::ACK == 0 {
            return Observation::Ignored;
        }
        own.bits |= fact::MID;
        own.seq_max = t.seq;
        own.ack_max = t.ack;
        // The scale was in a SYN that nobody here saw: assume the largest, so that nothing is refused.
        own.edge_max = t.ack.wrapping_add(u32::from(t.window) << 14);
    } else if !in_window(own, other, t) {
        return Observation::Ignored;
    }
    let end = t.seq.wrapping_add(t.segment_len());
    own.seq_max = seq_max(own.seq_max, end);
    if t.flags & tcp_flags::FIN != 0 {
        own.bits |= fact::FIN;
    }
    if t.flags & tcp_flags::ACK != 0 {
        take_ack(own, other, t, own.shift(other));
    }
    Observation::Taken
}

/// Facts of the first segment of a new session: a SYN, or (`tcp.syn_check` off) any segment.
pub fn first_segment(t: &Tcp) -> [WingFacts; 2] {
    let mut wings = [WingFacts::default(); 2];
    observe(&mut wings, 0, t);
    wings
}

fn split(wings: &mut [WingFacts; 2], w: usize) -> (&mut WingFacts, &mut WingFacts) {
    let [first, reply] = wings;
    if w == 0 { (first, reply) } else { (reply, first) }
}

/// A RST counts only exactly at its wing's expected sequence number, or, as the answer to a SYN, when
/// it acknowledges just that SYN (RFC 9293 section 3.10.7.3, RFC 5961 section 3.2).
fn observe_rst(own: &mut WingFacts, other: &WingFacts, t: &Tcp) -> Observation {
    let valid = if own.is_silent() {
        other.has(fact::SYN) && t.flags & tcp_flags::ACK != 0 && t.ack == other.seq_max
    } else {
        t.seq == own.seq_max || (other.ack_max != 0 && t.seq == other.ack_max)
    };
    if !valid {
        return Observation::Ignored;
    }
    own.bits |= fact::RST;
    Observation::Taken
}

fn observe_syn(state: State, own: &mut WingFacts, other: &mut WingFacts, w: usize, t: &Tcp) -> Observation {
    let acks = t.flags & tcp_flags::ACK != 0;
    if own.has(fact::SYN) && own.isn == t.seq {
        // A retransmitted SYN or SYN-ACK: nothing new, but its acknowledgement may be.
        if acks && other.has(fact::SYN) && t.ack == other.isn.wrapping_add(1) {
            other.bits |= fact::SYN_ACKED;
        }
        return Observation::Taken;
    }
    if !acks && (state.is_closing() || (state == State::SynSent && w == 0 && own.has(fact::SYN))) {
        return Observation::NewConnection;
    }
    if !own.is_silent() || (acks && !(other.has(fact::SYN) && t.ack == other.isn.wrapping_add(1))) {
        return Observation::Ignored;
    }
    own.bits |= fact::SYN;
    own.isn = t.seq;
    own.seq_max = t.seq.wrapping_add(t.segment_len());
    own.mss = t.mss.unwrap_or(0);
    own.scale_plus_1 = t.window_scale.map_or(0, |s| s + 1);
    if acks {
        other.bits |= fact::SYN_ACKED;
        // A SYN's window is never scaled (RFC 7323 section 2.2).
        own.ack_max = t.ack;
        own.edge_max = t.ack.wrapping_add(u32::from(t.window).max(1));
    } else if !other.is_silent() {
        // Simultaneous open.
        own.ack_max = other.isn;
        own.edge_max = other.isn.wrapping_add(1 + u32::from(t.window));
    }
    own.window_max = u32::from(t.window).max(1);
    Observation::Taken
}

/// The four bounds of a tracked connection (G. van Rooij, "Real stateful TCP packet filtering in
/// IPFilter"): not beyond what the other side granted, not older than a window, acknowledging
/// nothing that was not sent, and nothing older than a window.
fn in_window(own: &WingFacts, other: &WingFacts, t: &Tcp) -> bool {
    if other.is_silent() {
        // Before the answer there is only the SYN's own data (RFC 7413) and its retransmission.
        return seq_le(t.seq, own.seq_max.wrapping_add(other.window_max.max(ACK_WINDOW_MIN)));
    }
    let end = t.seq.wrapping_add(t.segment_len());
    let upper = seq_le(t.seq, other.edge_max);
    let lower = seq_le(own.seq_max.wrapping_sub(other.window_max.max(ACK_WINDOW_MIN)), end);
    if t.flags & tcp_flags::ACK == 0 {
        return upper && lower;
    }
    let ack_window = own.window_max.max(ACK_WINDOW_MIN);
    let ack_upper = seq_le(t.ack, other.seq_max);
    let ack_lower = seq_le(other.seq_max.wrapping_sub(ack_window), t.ack);
    upper && lower && ack_upper && ack_lower
}

fn take_ack(own: &mut WingFacts, other: &mut WingFacts, t: &Tcp, shift: u32) {
    let window = u32::from(t.window) << shift;
    own.window_max = own.window_max.max(window);
    own.ack_max = seq_max(own.ack_max, t.ack);
    own.edge_max = seq_max(own.edge_max, t.ack.wrapping_add(window.max(1)));
    if other.has(fact::SYN) && seq_le(other.isn.wrapping_add(1), t.ack) {
        other.bits |= fact::SYN_ACKED;
    }
    if other.has(fact::FIN) && seq_le(other.seq_max, t.ack) {
        other.bits |= fact::FIN_ACKED;
    }
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

/// Timeout by state (J4, J6). `ageout` is `tcp.time_wait = "ageout"`; `half_close` is
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

/// Whether a packet of a session that was and stays in `state` restarts its idle timer. Late data and
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
#[path = "tcp_tests.rs"]
mod tests;
