//! `sweep`: the clock hand over a full table of live sessions, against the least that any walk must do: one
//! read of each hot line, in order.

use super::flows::key;
use super::{Better, HASH_KEY, Pinned, Row, Scale, Subject, alternate, count_name, seconds};
use arrayvec::ArrayVec;
use std::hint::black_box;
use tidegate_dataplane::names::ClassId;
use tidegate_dataplane::table::{SlotId, Table};

/// Time for a session against the plain pass's that is asked for.
const GATE: f64 = 2.0;
/// Slots of a slice.
const SLICE: u32 = 4096;
/// Timeout classes in use.
const CLASSES: u16 = 8;
/// Idle time of every session when the sweep comes by.
const IDLE_MS: u32 = 1_000;

pub(super) fn run(scale: &Scale, quick: bool, pinned: &Pinned) -> Vec<Row> {
    [scale.small, scale.large]
        .into_iter()
        .map(|sessions| {
            let mut table = Table::new(sessions, HASH_KEY);
            for n in 0..sessions {
                let key = key(n);
                let hash = table.hash(&key);
                let slot = table.insert(&key, hash).expect("the table has room");
                table.hot_mut(slot).class = ClassId((n % u32::from(CLASSES)) as u16);
            }
            // Small tables are passed more often, so that a run takes a while.
            let passes = (scale.large / sessions).max(1) * 2;
            let runs = alternate(scale.runs, || sweep(&table, passes), || plain_pass(&table, passes));
            let subject = Subject {
                name: "sweep",
                case: &count_name(sessions),
                peer: "plain_pass",
                unit: "ns/session",
                better: Better::Lower,
                gate: (!quick && sessions == scale.large).then_some(GATE),
                generator: "whole passes over a full table, 8 timeout classes, none expired, slices of 4096",
                sink: "none",
                cpu_placement: pinned.placement(),
            };
            Row::from_runs(&subject, runs)
        })
        .collect()
}

/// Nanoseconds a session.
fn sweep(table: &Table, passes: u32) -> f64 {
    let cutoffs_ms: Vec<u32> = (0..CLASSES).map(|class| 60_000 + u32::from(class)).collect();
    let cutoffs_ms = black_box(&cutoffs_ms[..]);
    let mut found: ArrayVec<SlotId, 64> = ArrayVec::new();
    let mut visited = 0_u64;
    let elapsed_s = seconds(|| {
        for _ in 0..passes {
            let mut from = 0;
            loop {
                let now_ms = black_box(IDLE_MS);
                let expired = |line: &tidegate_dataplane::table::HotLine| {
                    let cutoff_ms = cutoffs_ms.get(usize::from(line.class.0)).copied().unwrap_or(u32::MAX);
                    line.idle_ms(now_ms) > cutoff_ms
                };
                let step = table.sweep_slice(from, SLICE, expired, &mut found);
                visited += u64::from(step.visited);
                from = step.next;
                if from == 0 {
                    break;
                }
            }
        }
    });
    assert!(found.is_empty() && visited == u64::from(passes) * u64::from(table.len()));
    elapsed_s * 1e9 / visited as f64
}

/// Nanoseconds a session.
fn plain_pass(table: &Table, passes: u32) -> f64 {
    let mut sum = 0_u64;
    let elapsed_s = seconds(|| {
        for _ in 0..passes {
            for line in table.hot_lines() {
                sum = sum.wrapping_add(u64::from(line.last_seen_ms));
            }
            sum = black_box(sum);
        }
    });
    elapsed_s * 1e9 / (f64::from(passes) * f64::from(table.len()))
}
