//! `table_lookup`: find the session of a random live flow and write its last-seen time.

use super::flows::{RandomFlows, key};
use super::peer::Peer;
use super::{Better, HASH_KEY, Pinned, Row, Scale, Subject, alternate, count_name, seconds};
use tidegate_dataplane::addr::Key;
use tidegate_dataplane::table::{SlotId, Table};

/// Flows in a batch, as many as the engine takes at once.
const BATCH: usize = 64;

/// Ours against theirs that is asked for in the large table.
const GATE: f64 = 3.0;

pub(super) fn run(scale: &Scale, quick: bool, pinned: &Pinned) -> Vec<Row> {
    [scale.small, scale.large]
        .into_iter()
        .map(|sessions| {
            let mut table = Table::new(sessions, HASH_KEY);
            let mut peer = Peer::new(sessions, HASH_KEY);
            for n in 0..sessions {
                let key = key(n);
                let hash = table.hash(&key);
                table.insert(&key, hash).expect("the table has room");
                peer.insert(&key);
            }
            let mut ours_seed = 0;
            let mut theirs_seed = 0;
            let runs = alternate(
                scale.runs,
                || {
                    ours_seed += 1;
                    look_up_ours(&mut table, RandomFlows::new(ours_seed, sessions), scale.lookups)
                },
                || {
                    theirs_seed += 1;
                    look_up_theirs(&mut peer, RandomFlows::new(theirs_seed, sessions), scale.lookups)
                },
            );
            let subject = Subject {
                name: "table_lookup",
                case: &count_name(sessions),
                peer: "hashbrown",
                unit: "M lookups/s",
                better: Better::Higher,
                gate: (!quick && sessions == scale.large).then_some(GATE),
                generator: "random live IPv6 flows, batches of 64, each lookup writes last seen",
                sink: "none",
                cpu_placement: pinned.placement(),
            };
            Row::from_runs(&subject, runs)
        })
        .collect()
}

/// Million lookups a second.
fn look_up_ours(table: &mut Table, mut flows: RandomFlows, lookups: u32) -> f64 {
    let hasher = table.hasher();
    let mut keys = [Key::default(); BATCH];
    let mut hashes = [0; BATCH];
    let mut slots = [None::<SlotId>; BATCH];
    let mut found = 0;
    let batches = lookups / BATCH as u32;
    let elapsed_s = seconds(|| {
        for now_ms in 0..batches {
            keys.fill_with(|| key(flows.draw()));
            hasher.hash_batch(&keys, &mut hashes);
            table.lookup_batch(&keys, &hashes, &mut slots);
            for slot in slots.iter().flatten() {
                table.hot_mut(*slot).last_seen_ms = now_ms;
                found += 1;
            }
        }
    });
    assert_eq!(found, batches * BATCH as u32, "every flow has its session");
    f64::from(found) / elapsed_s / 1e6
}

/// Million lookups a second.
fn look_up_theirs(peer: &mut Peer, mut flows: RandomFlows, lookups: u32) -> f64 {
    let mut keys = [Key::default(); BATCH];
    let mut found = 0;
    let batches = lookups / BATCH as u32;
    let elapsed_s = seconds(|| {
        for now_ms in 0..batches {
            keys.fill_with(|| key(flows.draw()));
            for key in &keys {
                if let Some(session) = peer.find_mut(key) {
                    session.hot.last_seen_ms = now_ms;
                    found += 1;
                }
            }
        }
    });
    assert_eq!(found, batches * BATCH as u32, "every flow has its session");
    f64::from(found) / elapsed_s / 1e6
}
