//! Words about sessions that cannot be taken yet: the birth has not come, or another session has the tuple. They
//! wait, few and for a while, until it has, or until that one ends.
//!
//! Three nodes talk over three connections: what a replica saw can overtake the birth that it belongs to.

use super::collide::lost_to;
use super::{Applied, Engine, Peer};
use crate::addr::Key;
use crate::session::copy::SessionCopy;
use crate::session::owner::Boot;
use crate::table::SlotId;
use crate::time::Now;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Most words that wait; the oldest goes for a new one.
const EARLY_MAX: usize = 2_048;
/// For so long one waits, in ms.
const EARLY_MS: u64 = 60_000;
/// Words that wait for one tuple: births that meet, times peers that saw packets of them. Hardly ever more than two.
const TUPLE_MAX: u8 = 8;
/// Tuples that one call of the sweep looks at again.
const STEP: usize = 64;

/// One word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    peer: Peer,
    teller: Boot,
    mark: u32,
    copy: SessionCopy,
    /// When it was as old as the copy says.
    at: Now,
    /// Since when it waits.
    since: Now,
    /// It is of a session that is over: only the one that won its tuple can use it.
    over: bool,
}

impl Word {
    fn is_of_the_same(&self, other: &Word) -> bool {
        let name = |w: &Word| (w.copy.birth.id, w.peer, w.teller, w.over);
        name(self) == name(other)
    }

    /// It grows older while it waits.
    fn count_on_to(&mut self, now: Now) {
        let waited_ms = now.since(self.at);
        self.copy.age_ms = self.copy.age_ms.saturating_add(u32::try_from(waited_ms).unwrap_or(u32::MAX));
        self.copy.created_age_ms = self.copy.created_age_ms.saturating_add(waited_ms);
        self.at = now;
    }
}

/// All that wait, by tuple and place.
pub(super) struct Early {
    words: HashMap<(Key, u8), Word>,
    order: VecDeque<((Key, u8), Now)>,
    /// Tuples that have become free, or whose session has come to its close.
    due: Vec<Key>,
}

impl Early {
    pub(super) fn new() -> Self {
        Early {
            words: HashMap::with_capacity(2 * EARLY_MAX),
            order: VecDeque::with_capacity(EARLY_MAX + 1),
            due: Vec::with_capacity(EARLY_MAX),
        }
    }

    fn push(&mut self, key: Key, word: Word) {
        let mut at = TUPLE_MAX - 1;
        for place in (0..TUPLE_MAX).rev() {
            match self.words.get_mut(&(key, place)) {
                Some(known) if known.is_of_the_same(&word) => {
                    let mut facts = known.copy.facts;
                    crate::session::tcp::merge(&mut facts, &word.copy.facts);
                    known.copy.facts = facts;
                    // Where a wing is was told by two, and neither has to be right.
                    known.copy.sighted = [false; 2];
                    for w in 0..2 {
                        known.copy.packets[w] = known.copy.packets[w].max(word.copy.packets[w]);
                        known.copy.bytes[w] = known.copy.bytes[w].max(word.copy.bytes[w]);
                    }
                    known.count_on_to(word.at);
                    known.copy.age_ms = known.copy.age_ms.min(word.copy.age_ms);
                    known.mark = word.mark;
                    return;
                }
                Some(_) => {}
                None => at = place,
            }
        }
        while self.order.len() >= EARLY_MAX {
            let Some((oldest, since)) = self.order.pop_front() else { break };
            if self.words.get(&oldest).is_some_and(|w| w.since == since) {
                self.words.remove(&oldest);
            }
        }
        self.order.push_back(((key, at), word.since));
        self.words.insert((key, at), word);
    }

    /// The word at a place of a tuple, its age counted on to now, if it is wanted; it waits no more.
    fn take(&mut self, key: &Key, place: u8, now: Now, is_wanted: impl Fn(&Word) -> bool) -> Option<Word> {
        if !self.words.get(&(*key, place)).is_some_and(is_wanted) {
            return None;
        }
        let mut word = self.words.remove(&(*key, place))?;
        word.count_on_to(now);
        (now.since(word.since) <= EARLY_MS).then_some(word)
    }

    /// Looks again, at the next call of the sweep, at what waits for a tuple.
    fn look_again(&mut self, key: Key) {
        let waits = |place| self.words.get(&(key, place)).is_some_and(|w| !w.over);
        if !self.words.is_empty() && (0..TUPLE_MAX).any(waits) && self.due.len() < EARLY_MAX {
            self.due.push(key);
        }
    }
}

impl Engine {
    /// Keeps a word for later.
    pub(super) fn keep_early(&mut self, peer: Peer, teller: Boot, mark: u32, copy: &SessionCopy) {
        let (key, _) = copy.birth.tuple.canonical();
        let word = Word { peer, teller, mark, copy: *copy, at: self.clock, since: self.clock, over: false };
        if let Some(r) = &mut self.replica {
            r.early.push(key, word);
        }
    }

    /// A session lost its tuple to one that is not here yet, which is to have what this node has seen.
    pub(super) fn keep_for_winner(&mut self, slot: SlotId, peer: Peer, teller: Boot) {
        let (key, now) = (self.table.hot(slot).key(), self.clock);
        let Some(copy) = self.copy(slot, now) else { return };
        let copy = SessionCopy { packets: [0; 2], bytes: [0; 2], ..copy };
        if let Some(r) = &mut self.replica {
            r.early.push(key, Word { peer, teller, mark: 0, copy, at: now, since: now, over: true });
        }
    }

    /// Whether a session is the one that another one here lost its tuple to: both are births of one connection, which
    /// goes on with it, whoever tells of it. Its origin's own word may be long in coming.
    pub(super) fn is_won(&self, copy: &SessionCopy) -> bool {
        let (key, _) = copy.birth.tuple.canonical();
        let Some(r) = &self.replica else { return false };
        (0..TUPLE_MAX)
            .filter_map(|place| r.early.words.get(&(key, place)))
            .any(|word| word.over && lost_to(&word.copy, copy))
    }

    /// A session was put in: what came too early about it counts now.
    pub(super) fn take_early(&mut self, slot: SlotId) {
        let (key, id, now) = (self.table.hot(slot).key(), self.table.cold(slot).id(), self.clock);
        let is_of_it = |w: &Word| w.copy.birth.id == id || w.over;
        for place in 0..TUPLE_MAX {
            let still_holds = self.table.hot(slot).in_use() && self.table.cold(slot).id() == id;
            let Some(r) = self.replica.as_mut().filter(|r| still_holds && !r.early.words.is_empty()) else {
                return;
            };
            match r.early.take(&key, place, now, is_of_it) {
                Some(word) if word.over => self.absorb_late(slot, &word.copy),
                Some(word) => {
                    self.place_copy(word.peer, word.teller, word.mark, &word.copy, now);
                }
                None => (),
            }
        }
    }

    /// A tuple is about to be free, or its session may give way now: what waits for it is looked at by the next call
    /// of the sweep.
    pub(super) fn look_again(&mut self, slot: SlotId) {
        let key = self.table.hot(slot).key();
        if let Some(r) = &mut self.replica {
            r.early.look_again(key);
        }
    }

    /// Takes what has waited for tuples that are free now, or whose sessions give way.
    pub(in crate::engine) fn retry_early(&mut self, now: Now) {
        for _ in 0..STEP {
            let Some(r) = &mut self.replica else { return };
            let Some(key) = r.early.due.pop() else { return };
            for place in 0..TUPLE_MAX {
                let Some(r) = &mut self.replica else { return };
                let Some(word) = r.early.take(&key, place, now, |w| !w.over) else { continue };
                if self.place_copy(word.peer, word.teller, word.mark, &word.copy, now) == Applied::New {
                    self.session_arrived(&word.copy.birth.tuple, now);
                    self.confirm_late(&word.copy);
                }
            }
        }
    }

    /// A session that was told a while ago is here only now: its owner hears of that, and may know that it is over.
    fn confirm_late(&mut self, copy: &SessionCopy) {
        if let Some(slot) = self.find_id(copy.birth.id, &copy.birth.tuple)
            && !self.is_mine(slot)
        {
            self.log_slot(slot);
        }
    }
}
