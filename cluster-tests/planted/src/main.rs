//! Looks for a planted fault: `tidegate-planted FIRST SEEDS` ends with 0 if one of these seeds finds
//! something, and says which and what.
//!
//! It holds the sources of the simulation and of the store, and nothing else of the product, so that a
//! build for each fault takes seconds.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, dead_code, clippy::disallowed_methods)]

extern crate self as tidegate_sync_net;

#[path = "../../../sync/net/src/identity/files.rs"]
pub mod files;
#[path = "../../src/sim/mod.rs"]
mod sim;
#[path = "../../../sync/net/src/store/mod.rs"]
pub mod store;
/// What the store takes from its neighbour.
pub mod identity {
    pub use super::files;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [first, seeds] = numbers[..] else {
        eprintln!("usage: tidegate-planted FIRST SEEDS");
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (counts, failures) = sim::run_all(first, seeds, threads, true, &|_| {});
    for failure in &failures {
        println!("seed {}: {}", failure.seed, failure.finding);
    }
    if failures.is_empty() {
        print!("{counts}");
        println!("nothing was found in {seeds} seeds");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
