//! What a peer tells of ends.

use super::{Applied, Engine, Peer, Refusal};
use crate::session::EndReason;
use crate::session::copy::EndNote;
use crate::session::owner::Boot;
use crate::table::SlotId;
use crate::time::Now;

impl Engine {
    /// Takes what `peer`, speaking as `teller`, says of a session's end. What is final is so in every view; an end by
    /// age is a claim that a younger copy here refuses.
    pub fn apply_end(&mut self, peer: Peer, teller: Boot, end: &EndNote, now: Now) -> Applied {
        self.clock = now;
        let applied = self.take_end(peer, teller, end, now);
        self.counters.replication.count(applied);
        applied
    }

    fn take_end(&mut self, peer: Peer, teller: Boot, end: &EndNote, now: Now) -> Applied {
        if let Err(refusal) = self.admit(peer, teller, None, &end.tuple) {
            return Applied::Refused(refusal);
        }
        let Some(slot) = self.find_id(end.id, &end.tuple) else {
            let known = self.tomb(end.id).is_some();
            self.remember(end, Some(peer));
            return if known { Applied::Unchanged } else { Applied::New };
        };
        if self.first_tuple(slot) != end.tuple {
            return Applied::Refused(Refusal::Absurd("birth"));
        }
        if self.is_unsynced(slot) {
            return Applied::Refused(Refusal::NotSynced);
        }
        match end.reason {
            EndReason::Aged => self.take_claim(peer, teller, slot, end, now),
            EndReason::Superseded if !self.is_superseded(teller, slot, end) => Applied::Unchanged,
            reason => {
                if reason == EndReason::Superseded {
                    self.keep_for_winner(slot, peer, teller);
                }
                self.end_as_told(peer, slot, end)
            }
        }
    }

    /// The owner's word counts; of others only what makes it plain that the session was over. If it was not,
    /// the birth that follows decides.
    fn is_superseded(&self, teller: Boot, slot: SlotId, end: &EndNote) -> bool {
        let owner = self.view.as_ref().map(|v| v.owner(end.id));
        self.gives_way(slot, end.bits) || owner == Some(teller)
    }

    fn take_claim(&mut self, peer: Peer, teller: Boot, slot: SlotId, end: &EndNote, now: Now) -> Applied {
        if self.is_younger(slot, Some(peer), end.age_ms, now) {
            self.counters.replication.claims_refused += 1;
            self.log_slot(slot);
            return Applied::Answered;
        }
        let owner = self.view.as_ref().map(|v| v.owner(end.id));
        let me = self.view.as_ref().map(|v| v.me);
        let class = self.table.hot(slot).class;
        let by_two_owners = owner == me && end.age_ms > self.cutoff_ms(class.0);
        if owner != Some(teller) && !by_two_owners {
            return Applied::Refused(Refusal::NotOwner);
        }
        self.end_as_told(peer, slot, end)
    }

    fn end_as_told(&mut self, peer: Peer, slot: SlotId, end: &EndNote) -> Applied {
        self.remember(end, Some(peer));
        self.free(slot);
        Applied::Merged
    }
}
