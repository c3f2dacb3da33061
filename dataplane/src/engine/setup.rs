//! A flow's first packet: route, policy, session; and judging live sessions again.

use super::park::opens;
use super::process::{NoWay, Work};
use super::{Engine, Event, Frame, RefusedFlow, Verdict, hot_flag};
use crate::addr::Tuple;
use crate::drops::DropReason;
use crate::names::ZoneId;
use crate::packet::{Fragment, L4, Tcp, tcp_flags};
use crate::policy::{Action, Judgement, SetupAck};
use crate::route::{EgressId, PortId, Resolution};
use crate::session::record::{Cold, SessionId};
use crate::session::tcp::{self, Connection, Observation};
use crate::session::{EndReason, State};
use crate::table::{SlotId, flag};
use crate::time::Now;

impl Engine {
    /// A packet that no session claims: it sets one up if policy permits (J1). `replaces` is the closed
    /// session whose tuple a new SYN takes (J6); it ends only when the new one begins.
    pub(super) fn first_packet<F: Frame>(
        &mut self,
        frame: &mut F,
        w: &Work,
        replaces: Option<SlotId>,
        now: Now,
    ) -> Verdict {
        if w.packet.l4_info == L4::LaterFragment {
            return self.stray_fragment(frame, w, now);
        }
        if let Some(refusal) = self.refuse_stray(w) {
            let no_session = matches!(refusal, DropReason::TcpNoSession | DropReason::IcmpReplyUnmatched);
            if no_session && self.park(frame, w, refusal, now) {
                return Verdict::Consumed;
            }
            if refusal == DropReason::TcpNoSession && self.may_answer() {
                self.answer_stray(frame.data(), w, now);
            }
            return Verdict::Drop(refusal);
        }
        if self.routes.is_local(w.packet.tuple.dst) {
            return Verdict::Drop(DropReason::ForThisNode);
        }
        // A missing neighbour is asked for only once policy has permitted the flow.
        let (to, out, way) = match self.resolve(w) {
            Ok((id, egress)) => (egress.zone, egress.port, Ok((id, egress))),
            Err(NoWay::Await(Verdict::AwaitNeighbour { port, next_hop })) => (
                self.routes.port(port).and_then(|p| p.zone),
                port,
                Err(NoWay::Await(Verdict::AwaitNeighbour { port, next_hop })),
            ),
            Err(no) => return self.no_way(frame.data(), w, no, now),
        };
        let Some(to) = to else { return Verdict::Drop(DropReason::NoZone) };
        let judgement = match self.judge_first(frame, w, to, out, replaces.is_none(), now) {
            Ok(judgement) => judgement,
            Err(refusal) => return refusal,
        };
        let (id, egress) = match way {
            Ok(way) => way,
            Err(no) => return self.no_way(frame.data(), w, no, now),
        };
        if let Some(refusal) = self.refuse_ttl(frame.data(), w, now) {
            return refusal;
        }
        if self.is_too_big(w, &egress) && w.packet.dont_fragment {
            return self.refuse_too_big(frame.data(), w, &egress, now);
        }
        let replaced = replaces.map(|old| {
            let id = self.table.cold(old).id();
            self.end(old, EndReason::Superseded);
            id
        });
        let Some(slot) = self.create(w, to, &judgement, id, now) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        self.hit(&judgement);
        self.log_birth(slot, replaced);
        if judgement.setup_ack != SetupAck::None
            && let Some(verdict) = self.hold_first(frame, w, slot, judgement.setup_ack, now)
        {
            return verdict;
        }
        let cold = self.table.cold_mut(slot);
        cold.packets[0] = 1;
        cold.bytes[0] = u64::from(w.packet.ip_len());
        cold.ingress[0] = w.port.0 + 1;
        self.tell_created(slot);
        self.send(frame, w, &egress)
    }

    /// Packets that can never begin a session.
    fn refuse_stray(&self, w: &Work) -> Option<DropReason> {
        let Some(policy) = &self.policy else { return Some(DropReason::NoPolicy) };
        match &w.packet.l4_info {
            // No connection begins with a segment whose checksum nobody can verify here.
            L4::Tcp(_) if w.packet.fragment != Fragment::Whole => Some(DropReason::TcpNoSession),
            L4::Tcp(t) => {
                let syn = t.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::SYN;
                let reset = t.flags & tcp_flags::RST != 0;
                let mid_stream = !policy.tcp().syn_check && t.flags & tcp_flags::ACK != 0 && !reset;
                if !syn && !mid_stream {
                    return Some(DropReason::TcpNoSession);
                }
                let early = policy.tcp().strict_syn_check && t.payload_len > 0;
                early.then_some(DropReason::TcpEarlyData)
            }
            L4::IcmpQuery { reply: true } => Some(DropReason::IcmpReplyUnmatched),
            _ => None,
        }
    }

    /// A TCP packet that belongs to no session and can begin none: where the rule that would permit its
    /// flow says so (`tcp_rst`, J7), its sender is told, at the bounded rate of all answers.
    fn answer_stray(&mut self, data: &[u8], w: &Work, now: Now) {
        let Some(policy) = self.policy.as_ref().filter(|p| p.tcp().answers_strays) else { return };
        if self.routes.is_local(w.packet.tuple.dst) {
            return;
        }
        let Resolution::Way { port, .. } = self.routes.resolve(w.packet.tuple.dst, w.hash) else { return };
        let Some(to) = self.routes.port(port).and_then(|p| p.zone) else { return };
        let judgement = policy.evaluate(w.zone, to, &w.tuple);
        if judgement.action == Action::Permit && judgement.tcp_rst {
            self.send_refusal(data, w, now);
        }
    }

    /// What policy says of a first packet; a refusal is counted, logged and answered here. Without a
    /// session (`stray`) it may be an early packet of one that is on its way.
    fn judge_first<F: Frame>(
        &mut self,
        frame: &F,
        w: &Work,
        to: ZoneId,
        out: PortId,
        stray: bool,
        now: Now,
    ) -> Result<Judgement, Verdict> {
        let Some(policy) = &self.policy else { return Err(Verdict::Drop(DropReason::NoPolicy)) };
        let judgement = match w.place {
            Some(place) => policy.evaluate_at(w.zone, to, &w.tuple, place),
            None => policy.evaluate(w.zone, to, &w.tuple),
        };
        let reason = match judgement.action {
            Action::Permit => return Ok(judgement),
            Action::Deny if judgement.rule.is_none() => DropReason::PolicyDefault,
            Action::Deny => DropReason::PolicyDeny,
            Action::Reject => DropReason::PolicyReject,
        };
        if stray && self.park(frame, w, reason, now) {
            return Err(Verdict::Consumed);
        }
        if judgement.action == Action::Reject && (opens(w) || self.may_answer()) {
            self.send_refusal(frame.data(), w, now);
        }
        self.hit(&judgement);
        if judgement.log {
            self.push_session_event(Event::Refused(RefusedFlow {
                at: now,
                action: judgement.action,
                tuple: w.tuple,
                zones: [w.zone, to],
                ports: [Some(w.port), Some(out)],
                rule: judgement.rule,
                application: judgement.application,
                bytes: w.packet.ip_len(),
            }));
        }
        Err(Verdict::Drop(reason))
    }

    /// Counts a rule's decision about a first packet.
    fn hit(&mut self, judgement: &Judgement) {
        match judgement.rule {
            Some(rule) => {
                if let Some(hits) = self.rule_hits.get_mut(rule.0 as usize) {
                    *hits += 1;
                }
            }
            None => self.default_hits += 1,
        }
    }

    fn create(&mut self, w: &Work, to: ZoneId, j: &Judgement, way: EgressId, now: Now) -> Option<SlotId> {
        let Ok(slot) = self.table.insert(&w.key, w.hash) else {
            self.counters.failed += 1;
            self.push_event(Event::TableFull { tuple: w.tuple });
            return None;
        };
        let number = self.sessions_made * u64::from(self.config.shards) + u64::from(self.config.shard);
        self.sessions_made += 1;
        self.counters.created += 1;
        let mut cold = Cold {
            revision: self.policy.as_ref().map_or(0, |p| p.revision()),
            rule: j.rule.unwrap_or_default(),
            application: j.application,
            id_origin: self.config.node_id,
            id_boot: self.config.boot,
            id_counter: SessionId::counter_of(now, number),
            created_ms: now.0,
            ..Cold::default()
        };
        let state = match &w.packet.l4_info {
            L4::Tcp(t) => self.begin_tcp(&mut cold, t, now),
            _ => State::OneWay,
        };
        *self.table.cold_mut(slot) = cold;
        let stamp = self.stamp;
        let generation = self.routes.generation();
        let hot = self.table.hot_mut(slot);
        hot.state = state as u8;
        hot.zone = [w.zone, to];
        hot.last_seen_ms = now.ms32();
        hot.egress = [way.0, EgressId::NONE.0];
        hot.egress_generation = generation;
        hot.judged_by = stamp;
        if w.forward {
            hot.flags |= flag::FIRST_FORWARD;
        }
        self.set_logged(slot, j.log);
        self.set_synced(slot, j.sync);
        self.set_service_class(slot, j.class);
        self.set_class(slot);
        Some(slot)
    }

    /// Takes the facts of a session's first segment: a SYN, or (`tcp.syn_check` off) any that acknowledges.
    fn begin_tcp(&mut self, cold: &mut Cold, t: &Tcp, now: Now) -> State {
        let (wings, seen_ms) = (&mut cold.wings, &mut cold.tcp_seen_ms);
        let mut connection = Connection { wings, seen_ms, claims: None, sighted: false };
        if connection.observe(0, t, now.ms32(), false) == Observation::Learned {
            self.counters.tcp_relearned += 1;
        }
        tcp::derive(cold.wings[0].bits, cold.wings[1].bits)
    }

    /// The first direction's tuple of a session.
    pub(super) fn first_tuple(&self, slot: SlotId) -> Tuple {
        let hot = self.table.hot(slot);
        hot.key().tuple(hot.first_forward())
    }

    #[inline]
    pub(super) fn needs_judging(&self, slot: SlotId) -> bool {
        let hot = self.table.hot(slot);
        hot.judged_by != self.stamp || hot.flags & hot_flag::REFRESH != 0
    }

    /// What the policy in force says of a live session, by its recorded zones and first direction.
    pub(super) fn judge_live(&self, slot: SlotId) -> Option<Judgement> {
        let hot = self.table.hot(slot);
        let policy = self.policy.as_ref()?;
        let j = policy.evaluate(hot.zone[0], hot.zone[1], &self.first_tuple(slot));
        (j.action == Action::Permit).then_some(j)
    }

    /// Judges a live session for a packet of it: rule and timeout of the policy in force apply from
    /// here on (F7). Returns whether it is still permitted; if not, it has ended.
    pub(super) fn judge_for_packet(&mut self, slot: SlotId) -> bool {
        let Some(j) = self.judge_live(slot) else {
            // Others may be at another revision: what they own, they end.
            if self.replica.is_none() || self.is_mine(slot) {
                self.end(slot, EndReason::Denied);
            }
            return false;
        };
        let revision = self.policy.as_ref().map_or(0, |p| p.revision());
        let cold = self.table.cold_mut(slot);
        cold.rule = j.rule.unwrap_or_default();
        cold.application = j.application;
        cold.revision = revision;
        let stamp = self.stamp;
        let hot = self.table.hot_mut(slot);
        hot.judged_by = stamp;
        hot.flags &= !hot_flag::REFRESH;
        self.set_logged(slot, j.log);
        if self.set_synced(slot, j.sync) {
            // What was this node's alone is for others from now on.
            self.log_change(slot);
        }
        self.set_service_class(slot, j.class);
        self.set_class(slot);
        self.note_seen(slot);
        true
    }
}
