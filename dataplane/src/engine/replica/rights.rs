//! Whether a session that is not here may be taken from who tells of it (`spec/replication.md`, "Who decides", "Ends").

use super::ageing::TOLD_MARGIN_MS;
use super::{Applied, Engine, Peer, Refusal};
use crate::session::EndReason;
use crate::session::copy::{EndNote, SessionCopy};
use crate::session::owner::Boot;
use crate::session::record::SessionId;
use crate::time::Now;

impl Engine {
    /// `None` when a session that is not here may be taken from that teller; otherwise what is done instead.
    pub(super) fn may_insert(
        &mut self,
        peer: Peer,
        teller: Boot,
        mark: u32,
        copy: &SessionCopy,
        now: Now,
    ) -> Option<Applied> {
        let id = copy.birth.id;
        let origin = Boot { node: id.origin, boot: id.boot };
        let own = self.is_own(id);
        if own && id.number() / u64::from(self.config.shards) >= self.sessions_made {
            return Some(Applied::Refused(Refusal::NeverMade));
        }
        let owner = self.view.as_ref().map(|v| v.owner(id));
        let mut lives_on = false;
        if let Some(claim) = self.tombstone(id, now) {
            lives_on = !self.is_over(id, copy);
            // The same packet is younger by the way that its telling took: the owner knows better.
            let me = self.view.as_ref().map(|v| v.me);
            let margin_ms = if owner == me || owner == Some(teller) { 0 } else { TOLD_MARGIN_MS };
            if claim.is_some_and(|age_ms| copy.age_ms.saturating_add(margin_ms) < age_ms) {
                self.forget_tombstone(id);
                self.counters.replication.rebirths += 1;
                return None;
            }
            if !lives_on {
                // A claim is told by its owner; what is final is told by whoever knows it.
                let told =
                    claim.is_none() || self.replica.as_ref().is_some_and(|r| r.log.tombs.find(id).is_some());
                return if told { self.answer_end(id) } else { Some(Applied::Unchanged) };
            }
        }
        if own && !lives_on && owner.is_none_or(|o| o == origin) && !self.is_aged_only(id) {
            // What it owns and no longer has is over, even if the tombstone is gone by now.
            return Some(self.bury_unknown(copy));
        }
        if self.is_revoked(id) {
            return Some(self.bury_unknown(copy));
        }
        let told_by_origin = own || teller == origin || owner != Some(origin);
        if told_by_origin || self.is_won(copy) {
            // It may have lost its tuple by mistake, and whoever may tell it has found that out.
            self.forget_tombstone(id);
            return None;
        }
        if let Some(r) = &mut self.replica
            && !r.refused.contains(&(peer, origin))
            && !r.refused.is_full()
        {
            r.refused.push((peer, origin));
        }
        self.keep_early(peer, teller, mark, copy);
        Some(Applied::Refused(Refusal::BirthOfAnother))
    }

    /// Whether a session that this node made and has no more can have ended by age alone: no tombstone of an end for
    /// good was overwritten since it was made. That somebody has used it since says nothing: what an operator cleared is
    /// used on where that is not known yet. An end by age that is forgotten is none for who has seen packets since.
    fn is_aged_only(&self, id: SessionId) -> bool {
        let Some(r) = &self.replica else { return false };
        let lost_ms = r.log.tombs.final_lost_ms(id).max(r.foreign.final_lost_ms(id));
        let made_ms = id.made_s().saturating_sub(u64::from(id.boot)) * 1000;
        made_ms > lost_ms || lost_ms == 0
    }

    /// Whether it was cleared or denied, as far as that is remembered beyond its tombstone. Nobody uses it rightly, whatever
    /// a node tells that had not heard of it.
    fn is_revoked(&self, id: SessionId) -> bool {
        self.replica
            .as_ref()
            .is_some_and(|r| r.log.tombs.is_revoked_lost(id) || r.foreign.is_revoked_lost(id))
    }

    fn bury_unknown(&mut self, copy: &SessionCopy) -> Applied {
        let note = EndNote {
            id: copy.birth.id,
            tuple: copy.birth.tuple,
            reason: EndReason::Closed,
            age_ms: copy.age_ms,
            bits: copy.facts.map(|f| f.bits),
        };
        self.bury_and_log(&note);
        Applied::Answered
    }
}
