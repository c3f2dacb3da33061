//! What a node believes about the others, and what follows: its view, whether it is in sync itself, whose sessions are
//! told on after a death, who is to send everything again.
//!
//! A state machine without I/O: what happens comes in by calls with `now`, what is to be done comes out of
//! [`Coordinator::poll_order`]. Call it after each batch of calls, and [`Coordinator::tick`] several times in each
//! heartbeat interval: also a pause of the whole process is noticed by the gap between calls.
//!
//! **In sync** is a node's own word, the same to everybody, so that views agree. It says so
//! - at once, when it is the only full member;
//! - when every living node in sync has finished a resync to it in its present boot;
//! - when no living node is in sync, after patience: unreachable members may come yet;
//!
//! and no longer
//! - after a pause of its own, until every living node in sync has heard it without interruption, or sent all again;
//! - when it was cut off with fewer nodes in sync than are on the other side, and its links broke meanwhile;
//! - while its table has no room for what others own.
//!
//! A broken link alone changes nothing while heartbeats go on: nobody is dead, and nothing is gained by a node less.

mod links;
mod order;
mod standing;
mod status;
#[cfg(test)]
mod tests;

pub use order::{AskWhy, Event, Order};
pub use standing::{Standing, Waiting};
pub use status::{CoordinatorStatus, PeerReport};

use super::detect::{DetectConfig, Detector, Life};
use super::heartbeat::Heartbeat;
use arrayvec::ArrayVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tidegate_dataplane::session::owner::{Boot, NODES_MAX, View};
use tidegate_dataplane::time::Now;

/// Orders that wait to be taken; a caller that never takes them loses the oldest. Views and deaths in such a number do
/// not happen between two polls.
const ORDERS_MAX: usize = 1_024;
/// A resync to a peer is started at most so often, in ms.
const RESYNC_PAUSE_MS: u64 = 1_000;
/// A peer's wish may be so much older than its arrival, in ms.
const WISH_MS: u64 = 300;
/// So long a resync waits until the peer's view is this node's, in ms: by different views nothing can be swept, and all
/// of it would be sent again.
const VIEWS_MS: u64 = 1_000;

/// What a coordinator goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoordinatorConfig {
    /// When silence is death.
    pub detect: DetectConfig,
    /// Number of own shards (workers): each has to apply a resync.
    pub shards: u16,
}

/// What is known of a full member besides its heartbeats.
#[derive(Clone, Default, Debug)]
struct Member {
    /// The boot and number of the link that is up.
    link: Option<(u32, u64)>,
    /// The boot that has sent everything that it owns, and has been heard of since.
    caught_up: Option<u32>,
    /// The link by which it did.
    by_link: u64,
    /// A resync of it that some shards have applied: its link and number, and these shards.
    applying: Option<(u64, u64, BTreeSet<u16>)>,
    /// When it was asked for a resync.
    asked: Option<Now>,
    /// When a resync to it was started; and whether another one is wanted.
    started: Option<Now>,
    wanted: Option<Now>,
    /// It said that it has no room for what this node owns.
    is_full: bool,
    /// Shards here that have no room for what it owns.
    no_room: BTreeSet<u16>,
}

/// One node's beliefs.
#[derive(Debug)]
pub struct Coordinator {
    me: Boot,
    shards: u16,
    detector: Detector,
    /// All full members but this one, once this one is known to be a member.
    members: BTreeMap<u16, Member>,
    /// Nodes that have a link and are no full members as far as this one knows: it may hear of that later.
    strangers: BTreeMap<u16, Member>,
    is_member: bool,
    standing: Standing,
    workers_ok: bool,
    occupancy: (u32, u32, u32),
    /// When anything was called last.
    last: Now,
    pauses: u64,
    alive: ArrayVec<Life, NODES_MAX>,
    view: Arc<View>,
    /// What the view was made of.
    basis: Option<(ArrayVec<Life, NODES_MAX>, bool, u32)>,
    resyncs: u64,
    orders: VecDeque<Order>,
}

impl Coordinator {
    /// Knows nobody, and is not in sync. The first order is its view.
    pub fn new(me: Boot, config: CoordinatorConfig, now: Now) -> Self {
        let view = Arc::new(View::new(me, [], [], config.detect.detection_ms()));
        Coordinator {
            me,
            shards: config.shards.max(1),
            detector: Detector::new(me, config.detect),
            members: BTreeMap::new(),
            strangers: BTreeMap::new(),
            is_member: false,
            standing: Standing::Waiting { since: now, why: Waiting::Start },
            workers_ok: true,
            occupancy: (0, 0, 0),
            last: now,
            pauses: 0,
            alive: ArrayVec::new(),
            orders: VecDeque::from([Order::View(view.clone())]),
            view,
            basis: None,
            resyncs: 0,
        }
    }

    /// Another interval or number of misses: a new policy.
    pub fn configure(&mut self, detect: DetectConfig, now: Now) {
        self.pass(now);
        self.detector.configure(detect);
        self.judge(now);
    }

    /// The full members of the cluster, this node included if it is one.
    pub fn set_members(&mut self, nodes: &[u16], now: Now) {
        self.pass(now);
        self.is_member = nodes.contains(&self.me.node);
        let others = |node: &u16| nodes.contains(node) && *node != self.me.node;
        self.members.retain(|node, _| others(node));
        let Coordinator { detector, members, strangers, .. } = self;
        detector.retain(|node| members.contains_key(&node));
        for node in nodes.iter().copied().filter(others) {
            let stranger = strangers.remove(&node);
            // Only of who comes now: of a member, heartbeats may know a newer boot than its link does.
            if let Some((boot, _)) = stranger.as_ref().and_then(|s| s.link) {
                detector.is_present(Boot { node, boot });
            }
            members.entry(node).or_insert_with(|| stranger.unwrap_or_default());
        }
        self.judge(now);
    }

    /// A heartbeat came; its seal is right, and it is newer than all of that boot before it.
    pub fn heard(&mut self, it: &Heartbeat, now: Now) {
        self.pass(now);
        if self.members.contains_key(&it.from.node) {
            let known = self.detector.of(it.from.node, now).map(|(boot, ..)| boot);
            self.detector.heard(it, now);
            self.note_heartbeat(it, known);
            self.judge(now);
        }
    }

    /// One of this node's shards has applied a whole resync of that peer.
    pub fn resync_applied(&mut self, shard: u16, node: u16, link: u64, number: u64, now: Now) {
        self.pass(now);
        let shards = usize::from(self.shards);
        let in_range = shard < self.shards;
        let Some(member) = self.linked(node) else { return };
        let Some((boot, up)) = member.link.filter(|_| in_range) else { return };
        if up != link {
            return;
        }
        let same = member.applying.as_ref().is_some_and(|(l, n, _)| (*l, *n) == (link, number));
        let newer = member.applying.as_ref().is_none_or(|(_, n, _)| number > *n);
        if !same && newer {
            member.applying = Some((link, number, BTreeSet::new()));
        }
        if let Some((_, _, applied)) = member.applying.as_mut().filter(|_| same || newer) {
            applied.insert(shard);
            if applied.len() == shards {
                (member.caught_up, member.by_link) = (Some(boot), link);
                (member.applying, member.asked) = (None, None);
            }
        }
        self.judge(now);
    }

    /// A shard has (no) room for what that peer owns.
    pub fn room(&mut self, shard: u16, node: u16, room: bool, now: Now) {
        self.pass(now);
        let in_range = shard < self.shards;
        if let Some(member) = self.linked(node).filter(|_| in_range) {
            match room {
                true => member.no_room.remove(&shard),
                false => member.no_room.insert(shard),
            };
        }
        self.judge(now);
    }

    /// That peer says that it has (no) room for what this node owns.
    pub fn peer_room(&mut self, node: u16, room: bool) {
        if let Some(member) = self.linked(node) {
            member.is_full = !room;
        }
    }

    /// A peer, or an operator, wants this node to send everything that it owns.
    pub fn peer_wants(&mut self, node: u16, now: Now) {
        self.resync_to(node, Now(now.0.saturating_sub(WISH_MS)), now);
    }

    /// A shard here knows since then that a peer lacks something. What was started later, and just now, will bring it;
    /// if it does not, the shard says so again.
    pub fn resync_to(&mut self, node: u16, since: Now, now: Now) {
        self.pass(now);
        if let Some(member) = self.linked(node)
            && member.started.is_none_or(|at| at <= since || now.since(at) >= RESYNC_PAUSE_MS)
        {
            member.wanted.get_or_insert(now);
        }
        self.judge(now);
    }

    /// A worker was stopped for longer than a detection time, though this thread was not.
    pub fn worker_paused(&mut self, now: Now) {
        self.pass(now);
        self.paused(0, now);
        self.judge(now);
    }

    /// Whether all workers run; and the table: sessions that this node owns, slots in use, slots.
    pub fn set_local(&mut self, workers_ok: bool, owned: u32, used: u32, capacity: u32) {
        let used = used.min(capacity);
        self.occupancy = (owned.min(used), used, capacity);
        self.workers_ok = workers_ok;
    }

    /// Time passes.
    pub fn tick(&mut self, now: Now) {
        self.pass(now);
        self.judge(now);
    }

    /// The next thing to do.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// What this node says of itself now.
    pub fn say(&self, into: &mut Heartbeat, now: Now) {
        into.from = self.me;
        into.in_sync = self.is_in_sync();
        into.workers_ok = self.workers_ok;
        (into.owned, into.used, into.capacity) = self.occupancy;
        into.view = self.view.digest();
        into.heard = self.detector.hearing(now);
    }

    /// Whether this node holds all that it needs, also to take over.
    pub fn is_in_sync(&self) -> bool {
        self.standing == Standing::InSync && self.workers_ok && !self.lacks_room()
    }

    /// Whether there is no room here for what a living peer owns. What a dead one owned is owned by others now.
    fn lacks_room(&self) -> bool {
        let lacks = |life: &Life| self.members.get(&life.it.node).is_some_and(|m| !m.no_room.is_empty());
        self.alive.iter().any(lacks)
    }

    /// What it believes.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The interval between heartbeats, in ms.
    pub fn interval_ms(&self) -> u32 {
        self.detector.config().interval_ms
    }

    /// Notices a pause of the whole process, before anything else of that moment is believed.
    fn pass(&mut self, now: Now) {
        let gap = now.since(self.last);
        self.last = self.last.max(now);
        if gap > u64::from(self.detector.config().detection_ms()) {
            self.order(Order::Event(Event::Paused { ms: gap }));
            self.paused(gap, now);
        }
    }

    fn order(&mut self, order: Order) {
        if self.orders.len() == ORDERS_MAX {
            self.orders.pop_front();
        }
        self.orders.push_back(order);
    }

    /// Draws all conclusions from what is known now.
    fn judge(&mut self, now: Now) {
        self.detector.tick(now);
        let mut alive = self.detector.alive(now);
        alive.retain(|life| self.members.contains_key(&life.it.node));
        let before = std::mem::replace(&mut self.alive, alive);
        self.note_returned(&before, now);
        self.stand(now);
        let (dead, born) = (without(&before, &self.alive), without(&self.alive, &before));
        for life in &dead {
            self.order(Order::Event(Event::Down { it: life.it }));
        }
        for life in &born {
            self.order(Order::Event(Event::Alive { it: life.it }));
        }
        self.see();
        // After the view without them: what they told is this node's to tell now.
        for life in &dead {
            self.order(Order::Died { it: life.it });
        }
        self.start_resyncs(now);
    }

    /// Publishes the view if it is another one.
    fn see(&mut self) {
        let basis = (self.alive.clone(), self.is_in_sync(), self.detector.config().detection_ms());
        if self.basis.as_ref() == Some(&basis) {
            return;
        }
        self.basis = Some(basis);
        let in_sync = self.alive.iter().filter(|l| l.in_sync).map(|l| l.it);
        let me = self.is_in_sync().then_some(self.me);
        let detection_ms = self.detector.config().detection_ms();
        let alive = self.alive.iter().map(|l| l.it);
        let view = View::new(self.me, alive, in_sync.chain(me), detection_ms);
        if view != *self.view {
            self.view = Arc::new(view);
            self.order(Order::View(self.view.clone()));
        }
    }

    /// Starts the resyncs that somebody wants, one a peer at a time and not too often.
    fn start_resyncs(&mut self, now: Now) {
        let digest = self.view.digest();
        let agrees = |node: u16| self.detector.word(node).is_some_and(|word| word.view == digest);
        let due = |(node, m): &(&u16, &Member)| {
            let rested = m.started.is_none_or(|at| now.since(at) >= RESYNC_PAUSE_MS);
            let wanted = m.wanted.is_some_and(|at| agrees(**node) || now.since(at) >= VIEWS_MS);
            m.link.is_some() && rested && wanted
        };
        let due: ArrayVec<u16, NODES_MAX> =
            self.members.iter().filter(due).map(|(node, _)| *node).take(NODES_MAX).collect();
        for node in due {
            self.resyncs += 1;
            if let Some(member) = self.members.get_mut(&node) {
                (member.wanted, member.started) = (None, Some(now));
            }
            self.order(Order::Resync { node, number: self.resyncs });
        }
    }
}

/// Who is in one list and not in the other.
fn without(these: &[Life], those: &[Life]) -> ArrayVec<Life, NODES_MAX> {
    these.iter().filter(|a| those.iter().all(|b| a.it != b.it)).copied().take(NODES_MAX).collect()
}
