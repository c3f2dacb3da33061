//! The table against a model, at its bounds, and against keys that somebody chose.

use super::*;
use crate::addr::{Addr, proto};
use arrayvec::ArrayVec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HASH_KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Flow number `n`: every third IPv4, the others IPv6.
fn key(n: u32) -> Key {
    let addr = |last: u32| match n % 3 {
        0 => Addr::from_v4((0x0a00_0000 | last).to_be_bytes()),
        _ => Addr(0x2001_0db8_u128 << 96 | u128::from(last)),
    };
    Key {
        low: addr(n >> 8),
        high: addr(0x00ff_0000),
        low_port: n as u16,
        high_port: 443,
        protocol: if n.is_multiple_of(2) { proto::TCP } else { proto::UDP },
    }
}

fn insert(table: &mut Table, key: &Key) -> Result<SlotId, InsertError> {
    table.insert(key, table.hash(key))
}

fn find(table: &Table, key: &Key) -> Option<SlotId> {
    table.find(key, table.hash(key))
}

fn lookup_batch(table: &Table, keys: &[Key]) -> Vec<Option<SlotId>> {
    let mut hashes = vec![0; keys.len()];
    table.hasher().hash_batch(keys, &mut hashes);
    // Whatever is left in `out` from before must not shine through.
    let mut out = vec![Some(SlotId(0)); keys.len()];
    table.lookup_batch(keys, &hashes, &mut out);
    out
}

/// Every invariant that ties index, slab and free list together.
fn check_integrity(table: &Table) {
    let mut free = BTreeSet::new();
    let mut head = table.freed_head;
    while head != 0 {
        assert!(free.insert(head - 1), "the free list runs in a circle");
        assert!(head - 1 < table.fresh_from, "a fresh slot on the free list");
        head = table.hot(SlotId(head - 1)).egress[0];
    }
    assert_eq!(table.in_use + free.len() as u32, table.fresh_from);
    assert_eq!(table.index.entries(), table.in_use as usize);
    spilled(table);
    for slot in 0..table.fresh_from {
        let line = table.hot(SlotId(slot));
        assert_eq!(line.in_use(), !free.contains(&slot));
        if line.in_use() {
            assert_eq!(find(table, &line.key()), Some(SlotId(slot)));
        }
    }
}

/// How many entries live in their second bucket; checks the counts that say where to look.
fn spilled(table: &Table) -> usize {
    table.index.spilled(|slot| table.hasher.hash(&table.hot(SlotId(slot)).key()))
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    Find(u32),
    Batch(Vec<u32>),
    /// Sweeps everything away whose mark is below the number, in slices.
    Sweep(u32, u32),
}

fn op(flows: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..flows).prop_map(Op::Insert),
        3 => (0..flows).prop_map(Op::Remove),
        2 => (0..flows).prop_map(Op::Find),
        1 => proptest::collection::vec(0..flows, 0..150).prop_map(Op::Batch),
        1 => (0..flows / 4, 1..40_u32).prop_map(|(mark, slice)| Op::Sweep(mark, slice)),
    ]
}

/// Sweeps the whole table by slices of `slice`; four at most are found at a time.
fn sweep_away(table: &mut Table, mark: u32, slice: u32) -> BTreeSet<Key> {
    let mut gone = BTreeSet::new();
    let mut from = 0;
    loop {
        let mut found: ArrayVec<SlotId, 4> = ArrayVec::new();
        let step = table.sweep_slice(from, slice, |line| line.last_seen_ms < mark, &mut found);
        assert!(step.visited <= slice);
        for slot in found {
            assert!(gone.insert(table.hot(slot).key()));
            assert!(table.remove(slot));
        }
        from = step.next;
        if from == 0 {
            return gone;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Goes red with any of: an entry left behind or lost by `remove`, a displacement that moves
    /// the wrong entry, a stale free list, a batch that disagrees with `find`, a sweep that skips.
    #[test]
    fn behaves_like_a_map_of_bounded_size(
        capacity in 1..120_u32,
        ops in proptest::collection::vec(op(160), 1..400),
    ) {
        let mut table = Table::new(capacity, HASH_KEY);
        let mut model: BTreeMap<Key, (SlotId, u32)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Insert(n) if !model.contains_key(&key(n)) => match insert(&mut table, &key(n)) {
                    Ok(slot) => {
                        prop_assert_eq!(*table.hot(slot), HotLine::for_key(&key(n)));
                        prop_assert_eq!(*table.cold(slot), Cold::default());
                        let (hot, cold) = table.both_mut(slot);
                        hot.last_seen_ms = n;
                        hot.egress = [u32::MAX; 2];
                        cold.packets = [u64::from(n); 2];
                        model.insert(key(n), (slot, n));
                    }
                    Err(error) => {
                        prop_assert_eq!(error, InsertError::Full);
                        prop_assert_eq!(model.len() as u32, capacity);
                    }
                },
                Op::Remove(n) => {
                    if let Some((slot, _)) = model.remove(&key(n)) {
                        prop_assert!(table.remove(slot));
                        prop_assert!(!table.remove(slot), "removed twice");
                    }
                }
                Op::Insert(n) | Op::Find(n) => {
                    prop_assert_eq!(find(&table, &key(n)), model.get(&key(n)).map(|(slot, _)| *slot));
                }
                Op::Batch(flows) => {
                    let keys: Vec<_> = flows.into_iter().map(key).collect();
                    let expected: Vec<_> = keys.iter().map(|k| model.get(k).map(|(slot, _)| *slot)).collect();
                    prop_assert_eq!(lookup_batch(&table, &keys), expected);
                }
                Op::Sweep(mark, slice) => {
                    let gone = sweep_away(&mut table, mark, slice);
                    let expected: BTreeSet<_> =
                        model.iter().filter(|(_, (_, n))| *n < mark).map(|(key, _)| *key).collect();
                    prop_assert_eq!(&gone, &expected);
                    model.retain(|key, _| !gone.contains(key));
                }
            }
            prop_assert_eq!(table.len() as usize, model.len());
        }
        check_integrity(&table);
        for (key, (slot, n)) in &model {
            prop_assert_eq!(find(&table, key), Some(*slot));
            prop_assert_eq!(table.hot(*slot).last_seen_ms, *n);
            prop_assert_eq!(table.cold(*slot).packets, [u64::from(*n); 2]);
        }
    }
}

/// Goes red when the index is too small for its slots, or the displacement is switched off.
#[test]
fn j14_every_slot_of_any_capacity_can_be_filled_again_and_again() {
    for capacity in [1, 2, 7, 20, 100, 1_000, 65_536] {
        let mut table = Table::new(capacity, HASH_KEY);
        for round in 0..3 {
            let flows = round * capacity..(round + 1) * capacity;
            for n in flows.clone() {
                assert!(insert(&mut table, &key(n)).is_ok(), "{n} of {capacity}");
            }
            let refused = key(u32::MAX - round);
            assert_eq!(insert(&mut table, &refused), Err(InsertError::Full));
            assert_eq!(find(&table, &refused), None);
            assert_eq!(table.len(), capacity);
            check_integrity(&table);
            for n in flows {
                let slot = find(&table, &key(n)).expect("the first sessions live");
                assert!(table.remove(slot));
            }
            assert!(table.is_empty());
            check_integrity(&table);
        }
        assert_eq!(table.probe_failures(), 0);
        assert_eq!(table.slots_used(), capacity);
    }
}

/// A freed slot is reused before memory that was never touched. Goes red when `insert` prefers
/// fresh slots: the resident set would grow to the whole capacity under any churn.
#[test]
fn churn_does_not_spread_over_the_slab() {
    let mut table = Table::new(10_000, HASH_KEY);
    for n in 0..50_000 {
        let slot = insert(&mut table, &key(n)).unwrap();
        if n >= 10 {
            let oldest = find(&table, &key(n - 10)).unwrap();
            assert!(table.remove(oldest));
        }
        assert!(slot.0 <= 10);
    }
    assert_eq!(table.slots_used(), 11);
    check_integrity(&table);
}

/// Goes red when a wiped field survives in a reused slot.
#[test]
fn a_reused_slot_remembers_nothing() {
    let mut table = Table::new(4, HASH_KEY);
    let slot = insert(&mut table, &key(1)).unwrap();
    let (hot, cold) = table.both_mut(slot);
    (hot.state, hot.last_seen_ms, hot.egress) = (7, 99, [3, 4]);
    (cold.packets, cold.id_counter) = ([1, 2], 3);
    assert!(table.remove(slot));
    assert_eq!(find(&table, &key(1)), None);
    assert_eq!(insert(&mut table, &key(2)), Ok(slot));
    assert_eq!(*table.hot(slot), HotLine::for_key(&key(2)));
    assert_eq!(*table.cold(slot), Cold::default());
}

/// Slots that hold nothing, or do not exist. Goes red when `remove` trusts its argument.
#[test]
fn removing_what_is_not_there_changes_nothing() {
    let mut table = Table::new(4, HASH_KEY);
    insert(&mut table, &key(1)).unwrap();
    for slot in [1, 3, 4, u32::MAX] {
        assert!(!table.remove(SlotId(slot)));
    }
    assert_eq!(table.len(), 1);
    check_integrity(&table);
}

/// A full `found` ends a slice, and no session is passed over. Goes red when the hand moves on.
#[test]
fn a_sweep_that_found_enough_goes_on_behind_its_last_find() {
    let mut table = Table::new(100, HASH_KEY);
    for n in 0..50 {
        insert(&mut table, &key(n)).unwrap();
    }
    let mut found: ArrayVec<SlotId, 8> = ArrayVec::new();
    let step = table.sweep_slice(0, 1_000, |_| true, &mut found);
    assert_eq!(step, SweepStep { next: 8, visited: 8 });
    assert_eq!(found.len(), 8);
    assert_eq!(table.sweep_slice(8, 1_000, |_| true, &mut found), SweepStep { next: 8, visited: 0 });
    found.clear();
    assert_eq!(table.sweep_slice(45, 1_000, |_| false, &mut found), SweepStep { next: 0, visited: 5 });
    // A hand that stands where no slot is any more starts anew.
    assert_eq!(table.sweep_slice(77, 10, |_| true, &mut found), SweepStep { next: 0, visited: 0 });
}

/// Walking in pages sees each session once. Goes red when a page ends one slot early or late.
#[test]
fn walking_by_pages_sees_every_session_once() {
    let mut table = Table::new(64, HASH_KEY);
    for n in 0..40 {
        insert(&mut table, &key(n)).unwrap();
    }
    for n in (0..40).step_by(3) {
        let slot = find(&table, &key(n)).unwrap();
        table.remove(slot);
    }
    let mut seen = Vec::new();
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        cursor = table.for_each_in_use(from, 7, |slot, line| seen.push((slot, line.key())));
    }
    let expected: Vec<_> =
        (0..40).filter(|n| n % 3 != 0).map(|n| (find(&table, &key(n)).unwrap(), key(n))).collect();
    assert_eq!(seen, expected);
}

/// Tuples that collide under one hash key are scattered under another: an attacker who does not
/// know the key has nothing to aim at. Goes red when the key does not enter the hash.
#[test]
fn colliding_tuples_do_not_collide_under_another_key() {
    let known = TupleHasher::new([1, 2]);
    // What an attacker who knew the key would send: all in one thousandth of the hash space.
    let chosen: Vec<Key> = (0..3_000_000).map(key).filter(|k| known.hash(k) < u64::MAX / 1_000).collect();
    assert!(chosen.len() > 2_000);
    let mut table = Table::new(chosen.len() as u32, HASH_KEY);
    for key in &chosen {
        insert(&mut table, key).unwrap();
    }
    check_integrity(&table);
    assert!(spilled(&table) < chosen.len() / 20);
}

/// Goes red when flows crowd in one shard, or those of a shard crowd in a part of its index.
#[test]
fn shards_are_even_and_their_tables_too() {
    for shards in [1, 2, 3, 8] {
        let mut tables: Vec<_> = (0..shards).map(|_| Table::new(20_000, HASH_KEY)).collect();
        let flows = 15_000 * u32::from(shards);
        for n in 0..flows {
            let hash = tables[0].hash(&key(n));
            let table = &mut tables[usize::from(TupleHasher::shard(hash, shards))];
            table.insert(&key(n), hash).unwrap();
        }
        for table in &tables {
            assert!((14_000..16_000).contains(&table.len()), "{} of 15,000", table.len());
            let moved = spilled(table);
            assert!(moved < 15_000 / 50, "{moved} entries had no room in their first bucket");
        }
    }
}

/// IPv4 keys are hashed in a shorter form. Goes red when that form leaves a field out.
#[test]
fn every_field_of_a_key_changes_its_hash() {
    let table = Table::new(1, HASH_KEY);
    for n in [3, 4] {
        let k = key(n);
        let others = [
            Key { low: Addr(k.low.0 ^ 1), ..k },
            Key { high: Addr(k.high.0 ^ (1 << 31)), ..k },
            Key { low_port: k.low_port ^ 0x100, ..k },
            Key { high_port: k.high_port ^ 1, ..k },
            Key { protocol: k.protocol ^ 1, ..k },
            Key { low: Addr(k.low.0 ^ (1 << 120)), ..k },
        ];
        for other in others {
            assert_ne!(table.hash(&k), table.hash(&other));
        }
    }
}

/// Goes red when a capacity that no index entry can name is accepted.
#[test]
fn impossible_capacities_are_refused() {
    assert!(matches!(Table::try_new(0, HASH_KEY), Err(TableError::Capacity(0))));
    assert!(matches!(Table::try_new(CAPACITY_MAX + 1, HASH_KEY), Err(TableError::Capacity(_))));
}

/// The gate of 224 bytes a session, as address space: what is resident cannot be more.
#[test]
fn a_session_costs_at_most_224_bytes() {
    let table = Table::new(1_000_000, HASH_KEY);
    assert!(table.reserved_bytes() / 1_000_000 <= 210);
}

/// Pages of this process that are resident.
#[cfg(target_os = "linux")]
fn resident_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// J14, "allocated at start": 50 MB become resident, and nothing that was in the table changes.
/// Goes red when pages are left to be found under load (on a kernel that can do it now).
#[test]
#[cfg(target_os = "linux")]
fn j14_a_resident_table_needs_no_more_memory_when_it_fills() {
    let mut table = Table::new(262_144, HASH_KEY);
    let slot = insert(&mut table, &key(5)).unwrap();
    let before = resident_pages();
    table.make_resident().unwrap();
    assert!(resident_pages() - before > 40_000_000 / 4096);
    assert_eq!(find(&table, &key(5)), Some(slot));
    check_integrity(&table);
}
