//! Looks for a planted fault: `tidegate-planted members|sessions FIRST SEEDS FAULT` ends with 0 if one of these
//! seeds finds something, and says which and what; `tidegate-planted story SEED [FAULT]` tells what happened to the
//! sessions of one.
//!
//! It holds the sources of both simulations and of the store, and nothing else of the product, so that it is
//! compiled in seconds.
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
use tidegate_dataplane::planted::Fault;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(1).filter_map(|n| n.parse().ok()).collect();
    let name = arguments.get(1 + numbers.len()).map(String::as_str);
    if let Some(name) = name
        && let Err(why) = plant(name)
    {
        eprintln!("tidegate-planted: {why}");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|_| {}));
    match (arguments.first().map(String::as_str), &numbers[..]) {
        (Some("members"), [first, seeds]) => look(sim::run, *first, *seeds),
        (Some("sessions"), [first, seeds]) => look(sim::sessions::run, *first, *seeds),
        (Some("story"), [seed]) => {
            let (result, story) = sim::sessions::run_told(*seed, true);
            story.iter().for_each(|line| println!("{line}"));
            println!("{}", result.map_or_else(|failure| failure.finding, |run| run.counts.to_string()));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: tidegate-planted members|sessions FIRST SEEDS [FAULT], or story SEED [FAULT]");
            ExitCode::from(2)
        }
    }
}

#[cfg(feature = "planted")]
fn plant(name: &str) -> Result<(), String> {
    let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
    let names = || Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
    let fault = fault.ok_or_else(|| format!("no fault {name:?}; there are {}", names()))?;
    tidegate_dataplane::planted::plant(*fault).map_err(|other| format!("{other} is planted already"))
}

#[cfg(not(feature = "planted"))]
fn plant(name: &str) -> Result<(), String> {
    Err(format!("{name:?} of {} cannot be planted: build with --features planted", Fault::ALL.len()))
}

fn look<C: sim::Tally>(
    run: fn(u64) -> Result<sim::Run<C>, sim::Failure>,
    first: u64,
    seeds: u64,
) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let first_only = std::env::args().len() > 4;
    let (counts, failures) = sim::run_all(run, (first, seeds), threads, first_only, &|_| {});
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
