//! `bytes_per_session`: how much the resident set grows when a table is made and filled.

use super::flows::key;
use super::{Better, HASH_KEY, Pinned, Row, Run, Scale, Subject, count_name};
use tidegate_dataplane::table::Table;

/// Bytes a session that are allowed.
const LIMIT_BYTES: f64 = 224.0;

pub(super) fn run(scale: &Scale, quick: bool, pinned: &Pinned) -> Vec<Row> {
    let Some(bytes) = measure(scale.large) else { return Vec::new() };
    let subject = Subject {
        name: "bytes_per_session",
        case: &count_name(scale.large),
        peer: "gate",
        unit: "bytes",
        better: Better::Lower,
        gate: (!quick).then_some(1.0),
        generator: "distinct live IPv6 sessions, hot and cold lines written; resident set less before the table",
        sink: "none",
        cpu_placement: pinned.placement(),
    };
    vec![Row::from_runs(&subject, vec![Run::new(bytes, LIMIT_BYTES)])]
}

/// Bytes a session, or `None` on a system without `/proc`.
fn measure(sessions: u32) -> Option<f64> {
    let before = resident_bytes()?;
    let mut table = Table::new(sessions, HASH_KEY);
    for n in 0..sessions {
        let key = key(n);
        let hash = table.hash(&key);
        let slot = table.insert(&key, hash).expect("the table has room");
        let (hot, cold) = table.both_mut(slot);
        hot.last_seen_ms = n;
        cold.revision = 1;
        cold.packets = [1, 1];
        cold.id_counter = u64::from(n);
    }
    let after = resident_bytes()?;
    assert_eq!(table.len(), sessions);
    Some(after.saturating_sub(before) as f64 / f64::from(sessions))
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
