//! The index: from a hash to slots, by 64-byte buckets of 16-bit tags.
//!
//! Every entry lives in one of two buckets, the first if it has room. Ten tags are compared in a
//! few word operations, so a bucket costs one cache miss and next to no time. A bucket counts the
//! entries that it had no room for: while there are none, a flow that is not in its first bucket is
//! in no bucket, so a flood of new flows costs one miss each, not two. When both buckets
//! are full, entries that have room in their other bucket make way: a breadth-first search of
//! bounded size, so an insertion has a worst case. An entry's hash is recomputed from its session
//! then; that is rare at the load that the index is built for.

use super::TableError;
use super::memory::Lines;
use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(test)]
mod tests;

/// Entries in a bucket: as many tags (2 bytes) and slots (4 bytes) as a cache line holds.
const LANES: usize = 10;

/// Entries for each bucket, in tenths, when the table is full. At 6.5 of 10 about one entry in
/// fifty lives in its second bucket, and the index costs 9.9 bytes a session.
const LOAD_TENTHS: usize = 65;

/// Buckets that a displacement looks at before it gives up: the two of the new entry and, breadth
/// first, about two moves further.
const SEARCH_MAX: usize = 128;

/// The part of an entry that is the slot. The top bit is for a translated session's second key.
const SLOT_MASK: u32 = (1 << 31) - 1;

/// Every 16-bit lane's lowest bit.
const ONES: u64 = 0x0001_0001_0001_0001;
/// Every 16-bit lane without its highest bit.
const LOW15: u64 = 0x7fff_7fff_7fff_7fff;

/// The part of the third tag word that holds tags; the rest counts spilled entries.
const THIRD: u64 = 0xffff_ffff;
/// One spilled entry in the third tag word.
const SPILLED_ONE: u64 = 1 << 32;

/// Ten entries in one cache line. Tag 0 is an empty lane. The upper half of the third word counts
/// the entries whose first bucket this is, but that live in their second.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u64; 3],
    slots: [u32; LANES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Matching lanes of a bucket as a bit set: the lowest bit of the answer is the next lane.
#[derive(Clone, Copy)]
struct LaneSet(u64);

impl LaneSet {
    #[inline]
    fn first(self) -> Option<usize> {
        // Word w's lane l answers with bit 16 l + 12 + w.
        let bit = self.0.trailing_zeros() as usize;
        (self.0 != 0).then_some(((bit & 3) << 2) + (bit >> 4))
    }
}

impl Iterator for LaneSet {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let lane = self.first();
        self.0 &= self.0.wrapping_sub(1);
        lane
    }
}

impl Bucket {
    /// The lanes whose tag is `tag`.
    #[inline]
    fn lanes(&self, tag: u16) -> LaneSet {
        let wanted = u64::from(tag) * ONES;
        let zero_lanes = |word: u64| {
            let x = word ^ wanted;
            // A lane's top bit is set unless the lane is 0; no carry leaves a lane.
            !(((x & LOW15) + LOW15) | x | LOW15)
        };
        let [a, b, c] = self.tags;
        LaneSet((zero_lanes(a) >> 3) | (zero_lanes(b) >> 2) | ((zero_lanes(c) & THIRD) >> 1))
    }

    #[inline]
    fn empty_lane(&self) -> Option<usize> {
        self.lanes(0).first()
    }

    #[inline]
    fn has_spilled(&self) -> bool {
        self.tags[2] >= SPILLED_ONE
    }

    #[inline]
    fn tag(&self, lane: usize) -> u16 {
        (self.tags[lane >> 2] >> ((lane & 3) << 4)) as u16
    }

    #[inline]
    fn set(&mut self, lane: usize, tag: u16, entry: u32) {
        let shift = (lane & 3) << 4;
        let word = &mut self.tags[lane >> 2];
        *word = (*word & !(0xffff << shift)) | (u64::from(tag) << shift);
        self.slots[lane] = entry;
    }
}

/// Where an entry may live, and the tag that it has there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Places {
    pub(super) first: u32,
    second: u32,
    tag: u16,
}

/// A step of a displacement: `lane` of the parent's bucket could move to `bucket`.
#[derive(Clone, Copy)]
struct Step {
    bucket: u32,
    parent: u8,
    lane: u8,
}

/// Buckets of entries. Knows slots only as numbers.
pub(super) struct Index {
    buckets: Lines<Bucket>,
    count: u32,
}

impl Index {
    /// An index that holds `capacity` entries with room to spare.
    pub(super) fn new(capacity: u32) -> Result<Self, TableError> {
        // Two buckets at least, so that an entry has two choices; and a few more for small tables,
        // where chance is less even.
        let count = (capacity as usize * 10).div_ceil(LOAD_TENTHS) + 2;
        let buckets = Lines::zeroed(count)?;
        Ok(Index { buckets, count: count as u32 })
    }

    /// Bytes of address space.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// See [`super::Table::make_resident`].
    pub(super) fn make_resident(&self) -> Result<(), TableError> {
        self.buckets.make_resident()
    }

    /// The places of a hash. Buckets come from the upper bits of its halves (multiply and shift,
    /// so any count will do), the tag from their lowest bytes: independent of each other for up to
    /// 2^24 buckets.
    #[inline]
    pub(super) fn places(&self, hash: u64) -> Places {
        let (low, high) = (hash & 0xffff_ffff, hash >> 32);
        let first = ((low * u64::from(self.count)) >> 32) as u32;
        let mut second = ((high * u64::from(self.count)) >> 32) as u32;
        if second == first {
            second = if first + 1 == self.count { 0 } else { first + 1 };
        }
        let tag = ((low as u16) << 8) | (high as u16 & 0xff);
        Places { first, second, tag: tag.max(1) }
    }

    /// A view for a batch of lookups.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { buckets: self.buckets.all() }
    }

    /// Adds an entry; `false` when the bounded search finds no room. `hash_of` gives the hash of
    /// the session in a slot.
    pub(super) fn insert(&mut self, places: Places, slot: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let room = |index: &Self, at: u32| Some((at, index.buckets.all()[at as usize].empty_lane()?));
        let found = room(self, places.first)
            .or_else(|| room(self, places.second))
            .or_else(|| self.make_room(places, hash_of));
        let Some((at, lane)) = found else { return false };
        let buckets = self.buckets.all_mut();
        buckets[at as usize].set(lane, places.tag, slot);
        if at != places.first {
            buckets[places.first as usize].tags[2] += SPILLED_ONE;
        }
        true
    }

    /// Removes the entry of a slot. `false` if there is none, which would be a bug of the table.
    pub(super) fn remove(&mut self, places: Places, slot: u32) -> bool {
        let buckets = self.buckets.all_mut();
        for at in [places.first, places.second] {
            let bucket = &mut buckets[at as usize];
            let lane = bucket.lanes(places.tag).find(|lane| bucket.slots[*lane] == slot);
            if let Some(lane) = lane {
                bucket.set(lane, 0, 0);
                if at != places.first {
                    buckets[places.first as usize].tags[2] -= SPILLED_ONE;
                }
                return true;
            }
        }
        false
    }

    /// Frees a lane in one of the places by moving entries to their other bucket, and says which
    /// lane. The shortest way is found first, so no entry is on it twice.
    fn make_room(&mut self, places: Places, hash_of: impl Fn(u32) -> u64) -> Option<(u32, usize)> {
        let mut steps: ArrayVec<Step, SEARCH_MAX> = ArrayVec::new();
        steps.push(Step { bucket: places.first, parent: 0, lane: 0 });
        steps.push(Step { bucket: places.second, parent: 1, lane: 0 });
        let mut at = 0;
        while at < steps.len() {
            let from = steps[at].bucket;
            for lane in 0..LANES {
                let to = self.other_bucket(from, lane, &hash_of);
                if let Some(free) = self.buckets.all()[to as usize].empty_lane() {
                    return Some(self.shift(&steps, (at, lane), (to, free), &hash_of));
                }
                // Full: the search ends with what it has.
                let _ = steps.try_push(Step { bucket: to, parent: at as u8, lane: lane as u8 });
            }
            at += 1;
        }
        None
    }

    /// The bucket that an entry could move to.
    fn other_bucket(&self, from: u32, lane: usize, hash_of: impl Fn(u32) -> u64) -> u32 {
        let places = self.places(hash_of(self.buckets.all()[from as usize].slots[lane] & SLOT_MASK));
        if places.first == from { places.second } else { places.first }
    }

    /// Moves the entry of each step on the way into the lane that the step after it left free,
    /// and returns the lane that the first of them leaves.
    fn shift(
        &mut self,
        steps: &[Step],
        leaf: (usize, usize),
        free: (u32, usize),
        hash_of: impl Fn(u32) -> u64,
    ) -> (u32, usize) {
        let (mut at, mut lane) = leaf;
        let (mut to, mut to_lane) = free;
        loop {
            let from = steps[at].bucket;
            self.move_entry((from, lane), (to, to_lane), &hash_of);
            if at < 2 {
                return (from, lane);
            }
            (to, to_lane) = (from, lane);
            lane = usize::from(steps[at].lane);
            at = usize::from(steps[at].parent);
        }
    }

    fn move_entry(&mut self, from: (u32, usize), to: (u32, usize), hash_of: impl Fn(u32) -> u64) {
        let source = self.buckets.all()[from.0 as usize];
        let entry = source.slots[from.1];
        let first = self.places(hash_of(entry & SLOT_MASK)).first;
        let buckets = self.buckets.all_mut();
        buckets[to.0 as usize].set(to.1, source.tag(from.1), entry);
        buckets[from.0 as usize].set(from.1, 0, 0);
        let counter = &mut buckets[first as usize].tags[2];
        if from.0 == first {
            *counter += SPILLED_ONE;
        } else {
            *counter -= SPILLED_ONE;
        }
    }
}

/// The buckets, borrowed once for many lookups.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    buckets: &'a [Bucket],
}

impl View<'_> {
    /// Reads the first bucket of a hash, so that it is on its way into the cache.
    #[inline]
    pub(super) fn touch_first(self, places: Places) -> u64 {
        self.buckets[places.first as usize].tags[0]
    }

    /// Reads the second bucket of a hash.
    #[inline]
    pub(super) fn touch_second(self, places: Places) -> u64 {
        self.buckets[places.second as usize].tags[0]
    }

    /// The slot of the first entry in the first bucket whose tag fits.
    #[inline]
    pub(super) fn first_candidate(self, places: Places) -> Option<u32> {
        self.candidate(places.first, places.tag)
    }

    /// The slot of the first entry in the second bucket whose tag fits.
    #[inline]
    pub(super) fn second_candidate(self, places: Places) -> Option<u32> {
        self.candidate(places.second, places.tag)
    }

    /// Whether an entry that is not in its first bucket can be in its second.
    #[inline]
    pub(super) fn has_spilled(self, places: Places) -> bool {
        self.buckets[places.first as usize].has_spilled()
    }

    #[inline]
    fn candidate(self, at: u32, tag: u16) -> Option<u32> {
        let bucket = &self.buckets[at as usize];
        bucket.lanes(tag).first().map(|lane| bucket.slots[lane] & SLOT_MASK)
    }

    /// The first slot whose tag fits and that `accept` takes.
    #[inline]
    pub(super) fn find(self, places: Places, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        for at in [places.first, places.second] {
            let bucket = &self.buckets[at as usize];
            for lane in bucket.lanes(places.tag) {
                let slot = bucket.slots[lane] & SLOT_MASK;
                if accept(slot) {
                    return Some(slot);
                }
            }
            if !bucket.has_spilled() {
                break;
            }
        }
        None
    }
}

#[cfg(test)]
impl Index {
    /// How many entries there are.
    pub(super) fn entries(&self) -> usize {
        let used = |b: &Bucket| (0..LANES).filter(|lane| b.tag(*lane) != 0).count();
        self.buckets.all().iter().map(used).sum()
    }

    /// How many entries live in their second bucket.
    ///
    /// # Panics
    /// When the buckets' counts of these are wrong.
    pub(super) fn spilled(&self, hash_of: impl Fn(u32) -> u64) -> usize {
        let buckets = self.buckets.all();
        let mut counts = vec![0; buckets.len()];
        for (at, bucket) in buckets.iter().enumerate() {
            for lane in (0..LANES).filter(|lane| bucket.tag(*lane) != 0) {
                let first = self.places(hash_of(bucket.slots[lane] & SLOT_MASK)).first as usize;
                counts[first] += u64::from(first != at);
            }
        }
        for (bucket, count) in buckets.iter().zip(&counts) {
            assert_eq!(bucket.tags[2] >> 32, *count, "a wrong count of spilled entries");
        }
        counts.iter().sum::<u64>() as usize
    }
}
