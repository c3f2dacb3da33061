//! Looking sessions up, one by one or in a batch.
//!
//! A lookup in a large table is two or three cache misses, each of which takes longer than all of
//! its arithmetic. One after the other they add up; so a batch goes through in phases, and within a
//! phase the misses of all its packets are under way at once. A phase starts them by plain reads
//! whose results nobody waits for ([`black_box`] keeps the compiler from leaving them out).

use super::index::Places;
use super::{SlotId, Table};
use crate::addr::Key;
use arrayvec::ArrayVec;
use std::hint::black_box;

/// Lookups that go through the phases together. Enough for the processor's outstanding misses
/// several times over, few enough for the lines to stay in the first cache until they are used.
const GROUP: usize = 64;

/// No candidate: above every slot.
const NONE: u32 = u32::MAX;

impl Table {
    /// The slot of the session with that key; `hash` is its [`Table::hash`].
    #[inline]
    pub fn find(&self, key: &Key, hash: u64) -> Option<SlotId> {
        let hot = self.hot.all();
        let places = self.index.places(hash);
        self.index.view().find(places, |slot| hot[slot as usize].holds(key)).map(SlotId)
    }

    /// Looks a batch up: `out[i]` becomes the slot of the session with `keys[i]`, whose
    /// [`Table::hash`] is `hashes[i]`. The hot lines found are in the cache afterwards.
    ///
    /// # Panics
    /// When the three slices are not of one length.
    pub fn lookup_batch(&self, keys: &[Key], hashes: &[u64], out: &mut [Option<SlotId>]) {
        assert!(keys.len() == hashes.len() && keys.len() == out.len());
        let groups = keys.chunks(GROUP).zip(hashes.chunks(GROUP)).zip(out.chunks_mut(GROUP));
        for ((keys, hashes), out) in groups {
            self.lookup_group(keys, hashes, out);
        }
    }

    /// Reads the cold lines of every slot found, so that their misses overlap too: worth it when
    /// the caller is about to count the packets of a batch.
    pub fn touch_cold(&self, slots: &[Option<SlotId>]) {
        let cold = self.cold.all();
        let mut sum = 0;
        for slot in slots.iter().flatten() {
            let cold = &cold[slot.0 as usize];
            sum ^= u64::from(cold.wings[0].isn) ^ cold.bytes[1];
        }
        black_box(sum);
    }

    fn lookup_group(&self, keys: &[Key], hashes: &[u64], out: &mut [Option<SlotId>]) {
        let hot = self.hot.all();
        let index = self.index.view();
        let n = hashes.len();
        let mut places = [Places::default(); GROUP];
        let mut candidates = [NONE; GROUP];

        // First buckets. Arithmetic and reads are apart: the fewer instructions lie between two
        // reads, the more of them the processor has under way.
        for (places, hash) in places.iter_mut().zip(hashes) {
            *places = self.index.places(*hash);
        }
        let sum = places[..n].iter().fold(0, |sum, places| sum ^ index.touch_first(*places));
        black_box(sum);

        // Second buckets, for the few whose first has no such tag and once had no room either.
        let mut seconds: ArrayVec<u8, GROUP> = ArrayVec::new();
        for (i, (places, candidate)) in places[..n].iter().zip(&mut candidates).enumerate() {
            match index.first_candidate(*places) {
                Some(slot) => *candidate = slot,
                None if index.has_spilled(*places) => seconds.push(i as u8),
                None => (),
            }
        }
        let second = |i: &u8| places[usize::from(*i)];
        black_box(seconds.iter().fold(0, |sum, i| sum ^ index.touch_second(second(i))));
        for i in &seconds {
            candidates[usize::from(*i)] = index.second_candidate(second(i)).unwrap_or(NONE);
        }

        // Hot lines.
        let lines = candidates[..n].iter().filter_map(|slot| hot.get(*slot as usize));
        let sum = lines.fold(0, |sum, line| sum ^ line.last_seen_ms);
        black_box(sum);

        // The whole keys. A tag fits by chance once in some 6,500 lookups: then all entries count.
        for (i, out) in out.iter_mut().enumerate() {
            *out = match candidates[i] {
                NONE => None,
                slot if hot[slot as usize].holds(&keys[i]) => Some(SlotId(slot)),
                _ => self.find(&keys[i], hashes[i]),
            };
        }
    }
}
