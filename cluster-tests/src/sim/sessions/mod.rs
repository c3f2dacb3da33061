//! The deterministic simulation of sessions on several nodes. One seed says everything that happens.
//!
//! What runs is the product's: engines, the shards beside them, and what decides who is alive and in sync. What
//! is simulated is what surrounds them: time, hosts that speak through nodes which a changing routing chooses,
//! the network between the nodes, crashes, pauses, and operators.

mod check;
mod counts;
mod faults;
mod flows;
mod frame;
mod host;
mod hosts;
mod hub;
mod keep;
mod net;
mod node;
mod plan;
mod policies;
mod replicate;
mod route;
mod world;

pub use counts::Counts;

use super::{Failure, Run};
use check::Finding;
use net::Weather;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Event, World};

/// Virtual time in which healed nodes must have come to agree, in microseconds.
const RECOVERY: u64 = 20_000_000;
/// How long nothing may go wrong then.
const CALM: u64 = 5_000_000;
/// How long hosts are silent while tables are compared; less than a fifth of the shortest timeout.
const QUIET: u64 = 300_000;

/// Runs one seed.
///
/// # Errors
/// Which rule was broken, a panic of the product included.
pub fn run(seed: u64) -> Result<Run<Counts>, Failure> {
    run_told(seed, false).0
}

/// Runs one seed; with its story if that is wanted.
pub fn run_told(seed: u64, told: bool) -> (Result<Run<Counts>, Failure>, Vec<String>) {
    let mut world = World::new(seed, told);
    let result = catch_unwind(AssertUnwindSafe(|| world.simulate()));
    let finding = match result {
        Ok(Ok(())) => None,
        Ok(Err(finding)) => Some(finding),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Some(Finding::from(format!("panic: {}", text.unwrap_or_default())))
        }
    };
    let about = finding.as_ref().and_then(|f| f.flow);
    let story = world.story.take().unwrap_or_default();
    let of_it = |flow: Option<usize>| flow.is_none() || flow == about;
    let lines = story.into_iter().filter(|(_, flow, _)| of_it(*flow));
    let lines = lines.map(|(at, _, what)| format!("{:>10.3} ms  {what}", at as f64 / 1_000.0)).collect();
    let result = match finding {
        None => Ok(Run { counts: world.counts, trace: world.trace }),
        Some(finding) => {
            let flow = finding.flow.map_or(String::new(), |f| format!("flow {f}: "));
            let finding = format!("at {} ms: {flow}{}", world.now / 1_000, finding.what);
            Err(Failure { seed, finding })
        }
    };
    (result, lines)
}

impl World {
    fn simulate(&mut self) -> Result<(), Finding> {
        let plan = self.plan;
        self.tell(None, || format!("{plan:?}"));
        self.form()?;
        for round in 0..self.plan.rounds {
            self.tell(None, || format!("trouble, round {}", round + 1));
            self.is_troubled = true;
            self.net.weather = self.plan.weather;
            self.at(self.now, Event::Fault);
            self.run_until(self.now + self.plan.trouble)?;
            self.repair()?;
            self.until_agreed()?;
            self.calm()?;
        }
        self.drain()?;
        self.counts.virtual_seconds = self.now / 1_000_000;
        Ok(())
    }

    /// The nodes start one after the other, while packets flow.
    fn form(&mut self) -> Result<(), Finding> {
        self.is_busy = true;
        self.start(0)?;
        self.at(self.now + 50_000, Event::Wish);
        for place in 1..self.places.len() {
            let pause = self.rng.range(10_000, 1_500_000);
            self.run_until(self.now + pause)?;
            self.start(place)?;
        }
        self.at(self.now, Event::Reroute);
        self.until_agreed()
    }

    /// Everything is repaired.
    fn repair(&mut self) -> Result<(), Finding> {
        self.tell(None, || "everything is repaired".to_owned());
        self.is_troubled = false;
        self.troubles += 1;
        self.heal(self.troubles);
        self.net.weather = Weather::FAIR;
        for place in 0..self.places.len() {
            self.thaw(place);
            self.start(place)?;
        }
        Ok(())
    }

    /// All must be ready, and hold the same whenever the hosts are silent for a moment.
    fn until_agreed(&mut self) -> Result<(), Finding> {
        let end = self.now + RECOVERY;
        loop {
            self.run_until(self.now + 600_000)?;
            self.quiet_until = self.now + QUIET;
            self.run_until(self.quiet_until - 1)?;
            let behind =
                |p: &usize| self.places[*p].node.as_ref().is_some_and(|n| n.revision < self.revision);
            if (0..self.places.len()).any(|p| behind(&p)) && self.now < end {
                continue;
            }
            let found = match (0..self.places.len()).find(|p| !self.is_ready(*p)) {
                Some(place) => {
                    Err(Finding::from(format!("node {} is not in sync: {}", place + 1, self.views())))
                }
                None => self.agreed(),
            };
            match found {
                Ok(()) => return Ok(()),
                Err(finding) if self.now >= end => {
                    let what = format!("no agreement after everything was repaired: {}", finding.what);
                    return Err(Finding { what, ..finding });
                }
                Err(_) => {}
            }
        }
    }

    /// Nothing breaks, packets change their ways, and no live session may suffer.
    fn calm(&mut self) -> Result<(), Finding> {
        self.tell(None, || "calm".to_owned());
        self.solidify();
        self.reroute_now();
        self.calm_since = Some(self.now);
        self.run_until(self.now + CALM)?;
        self.quiet_until = self.now + QUIET;
        self.run_until(self.quiet_until - 1)?;
        let agreed = self.agreed();
        self.calm_since = None;
        agreed.map_err(|f| Finding { what: format!("after a calm: {}", f.what), ..f })
    }

    /// All hosts fall silent: every session must go, everywhere.
    fn drain(&mut self) -> Result<(), Finding> {
        self.tell(None, || "all hosts fall silent".to_owned());
        self.is_busy = false;
        for flow in &mut self.flows {
            flow.fall_silent();
        }
        self.run_until(self.now + policies::INITIAL + self.bound() + 2_000_000)?;
        for place in 0..self.places.len() {
            if let Some(session) = self.sessions_of(place).first() {
                let flow = hosts::ends_of(&session.wings[0].tuple);
                let flow = flow.and_then(|ends| self.by_ends.get(&ends).copied());
                let what =
                    format!("node {} still holds {}, idle for {} ms", place + 1, session.id, session.idle_ms);
                return Err(Finding { what, flow });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_each_time() {
        // Any order that does not follow from the seed (a hash map's, a thread's generator) shows here.
        for seed in [1, 2, 3] {
            let [one, two] = [(); 2].map(|()| run(seed).map_err(|f| f.finding));
            assert_eq!(one, two, "seed {seed}");
        }
    }
}
