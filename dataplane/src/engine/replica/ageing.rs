//! Who ends what when no packet comes (`spec/replication.md`, "Who decides").
//!
//! The owner alone ages: exactly on time what only it has seen, after a question to the others what they
//! have told it about. A replica waits the staleness bound longer, then lets go without a tombstone.

use super::side::side_flag;
use super::{Applied, Engine};
use crate::addr::Tuple;
use crate::planted::{Fault, is_planted};
use crate::session::EndReason;
use crate::session::owner::Boot;
use crate::session::record::SessionId;
use crate::table::{HotLine, SlotId};
use crate::time::Now;

/// Questions that wait for the shard; the sweep asks the rest at its next pass.
pub(super) const QUESTIONS_MAX: usize = 4096;

/// The longest that a packet stays untold, whatever the timeout.
const REFRESH_MAX_MS: u32 = 30_000;
/// What the sweep that finds a refresh due, and the way to the peer, may take.
const SWEEP_SLACK_MS: u32 = 1_500;
/// Ages are whole milliseconds of two clocks: closer than this, two are the same packet.
const CLOCK_MARGIN_MS: u32 = 2;
/// An age that was told is older by the way that it took: closer than this, two are the same packet.
pub(super) const TOLD_MARGIN_MS: u32 = 250;

/// How much older than its last telling a session's last packet may get before it is told again.
pub fn refresh_ms(timeout_ms: u32) -> u32 {
    (timeout_ms / 4).min(REFRESH_MAX_MS)
}

/// How much longer than its timeout a replica keeps a session of which it hears nothing: what its owner may leave
/// untold, and the time that a death takes to be noticed.
pub fn staleness_bound_ms(timeout_ms: u32, detection_ms: u32) -> u32 {
    refresh_ms(timeout_ms).saturating_add(detection_ms).saturating_add(SWEEP_SLACK_MS)
}

/// Whether anybody has seen a packet of a session younger than this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Which session.
    pub id: SessionId,
    /// Its first direction.
    pub tuple: Tuple,
    /// Milliseconds since the last packet that the owner knows of.
    pub age_ms: u32,
}

impl Engine {
    /// Nothing ages and nothing is asked until released: a node that stood still first applies what waits.
    pub fn hold_ageing(&mut self, hold: bool) {
        self.held = hold;
        self.set_expiries();
    }

    /// Whether ageing is held.
    pub fn holds_ageing(&self) -> bool {
        self.held
    }

    /// Computes from the timeouts when lookups take a session for expired: own, and shared with others.
    pub(in crate::engine) fn set_expiries(&mut self) {
        let detection_ms = self.view.as_ref().map_or(0, |v| v.detection_ms);
        let (held, replicating) = (self.held, self.replica.is_some());
        let expiry = |cutoff: &u32| match *cutoff {
            _ if held => [u32::MAX; 2],
            c if replicating => [c, c.saturating_add(staleness_bound_ms(c, detection_ms))],
            c => [c, c],
        };
        self.expiries_ms.clear();
        self.expiries_ms.extend(self.cutoffs_ms.iter().map(expiry));
        if let Some(r) = &mut self.replica {
            r.refresh_ms.clear();
            r.refresh_ms.extend(self.cutoffs_ms.iter().map(|c| refresh_ms(*c)));
        }
    }

    /// Whether the sweep has something to do about a session besides judging it: to age it, to ask for it, or to
    /// tell of its packets.
    pub(in crate::engine) fn wants_sweep(&self, slot: SlotId, hot: &HotLine, now: Now) -> bool {
        let [own, shared] = self.expiry_ms(hot.class);
        let idle_ms = hot.idle_ms(now.ms32());
        if idle_ms > own {
            return idle_ms > shared || self.is_owner_done(slot) || is_planted(Fault::AgedByReplicas);
        }
        self.is_untold(slot, hot)
    }

    /// Whether a session has packets here that others have not heard of for too long.
    fn is_untold(&self, slot: SlotId, hot: &HotLine) -> bool {
        let Some(r) = &self.replica else { return false };
        let Some(refresh_ms) = r.refresh_ms.get(usize::from(hot.class.0)) else { return false };
        let told_ms = r.sides.told_ms()[slot.0 as usize];
        let untold_ms = hot.last_seen_ms.wrapping_sub(told_ms) as i32;
        untold_ms > *refresh_ms as i32 && hot.flags & super::hot_flag::UNSYNCED == 0
    }

    /// Whether the timeout alone ends a session, or raises the question: this node owns it, and whoever may
    /// have seen younger packets is there to be asked.
    fn is_owner_done(&self, slot: SlotId) -> bool {
        if !self.table.hot(slot).in_use() || !self.is_mine(slot) {
            return false;
        }
        let (Some(r), Some(view)) = (&self.replica, &self.view) else { return true };
        if !self.is_shared(slot) {
            return true;
        }
        let (side, id) = (r.sides.line(slot), self.table.cold(slot).id());
        let origin = Boot { node: id.origin, boot: id.boot };
        let origin_there = self.is_own(id) || view.is_alive(origin);
        !side.has(side_flag::ASKED) && side.told_by & !r.alive == 0 && origin_there
    }

    /// Whether this very boot of this node made a session.
    pub(super) fn is_own(&self, id: SessionId) -> bool {
        let me = self.view.as_ref().map_or(self.config.node_id, |v| v.me.node);
        id.boot == self.config.boot && id.origin == me
    }

    /// The sweep found a session idle beyond its timeout, or its news untold.
    pub(in crate::engine) fn sweep_one(&mut self, slot: SlotId, now: Now) {
        let hot = *self.table.hot(slot);
        let [own, shared] = self.expiry_ms(hot.class);
        let idle_ms = hot.idle_ms(now.ms32());
        if idle_ms <= own {
            if self.is_untold(slot, &hot) && self.log_slot(slot) {
                self.counters.replication.refreshes += 1;
            }
            return;
        }
        if is_planted(Fault::AgedByReplicas) {
            return self.end(slot, EndReason::Aged);
        }
        if !self.is_mine(slot) {
            if idle_ms > shared {
                self.let_go(slot);
            }
            return;
        }
        if !self.is_shared(slot) {
            return self.end(slot, EndReason::Aged);
        }
        let asked = self.replica.as_ref().is_some_and(|r| r.sides.line(slot).has(side_flag::ASKED));
        if asked && idle_ms > shared {
            // Whoever was to ask has not: the bounded moment is over.
            self.end(slot, EndReason::Aged);
        } else if !asked {
            self.ask(slot);
        }
    }

    fn ask(&mut self, slot: SlotId) {
        let id = self.table.cold(slot).id();
        let Some(r) = &mut self.replica else { return };
        if r.questions.len() < QUESTIONS_MAX {
            r.questions.push((slot, id));
            r.sides.line_mut(slot).set(side_flag::ASKED, true);
            self.counters.replication.asked += 1;
        }
    }

    /// A packet found its session expired.
    pub(in crate::engine) fn expire(&mut self, slot: SlotId) {
        if self.replica.is_some() && !self.is_mine(slot) {
            self.let_go(slot);
        } else {
            self.end(slot, EndReason::Aged);
        }
    }

    /// Forgets a replica: only its owner can end it, so nothing is told.
    fn let_go(&mut self, slot: SlotId) {
        self.counters.replication.let_go += 1;
        self.remember_unended(slot);
        self.free(slot);
    }

    /// Takes at most `max` questions that the sweep has: each is to be asked of every peer, and settled.
    pub fn take_questions(&mut self, max: usize, out: &mut Vec<(SlotId, Question)>) {
        let Some(mut r) = self.replica.take() else { return };
        let n = r.questions.len().min(max);
        for (slot, id) in r.questions.drain(..n) {
            let hot = self.table.hot(slot);
            if !hot.in_use() || self.table.cold(slot).id() != id {
                continue;
            }
            let age_ms = hot.idle_ms(self.clock.ms32());
            if age_ms <= self.cutoff_ms(hot.class.0) {
                r.sides.line_mut(slot).set(side_flag::ASKED, false);
                continue;
            }
            out.push((slot, Question { id, tuple: self.first_tuple(slot), age_ms }));
        }
        self.replica = Some(r);
    }

    /// A peer asks: the own copy is logged if it is younger, or the end if it is over.
    pub fn answer(&mut self, question: &Question, now: Now) {
        self.clock = now;
        match self.find_id(question.id, &question.tuple) {
            Some(slot) if self.is_younger(slot, None, question.age_ms, now) => {
                self.log_slot(slot);
            }
            Some(_) => (),
            None => {
                self.answer_end(question.id);
            }
        }
    }

    /// Logs the end of a session of which a tombstone is here.
    pub(super) fn answer_end(&mut self, id: SessionId) -> Option<Applied> {
        let now = self.clock;
        let r = self.replica.as_mut()?;
        let note = match r.log.tombs.find(id) {
            Some(at) => r.log.tombs.get(at)?.note(now),
            // Another's claim is not this node's to tell.
            None => r.foreign.get(r.foreign.find(id)?).filter(|tomb| tomb.reason.is_final())?.note(now),
        };
        self.bury_and_log(&note);
        Some(Applied::Answered)
    }

    /// Everybody has answered a question, or has had time to: ends the session if it is still idle.
    pub fn settle(&mut self, slot: SlotId, id: SessionId, now: Now) {
        self.clock = now;
        let holds = self.table.hot_lines().get(slot.0 as usize).is_some_and(|hot| hot.in_use());
        if !holds || self.table.cold(slot).id() != id {
            return;
        }
        if let Some(r) = &mut self.replica {
            r.sides.line_mut(slot).set(side_flag::ASKED, false);
        }
        let hot = self.table.hot(slot);
        let [own, _] = self.expiry_ms(hot.class);
        if hot.idle_ms(now.ms32()) > own && self.is_mine(slot) {
            self.end(slot, EndReason::Aged);
        }
    }

    /// Whether a packet of the session came here after the one that is `age_ms` old. What only others told
    /// counts when it was not `teller` and when it is clearly younger.
    pub(super) fn is_younger(
        &self,
        slot: SlotId,
        teller: Option<super::Peer>,
        age_ms: u32,
        now: Now,
    ) -> bool {
        let Some(r) = &self.replica else { return false };
        let (hot, side) = (self.table.hot(slot), r.sides.line(slot));
        let idle_ms = hot.idle_ms(now.ms32());
        let heard = side.has(side_flag::HEARD) && side.heard_ms == hot.last_seen_ms;
        if !heard {
            return idle_ms.saturating_add(CLOCK_MARGIN_MS) < age_ms;
        }
        teller.is_none_or(|p| p.0 != side.heard_from) && idle_ms.saturating_add(TOLD_MARGIN_MS) < age_ms
    }
}
