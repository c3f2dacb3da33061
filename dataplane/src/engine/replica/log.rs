//! The change log: numbered entries in a ring, each naming a slot or a tombstone.
//!
//! An entry whose number is not its session's newest is stale and skipped, so a slow reader gets the newest state
//! once, whatever happened in between. Whoever falls behind the ring gets a resync.

use super::tombs::Tombs;
use crate::table::SlotId;

/// An entry that names a tombstone has this bit.
const TOMB: u32 = 1 << 31;

/// What an entry names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Slot(SlotId),
    Tomb(u32),
}

pub(super) struct Log {
    ring: Box<[u32]>,
    /// Number that the next entry gets; the first is 1.
    head: u64,
    /// Tombstones of ends that were decided here, or that are told on.
    pub tombs: Tombs,
    /// Numbers below this are lost: a tombstone that not everybody has was overwritten.
    lost_below: u64,
    /// Numbers below this are known to everybody who is connected.
    released_below: u64,
}

impl Log {
    pub(super) fn new(entries: u32, tombstones: u32) -> Self {
        Log {
            ring: vec![0; entries.max(1) as usize].into_boxed_slice(),
            head: 1,
            tombs: Tombs::new(tombstones),
            lost_below: 0,
            released_below: 0,
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    fn position(&self, number: u64) -> usize {
        (number % self.ring.len() as u64) as usize
    }

    /// Enters a session; returns the number, which the caller notes in its side line.
    pub(super) fn push_slot(&mut self, slot: SlotId) -> u64 {
        self.push(slot.0)
    }

    /// Enters a tombstone.
    pub(super) fn push_tomb(&mut self, at: u32) {
        let number = self.push(at | TOMB);
        self.tombs.set_number(at, number);
    }

    fn push(&mut self, what: u32) -> u64 {
        let number = self.head;
        let at = self.position(number);
        self.ring[at] = what;
        self.head += 1;
        number
    }

    /// A tombstone of that number was overwritten; `true` when somebody may lack it.
    pub(super) fn lose(&mut self, number: u64) -> bool {
        let lacked = number != 0 && number >= self.released_below;
        if lacked {
            self.lost_below = self.lost_below.max(number + 1);
        }
        lacked
    }

    /// Numbers below this are known to everybody who is connected.
    pub(super) fn release(&mut self, below: u64) {
        self.released_below = self.released_below.max(below.min(self.head));
    }

    pub(super) fn bytes(&self) -> usize {
        self.ring.len() * size_of::<u32>()
    }

    /// The entry of that number; `None` when it was overwritten or is not written yet.
    pub(super) fn get(&self, number: u64) -> Option<Entry> {
        let known = number < self.head && number >= self.first();
        known.then(|| match self.ring[self.position(number)] {
            what if what & TOMB != 0 => Entry::Tomb(what & !TOMB),
            slot => Entry::Slot(SlotId(slot)),
        })
    }

    /// The lowest number that a reader may still ask for.
    pub(super) fn first(&self) -> u64 {
        self.head.saturating_sub(self.ring.len() as u64).max(self.lost_below).max(1)
    }
}
