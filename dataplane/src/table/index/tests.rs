//! Buckets by themselves: tags, displacement, counts.

use super::*;
use crate::addr::{Addr, Key};
use crate::table::TupleHasher;
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
        // The count beside the tags is no tag.
        bucket.tags[2] += SPILLED_ONE * (seed & 0x1_0001);
        for tag in interesting {
            let expected: BTreeSet<_> = (0..LANES).filter(|lane| bucket.tag(*lane) == tag).collect();
            assert_eq!(bucket.lanes(tag).collect::<BTreeSet<_>>(), expected);
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
    assert!(index.spilled(hash_of) > filled as usize / 10);
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

/// Steering must not cost the index its evenness: the flows of one shard use all buckets alike, as
/// first and as second. Goes red when the shard is taken from the bits of either.
#[test]
fn the_flows_of_a_shard_use_every_part_of_both_choices() {
    const PARTS: usize = 16;
    let index = Index::new(100_000).unwrap();
    let hasher = TupleHasher::new([3, 4]);
    for shards in [2, 3, 8] {
        let mut uses = [[0_u32; PARTS]; 2];
        let hashes = (0..20_000 * u32::from(shards)).map(|n| {
            hasher.hash(&Key { low: Addr(u128::from(n) << 40), low_port: n as u16, ..Key::default() })
        });
        for hash in hashes.filter(|hash| TupleHasher::shard(*hash, shards) == 0) {
            let places = index.places(hash);
            for (uses, at) in uses.iter_mut().zip([places.first, places.second]) {
                uses[at as usize * PARTS / index.count as usize] += 1;
            }
        }
        // 1,250 are expected; six standard deviations are 212.
        assert!(uses.as_flattened().iter().all(|n| (1_000..1_500).contains(n)), "{shards}: {uses:?}");
    }
}
