//! `table_insert`: fill an empty table, reserved for its final size, with distinct flows.

use super::flows::key;
use super::peer::Peer;
use super::{Better, HASH_KEY, Pinned, Row, Scale, Subject, alternate, count_name, seconds};
use tidegate_dataplane::table::Table;

pub(super) fn run(scale: &Scale, pinned: &Pinned) -> Vec<Row> {
    [scale.small, scale.large]
        .into_iter()
        .map(|sessions| {
            let runs = alternate(scale.runs, || fill_ours(sessions), || fill_theirs(sessions));
            let subject = Subject {
                name: "table_insert",
                case: &count_name(sessions),
                peer: "hashbrown",
                unit: "M inserts/s",
                better: Better::Higher,
                gate: None,
                generator: "distinct IPv6 flows into an empty table; first touch of its memory included",
                sink: "none",
                cpu_placement: pinned.placement(),
            };
            Row::from_runs(&subject, runs)
        })
        .collect()
}

/// Million insertions a second. The cold lines are written, as the engine would.
fn fill_ours(sessions: u32) -> f64 {
    let mut table = Table::new(sessions, HASH_KEY);
    let elapsed_s = seconds(|| {
        for n in 0..sessions {
            let key = key(n);
            let hash = table.hash(&key);
            let slot = table.insert(&key, hash).expect("the table has room");
            let cold = table.cold_mut(slot);
            cold.revision = 1;
            cold.id_counter = u64::from(n);
        }
    });
    assert_eq!(table.len(), sessions);
    f64::from(sessions) / elapsed_s / 1e6
}

/// Million insertions a second.
fn fill_theirs(sessions: u32) -> f64 {
    let mut peer = Peer::new(sessions, HASH_KEY);
    let elapsed_s = seconds(|| {
        for n in 0..sessions {
            let session = peer.insert(&key(n));
            session.cold.revision = 1;
            session.cold.id_counter = u64::from(n);
        }
    });
    f64::from(sessions) / elapsed_s / 1e6
}
