//! One node: its workers with an engine and a shard each, and a clock of its own.

use super::frame::SimFrame;
use super::hub::{Hub, Post, Rings};
use super::plan::Plan;
use super::policies;
use crate::sim::rng::{Rng, mix};
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::sync::Arc;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{
    BATCH_MAX, Engine, EngineConfig, Event, ReplicationConfig, SessionEvent, Verdict,
};
use tidegate_dataplane::fragment::FragmentConfig;
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::{FromNode, Shard, ShardConfig};

/// Frames that a port keeps for a node that does not look.
const RING: usize = 512;

/// One worker.
pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) frames: VecDeque<SimFrame>,
}

impl Worker {
    /// What its engine tells of sessions.
    pub(super) fn take_events(&mut self, events: &mut Vec<SessionEvent>) {
        self.engine.take_events(|event| {
            if let Event::Session(event) = event {
                events.push(event);
            }
        });
    }
}

/// What became of one frame.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It left the node, rewritten.
    Left(Vec<u8>),
    /// It was dropped.
    Dropped(DropReason, Vec<u8>),
}

/// One node, in one of its boots.
pub(super) struct Node {
    pub(super) me: Boot,
    pub(super) workers: Vec<Worker>,
    pub(super) posts: Vec<Post>,
    pub(super) hub: Hub,
    pub(super) names: Names,
    /// Policy revision in force.
    pub(super) revision: u32,
    /// When it was started, and how many of its microseconds pass in a million.
    born: u64,
    pace: u64,
    /// Since when it is stopped in the middle of everything, and not dead.
    pub(super) frozen: Option<u64>,
    /// Batches that wait between a worker and the link.
    ring: usize,
    /// When its next pass is due.
    pub(super) next_pass: u64,
}

impl Node {
    /// A node that has just been started.
    pub(super) fn start(me: Boot, now: u64, plan: &Plan, rng: &mut Rng) -> Result<Self, String> {
        let mut names = Names::default();
        let shards = plan.workers(me.node);
        let hash_key = [rng.next(), rng.next()];
        let pace = 1_000_000 + rng.range(0, 2_000) - 1_000;
        policies::compile(0, false, &mut names)?;
        let hub = Hub::new(me, plan.nodes as u16, plan.detect(), hash_key, shards, begun(me));
        let mut node = Node {
            me,
            workers: Vec::new(),
            posts: Vec::new(),
            hub,
            names,
            revision: 0,
            born: now,
            pace,
            frozen: None,
            ring: plan.ring,
            next_pass: u64::MAX,
        };
        let routes = policies::routes(&node.names)?;
        for shard in 0..shards {
            let config = EngineConfig {
                shard,
                shards,
                capacity: plan.capacity(me.node) / u32::from(shards),
                hash_key,
                node_id: me.node,
                boot: me.boot,
                icmp_errors_per_s: 100,
                fragments: FragmentConfig { datagrams: 1, timeout_ms: 1_000 },
            };
            let mut engine = Engine::new(config, routes.clone()).map_err(|e| e.to_string())?;
            engine.set_watched(true);
            let (log_entries, tombstones) = (plan.log_entries, plan.tombstones);
            engine
                .enable_replication(ReplicationConfig { log_entries, tombstones })
                .map_err(|e| e.to_string())?;
            node.workers.push(Worker { engine, frames: VecDeque::new() });
            let shard = Shard::new(ShardConfig { unacked_max: plan.unacked_max, ..ShardConfig::default() });
            let (inbox, out, news) = (VecDeque::new(), VecDeque::new(), Vec::new());
            node.posts.push(Post { shard, inbox, out, news });
        }
        Ok(node)
    }

    /// The node's own clock.
    pub(super) fn clock(&self, now: u64) -> Now {
        Now(begun(self.me).0 + now.saturating_sub(self.born) * self.pace / 1_000_000 / 1_000)
    }

    /// What it says of itself at the beginning of a link: its boot, its streams, how long it has been up.
    pub(super) fn greeting(&self, now: u64) -> (Boot, u16, u64) {
        (self.me, self.workers.len() as u16, self.clock(now).since(begun(self.me)))
    }

    pub(super) fn set_policy(&mut self, revision: u32, denies: bool) -> Result<(), String> {
        let policy = policies::compile(revision, denies, &mut self.names)?;
        self.revision = revision;
        let names = Arc::new(self.names.clone());
        for (worker, post) in self.workers.iter_mut().zip(&mut self.posts) {
            post.inbox.push_back(FromNode::Names(names.clone()));
            worker.engine.set_policy(policy.clone());
        }
        Ok(())
    }

    /// A frame arrives, at any of its queues. Returns false if there was no room for it.
    pub(super) fn receive(&mut self, frame: SimFrame, rng: &mut Rng) -> bool {
        let worker = rng.range(0, self.workers.len() as u64) as usize;
        match self.workers.get_mut(worker) {
            Some(worker) if worker.frames.len() < RING => {
                worker.frames.push_back(frame);
                true
            }
            _ => false,
        }
    }

    /// Every worker looks once at its port and at what peers say; what became of the frames, and what was told.
    pub(super) fn pass(&mut self, now: Now, fates: &mut Vec<Fate>, events: &mut Vec<SessionEvent>) {
        for index in 0..self.workers.len() {
            let mut handed = Vec::new();
            let (worker, post) = (&mut self.workers[index], &mut self.posts[index]);
            let Post { shard, inbox, out, news } = post;
            let mut rings = Rings { inbox, out, news, room: self.ring };
            shard.watch(&mut worker.engine, now, &mut rings);
            let many = worker.frames.len().min(BATCH_MAX);
            let mut batch: Vec<SimFrame> = worker.frames.drain(..many).collect();
            let mut verdicts: ArrayVec<Verdict, BATCH_MAX> = ArrayVec::new();
            worker.engine.process(&mut batch, &mut verdicts, now);
            for (frame, verdict) in batch.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Transmit(_) => fates.push(Fate::Left(frame.bytes)),
                    Verdict::Drop(reason) => fates.push(Fate::Dropped(reason, frame.bytes)),
                    Verdict::Handover(to) => handed.push((usize::from(to), frame)),
                    _ => {}
                }
            }
            worker.engine.sweep(now);
            shard.run(&mut worker.engine, now, &mut rings);
            fates.extend(worker.engine.outbox().iter().map(|(_, bytes)| Fate::Left(bytes.to_vec())));
            worker.engine.outbox().clear();
            worker.take_events(events);
            for (to, frame) in handed {
                self.workers[to].frames.push_back(frame);
            }
        }
        self.hub.news(&mut self.posts, now);
    }

    /// What each worker waits for from each peer.
    pub(super) fn wants(&self) -> Vec<String> {
        let of = |(worker, post): (&Worker, &Post)| {
            let status = post.shard.status(&worker.engine);
            let peers =
                status.peers.iter().filter(|p| p.wants.is_some() || p.resync_in.is_some() || p.no_room);
            peers
                .map(|p| format!("{:?} {:?} {:?} {}", p.peer, p.wants, p.resync_in, p.no_room))
                .collect::<Vec<_>>()
        };
        self.workers.iter().zip(&self.posts).flat_map(of).collect()
    }

    /// Whether something waits for the workers.
    pub(super) fn has_mail(&self) -> bool {
        let waits = |p: &Post| !p.inbox.is_empty() || !p.out.is_empty();
        self.workers.iter().any(|w| !w.frames.is_empty()) || self.posts.iter().any(waits)
    }

    /// Sessions that its engines hold and that it owns, slots in use, slots.
    pub(super) fn occupancy(&self) -> (u32, u32, u32) {
        let sums = self.workers.iter().map(|w| w.engine.summary());
        sums.fold((0, 0, 0), |(owned, used, all), s| (owned, used + s.in_use as u32, all + s.maximum as u32))
    }
}

/// A node's clock begins about when it is started.
fn begun(me: Boot) -> Now {
    Now(mix(u64::from(me.boot)) % 50)
}
