//! The coordinator, on the thread of the heartbeats: what it is told, and what it orders.

use super::{Replication, lock};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::coordinator::{AskWhy, Coordinator, Event, Order};
use tidegate_sync::replication::detect::DetectConfig;
use tidegate_sync::replication::heartbeat::Heartbeat;
use tidegate_sync::replication::{Back, FromNode, News, ResyncWhy};
use tidegate_sync_net::replicate::Heart;

/// A worker whose loop stands still for so many detection times hangs, and so does the node; never less than this
/// many milliseconds, because a command may take some.
const HANG_DETECTIONS: u64 = 2;
const HANG_MS_MIN: u64 = 200;
/// How old what is shown of the coordinator may be, in milliseconds.
const SHOW_MS: u64 = 50;

/// What the coordinator is told.
pub(super) enum ToHeart {
    /// A worker's shard has news.
    News(u16, News),
    /// A link is up.
    Up(Boot, u64),
    /// A link is down.
    Down(u16, u64),
    /// A peer has (no) room for what this node owns.
    PeerRoom(u16, bool),
    /// A peer, or an operator, wants it to be sent everything.
    Resync(u16),
    /// An operator wants a peer to send everything.
    Ask(u16),
    /// The full members.
    Members(Vec<u16>),
    /// Another policy is in force.
    Detect(DetectConfig),
}

/// One worker's loop, as seen from here.
#[derive(Clone, Copy, Default)]
struct Beat {
    count: u64,
    since: Now,
}

/// The coordinator and what it needs.
pub(super) struct Core {
    replication: Arc<Replication>,
    coordinator: Coordinator,
    beats: Vec<Beat>,
    /// What could not be said to a peer yet.
    unsaid: Vec<(u16, Back)>,
    shown: Option<Now>,
}

impl Core {
    pub(super) fn new(replication: Arc<Replication>, coordinator: Coordinator, now: Now) -> Core {
        let beats = vec![Beat { count: 0, since: now }; usize::from(replication.workers.count())];
        let mut core = Core { replication, coordinator, beats, unsaid: Vec::new(), shown: None };
        core.obey(now);
        core
    }

    fn take(&mut self, what: ToHeart, now: Now) {
        let c = &mut self.coordinator;
        match what {
            ToHeart::Up(it, link) => c.link_up(it, link, now),
            ToHeart::Down(node, link) => c.link_down(node, link, now),
            ToHeart::PeerRoom(node, room) => c.peer_room(node, room),
            ToHeart::Resync(node) => c.peer_wants(node, now),
            ToHeart::Ask(node) => self.unsaid.push((node, Back::Wants { why: ResyncWhy::Operator })),
            ToHeart::Members(nodes) => c.set_members(&nodes, now),
            ToHeart::Detect(detect) => c.configure(detect, now),
            ToHeart::News(shard, news) => self.news(shard, news, now),
        }
    }

    fn news(&mut self, shard: u16, news: News, now: Now) {
        let c = &mut self.coordinator;
        let node = |peer| self.replication.node_at(peer);
        match news {
            News::ResyncApplied { peer, link, number, .. } => {
                if let Some(node) = node(peer) {
                    c.resync_applied(shard, node, link, number, now);
                }
            }
            News::WantsResync { peer, why, since, .. } => match node(peer) {
                Some(node) if why.asks_peer() => self.unsaid.push((node, Back::Wants { why })),
                Some(node) => c.resync_to(node, since, now),
                None => {}
            },
            News::NoRoom { peer, .. } | News::Room { peer, .. } => {
                let has_room = matches!(news, News::Room { .. });
                if let Some(node) = node(peer) {
                    c.room(shard, node, has_room, now);
                    self.unsaid.push((node, if has_room { Back::Room } else { Back::NoRoom }));
                }
            }
            News::Paused { ms } => {
                tracing::warn!(
                    worker = shard,
                    ms,
                    "a worker was stopped: nothing ages until what was missed has come"
                );
                c.worker_paused(now);
            }
            // Said by acknowledgements, and shown from the shards.
            News::ResyncSent { .. } | News::Applied { .. } => {}
        }
    }

    /// Whether all workers' loops turn.
    fn workers_turn(&mut self, now: Now) -> bool {
        let detection = u64::from(self.coordinator.view().detection_ms);
        let hang_ms = (HANG_DETECTIONS * detection).max(HANG_MS_MIN);
        let counts = self.replication.workers.heartbeats();
        self.beats.iter_mut().zip(counts).fold(true, |all, (beat, count)| {
            if count != beat.count {
                *beat = Beat { count, since: now };
            }
            all && now.since(beat.since) < hang_ms
        })
    }

    /// Does what the coordinator wants.
    fn obey(&mut self, now: Now) {
        let replication = self.replication.clone();
        let mut ordered = false;
        while let Some(order) = self.coordinator.poll_order() {
            ordered = true;
            match order {
                Order::View(view) => {
                    replication.view.store(Some(view.clone()));
                    replication.broadcast(|| FromNode::View(view.clone()));
                }
                Order::Died { it } => {
                    if let Some(peer) = replication.place(it.node) {
                        replication.broadcast(|| FromNode::Died { peer, it });
                    }
                }
                Order::Resync { node, number } => {
                    if let Some(peer) = replication.place(node) {
                        replication.broadcast(|| FromNode::Resync { peer, number });
                    }
                }
                Order::AskResync { node, why } => {
                    let why = match why {
                        AskWhy::Paused => ResyncWhy::Paused,
                        AskWhy::CutOff => ResyncWhy::CutOff,
                    };
                    self.unsaid.push((node, Back::Wants { why }));
                }
                Order::Resume => replication.broadcast(|| FromNode::Resume),
                Order::Event(event) => log(event),
            }
        }
        self.say_back();
        if ordered || self.shown.is_none_or(|at| now.since(at) >= SHOW_MS) {
            self.shown = Some(now);
            replication.status.store(Some(Arc::new(self.coordinator.status(now))));
        }
    }

    /// Says to peers what could not be said before; to one without a link it need not be.
    fn say_back(&mut self) {
        if self.unsaid.is_empty() {
            return;
        }
        let links = lock(&self.replication.links);
        self.unsaid
            .retain(|(node, back)| links.get(node).is_some_and(|link| link.back.send(back.frame()).is_err()));
    }
}

fn log(event: Event) {
    match event {
        Event::Down { .. } | Event::CutOff | Event::Paused { .. } => tracing::warn!("{event}"),
        Event::Alive { .. } | Event::InSync => tracing::info!("{event}"),
    }
}

impl Heart for Core {
    fn heard(&mut self, it: &Heartbeat, now: Now) {
        self.coordinator.heard(it, now);
        self.obey(now);
    }

    fn tick(&mut self, now: Now) {
        loop {
            let next = lock(&self.replication.for_heart).try_recv();
            match next {
                Ok(what) => self.take(what, now),
                Err(_) => break,
            }
        }
        let turn = self.workers_turn(now);
        let number = |i: usize| self.replication.occupancy[i].load(Ordering::Relaxed) as u32;
        self.coordinator.set_local(turn, number(0), number(1), number(2));
        self.coordinator.tick(now);
        self.obey(now);
    }

    fn say(&mut self, into: &mut Heartbeat, now: Now) {
        self.coordinator.say(into, now);
    }

    fn interval_ms(&self) -> u32 {
        self.coordinator.interval_ms()
    }
}
