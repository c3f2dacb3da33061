//! What a peer tells of a live session: inserted, merged, refused or answered.

use super::ageing::TOLD_MARGIN_MS;
use super::side::side_flag;
use super::{Applied, Engine, Peer, Refusal};
use crate::addr::{Tuple, proto};
use crate::names::ClassId;
use crate::policy::Action;
use crate::session::State;
use crate::session::copy::SessionCopy;
use crate::session::owner::Boot;
use crate::session::record::{Cold, SessionId, WingFacts};
use crate::session::tcp::{self, Heard, fact};
use crate::session::timeouts::TIMEOUT_S_MAX;
use crate::table::{PolicyStamp, SlotId, flag};
use crate::time::Now;

use super::hot_flag;

/// Class of a copy that came while there was no policy: it does not age before there is one.
pub(in crate::engine) const UNCLASSED: ClassId = ClassId(u16::MAX);

/// No honest node tells of a session that has been idle for longer.
const AGE_MS_MAX: u32 = TIMEOUT_S_MAX * 1000 + 86_400_000;

/// When a packet was seen of which a peer tells now. It came some time ago: one that comes here in this very
/// millisecond is another, and not hearsay (`HEARD` is known by the time alone).
fn heard_of_ms(age_ms: u32, now: Now) -> u32 {
    now.ms32().wrapping_sub(age_ms.max(1))
}

/// What a merge did to a session's facts.
struct Grown {
    /// Something is new here.
    any: bool,
    /// Both together prove what neither told: others must hear of it.
    beyond: bool,
}

impl Engine {
    /// Takes what `peer`, speaking as `teller`, says of a session. `mark` is the resync epoch of that peer: it grows
    /// over the peer's life in this process.
    pub fn apply_copy(
        &mut self,
        peer: Peer,
        teller: Boot,
        mark: u32,
        copy: &SessionCopy,
        now: Now,
    ) -> Applied {
        self.clock = now;
        let applied = self.take_copy(peer, teller, mark, copy, now);
        self.counters.replication.count(applied);
        if applied == Applied::New {
            self.session_arrived(&copy.birth.tuple, now);
        }
        self.hear_the_dead(peer, teller, applied, (copy.birth.id, &copy.birth.tuple));
        applied
    }

    /// What a peer said that is dead by now may have come to nobody else.
    #[inline]
    pub(super) fn hear_the_dead(
        &mut self,
        peer: Peer,
        teller: Boot,
        applied: Applied,
        (id, tuple): (SessionId, &Tuple),
    ) {
        let is_dead = |r: &super::Replica| r.sides.is_dead(peer, teller);
        let is_news = matches!(applied, Applied::New | Applied::Merged);
        if is_news && self.replica.as_deref().is_some_and(is_dead) {
            self.tell_on(id, tuple);
        }
    }

    fn take_copy(&mut self, peer: Peer, teller: Boot, mark: u32, copy: &SessionCopy, now: Now) -> Applied {
        if let Err(refusal) = self.admit(peer, teller, Some(mark), &copy.birth.tuple) {
            return Applied::Refused(refusal);
        }
        if let Some(why) = absurdity(copy) {
            return Applied::Refused(Refusal::Absurd(why));
        }
        self.place_copy(peer, teller, mark, copy, now)
    }

    /// Takes a copy that may be told and makes sense.
    pub(super) fn place_copy(
        &mut self,
        peer: Peer,
        teller: Boot,
        mark: u32,
        copy: &SessionCopy,
        now: Now,
    ) -> Applied {
        let (key, _) = copy.birth.tuple.canonical();
        let found = match self.table.find(&key, self.table.hash(&key)) {
            Some(slot) if self.table.cold(slot).id() != copy.birth.id && self.is_expired(slot, now) => {
                self.expire(slot);
                None
            }
            other => other,
        };
        match found {
            Some(slot) if self.table.cold(slot).id() == copy.birth.id => {
                self.merge(peer, mark, slot, copy, now)
            }
            Some(slot) => self.collide(peer, teller, mark, slot, copy, now),
            None => match self.may_insert(peer, teller, mark, copy, now) {
                Some(no) => no,
                None => self.insert_copy(peer, mark, copy, now),
            },
        }
    }

    /// Whether somebody may tell anything here, and of this tuple.
    pub(super) fn admit(
        &mut self,
        peer: Peer,
        teller: Boot,
        mark: Option<u32>,
        tuple: &Tuple,
    ) -> Result<(), Refusal> {
        let (shard, shards) = (self.config.shard, self.config.shards);
        let Some(r) = &mut self.replica else { return Err(Refusal::NotReplicating) };
        if self.view.as_ref().is_some_and(|v| v.me == teller) || !r.sides.hear(peer, teller, mark) {
            return Err(Refusal::Absurd("peer"));
        }
        if self.view.as_ref().is_some_and(|v| v.is_alive(teller)) {
            r.alive |= peer.bit();
        }
        let (key, _) = tuple.canonical();
        if crate::engine::shard_of(self.table.hash(&key), shards) != shard {
            return Err(Refusal::WrongShard);
        }
        if let Some(mark) = mark {
            self.resync_begins(peer, mark);
        }
        Ok(())
    }

    /// Another's view of a session that is here too.
    fn merge(&mut self, peer: Peer, mark: u32, slot: SlotId, copy: &SessionCopy, now: Now) -> Applied {
        if self.first_tuple(slot) != copy.birth.tuple || self.table.hot(slot).zone != copy.birth.zones {
            return Applied::Refused(Refusal::Absurd("birth"));
        }
        if self.is_unsynced(slot) {
            return Applied::Refused(Refusal::NotSynced);
        }
        let hot = self.table.hot(slot);
        let was_expired = hot.idle_ms(now.ms32()) > self.expiry_ms(hot.class)[0];
        let grown = self.join_facts(slot, &heard(copy, now));
        let younger = self.hear_of(slot, peer, copy.age_ms, now);
        self.told_by(slot, peer, mark, copy);
        // Others may have let it go meanwhile, and take it back from its owner only.
        let is_revived = was_expired && younger && self.is_mine(slot);
        if grown.beyond || is_revived {
            self.log_slot(slot);
        }
        if grown.any && self.is_mine(slot) {
            self.end_if_over(slot);
        }
        if grown.any || younger { Applied::Merged } else { Applied::Unchanged }
    }

    /// Notes that a peer holds a session, and what it counted.
    pub(super) fn told_by(&mut self, slot: SlotId, peer: Peer, mark: u32, copy: &SessionCopy) {
        let now = self.clock;
        self.table.hot_mut(slot).flags |= hot_flag::SHARED;
        let cold = self.table.cold_mut(slot);
        if copy.created_age_ms > cold.age_ms(now) {
            cold.created_ms = now.0.wrapping_sub(copy.created_age_ms);
        }
        if let Some(r) = &mut self.replica {
            r.sides.count(slot, peer, mark, (copy.packets, copy.bytes), now.ms32());
        }
    }

    /// Takes the age that a peer tells, if it is younger than what is known here.
    pub(super) fn hear_of(&mut self, slot: SlotId, peer: Peer, age_ms: u32, now: Now) -> bool {
        let heard_ms = heard_of_ms(age_ms, now);
        let hot = self.table.hot_mut(slot);
        if heard_ms.wrapping_sub(hot.last_seen_ms) as i32 <= 0 {
            return false;
        }
        let seen_ms = std::mem::replace(&mut hot.last_seen_ms, heard_ms);
        let Some(r) = &mut self.replica else { return true };
        // What this node has seen and not told comes back a little younger from who was sent it: others lack it yet.
        // What waited while this node stood still seems younger here than to anybody else.
        let untold = seen_ms.wrapping_sub(r.sides.told_ms()[slot.0 as usize]) as i32 > 0;
        if !self.held && (!untold || heard_ms.wrapping_sub(seen_ms) > TOLD_MARGIN_MS) {
            r.sides.set_told_ms(slot, heard_ms);
        }
        let side = r.sides.line_mut(slot);
        side.heard_ms = heard_ms;
        side.heard_from = peer.0;
        side.set(side_flag::HEARD, true);
        if side.has(side_flag::RECLASS) {
            self.classify_copy(slot, false);
        }
        true
    }

    /// Merges facts that belong to a session by whatever way; what that proves is told.
    /// `sighted`: the wings whose positions count for more than what is known of them.
    pub(super) fn join_facts_of(&mut self, slot: SlotId, facts: &[WingFacts; 2], sighted: [bool; 2]) {
        let heard = Heard { facts, sighted, at_ms: self.clock.ms32() };
        if self.join_facts(slot, &heard).beyond {
            self.log_slot(slot);
        }
    }

    /// Merges facts into a session's and derives its state again.
    fn join_facts(&mut self, slot: SlotId, heard: &Heard<'_>) -> Grown {
        let is_tcp = self.table.hot(slot).protocol == proto::TCP;
        let told = heard.facts;
        let cold = self.table.cold_mut(slot);
        let before = cold.wings;
        if !is_tcp {
            let replied = told[1].bits & fact::MID;
            let any = cold.wings[1].bits & replied != replied;
            cold.wings[1].bits |= replied;
            if any && self.table.hot(slot).state == State::OneWay as u8 {
                self.table.hot_mut(slot).state = State::Replied as u8;
                self.set_class(slot);
            }
            return Grown { any, beyond: false };
        }
        tcp::hear(&mut cold.wings, &mut cold.tcp_seen_ms, heard);
        let told_bits = [before[0].bits | told[0].bits, before[1].bits | told[1].bits];
        let bits = cold.wings.map(|f| f.bits);
        let any = cold.wings != before;
        if bits != before.map(|f| f.bits) {
            self.table.hot_mut(slot).state = tcp::derive(bits[0], bits[1]) as u8;
            self.set_class(slot);
            self.look_again(slot);
        }
        Grown { any, beyond: bits != told_bits }
    }

    /// Puts a session in that others have told of.
    pub(super) fn insert_copy(&mut self, peer: Peer, mark: u32, copy: &SessionCopy, now: Now) -> Applied {
        let birth = &copy.birth;
        let (key, forward) = birth.tuple.canonical();
        let Ok(slot) = self.table.insert(&key, self.table.hash(&key)) else { return Applied::NoRoom };
        *self.table.cold_mut(slot) = Cold {
            revision: birth.revision,
            rule: birth.rule,
            application: birth.application,
            id_origin: birth.id.origin,
            id_boot: birth.id.boot,
            id_counter: birth.id.counter,
            created_ms: now.0,
            ..Cold::default()
        };
        let last_seen_ms = heard_of_ms(copy.age_ms, now);
        let state = if key.protocol == proto::TCP { tcp::derive(0, 0) } else { State::OneWay };
        let hot = self.table.hot_mut(slot);
        hot.state = state as u8;
        hot.zone = birth.zones;
        hot.last_seen_ms = last_seen_ms;
        hot.egress = [crate::route::EgressId::NONE.0; 2];
        if forward {
            hot.flags |= flag::FIRST_FORWARD;
        }
        self.note_copy(slot, peer, copy, last_seen_ms);
        self.told_by(slot, peer, mark, copy);
        self.classify_copy(slot, false);
        if self.is_unsynced(slot) {
            self.free(slot);
            return Applied::Refused(Refusal::NotSynced);
        }
        let grown = self.join_facts(slot, &heard(copy, now));
        self.set_class(slot);
        // Whoever owns it tells everybody what it has learned; so does who knows more than it was told.
        if grown.beyond || self.is_mine(slot) {
            self.log_slot(slot);
        }
        self.take_early(slot);
        Applied::New
    }

    /// The side line of a copy that was put in just now.
    fn note_copy(&mut self, slot: SlotId, peer: Peer, copy: &SessionCopy, last_seen_ms: u32) {
        let Some(r) = &mut self.replica else { return };
        r.sides.clear(slot);
        r.sides.set_told_ms(slot, last_seen_ms);
        let side = r.sides.line_mut(slot);
        side.set_supersedes(copy.birth.supersedes);
        side.heard_ms = last_seen_ms;
        side.heard_from = peer.0;
        side.set(side_flag::HEARD, true);
        side.set(side_flag::UNSEEN, true);
    }

    /// Looks up what timeout and log a copy has by the policy in force here. Its next packet here is judged
    /// in any case, so what is denied merely forwards nothing. `longer_only`: a shorter timeout waits
    /// for the next packet that any node sees (F7).
    pub(in crate::engine) fn classify_copy(&mut self, slot: SlotId, longer_only: bool) {
        let Some(policy) = self.policy.clone() else {
            let none = PolicyStamp::from(self.policies.wrapping_sub(1));
            self.table.cold_mut(slot).service_class = UNCLASSED;
            let hot = self.table.hot_mut(slot);
            (hot.class, hot.judged_by) = (UNCLASSED, none);
            return;
        };
        let hot = self.table.hot(slot);
        let j = policy.evaluate(hot.zone[0], hot.zone[1], &self.first_tuple(slot));
        // What is denied stays unjudged: the sweep comes back to it, in case it is this node's to end by then.
        let denied = PolicyStamp::from(self.policies.wrapping_sub(1));
        let stamp = if j.action == Action::Permit { self.stamp } else { denied };
        let hot = self.table.hot_mut(slot);
        hot.judged_by = stamp;
        hot.flags |= hot_flag::REFRESH;
        self.set_logged(slot, j.log && j.action == Action::Permit);
        self.set_synced(slot, j.sync || j.action != Action::Permit);
        let known = self.table.cold(slot).service_class;
        let later = longer_only && known != UNCLASSED && self.cutoff_ms(j.class.0) < self.cutoff_ms(known.0);
        if let Some(r) = &mut self.replica {
            r.sides.line_mut(slot).set(side_flag::RECLASS, later);
        }
        if !later {
            self.set_service_class(slot, j.class);
            self.set_class(slot);
        }
    }
}

/// What a copy says of its TCP wings. Ages are told, so when the teller last saw them is known in this node's time.
fn heard(copy: &SessionCopy, now: Now) -> Heard<'_> {
    Heard { facts: &copy.facts, sighted: copy.sighted, at_ms: now.ms32().wrapping_sub(copy.age_ms) }
}

/// What no honest node tells.
fn absurdity(copy: &SessionCopy) -> Option<&'static str> {
    let t = &copy.birth.tuple;
    let known = fact::ALL | fact::FRAGMENTED;
    if t.src.is_v4() != t.dst.is_v4() {
        return Some("families");
    }
    if copy.age_ms > AGE_MS_MAX {
        return Some("age");
    }
    if copy.facts.iter().any(|f| f.bits & !known != 0) {
        return Some("facts");
    }
    if copy.birth.supersedes == Some(copy.birth.id) {
        return Some("supersedes");
    }
    None
}
