//! The deterministic simulation: whole clusters of replicas on a virtual network, virtual clocks and
//! virtual disks. One seed says everything that happens; the same seed does so again.
//!
//! What runs is the product's: `tidegate_sync::raft` and `ClusterState`, and the redb store of
//! `tidegate_sync_net` over a disk that loses or tears what was not synced. What is simulated is what
//! surrounds them: time, messages, power, and operators.

mod check;
mod clients;
pub mod command;
mod counts;
mod disk;
mod faults;
mod net;
mod node;
mod rng;
pub mod sessions;
mod tally;
mod world;

pub use counts::Counts;
pub use tally::Tally;

use check::Finding;
use net::Weather;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Event, World};

/// Virtual time in which a healed cluster must be in agreement, in microseconds.
const RECOVERY: u64 = 60_000_000;

/// A seed that found something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which rule was broken.
    pub finding: String,
}

/// What one seed gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run<C = Counts> {
    /// What it contained.
    pub counts: C,
    /// The same in every run of the seed.
    pub trace: u64,
}

/// Runs one seed.
///
/// # Errors
/// Which rule was broken, a panic of the product included.
pub fn run(seed: u64) -> Result<Run, Failure> {
    let finding = match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
        Ok(Ok(run)) => return Ok(run),
        Ok(Err(finding)) => finding,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Failure { seed, finding })
}

/// Runs `seeds` seeds from `first` on with `run`, on `threads` threads; `progress` is told after each how many are
/// done. Stops after the first failure if `first_only`.
pub fn run_all<C: Tally>(
    run: fn(u64) -> Result<Run<C>, Failure>,
    (first, seeds): (u64, u64),
    threads: usize,
    first_only: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> (C, Vec<Failure>) {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let results = Mutex::new((C::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let result = run(seed);
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match result {
                        Ok(run) => results.0.add(&run.counts),
                        Err(failure) => results.1.push(failure),
                    }
                    if first_only && !results.1.is_empty() {
                        break;
                    }
                    drop(results);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let (counts, mut failures) = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort_by_key(|f| f.seed);
    (counts, failures)
}

fn simulate(seed: u64) -> Result<Run, Finding> {
    let mut world = World::new(seed)?;
    world.form()?;
    world.net.weather = world.plan.weather;
    world.troubled = true;
    world.at(world.now, Event::Wish);
    world.at(world.now, Event::Fault);
    world.run_until(world.now + world.plan.until)?;
    world.settle()?;
    world.counts.virtual_seconds = world.now / 1_000_000;
    Ok(Run { counts: world.counts, trace: world.trace })
}

impl World {
    /// The first members join in fair weather.
    fn form(&mut self) -> Result<(), Finding> {
        self.run_until(3_000_000)?;
        for _ in 1..self.plan.members {
            self.join()?;
            self.run_until(self.now + 1_500_000)?;
        }
        match self.agreed() {
            Ok(()) => Ok(()),
            Err(why) => Err(format!("the cluster did not form: {why}")),
        }
    }

    /// Everything is repaired; then everybody must come to agree, and on one more thing.
    fn settle(&mut self) -> Result<(), Finding> {
        self.troubled = false;
        self.net.heal();
        self.net.weather = Weather::FAIR;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.start(id)?;
        }
        self.until_agreed()?;
        let before = self.counts.policies;
        let mut end = self.now + RECOVERY;
        while self.counts.policies == before && self.now < end {
            self.last_wish()?;
            self.run_until(self.now + 1_000_000)?;
        }
        end = self.now;
        if self.counts.policies == before {
            return Err(format!("nothing is agreed on {} s after everything was repaired", end / 1_000_000));
        }
        self.until_agreed()?;
        for id in self.running() {
            let Some(state) = self.nodes.get(&id).and_then(node::Node::state) else { continue };
            if state.members.contains_key(&id) {
                self.check.digest(id, state, &mut self.counts)?;
            }
        }
        let leader = self.leader().and_then(|id| self.nodes.get(&id)).and_then(node::Node::state);
        let leader = leader.ok_or("nobody leads at the end")?;
        self.check.end(leader, &mut self.counts)
    }

    fn until_agreed(&mut self) -> Result<(), Finding> {
        let end = self.now + RECOVERY;
        loop {
            self.run_until(self.now + 500_000)?;
            match self.agreed() {
                Ok(()) => return Ok(()),
                Err(why) if self.now >= end => {
                    let all = self.picture();
                    return Err(format!("no agreement after everything was repaired: {why}; {all}"));
                }
                Err(_) => {}
            }
        }
    }

    /// Every node in a few words.
    fn picture(&self) -> String {
        let node = |n: &node::Node| match &n.replica {
            None => format!("{} is down", n.id),
            Some(r) => {
                let s = r.status();
                let (role, state) = (s.role.name(), r.state());
                let member = state.is_some_and(|s| s.members.contains_key(&n.id));
                format!(
                    "{} {role} term {} commit {} last {} voters {:?} joint {} member {member}",
                    n.id, s.term, s.commit, s.last, s.voters, s.joint
                )
            }
        };
        self.nodes.values().map(node).collect::<Vec<_>>().join("; ")
    }

    /// Whether every member runs, votes if it is to vote, and holds the same as the leader.
    fn agreed(&self) -> Result<(), String> {
        let leader = self.leader().ok_or("nobody leads")?;
        let state = self.nodes.get(&leader).and_then(node::Node::state).ok_or("a leader without a state")?;
        if self.joining() || !self.clients.ops.is_empty() {
            return Err(format!("{} requests are not answered", self.clients.ops.len()));
        }
        if state.voters() != state.voters_wanted() {
            return Err(format!("{:?} vote instead of {:?}", state.voters(), state.voters_wanted()));
        }
        for id in state.members.keys() {
            let Some(theirs) = self.nodes.get(id).and_then(node::Node::state) else {
                return Err(format!("node {id} holds nothing"));
            };
            if theirs.applied != state.applied {
                return Err(format!("node {id} is at {}, the leader at {}", theirs.applied, state.applied));
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
