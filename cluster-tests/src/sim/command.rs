//! `tidegate-lab sim`.

use super::{Failure, Run, Tally, run, run_all, sessions};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Whether these are lives of sessions on several nodes, or of the nodes' agreement on a policy.
    pub sessions: bool,
}

/// Runs seeds on all CPUs, prints what they contained, and says whether all is well: nothing was found,
/// and enough happened. Progress goes to standard error.
pub fn run_seeds(order: Order) -> bool {
    if order.sessions { seeds_of(order, sessions::run) } else { seeds_of(order, run) }
}

fn seeds_of<C: Tally>(order: Order, run: fn(u64) -> Result<Run<C>, Failure>) -> bool {
    // A panic of the product is a finding; it is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let Order { first, seeds, .. } = order;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let progress = |done: u64| {
        if done.is_multiple_of((seeds / 20).max(1)) {
            eprintln!("sim: {done} of {seeds} seeds");
        }
    };
    let (counts, failures) = run_all(run, (first, seeds), threads, false, &progress);
    let _ = std::panic::take_hook();
    report(&counts, &failures, order, begun.elapsed())
}

fn report<C: Tally>(counts: &C, failures: &[Failure], order: Order, took: Duration) -> bool {
    let Order { first, seeds, sessions } = order;
    println!("seeds {first} to {} in {:.1} s:", first + seeds - 1, took.as_secs_f64());
    print!("{counts}");
    for failure in failures {
        println!("seed {}: {}", failure.seed, failure.finding);
        let of = if sessions { "--sessions " } else { "" };
        println!("  again: tidegate-lab sim {of}--seed {}", failure.seed);
    }
    // One seed alone contains a little of this and nothing of that.
    let few = if seeds >= 100 { counts.too_few(seeds) } else { Vec::new() };
    for (what, count, floor) in &few {
        println!("too little to mean anything: {count} {}, not {floor}", what.replace('_', " "));
    }
    if failures.is_empty() && few.is_empty() {
        println!("nothing was found");
    }
    failures.is_empty() && few.is_empty()
}

/// Runs one seed again, and says what it found; of sessions with its story, one line for each thing that
/// happened to the nodes, and to the flow that a finding is about.
pub fn replay(seed: u64, sessions: bool) -> bool {
    if !sessions {
        return judged(seed, run(seed));
    }
    let (result, story) = sessions::run_told(seed, true);
    story.iter().for_each(|line| println!("{line}"));
    judged(seed, result)
}

fn judged<C: Tally>(seed: u64, result: Result<Run<C>, Failure>) -> bool {
    match result {
        Ok(run) => {
            print!("{}", run.counts);
            println!("seed {seed}: nothing was found (trace {:016x})", run.trace);
            true
        }
        Err(failure) => {
            println!("seed {seed}: {}", failure.finding);
            false
        }
    }
}
