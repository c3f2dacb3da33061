//! What a segment does to the facts of its connection.

use super::learn::{Claims, goes_on, is_answered, is_idle, weigh};
use super::window::{LEARN_AFTER_MS, is_inside, is_near, is_stale, sequence_fits};
use super::{acknowledge_syn, acknowledges_syn_of, derive, fact, in_handshake, seq_le, seq_max};
use crate::packet::{Tcp, tcp_flags};
use crate::session::State;
use crate::session::record::WingFacts;

/// What a segment does to a session beyond its facts. None but `Taken` and `Learned` changes any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// The segment is in place: its facts are taken.
    Taken,
    /// A bound was not enforced, because a side of it was not seen here of late: what the segment
    /// shows of its own wing is learned. Nothing but a RST or FIN exactly at the wing's expected
    /// sequence number closes or shortens (`spec/replication.md`).
    Learned,
    /// It passes so that the endpoint can answer, and changes nothing: a SYN in a live connection, a
    /// RST in the window but not exact (RFC 5961 sections 3 and 4), an ACK instead of a SYN-ACK (RFC 9293
    /// section 3.5.1).
    Ignored,
    /// Outside the window (J7 `tcp.sequence_check`).
    OutOfWindow,
    /// A RST outside the window, or one that answers no SYN of ours (J7 `tcp.rst_sequence_check`).
    RstOutOfWindow,
    /// A SYN that begins a new connection with this tuple (J6).
    NewConnection,
}

/// The facts of a connection under the hands of one segment.
#[derive(Debug)]
pub struct Connection<'a> {
    /// Facts of the first direction (0) and the reply (1).
    pub wings: &'a mut [WingFacts; 2],
    /// When this node last saw each wing, in [`crate::time::Now::ms32`]; 0 is never.
    pub seen_ms: &'a mut [u32; 2],
    /// Of a connection that may go on through other nodes too: what its segments claim. `None`: whatever moves it
    /// passes here.
    pub claims: Option<&'a mut Claims>,
    /// Set when a wing is seen here again, as far as its bounds go: other nodes must hear that it is.
    pub sighted: bool,
}

impl Connection<'_> {
    /// Takes the facts of a segment that wing `w` (0 first direction, 1 reply) sent. `fragmented`: it is
    /// the first fragment of a longer one. It is judged like any other, but its flags change nothing,
    /// for nobody here verifies its checksum, and where it ends is not known.
    #[inline]
    pub fn observe(&mut self, w: usize, t: &Tcp, now_ms32: u32, fragmented: bool) -> Observation {
        if !fragmented {
            return self.observe_whole(w, t, now_ms32);
        }
        if t.flags & (tcp_flags::SYN | tcp_flags::RST) != 0 {
            let (mut wings, mut seen_ms) = (*self.wings, *self.seen_ms);
            let mut claims = self.claims.as_deref().copied();
            let mut copy = Connection {
                wings: &mut wings,
                seen_ms: &mut seen_ms,
                claims: claims.as_mut(),
                sighted: false,
            };
            return match copy.observe_whole(w, t, now_ms32) {
                outside @ (Observation::OutOfWindow | Observation::RstOutOfWindow) => outside,
                _ => Observation::Ignored,
            };
        }
        let data = Tcp { flags: t.flags & !tcp_flags::FIN, ..*t };
        let observation = self.observe_whole(w, &data, now_ms32);
        if matches!(observation, Observation::Taken | Observation::Learned) {
            self.wings[w].bits |= fact::FRAGMENTED;
        }
        observation
    }

    #[inline]
    fn observe_whole(&mut self, w: usize, t: &Tcp, now_ms32: u32) -> Observation {
        // 0 means never.
        let now = now_ms32.max(1);
        let stale = is_stale(self.seen_ms, w);
        let picked_up = self.wings[w].is_silent();
        let observation = if t.flags & (tcp_flags::RST | tcp_flags::SYN) == 0 {
            self.observe_plain(w, t, now, stale)
        } else if t.flags & tcp_flags::RST != 0 {
            let unsure = stale || (self.claims.is_some() && is_idle(self.seen_ms, now));
            let (own, other) = split(self.wings, w);
            observe_rst(own, other, t, stale, unsure)
        } else {
            let state = derive(self.wings[0].bits, self.wings[1].bits);
            let live = !in_handshake(self.wings[0].bits, self.wings[1].bits);
            let (own, other) = split(self.wings, w);
            observe_syn(state, live, own, other, w, t)
        };
        if observation == Observation::Learned && picked_up && self.seen_ms[w] == 0 {
            self.seen_ms[w] = now;
        }
        if observation == Observation::Taken && !self.wings[w].is_silent() {
            let idle = || now.wrapping_sub(self.seen_ms[w]) as i32 > LEARN_AFTER_MS;
            if !stale && self.claims.is_none() && idle() {
                // Both were idle, nobody else can have moved them, and the bounds have held: they count as seen
                // from here on.
                self.seen_ms[1 - w] = now;
            }
            self.seen_ms[w] = now;
        }
        observation
    }

    /// A segment that is neither SYN nor RST.
    #[inline]
    fn observe_plain(&mut self, w: usize, t: &Tcp, now: u32, stale: bool) -> Observation {
        let (own, other) = split(self.wings, w);
        if own.is_silent() {
            // Instead of an answer to a SYN it proves nothing, unless that may have come by another node.
            let is_answered = !other.has(fact::SYN) || (self.claims.is_some() && is_answered(own, other, t));
            if !is_answered || t.flags & tcp_flags::ACK == 0 {
                return Observation::Ignored;
            }
            pick_up(own, other, t);
            acknowledge_syn(other, t);
            return Observation::Learned;
        }
        if stale {
            if self.claims.is_some() {
                return self.learn_elsewhere(w, t, now);
            }
            if is_near(own, other, t) {
                learn(own, other, t);
                self.seen_ms[w] = now;
            }
            return Observation::Learned;
        }
        if !is_inside(own, other, t) {
            return self.observe_outside(w, t, now);
        }
        take(own, other, t);
        Observation::Taken
    }

    /// A plain segment that is not inside the bounds as far as they are known.
    #[cold]
    fn observe_outside(&mut self, w: usize, t: &Tcp, now: u32) -> Observation {
        let (own, other) = split(self.wings, w);
        if self.claims.is_none() {
            // Its own wing does go on: if the other stays away, its bounds are learned again.
            if is_near(own, other, t) {
                self.seen_ms[w] = now;
            }
            return Observation::OutOfWindow;
        }
        // What the other side granted and sent through other nodes is not known here.
        if is_idle(self.seen_ms, now) || goes_on(own, other, t) {
            return self.learn_elsewhere(w, t, now);
        }
        Observation::OutOfWindow
    }

    /// A plain segment of a connection that may have gone on through other nodes: where it is is not known.
    #[cold]
    fn learn_elsewhere(&mut self, w: usize, t: &Tcp, now: u32) -> Observation {
        let (own, other) = split(self.wings, w);
        if let Some(claims) = self.claims.as_deref_mut()
            && weigh(claims, w, own, other, t)
        {
            self.sighted |= self.seen_ms[w] == 0;
            self.seen_ms[w] = now;
        }
        Observation::Learned
    }
}

#[inline]
fn split(wings: &mut [WingFacts; 2], w: usize) -> (&mut WingFacts, &mut WingFacts) {
    let [first, reply] = wings;
    if w == 0 { (first, reply) } else { (reply, first) }
}

/// The first segment of a wing whose handshake nobody here saw (`tcp.syn_check` off).
fn pick_up(own: &mut WingFacts, other: &WingFacts, t: &Tcp) {
    // What the other side expects is all that is known of this wing.
    let exact = !other.is_silent() && t.seq == other.ack_max;
    own.seq_max = t.seq.wrapping_add(t.segment_len());
    own.grant(other, t);
    own.bits |= fact::MID;
    if exact && t.flags & tcp_flags::FIN != 0 {
        own.bits |= fact::FIN;
    }
}

/// A segment whose bounds are not enforced, of a wing that goes on where it was: it shows where its own wing is, and
/// proves nothing of the other.
fn learn(own: &mut WingFacts, other: &mut WingFacts, t: &Tcp) {
    if t.flags & tcp_flags::FIN != 0 && t.seq == own.seq_max {
        own.bits |= fact::FIN;
    }
    own.seq_max = seq_max(own.seq_max, t.seq.wrapping_add(t.segment_len()));
    if t.flags & tcp_flags::ACK != 0 {
        own.grant(other, t);
        acknowledge_syn(other, t);
    }
}

/// A segment inside its window.
#[inline]
fn take(own: &mut WingFacts, other: &mut WingFacts, t: &Tcp) {
    let end = t.seq.wrapping_add(t.segment_len());
    // Nothing is sent behind a FIN: one in front of what was sent already is forged.
    if t.flags & tcp_flags::FIN != 0 && seq_le(own.seq_max, end) {
        own.bits |= fact::FIN;
    }
    own.seq_max = seq_max(own.seq_max, end);
    if t.flags & tcp_flags::ACK != 0 {
        own.grant(other, t);
        acknowledge_syn(other, t);
        let fin_end = other.seq_max;
        // The fuzz target must find that a FIN counts as acknowledged by the byte in front of it.
        #[cfg(all(feature = "planted-transition", fuzzing))]
        let fin_end = fin_end.wrapping_sub(1);
        if other.has(fact::FIN) && seq_le(fin_end, t.ack) {
            other.bits |= fact::FIN_ACKED;
        }
    }
}

/// A RST counts only exactly at its wing's expected sequence number, or, as the answer to a SYN, when
/// it acknowledges that SYN (RFC 9293 section 3.10.7.3, RFC 5961 section 3.2).
/// `stale`: a wing was not seen here for too long; `unsure`: that, or the connection may have gone on elsewhere.
fn observe_rst(own: &mut WingFacts, other: &WingFacts, t: &Tcp, stale: bool, unsure: bool) -> Observation {
    if own.is_silent() && other.has(fact::SYN) {
        if !acknowledges_syn_of(other, t) {
            return Observation::RstOutOfWindow;
        }
        own.bits |= fact::RST;
        return Observation::Taken;
    }
    let sent = !own.is_silent() && t.seq == own.seq_max;
    // While a wing's bounds are learned, an old acknowledgement of its data proves nothing.
    let acked = (own.is_silent() || !stale) && other.has_acked(own) && t.seq == other.ack_max;
    if sent || acked {
        own.bits |= fact::RST;
        Observation::Taken
    } else if unsure || sequence_fits(own, other, t.seq, t.seq) {
        Observation::Ignored
    } else {
        Observation::RstOutOfWindow
    }
}

/// `live`: no handshake is under way.
fn observe_syn(
    state: State,
    live: bool,
    own: &mut WingFacts,
    other: &mut WingFacts,
    w: usize,
    t: &Tcp,
) -> Observation {
    let acks = t.flags & tcp_flags::ACK != 0;
    let again = own.has(fact::SYN) && own.isn == t.seq;
    if !acks {
        let unanswered = state == State::SynSent && w == 0 && !own.is_silent() && !again;
        let stray = own.is_silent() && !other.has(fact::SYN) && !other.is_silent();
        if state.is_closing() || unanswered || stray {
            return Observation::NewConnection;
        }
    }
    if live {
        return Observation::Ignored;
    }
    if acks && own.is_silent() && other.is_silent() {
        // The answer to a SYN that nobody here saw (`tcp.syn_check` off).
        pick_up(own, other, t);
        return Observation::Learned;
    }
    if acks && !acknowledges_syn_of(other, t) {
        return if own.is_silent() { Observation::OutOfWindow } else { Observation::Ignored };
    }
    if again {
        own.seq_max = seq_max(own.seq_max, t.seq.wrapping_add(t.segment_len()));
        if acks {
            own.acknowledge(other, t.ack);
            other.bits |= fact::SYN_ACKED;
        }
        return Observation::Taken;
    }
    // A server that forgot its first answer (a SYN cookie of the next minute) answers with another
    // number; the client takes the one that reaches it. Once that is acknowledged, it is settled.
    let settled = !own.is_silent() && (!acks || own.has(fact::SYN_ACKED));
    if settled {
        return Observation::Ignored;
    }
    take_syn(own, other, t, acks);
    Observation::Taken
}

fn take_syn(own: &mut WingFacts, other: &mut WingFacts, t: &Tcp, acks: bool) {
    // A SYN's window is never scaled (RFC 7323 section 2.2).
    let window = u32::from(t.window).max(1);
    own.bits |= fact::SYN;
    own.isn = t.seq;
    own.seq_max = t.seq.wrapping_add(t.segment_len());
    own.mss = t.mss.unwrap_or(0);
    own.scale_plus_1 = t.window_scale.map_or(0, |s| s + 1);
    own.window_max = window;
    if acks {
        other.bits |= fact::SYN_ACKED;
        own.ack_max = t.ack;
        own.edge_max = t.ack.wrapping_add(window);
    } else if other.has(fact::SYN) {
        // Simultaneous open.
        own.edge_max = other.isn.wrapping_add(1).wrapping_add(window);
    }
    if other.has(fact::SYN) && !own.has(fact::SYN_ACKED) {
        // The other's grant came before this number was known.
        other.edge_max = t.seq.wrapping_add(1).wrapping_add(other.window_max);
    }
}
