//! The session table measured in process: lookups, insertions, the sweep, memory.
//!
//! One thread, pinned; ours and the peer's structure stand in memory side by side, run after run in turn,
//! over the same flows in the same random order. Flows are computed from their number, not read from a list,
//! so that no list competes for the cache; that cost is in both figures, and so is the keyed hash.
//!
//! The peer of lookups and insertions is `hashbrown::HashTable` with the same 192 bytes for each session, its
//! key and last-seen time on one cache line as ours, compared by the same function and hashed by the same
//! keyed SipHash-1-3, reserved for its final size. It has no batch interface, so it is asked once for each
//! flow. By default our table asks the kernel for huge pages and hashbrown's allocator does not; a second case
//! of the lookups takes them away from both, so that it compares the structures alone. (With
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` in the environment the first case has them on both sides.)

mod flows;
mod insert;
mod lookup;
mod memory;
mod peer;
pub(super) mod pin;
mod sweep;

use super::report::{Better, Row, Run, Subject};
use pin::Pinned;
use std::time::Instant;

/// The key of the benches' hashes: fixed, so that two runs measure the same layout.
const HASH_KEY: [u64; 2] = [0x5851_f42d_4c95_7f2d, 0x1405_7b7e_f767_814f];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Sessions of the large table.
    large: u32,
    /// Sessions of the small one.
    small: u32,
    /// Alternating runs of each figure.
    runs: u32,
    /// Lookups of one run.
    lookups: u32,
}

impl Scale {
    fn new(quick: bool) -> Self {
        match quick {
            false => Scale { large: 10_000_000, small: 1_000_000, runs: 5, lookups: 8_000_000 },
            true => Scale { large: 500_000, small: 50_000, runs: 3, lookups: 500_000 },
        }
    }
}

/// Runs every bench. `quick` shows in seconds that they work; its figures are about tables that fit the
/// cache, so their rows carry their own sizes and no gate.
///
/// Needs about 6 GB of memory when not quick.
pub fn run(quick: bool) -> Vec<Row> {
    let scale = Scale::new(quick);
    let pinned = Pinned::to_last_cpu();
    // Memory first: later benches would leave their traces in the resident set.
    let mut rows = memory::run(&scale, quick, &pinned);
    rows.extend(lookup::run(&scale, quick, &pinned));
    rows.extend(insert::run(&scale, &pinned));
    rows.extend(sweep::run(&scale, quick, &pinned));
    rows
}

/// `runs` pairs, in turn.
pub(super) fn alternate(
    runs: u32,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> Vec<Run> {
    (0..runs)
        .map(|run| {
            // Neither side always comes second.
            if run % 2 == 0 {
                let ours = ours();
                Run::new(ours, theirs())
            } else {
                let theirs = theirs();
                Run::new(ours(), theirs)
            }
        })
        .collect()
}

/// Seconds that `work` takes.
pub(super) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A number of sessions as rows name it.
fn count_name(n: u32) -> String {
    match n {
        n if n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n => format!("{}k", n / 1_000),
    }
}
