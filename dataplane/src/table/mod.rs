//! The session table of one shard: an index over a slab, allocated once.
//!
//! The session table is a limited resource and is treated as one: its capacity is reserved at
//! start, nothing grows later, and when it is full a new session is refused (J14). A session is one
//! hot line that every packet of it reads and writes, and two cold lines beside it; the index maps
//! the keyed hash of the canonical key to a slot.
//!
//! What it must not do: read a clock, decide what is expired (the engine's predicate does), throw
//! out a session for another one, allocate after [`Table::new`].
//!
//! Three ways to look sessions up, all without side effects: [`Table::find`] for one,
//! [`Table::lookup_batch`] for a batch whose cache misses overlap, [`Table::sweep_slice`] for the
//! clock hand.

mod hash;
mod hot;
mod index;
mod lookup;
mod memory;
mod sweep;
#[cfg(test)]
mod tests;

pub use hash::TupleHasher;
pub use hot::{HotLine, PolicyStamp, flag};
pub use sweep::SweepStep;

use crate::addr::Key;
use crate::session::record::Cold;
use index::Index;
pub(crate) use memory::Lines;

/// Number of a slot. Reused once its session is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub u32);

/// Most sessions that one table holds: an index entry names a slot in 31 bits.
pub const CAPACITY_MAX: u32 = 1 << 31;

/// Why a table could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The capacity is 0 or above [`CAPACITY_MAX`].
    #[error("a table of {0} sessions is not possible: 1 to {CAPACITY_MAX} are")]
    Capacity(u32),
    /// The kernel did not grant the memory.
    #[error(
        "the session table needs {bytes} bytes, and the system refuses them ({source}): lower table.capacity"
    )]
    Memory {
        /// Size of the array that was asked for.
        bytes: usize,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Why a session was not admitted. For its packet both are "table full" (J14).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InsertError {
    /// Every slot is taken.
    #[error("every slot of the session table is taken")]
    Full,
    /// A slot is free, but the bounded search of the index found no place for the entry; counted in
    /// [`Table::probe_failures`].
    #[error("the session table's index has no place for this session")]
    NoPlace,
}

/// The sessions of one shard.
pub struct Table {
    hasher: TupleHasher,
    index: Index,
    hot: Lines<HotLine>,
    cold: Lines<Cold>,
    capacity: u32,
    in_use: u32,
    /// Slots from here on were never used: nothing has touched their memory.
    fresh_from: u32,
    /// First freed slot plus one, or 0. The next is in that slot's `egress[0]`, likewise.
    freed_head: u32,
    probe_failures: u64,
}

impl Table {
    /// A table of `capacity` sessions, whose index is keyed with `hash_key` (random per boot).
    ///
    /// All memory is reserved here, 202 bytes a session, and becomes resident where it is first used
    /// unless [`Table::make_resident`] is called.
    pub fn try_new(capacity: u32, hash_key: [u64; 2]) -> Result<Self, TableError> {
        if capacity == 0 || capacity > CAPACITY_MAX {
            return Err(TableError::Capacity(capacity));
        }
        Ok(Table {
            hasher: TupleHasher::new(hash_key),
            index: Index::new(capacity)?,
            hot: Lines::zeroed(capacity as usize)?,
            cold: Lines::zeroed(capacity as usize)?,
            capacity,
            in_use: 0,
            fresh_from: 0,
            freed_head: 0,
            probe_failures: 0,
        })
    }

    /// Like [`Table::try_new`].
    ///
    /// # Panics
    /// When the capacity is out of range or the memory is refused.
    pub fn new(capacity: u32, hash_key: [u64; 2]) -> Self {
        Self::try_new(capacity, hash_key).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes the whole table resident (J14: it is allocated at start): no packet waits for the
    /// kernel to find and clear a page, and memory that is not there shows now, not under load.
    pub fn make_resident(&self) -> Result<(), TableError> {
        self.index.make_resident()?;
        self.hot.make_resident()?;
        self.cold.make_resident()
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many sessions there are.
    pub fn len(&self) -> u32 {
        self.in_use
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.in_use == 0
    }

    /// Sessions refused although a slot was free ([`InsertError::NoPlace`]).
    pub fn probe_failures(&self) -> u64 {
        self.probe_failures
    }

    /// Bytes of address space of all arrays; the resident set never exceeds it.
    pub fn reserved_bytes(&self) -> usize {
        self.index.bytes() + self.hot.bytes() + self.cold.bytes()
    }

    /// One past the highest slot that was ever used: whoever walks the slots need go no further.
    pub fn slots_used(&self) -> u32 {
        self.fresh_from
    }

    /// The hot lines of all slots ever used, free ones among them ([`HotLine::in_use`] tells).
    #[inline]
    pub fn hot_lines(&self) -> &[HotLine] {
        &self.hot.all()[..self.fresh_from as usize]
    }

    /// The hasher, for steering by the same hash.
    pub fn hasher(&self) -> TupleHasher {
        self.hasher
    }

    /// The keyed hash that every other call wants.
    #[inline]
    pub fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash(key)
    }

    /// The hot line of a slot.
    #[inline]
    pub fn hot(&self, slot: SlotId) -> &HotLine {
        &self.hot.all()[slot.0 as usize]
    }

    /// The hot line of a slot, writable. The key and [`flag::IN_USE`] belong to the table.
    #[inline]
    pub fn hot_mut(&mut self, slot: SlotId) -> &mut HotLine {
        &mut self.hot.all_mut()[slot.0 as usize]
    }

    /// The cold lines of a slot. Of a freed slot: what was last there.
    #[inline]
    pub fn cold(&self, slot: SlotId) -> &Cold {
        &self.cold.all()[slot.0 as usize]
    }

    /// The cold lines of a slot, writable.
    #[inline]
    pub fn cold_mut(&mut self, slot: SlotId) -> &mut Cold {
        &mut self.cold.all_mut()[slot.0 as usize]
    }

    /// All lines of a slot, writable.
    #[inline]
    pub fn both_mut(&mut self, slot: SlotId) -> (&mut HotLine, &mut Cold) {
        (&mut self.hot.all_mut()[slot.0 as usize], &mut self.cold.all_mut()[slot.0 as usize])
    }

    /// Admits a session whose key is not in the table: takes a slot and writes the key; every other
    /// field is zero, for the caller to fill.
    pub fn insert(&mut self, key: &Key, hash: u64) -> Result<SlotId, InsertError> {
        debug_assert_eq!(hash, self.hash(key));
        debug_assert!(self.find(key, hash).is_none(), "the session is in the table already");
        let slot = match self.freed_head {
            0 if self.fresh_from == self.capacity => return Err(InsertError::Full),
            0 => self.fresh_from,
            head => head - 1,
        };
        let (hasher, hot) = (self.hasher, self.hot.all());
        let places = self.index.places(hash);
        if !self.index.insert(places, slot, |other| hasher.hash(&hot[other as usize].key())) {
            self.probe_failures += 1;
            return Err(InsertError::NoPlace);
        }
        let line = &mut self.hot.all_mut()[slot as usize];
        if self.freed_head == 0 {
            self.fresh_from += 1;
        } else {
            self.freed_head = line.egress[0];
            // A fresh slot's cold lines are zero as they come.
            self.cold.all_mut()[slot as usize] = Cold::default();
        }
        *line = HotLine::for_key(key);
        self.in_use += 1;
        Ok(SlotId(slot))
    }

    /// Frees the slot of a session; it matches nothing from here on and is the next to be reused.
    /// `false`, and nothing changes, when the slot holds no session.
    pub fn remove(&mut self, slot: SlotId) -> bool {
        let Some(line) = self.hot.all_mut().get_mut(slot.0 as usize).filter(|line| line.in_use()) else {
            return false;
        };
        let places = self.index.places(self.hasher.hash(&line.key()));
        let found = self.index.remove(places, slot.0);
        debug_assert!(found, "a session without an index entry");
        *line = HotLine { egress: [self.freed_head, 0], ..HotLine::default() };
        self.freed_head = slot.0 + 1;
        self.in_use -= 1;
        true
    }
}
