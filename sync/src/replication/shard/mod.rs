//! Replication's part of a worker: which change goes to which peer when, and what becomes of theirs.
//!
//! A [`Shard`] lives beside the engine on its worker. It is pure: messages come from [`Wire::next`], frames go to
//! [`Wire::send`]. In each pass of the worker, in this order: [`Shard::watch`] before anything ages, the engine's
//! own work, then [`Shard::run`], which is bounded by [`ShardConfig::records_per_run`].
//!
//! | file | holds |
//! |---|---|
//! | `wire` | the border: messages of the node, news for it |
//! | `line` | what is kept of one peer |
//! | `send` | log and resync become batches; back-pressure; acknowledgements |
//! | `receive` | messages and items are applied; resyncs come in, and what vanished is swept |
//! | `ask` | questions before a shared session ages |
//! | `delay` | how long it takes until a peer has what it is told |
//! | `lately` | from where on in the log what was observed may not have come to all |
//! | `status` | what is shown |

mod ask;
mod delay;
mod lately;
mod line;
mod receive;
mod send;
mod status;
#[cfg(test)]
mod tests;
mod wire;

pub use super::message::ResyncWhy;
pub use status::{PeerStatus, Received, Sent, ShardStatus};
pub use wire::{FromNode, Item, News, Wire};

use ask::Asking;
use lately::Lately;
use line::Line;
use std::sync::Arc;
use tidegate_dataplane::engine::{Engine, PEERS_MAX, Peer};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::time::Now;

/// What a shard is made with.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Bytes at which a batch is sent at once.
    pub flush_bytes: usize,
    /// Time from one batch to the next. What comes after silence is sent at once, what follows within this time
    /// leaves together at its end.
    pub flush_ms: u64,
    /// Records that one call of [`Shard::run`] takes in, about, and sends to each peer.
    pub records_per_run: usize,
    /// Batches to a peer that may wait for acknowledgement: beyond, nothing more is sent, and changes wait in the
    /// log, where a later one takes the place of an earlier one.
    pub unacked_max: usize,
    /// How long the answers of peers are waited for before a shared session ages.
    pub answer_ms: u64,
    /// Time between two passes that counts as a pause of this worker; `None` is the view's detection time.
    pub pause_ms: Option<u64>,
    /// How long tombstones are kept for a peer whose link broke: when it is back sooner, it goes on where it was.
    pub keep_ms: u64,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            flush_bytes: 16 * 1024,
            flush_ms: 1,
            records_per_run: 512,
            unacked_max: 1024,
            answer_ms: 200,
            pause_ms: None,
            keep_ms: 30_000,
        }
    }
}

/// One worker's end of replication.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    names: Arc<Names>,
    /// Every peer that was ever connected, by place.
    lines: [Option<Box<Line>>; PEERS_MAX],
    asking: Asking,
    lately: Lately,
    /// When [`Shard::watch`] was last called.
    last: Option<Now>,
    held: bool,
    /// Ageing may go on when everything that waits is applied.
    resuming: bool,
    pauses: u64,
    stale: u64,
    /// Tombstones below this log number are let go.
    released: u64,
    by_one: u64,
    by_all: u64,
    /// What the engine was last told of [`delay::Delay`], of the slowest peer.
    delay_us: Option<u64>,
}

impl Shard {
    /// A shard that knows nobody.
    pub fn new(config: ShardConfig) -> Shard {
        Shard {
            config,
            names: Arc::default(),
            lines: Default::default(),
            asking: Asking::default(),
            lately: Lately::default(),
            last: None,
            held: false,
            resuming: false,
            pauses: 0,
            stale: 0,
            released: 0,
            by_one: u64::MAX,
            by_all: u64::MAX,
            delay_us: None,
        }
    }

    /// To be called first in each pass of the worker: after a pause longer than the detection time nothing may
    /// age until what was queued meanwhile is applied ([`FromNode::Resume`]).
    pub fn watch(&mut self, engine: &mut Engine, now: Now, wire: &mut dyn Wire) {
        let gap = self.last.map_or(0, |last| now.since(last));
        self.last = Some(now);
        let Some(view) = engine.view().filter(|view| view.alive().len() > 1) else { return };
        if gap > self.config.pause_ms.unwrap_or(u64::from(view.detection_ms).max(1)) {
            self.pauses += 1;
            (self.held, self.resuming) = (true, false);
            engine.hold_ageing(true);
            wire.tell(News::Paused { ms: gap });
        }
    }

    /// Takes in what peers told, and tells them what changed. To be called last in each pass of the worker; an
    /// engine that does not replicate is left alone.
    pub fn run(&mut self, engine: &mut Engine, now: Now, wire: &mut dyn Wire) {
        if !engine.is_replicating() {
            return;
        }
        self.lately.note(now, engine.log_head());
        self.receive(engine, now, wire);
        self.sweep(engine, now, wire);
        self.ask(engine, now);
        self.send(engine, now, wire);
        self.say_wants(engine, now, wire);
        self.note_acked(engine, now);
    }

    /// Whether anything waits that no message brings on: items for a batch, a frame that found its ring full, a
    /// resync, a sweep, an asking. The worker is to come again soon, also when nothing happens.
    pub fn is_busy(&self) -> bool {
        let is_busy = |line: &Line| {
            let waits = !line.outlet.is_empty() || line.kept.is_some() || line.resync.is_some();
            line.link.is_some() && (waits || line.resync_in.is_some())
        };
        self.asking.waiting() > 0 || self.lines.iter().flatten().any(|line| is_busy(line))
    }

    /// Whether there is more to tell that nothing holds up: [`Shard::run`] is bounded.
    pub fn has_more(&self, engine: &Engine) -> bool {
        let (head, unacked_max) = (engine.log_head(), self.config.unacked_max);
        self.lines.iter().flatten().any(|line| line.has_more(head, unacked_max))
    }

    /// Whether somebody waits for acknowledgements: packets of the engine, the end of a resync, batches that may not
    /// leave before. Where nobody does, they can be taken in with whatever else there is to do.
    pub fn waits_for_acks(&self, engine: &Engine) -> bool {
        let waits = |line: &Line| {
            let ends = line.ends.is_some() || line.resync.is_some();
            ends || line.lacks || line.unacked.len() > self.config.unacked_max / 2
        };
        engine.holds_packets() || self.lines.iter().flatten().any(|line| line.link.is_some() && waits(line))
    }

    /// Log number below which at least one other node in sync has everything: the maximum while there is none.
    pub fn acked_by_one(&self) -> u64 {
        self.by_one
    }

    /// Log number below which every other node in sync has everything: the maximum while there is none. One that
    /// is not connected, or has no room, holds it back.
    pub fn acked_by_all(&self) -> u64 {
        self.by_all
    }

    /// What there is to show.
    pub fn status(&self, engine: &Engine) -> ShardStatus {
        let log_head = engine.log_head();
        ShardStatus {
            peers: self.lines.iter().flatten().map(|line| line.status(log_head)).collect(),
            log_head,
            held: self.held,
            pauses: self.pauses,
            asking: self.asking.waiting(),
            stale: self.stale,
        }
    }

    fn line(&mut self, peer: Peer) -> Option<&mut Line> {
        self.lines.get_mut(usize::from(peer.0))?.as_deref_mut()
    }

    /// That peer, if this is its present link.
    fn linked(&mut self, peer: Peer, link: u64) -> Option<&mut Line> {
        self.line(peer).filter(|line| line.link == Some(link))
    }

    /// Says which resyncs are missing, when it is time to.
    fn say_wants(&mut self, engine: &Engine, now: Now, wire: &mut dyn Wire) {
        for line in self.lines.iter_mut().flatten() {
            let Some(link) = line.link else { continue };
            let peer = line.peer;
            let mut say = |want: &mut line::Want| {
                if want.is_due(now) {
                    wire.tell(News::WantsResync { peer, link, why: want.why, since: want.since });
                }
            };
            if let Some(want) = line.want_out.as_mut().filter(|_| line.resync.is_none()) {
                say(want);
            }
            if let Some(want) = line.want_in.as_mut().filter(|_| line.resync_in.is_none()) {
                let (used, capacity) = engine.occupancy();
                let room = u64::from(capacity.saturating_sub(used));
                if want.why != ResyncWhy::RoomReturned
                    || room >= line.missed.min(u64::from(capacity / 16)).max(1)
                {
                    say(want);
                }
            }
        }
    }

    /// Lets go of the tombstones that nobody needs, and notes what others certainly have.
    fn note_acked(&mut self, engine: &mut Engine, now: Now) {
        let linked = self.lines.iter_mut().flatten().filter(|l| l.link.is_some());
        let slowest_us = linked.map(|l| l.measure(now)).max();
        if let Some(us) = slowest_us.filter(|us| self.delay_us != Some(*us)) {
            self.delay_us = Some(us);
            engine.set_peer_round_trip_us(us);
        }
        let keep_ms = self.config.keep_ms;
        let lines = || self.lines.iter().flatten();
        let needed = lines().filter(|l| l.link.is_some() || now.since(l.down_at) < keep_ms).map(|l| l.seen);
        let below = needed.min().unwrap_or(engine.log_head());
        let Some(view) = engine.view() else { return };
        let others = view.in_sync().iter().filter(|boot| **boot != view.me);
        let sure = others.map(|boot| {
            let line = lines().find(|l| l.it == *boot && l.link.is_some() && !l.full);
            line.map_or(0, |l| l.sure)
        });
        let (one, all) = sure.fold((None, u64::MAX), |(one, all): (Option<u64>, u64), sure| {
            (Some(one.map_or(sure, |one| one.max(sure))), all.min(sure))
        });
        (self.by_one, self.by_all) = (one.unwrap_or(u64::MAX), all);
        // First packets wait for peers that are connected: with none, they would only wait.
        let connected = lines().any(|l| l.link.is_some());
        let (by_one, by_all) = if connected { (self.by_one, self.by_all) } else { (u64::MAX, u64::MAX) };
        engine.acknowledged(by_one, by_all, now);
        if below > self.released {
            self.released = below;
            engine.release_tombstones(below);
        }
    }
}
