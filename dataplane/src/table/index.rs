//! The index: from a hash to slots, by 64-byte buckets of 16-bit tags.
//!
//! Every entry lives in one of two buckets, the first if it has room. Ten tags are compared in a
//! few word operations, so a bucket costs one cache miss and next to no time. When both buckets
//! are full, entries that have room in their other bucket make way: a breadth-first search of
//! bounded size, so an insertion has a worst case. An entry's hash is recomputed from its session
//! then; that is rare at the load that the index is built for.

use super::TableError;
use super::memory::Lines;
use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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

/// Ten entries in one cache line. Tag 0 is an empty lane; the two lanes that the tags' words have
/// beyond ten stay 0, so no tag ever matches there.
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
        LaneSet((zero_lanes(a) >> 3) | (zero_lanes(b) >> 2) | (zero_lanes(c) >> 1))
    }

    #[inline]
    fn empty_lane(&self) -> Option<usize> {
        self.lanes(0).find(|lane| *lane < LANES)
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
        let buckets = self.buckets.all_mut();
        for at in [places.first, places.second] {
            let bucket = &mut buckets[at as usize];
            if let Some(lane) = bucket.empty_lane() {
                bucket.set(lane, places.tag, slot);
                return true;
            }
        }
        let Some((bucket, lane)) = self.make_room(places, hash_of) else { return false };
        self.buckets.all_mut()[bucket as usize].set(lane, places.tag, slot);
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
                return true;
            }
        }
        false
    }

    /// Frees a lane in one of the places by moving entries to their other bucket. The shortest way
    /// is found first, so no entry is on it twice.
    fn make_room(&mut self, places: Places, hash_of: impl Fn(u32) -> u64) -> Option<(u32, usize)> {
        let mut steps: ArrayVec<Step, SEARCH_MAX> = ArrayVec::new();
        steps.push(Step { bucket: places.first, parent: 0, lane: 0 });
        steps.push(Step { bucket: places.second, parent: 1, lane: 0 });
        let mut at = 0;
        while at < steps.len() {
            let from = steps[at].bucket;
            for lane in 0..LANES {
                let moved = self.places(hash_of(self.buckets.all()[from as usize].slots[lane] & SLOT_MASK));
                let to = if moved.first == from { moved.second } else { moved.first };
                if let Some(free) = self.buckets.all()[to as usize].empty_lane() {
                    self.shift(&steps, (at, lane), (to, free));
                    let root = self.root(&steps, at, lane);
                    return Some(root);
                }
                let _ = steps.try_push(Step { bucket: to, parent: at as u8, lane: lane as u8 });
            }
            at += 1;
        }
        None
    }

    /// Moves the entry of each step on the way into the lane that the step after it left free.
    fn shift(&mut self, steps: &[Step], leaf: (usize, usize), free: (u32, usize)) {
        let (mut at, mut lane) = leaf;
        let (mut to, mut to_lane) = free;
        let buckets = self.buckets.all_mut();
        loop {
            let from = steps[at].bucket;
            let source = buckets[from as usize];
            buckets[to as usize].set(to_lane, source.tag(lane), source.slots[lane]);
            buckets[from as usize].set(lane, 0, 0);
            if at < 2 {
                return;
            }
            (to, to_lane) = (from, lane);
            lane = usize::from(steps[at].lane);
            at = usize::from(steps[at].parent);
        }
    }

    /// The lane of the new entry's own bucket that a shift from `at` frees.
    fn root(&self, steps: &[Step], mut at: usize, mut lane: usize) -> (u32, usize) {
        while at >= 2 {
            lane = usize::from(steps[at].lane);
            at = usize::from(steps[at].parent);
        }
        (steps[at].bucket, lane)
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
        let bucket = &self.buckets[places.first as usize];
        bucket.lanes(places.tag).first().map(|lane| bucket.slots[lane] & SLOT_MASK)
    }

    /// The slot of the first entry in the second bucket whose tag fits.
    #[inline]
    pub(super) fn second_candidate(self, places: Places) -> Option<u32> {
        let bucket = &self.buckets[places.second as usize];
        bucket.lanes(places.tag).first().map(|lane| bucket.slots[lane] & SLOT_MASK)
    }

    /// Every slot whose tag fits and that `accept` takes: the first such.
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
    pub(super) fn in_second_place(&self, hash_of: impl Fn(u32) -> u64) -> usize {
        let away = |(at, b): (usize, &Bucket)| {
            let is_away = |lane: &usize| {
                b.tag(*lane) != 0 && self.places(hash_of(b.slots[*lane] & SLOT_MASK)).first != at as u32
            };
            (0..LANES).filter(is_away).count()
        };
        self.buckets.all().iter().enumerate().map(away).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn slots(index: &Index, hash: u64) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        index.view().find(index.places(hash), |slot| {
            all.insert(slot);
            false
        });
        all
    }

    /// Word arithmetic against the plain way. Goes red when a carry leaves its lane.
    #[test]
    fn tags_are_compared_lane_by_lane() {
        let interesting = [0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut bucket = Bucket { tags: [0; 3], slots: [0; LANES] };
            for lane in 0..LANES {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                bucket.set(lane, interesting[(seed >> 61) as usize], lane as u32);
            }
            for tag in interesting {
                let expected: BTreeSet<_> = (0..LANES).filter(|lane| bucket.tag(*lane) == tag).collect();
                assert_eq!(bucket.lanes(tag).filter(|lane| *lane < LANES).collect::<BTreeSet<_>>(), expected);
                assert_eq!(bucket.empty_lane().is_some(), (0..LANES).any(|lane| bucket.tag(lane) == 0));
            }
        }
    }

    /// Entries that agree in everything: both buckets fill, the rest is refused, nothing is lost.
    /// Goes red when a full bucket is written over.
    #[test]
    fn the_same_hash_fits_twenty_times() {
        let hash = 0x1234_5678_9abc_def0;
        let mut index = Index::new(1_000).unwrap();
        for slot in 0..30 {
            assert_eq!(index.insert(index.places(hash), slot, |_| hash), slot < 20);
        }
        assert_eq!(slots(&index, hash), (0..20).collect());
        for slot in 0..20 {
            assert!(index.remove(index.places(hash), slot));
            assert!(!index.remove(index.places(hash), slot));
        }
        assert_eq!(index.entries(), 0);
    }

    /// Filled far beyond its design load: displacement finds room and every entry stays findable.
    /// Goes red when displacement is off (the first refusal comes near 80 %), or moves a wrong entry.
    #[test]
    fn displacement_fills_the_index_almost_to_its_last_lane() {
        let mut index = Index::new(6_500).unwrap();
        let lanes = index.count * LANES as u32;
        let hash_of = |slot: u32| {
            (u64::from(slot) + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        let mut filled = 0;
        while index.insert(index.places(hash_of(filled)), filled, hash_of) {
            filled += 1;
        }
        assert!(filled > lanes / 100 * 97, "{filled} of {lanes}");
        assert_eq!(index.entries(), filled as usize);
        for slot in 0..filled {
            assert!(slots(&index, hash_of(slot)).contains(&slot));
        }
    }

    /// The two places of an entry differ, so that there is a choice; also in the smallest index.
    #[test]
    fn the_two_places_differ() {
        for capacity in [1, 2, 5, 1_000] {
            let index = Index::new(capacity).unwrap();
            for hash in [0, u64::MAX, 1, 1 << 32, 0xffff_ffff, 0xffff_ffff_0000_0000] {
                let places = index.places(hash);
                assert_ne!(places.first, places.second);
                assert!(places.first < index.count && places.second < index.count);
                assert_ne!(places.tag, 0);
            }
        }
    }
}
