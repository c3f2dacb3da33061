//! What a peer tells of ends.

use super::collide::is_over_for_good;
use super::{Applied, Engine, Peer, Refusal};
use crate::planted::{Fault, is_planted};
use crate::session::EndReason;
use crate::session::copy::EndNote;
use crate::session::owner::Boot;
use crate::session::record::WingFacts;
use crate::table::SlotId;
use crate::time::Now;

impl Engine {
    /// Takes what `peer`, speaking as `teller`, says of a session's end. What is final is so in every view; an end by
    /// age is a claim that a younger copy here refuses.
    pub fn apply_end(&mut self, peer: Peer, teller: Boot, end: &EndNote, now: Now) -> Applied {
        self.clock = now;
        let applied = self.take_end(peer, teller, end, now);
        self.counters.replication.count(applied);
        self.hear_the_dead(peer, teller, applied, (end.id, &end.tuple));
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
            EndReason::Superseded if !self.gives_way(slot, end.bits) => self.refuse_superseded(slot, end),
            EndReason::Superseded => {
                self.keep_for_winner(slot, peer, teller);
                self.end_superseded(peer, slot, end)
            }
            _ => self.end_as_told(peer, slot, end),
        }
    }

    /// The session is not over, by what both know: whoever has taken it for that hears so. If another has its tuple
    /// all the same, that one's birth decides.
    fn refuse_superseded(&mut self, slot: SlotId, end: &EndNote) -> Applied {
        let facts = end.bits.map(|bits| WingFacts { bits, ..WingFacts::default() });
        self.join_facts_of(slot, &facts, [false; 2]);
        self.log_slot(slot);
        Applied::Answered
    }

    /// The session is over, by what both know. If it took what only this node knows to see that, the others hear of
    /// it: they would go on with it.
    fn end_superseded(&mut self, peer: Peer, slot: SlotId, end: &EndNote) -> Applied {
        let own = self.facts(slot).map(|f| f.bits);
        let known = EndNote { bits: [end.bits[0] | own[0], end.bits[1] | own[1]], ..*end };
        if known.bits != end.bits && !is_over_for_good(end.tuple.protocol, end.bits) {
            self.bury_and_log(&known);
        }
        self.end_as_told(peer, slot, &known)
    }

    fn take_claim(&mut self, peer: Peer, teller: Boot, slot: SlotId, end: &EndNote, now: Now) -> Applied {
        if self.is_younger(slot, Some(peer), end.age_ms, now) && !is_planted(Fault::ClaimsBelieved) {
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
