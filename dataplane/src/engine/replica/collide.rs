//! Two births of one tuple (`spec/replication.md`, "Collisions").

use super::ageing::TOLD_MARGIN_MS;
use super::side::side_flag;
use super::{Applied, Engine, Peer};
use crate::addr::{Tuple, proto};
use crate::planted::{Fault, is_planted};
use crate::session::copy::{EndNote, SessionCopy};
use crate::session::owner::Boot;
use crate::session::record::{SessionId, WingFacts};
use crate::session::tcp::{self, fact};
use crate::session::{EndReason, State};
use crate::table::SlotId;
use crate::time::Now;

/// What this node itself has seen of a flow: it stays with the flow when its session becomes another one.
struct Carry {
    id: SessionId,
    facts: [WingFacts; 2],
    packets: [u64; 2],
    bytes: [u64; 2],
    tcp_seen_ms: [u32; 2],
    ingress: [u8; 2],
    last_seen_ms: u32,
    /// Whether a packet of it came by here.
    seen: bool,
}

/// Why a session loses its tuple to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// Both are births of one connection.
    SameConnection,
    /// The other one's identity is lower.
    Lower,
    /// It is over, and the other one names it or goes on.
    Followed,
}

impl Engine {
    /// A copy of a session whose tuple another one has here.
    pub(super) fn collide(
        &mut self,
        peer: Peer,
        teller: Boot,
        mark: u32,
        slot: SlotId,
        copy: &SessionCopy,
        now: Now,
    ) -> Applied {
        let (found, told) = (self.table.cold(slot).id(), copy.birth.id);
        self.counters.replication.collisions += 1;
        let follows = copy.birth.supersedes == Some(found);
        let followed = self.supersedes(slot) == Some(told);
        if followed && self.is_over(told, copy) {
            // The one that the session here took the place of, told by a node that does not know yet.
            self.log_slot(slot);
            return self.answer_end(told).unwrap_or(Applied::Unchanged);
        }
        if follows && self.gives_way(slot, [0; 2]) {
            if let Some(no) = self.may_insert(peer, teller, mark, copy, now) {
                return self.tell_instead(slot, no);
            }
            self.supersede(slot, Why::Followed);
            return self.insert_copy(peer, mark, copy, now);
        }
        let facts = aligned(copy.facts, copy.birth.tuple == self.first_tuple(slot));
        let same = is_same_connection(&self.facts(slot), &facts);
        let other = follows || followed || !same;
        // A connection that is closing does not take the place of another that lives, whoever saw it first.
        let closes = [self.facts(slot), facts]
            .map(|f| is_over_for_good(copy.birth.tuple.protocol, f.map(|wing| wing.bits)));
        let later = if same || closes != [false; 2] { None } else { self.later(slot, copy, now) };
        let found_wins = match later {
            Some(found_is_later) => found_is_later,
            None if same || closes[0] == closes[1] => found < told,
            None => closes[1],
        };
        if found_wins {
            if other {
                // Another connection: it waits, in case the one here is over and nobody has said so yet.
                self.keep_early(peer, teller, mark, copy);
                self.log_slot(slot);
                return Applied::Answered;
            }
            return self.absorb(slot, copy, &facts, now);
        }
        if let Some(no) = self.may_insert(peer, teller, mark, copy, now) {
            return self.tell_instead(slot, no);
        }
        let why = match (other, !same && (later.is_some() || closes[0] && !closes[1])) {
            (_, true) => Why::Followed,
            (true, false) => Why::Lower,
            (false, false) => Why::SameConnection,
        };
        self.replace(peer, mark, slot, copy, why, now)
    }

    /// Of two connections that both seem to live, whether the one here is the later one: it was answered, and packets of
    /// it were seen when the other had none any more. Two ends have one connection of a tuple at a time. `None`: who
    /// knows.
    fn later(&self, slot: SlotId, copy: &SessionCopy, now: Now) -> Option<bool> {
        let is_answered = |facts: &[WingFacts; 2]| facts.iter().all(|f| f.has(fact::SYN | fact::SYN_ACKED));
        let (here_ms, there_ms) = (self.table.hot(slot).idle_ms(now.ms32()), copy.age_ms);
        let found = is_answered(&self.facts(slot)) && here_ms.saturating_add(TOLD_MARGIN_MS) < there_ms;
        let told = is_answered(&copy.facts) && there_ms.saturating_add(TOLD_MARGIN_MS) < here_ms;
        (found || told).then_some(found)
    }

    /// The other session is over, and who told of it hears so: it lacks the one that has the tuple here, for it had no
    /// place for that when it was told.
    fn tell_instead(&mut self, slot: SlotId, no: Applied) -> Applied {
        if no == Applied::Answered {
            self.log_slot(slot);
        }
        no
    }

    /// The session here wins: it takes the facts of the other one.
    fn absorb(&mut self, slot: SlotId, copy: &SessionCopy, facts: &[WingFacts; 2], now: Now) -> Applied {
        let before = self.facts(slot);
        self.join_facts_of(slot, facts, [false; 2]);
        // Whoever holds the loser lacks the winner, or lost what the loser knew: it hears of this one first.
        self.log_slot(slot);
        let loser = over_by_collision(copy.birth.id, copy.birth.tuple, copy.age_ms, copy.facts);
        self.bury_and_log(&loser);
        let heard_ms = now.ms32().wrapping_sub(copy.age_ms);
        let hot = self.table.hot_mut(slot);
        if heard_ms.wrapping_sub(hot.last_seen_ms) as i32 > 0 {
            hot.last_seen_ms = heard_ms;
        }
        if self.facts(slot) == before { Applied::Unchanged } else { Applied::Merged }
    }

    /// What this node saw of a second birth, before it heard of the first.
    pub(super) fn absorb_late(&mut self, slot: SlotId, copy: &SessionCopy) {
        let facts = aligned(copy.facts, copy.birth.tuple == self.first_tuple(slot));
        let before = self.facts(slot);
        if self.table.cold(slot).id() >= copy.birth.id || !is_same_connection(&before, &facts) {
            return;
        }
        self.join_facts_of(slot, &facts, [false; 2]);
        let seen_ms = self.clock.ms32().wrapping_sub(copy.age_ms);
        let younger = seen_ms.wrapping_sub(self.table.hot(slot).last_seen_ms) as i32 > 0;
        if younger && let Some(r) = &mut self.replica {
            r.sides.line_mut(slot).set(side_flag::UNSEEN, false);
            self.table.hot_mut(slot).last_seen_ms = seen_ms;
        }
        if younger || self.facts(slot) != before {
            self.log_slot(slot);
        }
    }

    /// The told session wins: what this node has seen goes into it, and others hear of that.
    fn replace(
        &mut self,
        peer: Peer,
        mark: u32,
        slot: SlotId,
        copy: &SessionCopy,
        why: Why,
        now: Now,
    ) -> Applied {
        let other_connection = why != Why::SameConnection;
        let same_way = copy.birth.tuple == self.first_tuple(slot);
        let facts = aligned(self.facts(slot), same_way);
        let swap = |pair: [u64; 2]| if same_way { pair } else { [pair[1], pair[0]] };
        let cold = self.table.cold(slot);
        let (seen_ms, ingress) = (cold.tcp_seen_ms, cold.ingress);
        let unseen = |r: &super::Replica| r.sides.line(slot).has(side_flag::UNSEEN);
        let carry = Carry {
            id: cold.id(),
            facts,
            packets: swap(cold.packets),
            bytes: swap(cold.bytes),
            tcp_seen_ms: if same_way { seen_ms } else { [seen_ms[1], seen_ms[0]] },
            ingress: if same_way { ingress } else { [ingress[1], ingress[0]] },
            last_seen_ms: self.table.hot(slot).last_seen_ms,
            seen: !self.replica.as_deref().is_some_and(unseen),
        };
        let (mine, loser) = (self.is_mine(slot), self.copy(slot, now));
        self.supersede(slot, why);
        let applied = self.insert_copy(peer, mark, copy, now);
        if applied != Applied::New {
            return applied;
        }
        let (key, _) = copy.birth.tuple.canonical();
        if let Some(slot) = self.table.find(&key, self.table.hash(&key)) {
            self.carry_over(slot, &carry, other_connection);
            if let (Some(view), Some(loser)) = (&self.view, loser)
                && other_connection
                && !mine
            {
                let loser = SessionCopy { packets: [0; 2], bytes: [0; 2], ..loser };
                self.keep_early(peer, view.owner(loser.birth.id), mark, &loser);
            }
        }
        applied
    }

    fn carry_over(&mut self, slot: SlotId, carry: &Carry, other_connection: bool) {
        debug_assert_ne!(self.table.cold(slot).id(), carry.id);
        let cold = self.table.cold_mut(slot);
        (cold.packets, cold.bytes, cold.ingress) = (carry.packets, carry.bytes, carry.ingress);
        if other_connection {
            return;
        }
        // What was seen here goes with the positions that were seen.
        cold.tcp_seen_ms = [0; 2];
        let before = self.facts(slot);
        self.join_facts_of(slot, &carry.facts, carry.tcp_seen_ms.map(|seen| seen != 0));
        self.table.cold_mut(slot).tcp_seen_ms = carry.tcp_seen_ms;
        let grown = self.facts(slot) != before;
        let hot = self.table.hot_mut(slot);
        if carry.last_seen_ms.wrapping_sub(hot.last_seen_ms) as i32 > 0 {
            hot.last_seen_ms = carry.last_seen_ms;
        }
        if carry.seen
            && let Some(r) = &mut self.replica
        {
            r.sides.line_mut(slot).set(side_flag::UNSEEN, false);
        }
        if carry.seen || grown {
            self.log_slot(slot);
        }
    }

    /// The session that the one here took the place of.
    fn supersedes(&self, slot: SlotId) -> Option<SessionId> {
        self.replica.as_ref().and_then(|r| r.sides.line(slot).supersedes())
    }

    /// Whether a session that was superseded here was rightly so, by what is known now: it was closing, or only
    /// one side ever spoke. What a copy says is remembered: all who know the same come to the same answer.
    pub(super) fn is_over(&mut self, id: SessionId, copy: &SessionCopy) -> bool {
        if let Some(r) = &mut self.replica {
            r.log.tombs.learn(id, copy.facts.map(|f| f.bits));
            r.foreign.learn(id, copy.facts.map(|f| f.bits));
        }
        let told = copy.facts.map(|f| f.bits);
        match self.tomb(id) {
            Some(tomb) if tomb.reason != EndReason::Superseded => true,
            Some(tomb) => {
                is_over(copy.birth.tuple.protocol, [tomb.bits[0] | told[0], tomb.bits[1] | told[1]])
            }
            None => is_over(copy.birth.tuple.protocol, told),
        }
    }

    /// Whether a session lets a new one with its tuple take its place, when a teller knows these facts beside.
    pub(super) fn gives_way(&self, slot: SlotId, bits: [u8; 2]) -> bool {
        let own = self.facts(slot).map(|f| f.bits);
        is_over(self.table.hot(slot).protocol, [own[0] | bits[0], own[1] | bits[1]])
    }

    /// Takes a session out because another has its tuple. That two births were of one connection is plain to
    /// everybody who knows both, and that it was closing to everybody who knows its facts, so whoever finds it out
    /// tells; otherwise only the owner does.
    fn supersede(&mut self, slot: SlotId, why: Why) {
        let reason = EndReason::Superseded;
        let note = self.end_note(slot, reason);
        let mine = self.is_mine(slot);
        let facts = self.facts(slot);
        let was_closing = why == Why::Followed && is_over_for_good(note.tuple.protocol, note.bits);
        if why == Why::SameConnection || was_closing || mine {
            let note = match why {
                Why::Followed => note,
                // The lower identity stays the lower one: this holds for good, whatever facts are still to come.
                Why::SameConnection | Why::Lower => {
                    over_by_collision(note.id, note.tuple, note.age_ms, facts)
                }
            };
            self.bury_and_log(&note);
            self.tell_end(slot, reason);
        } else {
            self.remember_unended(slot);
        }
        self.counters.ended[reason as usize] += u64::from(mine);
        self.free(slot);
    }

    /// A session of this very boot leaves the table here, and nothing has ended it: what others tell of it later must
    /// not be taken for over.
    pub(super) fn remember_unended(&mut self, slot: SlotId) {
        if self.is_own(self.table.cold(slot).id()) {
            let note = EndNote { age_ms: u32::MAX, ..self.end_note(slot, EndReason::Aged) };
            self.remember(&note, None);
        }
    }

    /// Remembers an end that this node does not tell.
    pub(super) fn remember(&mut self, note: &EndNote, from: Option<Peer>) {
        let now = self.clock;
        if is_planted(Fault::TombstonesForgotten) {
            return;
        }
        let Some(r) = &mut self.replica else { return };
        if let Some(at) = r.log.tombs.find(note.id) {
            return r.log.tombs.strengthen(at, note, now);
        }
        match r.foreign.find(note.id) {
            Some(at) => r.foreign.strengthen(at, note, now),
            None => {
                r.foreign.push(super::tombs::Tomb::new(note, from.map(|p| p.0), now));
            }
        }
    }

    pub(super) fn tomb(&self, id: SessionId) -> Option<&super::tombs::Tomb> {
        let r = self.replica.as_ref()?;
        let own = r.log.tombs.find(id).and_then(|at| r.log.tombs.get(at));
        own.or_else(|| r.foreign.find(id).and_then(|at| r.foreign.get(at)))
    }

    /// Whether a tombstone of that session is here: `Some(None)` for a final one, the evidence's age for a claim.
    pub(super) fn tombstone(&self, id: SessionId, now: Now) -> Option<Option<u32>> {
        self.tomb(id).map(|t| (!t.reason.is_final()).then(|| t.age_ms(now)))
    }

    pub(super) fn forget_tombstone(&mut self, id: SessionId) {
        if let Some(r) = &mut self.replica {
            r.log.tombs.remove(id);
            r.foreign.remove(id);
        }
    }
}

/// Whether a session with these facts may lose its tuple to a new one: it is closing, or one-sided.
fn is_over(protocol: u8, bits: [u8; 2]) -> bool {
    let one_sided = bits[1] & (fact::SYN | fact::MID) == 0;
    one_sided || is_over_for_good(protocol, bits)
}

/// Whether it may whatever else comes to be known of it. Without TCP nothing but the lower identity takes a tuple, and
/// that for good.
pub(super) fn is_over_for_good(protocol: u8, bits: [u8; 2]) -> bool {
    protocol != proto::TCP || State::is_closing(tcp::derive(bits[0], bits[1]))
}

/// Facts with the wings as a session has them that runs the same way, or the other one.
fn aligned(facts: [WingFacts; 2], same_way: bool) -> [WingFacts; 2] {
    if same_way { facts } else { [facts[1], facts[0]] }
}

/// The end of the second birth of one connection: its bits say to everybody that it is over.
fn over_by_collision(id: SessionId, tuple: Tuple, age_ms: u32, facts: [WingFacts; 2]) -> EndNote {
    let bits = match tuple.protocol {
        proto::TCP => [facts[0].bits | fact::RST, facts[1].bits],
        _ => facts.map(|f| f.bits),
    };
    EndNote { id, tuple, reason: EndReason::Superseded, age_ms, bits }
}

/// Whether the one is the second birth of the connection that the other is the first of.
pub(super) fn lost_to(loser: &SessionCopy, winner: &SessionCopy) -> bool {
    let same_way = loser.birth.tuple == winner.birth.tuple;
    let [first, second] = loser.birth.zones;
    let zones = if same_way { [first, second] } else { [second, first] };
    winner.birth.id < loser.birth.id
        && zones == winner.birth.zones
        && is_same_connection(&winner.facts, &aligned(loser.facts, same_way))
}

/// Whether two records can be of one connection: no wing has two first sequence numbers.
fn is_same_connection(a: &[WingFacts; 2], b: &[WingFacts; 2]) -> bool {
    let fits = |a: &WingFacts, b: &WingFacts| !a.has(fact::SYN) || !b.has(fact::SYN) || a.isn == b.isn;
    fits(&a[0], &b[0]) && fits(&a[1], &b[1])
}
