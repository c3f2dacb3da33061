//! The entries: found by hash, let go by age.

use super::units::{Lies, Units};
use super::{
    Checked, Datagram, DatagramKey, FragmentConfig, FragmentCounters, FragmentNote, Settled, WAITING_MAX,
};
use crate::drops::DropReason;
use crate::packet::Piece;
use crate::time::Now;
use arrayvec::ArrayVec;

/// No entry.
const NONE: u32 = u32::MAX;
/// Settled datagrams that wait to be taken; beyond it their fragments wait until their time is over.
const SETTLED_MAX: usize = 128;
/// Most entries that one call lets go because of their age.
const EXPIRE_MAX: usize = 256;

struct Entry {
    key: Option<DatagramKey>,
    /// When its first fragment was seen, whichever that was.
    since: Now,
    generation: u32,
    /// Next entry of the same bucket, or of the free list.
    chain: u32,
    older: u32,
    newer: u32,
    bucket: u32,
    /// Ports, once the first fragment has come.
    note: Option<FragmentNote>,
    /// Length of the whole payload in bytes, once the last fragment has come.
    end: Option<u32>,
    /// Highest end of any fragment, in bytes.
    reach: u32,
    /// Units seen.
    units: u32,
    next_header: u8,
    /// Fragments that wait for the first.
    waiting: u8,
    /// Why nothing of the datagram is forwarded any more.
    refused: Option<DropReason>,
}

/// Incomplete datagrams, a fixed number of them. See the module's opening.
pub struct FragmentCache {
    entries: Box<[Entry]>,
    units: Box<[Units]>,
    buckets: Box<[u32]>,
    free: u32,
    oldest: u32,
    newest: u32,
    in_use: u32,
    timeout_ms: u64,
    settled: ArrayVec<Settled, SETTLED_MAX>,
    counters: FragmentCounters,
}

impl FragmentCache {
    /// Allocates it, and makes its memory resident.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn try_new(config: FragmentConfig) -> Result<Self, std::collections::TryReserveError> {
        let n = config.datagrams.clamp(1, 1 << 24);
        let buckets = filled(n.next_power_of_two() as usize * 2, || NONE)?;
        let mut link = 0;
        let entries = filled(n as usize, || {
            link += 1;
            Entry::free(if link == n { NONE } else { link })
        })?;
        Ok(FragmentCache {
            entries,
            units: filled(n as usize, || Units::RESIDENT)?,
            buckets,
            free: 0,
            oldest: NONE,
            newest: NONE,
            in_use: 0,
            timeout_ms: u64::from(config.timeout_ms),
            settled: ArrayVec::new(),
            counters: FragmentCounters::default(),
        })
    }

    /// Checks a fragment against its datagram. `hash` is a keyed hash of the key; `first` is what the
    /// first fragment of a datagram holds, and `None` for a later one.
    pub fn check(
        &mut self,
        key: &DatagramKey,
        hash: u64,
        piece: &Piece,
        first: Option<FragmentNote>,
        now: Now,
    ) -> Checked {
        let slot = match self.find(key, hash, now) {
            Some(slot) => slot,
            None => self.add(key, hash, piece.next_header, now),
        };
        if let Some(reason) = self.entry(slot).refused {
            return Checked::Drop(reason);
        }
        if let Err(reason) = self.fit(slot, piece) {
            if reason != DropReason::FragmentDuplicate {
                self.refuse(slot, reason);
            }
            return Checked::Drop(reason);
        }
        if let Some(note) = first {
            self.entry_mut(slot).note = Some(note);
            self.settle(slot, Ok(note));
        }
        let entry = self.entry_mut(slot);
        let Some(note) = entry.note else {
            if entry.waiting == WAITING_MAX {
                return Checked::Drop(DropReason::FragmentQueueFull);
            }
            entry.waiting += 1;
            let until = Now(entry.since.0 + self.timeout_ms);
            return Checked::Await { datagram: self.name(slot), until };
        };
        if entry.end.is_some_and(|end| entry.units == end.div_ceil(8)) {
            self.counters.completed += 1;
            self.remove(slot);
        }
        Checked::Forward(note)
    }

    /// Lets datagrams go whose time is over, a bounded number of them. Their waiting fragments have a
    /// deadline of their own.
    pub fn expire(&mut self, now: Now) {
        for _ in 0..EXPIRE_MAX {
            if self.oldest == NONE || !self.is_over(self.oldest, now) {
                return;
            }
            self.counters.expired += u64::from(self.entry(self.oldest).refused.is_none());
            self.remove(self.oldest);
        }
    }

    /// Takes one datagram whose waiting fragments may go on, or must be dropped.
    pub fn next_settled(&mut self) -> Option<Settled> {
        self.settled.pop()
    }

    /// Incomplete datagrams now.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Incomplete datagrams at most.
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &FragmentCounters {
        &self.counters
    }

    /// Takes a fragment into its entry, or says why it does not fit. A repetition changes nothing.
    fn fit(&mut self, slot: u32, piece: &Piece) -> Result<(), DropReason> {
        let end = piece.offset + piece.len;
        let (first_unit, end_unit) = (piece.offset / 8, end.div_ceil(8));
        let (entry, units) = (&mut self.entries[slot as usize], &mut self.units[slot as usize]);
        let contradicts = match (entry.end, piece.more) {
            (Some(whole), true) => end >= whole,
            (Some(whole), false) => end != whole,
            (None, true) => false,
            // Every one before promised more behind it.
            (None, false) => end <= entry.reach,
        };
        if contradicts || piece.next_header != entry.next_header {
            return Err(DropReason::FragmentInconsistent);
        }
        match units.place(first_unit, end_unit) {
            Lies::Again => return Err(DropReason::FragmentDuplicate),
            Lies::Across => return Err(DropReason::FragmentOverlap),
            Lies::Apart => {}
        }
        units.add(first_unit, end_unit);
        entry.units += end_unit - first_unit;
        entry.reach = entry.reach.max(end);
        if !piece.more {
            entry.end = Some(end);
        }
        Ok(())
    }

    /// Forwards nothing of a datagram any more, until its time is over.
    fn refuse(&mut self, slot: u32, reason: DropReason) {
        self.counters.refused += 1;
        self.entry_mut(slot).refused = Some(reason);
        self.settle(slot, Err(reason));
    }

    /// Tells what becomes of the fragments that wait, if any do.
    fn settle(&mut self, slot: u32, outcome: Result<FragmentNote, DropReason>) {
        if std::mem::take(&mut self.entry_mut(slot).waiting) > 0 {
            // Without room they wait until their time is over, which is bounded.
            let _ = self.settled.try_push(Settled { datagram: self.name(slot), outcome });
        }
    }

    fn name(&self, slot: u32) -> Datagram {
        Datagram(u64::from(self.entry(slot).generation) << 32 | u64::from(slot))
    }

    fn is_over(&self, slot: u32, now: Now) -> bool {
        now.since(self.entry(slot).since) >= self.timeout_ms
    }

    fn find(&mut self, key: &DatagramKey, hash: u64, now: Now) -> Option<u32> {
        let mut slot = self.buckets[self.bucket(hash)];
        while slot != NONE && self.entry(slot).key.as_ref() != Some(key) {
            slot = self.entry(slot).chain;
        }
        if slot == NONE {
            return None;
        }
        if self.is_over(slot, now) {
            self.counters.expired += u64::from(self.entry(slot).refused.is_none());
            self.remove(slot);
            return None;
        }
        Some(slot)
    }

    fn bucket(&self, hash: u64) -> usize {
        // The bits that chose the worker are others (`shard_of` mixes all of them).
        hash as usize & (self.buckets.len() - 1)
    }

    /// A new entry; a full cache lets the oldest go.
    fn add(&mut self, key: &DatagramKey, hash: u64, next_header: u8, now: Now) -> u32 {
        if self.free == NONE {
            self.counters.evicted += u64::from(self.entry(self.oldest).refused.is_none());
            self.settle(self.oldest, Err(DropReason::FragmentEvicted));
            self.remove(self.oldest);
        }
        let bucket = self.bucket(hash);
        let (slot, newest) = (self.free, self.newest);
        let chain = std::mem::replace(&mut self.buckets[bucket], slot);
        let entry = self.entry_mut(slot);
        let next_free = entry.chain;
        *entry = Entry {
            key: Some(*key),
            since: now,
            generation: entry.generation.wrapping_add(1),
            chain,
            older: newest,
            bucket: bucket as u32,
            next_header,
            ..Entry::free(chain)
        };
        self.units[slot as usize].clear();
        self.free = next_free;
        self.newest = slot;
        match newest {
            NONE => self.oldest = slot,
            older => self.entry_mut(older).newer = slot,
        }
        self.in_use += 1;
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Entry { bucket, chain, older, newer, .. } = *self.entry(slot);
        let mut at = self.buckets[bucket as usize];
        if at == slot {
            self.buckets[bucket as usize] = chain;
        } else {
            while self.entry(at).chain != slot {
                at = self.entry(at).chain;
            }
            self.entry_mut(at).chain = chain;
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entry_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entry_mut(newer).older = older,
        }
        let free = self.free;
        let entry = self.entry_mut(slot);
        entry.key = None;
        entry.chain = free;
        self.free = slot;
        self.in_use -= 1;
    }

    fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
}

impl Entry {
    fn free(chain: u32) -> Entry {
        Entry {
            key: None,
            since: Now(0),
            generation: 0,
            chain,
            older: NONE,
            newer: NONE,
            bucket: 0,
            note: None,
            end: None,
            reach: 0,
            units: 0,
            next_header: 0,
            waiting: 0,
            refused: None,
        }
    }
}

fn filled<T>(n: usize, make: impl FnMut() -> T) -> Result<Box<[T]>, std::collections::TryReserveError> {
    let mut all = Vec::new();
    all.try_reserve_exact(n)?;
    all.extend(std::iter::repeat_with(make).take(n));
    Ok(all.into_boxed_slice())
}
