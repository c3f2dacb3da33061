//! What a packet does to its session: facts, state, timeout class, counters.

use super::process::Work;
use super::{Engine, hot_flag};
use crate::addr::proto;
use crate::drops::DropReason;
use crate::names::ClassId;
use crate::packet::{Fragment, L4, Tcp, tcp_flags};
use crate::policy::{NEVER_SHARE_PERCENT, TimeWait};
use crate::session::record::Cold;
use crate::session::tcp::{self, Claims, Connection, Observation, Rule, fact};
use crate::session::{EndReason, State};
use crate::table::SlotId;
use crate::time::Now;

/// What became of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Track {
    /// It goes on (or has just reached its end, see [`Engine::end_if_over`]).
    Continues,
    /// A SYN begins a new connection with the same tuple; nothing was counted (J6).
    NewConnection,
    /// A check refuses it: nothing was counted or changed (J7).
    Refused(DropReason),
}

impl Engine {
    /// Takes a packet of wing `wing` into its session.
    #[inline]
    pub(super) fn track(&mut self, slot: SlotId, wing: usize, w: &Work, now: Now) -> Track {
        match &w.packet.l4_info {
            L4::LaterFragment if w.tuple.protocol == proto::TCP => self.track_tcp_fragment(slot, wing, now),
            L4::LaterFragment => self.table.hot_mut(slot).last_seen_ms = now.ms32(),
            L4::Tcp(t) => {
                let fragmented = w.packet.fragment != Fragment::Whole;
                let track = self.track_tcp(slot, wing, t, fragmented, now);
                if track != Track::Continues {
                    return track;
                }
            }
            L4::IcmpQuery { .. } => self.track_icmp_query(slot, wing, now),
            _ => self.track_other(slot, wing, now),
        }
        let cold = self.table.cold_mut(slot);
        cold.packets[wing] += 1;
        cold.bytes[wing] += u64::from(w.packet.ip_len());
        cold.ingress[wing] = w.port.0 + 1;
        Track::Continues
    }

    fn track_tcp(&mut self, slot: SlotId, wing: usize, t: &Tcp, fragmented: bool, now: Now) -> Track {
        let Some(checks) = self.policy.as_ref().map(|p| *p.tcp()) else {
            return Track::Refused(DropReason::NoPolicy);
        };
        let unsynced = self.is_unsynced(slot);
        let claims = self.replica.as_mut().filter(|_| !unsynced).map(|r| r.claims_mut(slot));
        let cold = self.table.cold_mut(slot);
        let before = cold.wings.map(|f| f.bits);
        if checks.strict_syn_check && is_early(cold, claims.as_deref(), wing, t, now) {
            return Track::Refused(DropReason::TcpEarlyData);
        }
        let (wings, seen_ms) = (&mut cold.wings, &mut cold.tcp_seen_ms);
        let mut connection = Connection { wings, seen_ms, claims, sighted: false };
        let observation = connection.observe(wing, t, now.ms32(), fragmented);
        let sighted = connection.sighted;
        let bits = cold.wings.map(|f| f.bits);
        let restarts = match observation {
            Observation::NewConnection => return Track::NewConnection,
            Observation::OutOfWindow if checks.sequence_check => {
                return Track::Refused(DropReason::TcpOutOfWindow);
            }
            Observation::RstOutOfWindow if checks.rst_sequence_check => {
                return Track::Refused(DropReason::TcpRstOutOfWindow);
            }
            Observation::Taken => true,
            Observation::Learned => {
                self.counters.tcp_relearned += 1;
                true
            }
            // Without the check any packet restarts the timer (J2).
            Observation::OutOfWindow => {
                self.counters.tcp_ignored += 1;
                true
            }
            Observation::Ignored | Observation::RstOutOfWindow => {
                self.counters.tcp_ignored += 1;
                false
            }
        };
        let base = tcp::derive_base(bits[0], bits[1]);
        let sender_closed = bits[wing] & fact::FIN != 0;
        let hot = self.table.hot_mut(slot);
        let mut moved = false;
        if bits != before {
            hot.state = tcp::derive(bits[0], bits[1]) as u8;
            moved = base != tcp::derive_base(before[0], before[1]);
        }
        let grown = bits != before || (t.flags & tcp_flags::SYN != 0 && observation == Observation::Taken);
        if moved || (restarts && tcp::restarts_timer(base, sender_closed, checks.half_close_time_wait)) {
            hot.last_seen_ms = now.ms32();
        }
        if moved {
            self.set_class(slot);
        }
        if grown {
            self.log_change(slot);
        }
        if sighted {
            self.tell_sight(slot);
        }
        Track::Continues
    }

    /// A later fragment of a segment changes no fact. It keeps the session alive as far as its state
    /// lets data do that.
    fn track_tcp_fragment(&mut self, slot: SlotId, wing: usize, now: Now) {
        let bits = self.table.cold(slot).wings.map(|f| f.bits);
        let half_close = self.policy.as_ref().is_some_and(|p| p.tcp().half_close_time_wait);
        let hot = self.table.hot_mut(slot);
        let base = tcp::derive_base(bits[0], bits[1]);
        if tcp::restarts_timer(base, bits[wing] & fact::FIN != 0, half_close) {
            hot.last_seen_ms = now.ms32();
        }
    }

    /// A query that was answered waits `timeouts.icmp_reply`; the next query of the same identifier
    /// has the full timeout again (J2).
    fn track_icmp_query(&mut self, slot: SlotId, wing: usize, now: Now) {
        let hot = self.table.hot_mut(slot);
        hot.last_seen_ms = now.ms32();
        let state = if wing == 1 { State::Replied } else { State::OneWay };
        if hot.state != state as u8 {
            hot.state = state as u8;
            self.set_class(slot);
            if wing == 1 {
                self.note_reply(slot);
            }
        }
    }

    #[inline]
    fn track_other(&mut self, slot: SlotId, wing: usize, now: Now) {
        let hot = self.table.hot_mut(slot);
        hot.last_seen_ms = now.ms32();
        if wing == 1 && hot.state != State::Replied as u8 {
            hot.state = State::Replied as u8;
            self.note_reply(slot);
        }
    }

    /// The reply's wing was seen: the one fact that a session without TCP gains.
    #[cold]
    fn note_reply(&mut self, slot: SlotId) {
        let bits = &mut self.table.cold_mut(slot).wings[1].bits;
        if *bits & fact::MID == 0 {
            *bits |= fact::MID;
            self.log_change(slot);
        }
    }

    /// Chooses the timeout class from state, service and policy (J2, J4, J6).
    pub(super) fn set_class(&mut self, slot: SlotId) {
        let service = self.table.cold(slot).service_class;
        let hot = self.table.hot(slot);
        let state = State::from_u8(hot.state);
        let class = match &self.policy {
            Some(p) if hot.protocol == proto::TCP => {
                let bits = self.table.cold(slot).wings.map(|f| f.bits);
                tcp_class(p.tcp(), tcp::derive_base(bits[0], bits[1]), service)
            }
            Some(p) if is_icmp(hot.protocol) && state == State::Replied => p.icmp_reply_class_for(service),
            _ => service,
        };
        self.table.hot_mut(slot).class = class;
    }

    /// Ends a session that a valid RST (J5) or the completed close (J6) has finished, when the policy
    /// wants that; the packet that did it has been forwarded.
    pub(super) fn end_if_over(&mut self, slot: SlotId) {
        let hot = self.table.hot(slot);
        let Some(policy) = &self.policy else { return };
        let reason = match State::from_u8(hot.state) {
            State::Reset if policy.tcp().rst_invalidate => EndReason::Reset,
            State::Closed if policy.tcp().fin_invalidate => EndReason::Closed,
            _ => return,
        };
        self.end(slot, reason);
    }

    /// Notes the class of the service, within the cap of `never` (F6).
    pub(super) fn set_service_class(&mut self, slot: SlotId, wanted: ClassId) {
        let is_never = self.cutoff_ms(wanted.0) == u32::MAX;
        let counted = self.table.hot(slot).flags & hot_flag::NEVER != 0;
        let room = self.counters.never_sessions
            < u64::from(self.config.capacity) * u64::from(NEVER_SHARE_PERCENT) / 100;
        let granted = is_never && (counted || room);
        if granted != counted {
            self.table.hot_mut(slot).flags ^= hot_flag::NEVER;
            self.counters.never_sessions =
                if granted { self.counters.never_sessions + 1 } else { self.counters.never_sessions - 1 };
        }
        let class = match &self.policy {
            Some(p) if is_never && !granted => {
                self.counters.never_capped += 1;
                p.never_fallback(wanted).unwrap_or(wanted)
            }
            _ => wanted,
        };
        self.table.cold_mut(slot).service_class = class;
    }
}

fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
}

/// Whether a segment carries payload and leaves the handshake undone (J7 `strict_syn_check`). The one
/// that completes it may carry some.
fn is_early(cold: &Cold, claims: Option<&Claims>, wing: usize, t: &Tcp, now: Now) -> bool {
    if t.payload_len == 0 || !tcp::in_handshake(cold.wings[0].bits, cold.wings[1].bits) {
        return false;
    }
    let (mut wings, mut seen_ms, mut claims) = (cold.wings, cold.tcp_seen_ms, claims.copied());
    let mut connection =
        Connection { wings: &mut wings, seen_ms: &mut seen_ms, claims: claims.as_mut(), sighted: false };
    connection.observe(wing, t, now.ms32(), false) != Observation::NewConnection
        && tcp::in_handshake(wings[0].bits, wings[1].bits)
}

fn tcp_class(p: &crate::policy::TcpPolicy, state: State, service: ClassId) -> ClassId {
    let ageout = matches!(p.time_wait, TimeWait::Ageout);
    match (tcp::rule_for(state, ageout, p.half_close_time_wait), &p.time_wait) {
        (Rule::Initial, _) => p.initial,
        (Rule::TimeWait, TimeWait::Class(class)) => *class,
        (Rule::LastAck, _) => p.last_ack,
        (Rule::Service | Rule::TimeWait, _) => service,
    }
}
