//! `table_lookup`: find the session of a random live flow and write its last-seen time.

use super::flows::{RandomFlows, key};
use super::peer::Peer;
use super::{Better, HASH_KEY, Pinned, Row, Scale, Subject, alternate, count_name, seconds};
use nix::sys::prctl;
use tidegate_dataplane::addr::Key;
use tidegate_dataplane::table::{SlotId, Table};

/// Flows in a batch, as many as the engine takes at once.
const BATCH: usize = 64;

/// Ours against theirs that is asked for in the large table.
const GATE: f64 = 3.0;

/// Whose memory comes in which pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// As each asks for them.
    Default,
    /// 4 KiB for both: huge pages are off for the process.
    Small,
}

pub(super) fn run(scale: &Scale, quick: bool, pinned: &Pinned) -> Vec<Row> {
    let mut rows = vec![
        measure(scale, scale.small, Pages::Default, quick, pinned),
        measure(scale, scale.large, Pages::Default, quick, pinned),
    ];
    if prctl::set_thp_disable(true).is_ok() {
        rows.push(measure(scale, scale.large, Pages::Small, quick, pinned));
        let _ = prctl::set_thp_disable(false);
    }
    rows
}

fn measure(scale: &Scale, sessions: u32, pages: Pages, quick: bool, pinned: &Pinned) -> Row {
    let mut table = Table::new(sessions, HASH_KEY);
    let mut peer = Peer::new(sessions, HASH_KEY);
    for n in 0..sessions {
        let key = key(n);
        let hash = table.hash(&key);
        table.insert(&key, hash).expect("the table has room");
        peer.insert(&key);
    }
    // The same flows for both in each run, other ones in the next.
    let (mut ours_seed, mut theirs_seed) = (0, 0);
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
    let (case, pages) = match pages {
        Pages::Default => (count_name(sessions), "pages as each asks for them (ours: huge)"),
        Pages::Small => (format!("{}_small_pages", count_name(sessions)), "4 KiB pages for both"),
    };
    let subject = Subject {
        name: "table_lookup",
        case: &case,
        peer: "hashbrown",
        unit: "M lookups/s",
        better: Better::Higher,
        gate: (!quick && sessions == scale.large).then_some(GATE),
        generator: &format!("random live IPv6 flows, batches of {BATCH}, each writes last seen; {pages}"),
        sink: "none",
        cpu_placement: pinned.placement(),
    };
    Row::from_runs(&subject, runs)
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
