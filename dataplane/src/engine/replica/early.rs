//! Words about sessions that cannot be taken yet: the birth has not come, or another session has the tuple. They
//! wait, few and for a while, until it has, or until that one ends.
//!
//! Three nodes talk over three connections: what a replica saw can overtake the birth that it belongs to.

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
/// Tuples that one call of the sweep looks at again.
const STEP: usize = 64;

/// One word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    peer: Peer,
    teller: Boot,
    mark: u32,
    copy: SessionCopy,
    at: Now,
    /// It is of a session that is over: only the one that won its tuple can use it.
    over: bool,
}

/// All that wait: one for each tuple.
pub(super) struct Early {
    words: HashMap<Key, Word>,
    order: VecDeque<(Key, Now)>,
    /// Tuples that have become free.
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
        if let Some(known) = self.words.get_mut(&key) {
            if known.copy.birth.id == word.copy.birth.id {
                let mut facts = known.copy.facts;
                crate::session::tcp::merge(&mut facts, &word.copy.facts);
                known.copy.facts = facts;
                // Where a wing is was told by two, and neither has to be right.
                known.copy.sighted = [false; 2];
                known.copy.age_ms = known.copy.age_ms.min(word.copy.age_ms);
            } else {
                *known = word;
            }
            return;
        }
        while self.order.len() >= EARLY_MAX {
            let Some((oldest, at)) = self.order.pop_front() else { break };
            if self.words.get(&oldest).is_some_and(|w| w.at == at) {
                self.words.remove(&oldest);
            }
        }
        self.order.push_back((key, word.at));
        self.words.insert(key, word);
    }

    /// The word about a tuple, its age counted on to now; it waits no more.
    fn take(&mut self, key: &Key, now: Now) -> Option<Word> {
        let mut word = self.words.remove(key)?;
        let waited_ms = now.since(word.at);
        word.copy.age_ms = word.copy.age_ms.saturating_add(u32::try_from(waited_ms).unwrap_or(u32::MAX));
        word.copy.created_age_ms = word.copy.created_age_ms.saturating_add(waited_ms);
        (waited_ms <= EARLY_MS).then_some(word)
    }
}

impl Engine {
    /// Keeps a word for later.
    pub(super) fn keep_early(&mut self, peer: Peer, teller: Boot, mark: u32, copy: &SessionCopy) {
        let (key, _) = copy.birth.tuple.canonical();
        let word = Word { peer, teller, mark, copy: *copy, at: self.clock, over: false };
        if let Some(r) = &mut self.replica {
            r.early.push(key, word);
        }
    }

    /// A session lost its tuple to one that is not here yet, which is to have what this node has seen.
    pub(super) fn keep_for_winner(&mut self, slot: SlotId, peer: Peer, teller: Boot) {
        let (key, now) = (self.table.hot(slot).key(), self.clock);
        let Some(copy) = self.copy(slot, now) else { return };
        let copy = SessionCopy { packets: [0; 2], bytes: [0; 2], ..copy };
        if let Some(r) = &mut self.replica
            && r.early.words.get(&key).is_none_or(|w| w.over)
        {
            r.early.push(key, Word { peer, teller, mark: 0, copy, at: now, over: true });
        }
    }

    /// A session was put in: what came too early about it counts now.
    pub(super) fn take_early(&mut self, slot: SlotId) {
        let (key, id, now) = (self.table.hot(slot).key(), self.table.cold(slot).id(), self.clock);
        let Some(r) = &mut self.replica else { return };
        let is_of_it = |w: &Word| w.copy.birth.id == id || w.over;
        if !r.early.words.get(&key).is_some_and(is_of_it) {
            return;
        }
        match r.early.take(&key, now) {
            Some(word) if word.over => self.absorb_late(slot, &word.copy),
            Some(word) => {
                self.place_copy(word.peer, word.teller, word.mark, &word.copy, now);
            }
            None => (),
        }
    }

    /// A tuple is about to be free: what waits for it is looked at by the next call of the sweep.
    pub(super) fn note_free(&mut self, slot: SlotId) {
        let Some(r) = &mut self.replica else { return };
        if r.early.words.is_empty() {
            return;
        }
        let key = self.table.hot(slot).key();
        if r.early.words.get(&key).is_some_and(|w| !w.over) && r.early.due.len() < EARLY_MAX {
            r.early.due.push(key);
        }
    }

    /// Takes what has waited for tuples that are free now.
    pub(in crate::engine) fn retry_early(&mut self, now: Now) {
        for _ in 0..STEP {
            let Some(r) = &mut self.replica else { return };
            let Some(key) = r.early.due.pop() else { return };
            if self.table.find(&key, self.table.hash(&key)).is_some() {
                continue;
            }
            let Some(word) = r.early.take(&key, now) else { continue };
            if self.place_copy(word.peer, word.teller, word.mark, &word.copy, now) == Applied::New {
                self.session_arrived(&word.copy.birth.tuple, now);
            }
        }
    }
}
