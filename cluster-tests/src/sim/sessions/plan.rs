//! What a seed has in store.

use super::net::Weather;
use crate::sim::rng::Rng;
use tidegate_sync::replication::detect::DetectConfig;

/// What a seed has in store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// Workers of each node, by place.
    workers: [u16; 4],
    /// Sessions that each node holds.
    capacity: [u32; 4],
    /// Times of trouble, each followed by a calm.
    pub(super) rounds: u64,
    /// How long a trouble lasts, in microseconds, and the longest pause between two faults of it.
    pub(super) trouble: u64,
    pub(super) fault_every: u64,
    /// Longest pause between two new flows.
    pub(super) wish_every: u64,
    pub(super) weather: Weather,
    /// Heartbeats.
    pub(super) interval_ms: u32,
    pub(super) misses: u32,
    /// Batches that wait between a worker and the link.
    pub(super) ring: usize,
    /// Batches that may wait for acknowledgement.
    pub(super) unacked_max: usize,
    /// Entries of the change log, and tombstones.
    pub(super) log_entries: u32,
    pub(super) tombstones: u32,
}

impl Plan {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let nodes = [2, 2, 3, 3, 4][rng.range(0, 5) as usize];
        let small = rng.per_mille(300);
        let mut capacity = [4_096; 4];
        if small {
            capacity[rng.range(0, nodes as u64) as usize] = rng.range(300, 450) as u32;
        }
        Plan {
            nodes,
            workers: std::array::from_fn(|_| rng.range(1, 3) as u16),
            capacity,
            rounds: rng.range(1, 4),
            trouble: rng.range(2, 7) * 1_000_000,
            fault_every: rng.range(300, 1_500) * 1_000,
            wish_every: if small { rng.range(80, 140) } else { rng.range(10, 60) } * 1_000,
            weather: Weather {
                loss: rng.range(0, 80),
                twice: rng.range(0, 100),
                late: rng.range(0, 40),
                spoilt: rng.range(0, 20),
                delay: rng.range(500, 15_000),
            },
            interval_ms: rng.range(20, 60) as u32,
            misses: rng.range(4, 7) as u32,
            ring: rng.range(2, 20) as usize,
            unacked_max: rng.range(4, 64) as usize,
            log_entries: [128, 512, 4_096][rng.range(0, 3) as usize],
            tombstones: [256, 1_024, 4_096][rng.range(0, 3) as usize],
        }
    }

    pub(super) fn workers(&self, number: u16) -> u16 {
        self.workers[usize::from(number - 1) % 4]
    }

    pub(super) fn capacity(&self, number: u16) -> u32 {
        self.capacity[usize::from(number - 1) % 4]
    }

    /// When silence is death.
    pub(super) fn detect(&self) -> DetectConfig {
        DetectConfig { interval_ms: self.interval_ms, misses: self.misses }
    }

    /// How long until a dead node is noticed, in microseconds.
    pub(super) fn detection(&self) -> u64 {
        u64::from(self.interval_ms) * u64::from(self.misses) * 1_000
    }
}
