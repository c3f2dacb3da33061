//! Replication in the node: from each worker's shard to the peers and back, and who is there.
//!
//! | file | holds |
//! |---|---|
//! | `beside` | what runs in each worker, after its engine: the shard and its ends of the channels |
//! | `links` | links to peers as they come and go, and what comes in by them |
//! | `heart` | the coordinator, on the thread of the heartbeats: what it is told, and what it orders |
//! | `follow` | starts and ends all of it with the node's membership, and hands on members, policy and names |
//! | `report` | what of it is shown |
//!
//! Batches go from a worker straight to its stream of a link; what comes in waits, bounded, in the worker's own
//! channel, and nothing more is read from that stream meanwhile. Acknowledgements leave from the worker that was
//! the last to apply a batch. Everything else (views, links, resyncs) is rare and goes by a channel that is
//! never full.

mod beside;
mod follow;
mod heart;
mod links;
pub(crate) mod report;

pub(in crate::daemon) use follow::follow;

use super::policy::PolicyStore;
use super::workers::Workers;
use arc_swap::ArcSwapOption;
use beside::{Control, Tap};
use heart::ToHeart;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::engine::{PEERS_MAX, Peer, shard_of};
use tidegate_dataplane::session::owner::View;
use tidegate_dataplane::table::TupleHasher;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::coordinator::CoordinatorStatus;
use tidegate_sync::replication::{Doubt, FromNode};
use tidegate_sync_net::replicate::Exchange;

/// What the engines were made with that replication must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Boot number, in the ids of sessions.
    pub(crate) boot: u32,
    /// Key of the hash by which flows belong to workers.
    pub(crate) hash_key: [u64; 2],
    /// Zero of the engines' clock.
    pub(crate) started: Instant,
}

/// What is counted of a peer outside of the shards.
#[derive(Clone, Debug, Default)]
struct Counted {
    /// Names that were learned from it.
    names: u32,
    refused: [u64; Doubt::ALL.len()],
}

/// Replication of one node, from its start on; at rest while the node is in no cluster.
pub(crate) struct Replication {
    origin: Origin,
    workers: Workers,
    policy: Arc<PolicyStore>,
    hasher: TupleHasher,
    /// The ways to the shards, from the first membership on.
    taps: OnceLock<Vec<Tap>>,
    /// Node numbers by place. A place stays with its node for the life of the process.
    places: Mutex<Vec<u16>>,
    links: Mutex<BTreeMap<u16, links::Standing>>,
    counted: Mutex<BTreeMap<u16, Counted>>,
    to_heart: Sender<ToHeart>,
    for_heart: Mutex<Receiver<ToHeart>>,
    view: ArcSwapOption<View>,
    /// The coordinator as it was a moment ago, while there is one.
    status: ArcSwapOption<CoordinatorStatus>,
    /// Links and heartbeats, while the node is a full member.
    exchange: Mutex<Option<Exchange>>,
    /// Whether there should be a coordinator.
    wanted: AtomicBool,
    /// Sessions that this node owns, slots in use, slots: as they were a second ago.
    occupancy: [AtomicU64; 3],
}

impl Replication {
    /// At rest.
    pub(crate) fn new(origin: Origin, workers: Workers, policy: Arc<PolicyStore>) -> Arc<Replication> {
        let (to_heart, for_heart) = mpsc::channel();
        Arc::new(Replication {
            origin,
            workers,
            policy,
            hasher: TupleHasher::new(origin.hash_key),
            taps: OnceLock::new(),
            places: Mutex::default(),
            links: Mutex::default(),
            counted: Mutex::default(),
            to_heart,
            for_heart: Mutex::new(for_heart),
            view: ArcSwapOption::empty(),
            status: ArcSwapOption::empty(),
            exchange: Mutex::default(),
            wanted: AtomicBool::new(false),
            occupancy: Default::default(),
        })
    }

    /// The engines' clock.
    fn now(&self) -> Now {
        Now(self.origin.started.elapsed().as_millis() as u64)
    }

    /// Which worker's shard a flow belongs to.
    fn shard_of(&self, tuple: &Tuple) -> u16 {
        shard_of(self.hasher.hash(&tuple.canonical().0), self.workers.count())
    }

    /// Who is there, as this node believes; `None` while it is in no cluster.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Whether this node is a full member, that is to share its sessions.
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// The place of a node; a new one if it is new. `None`: all are taken.
    fn place(&self, node: u16) -> Option<Peer> {
        let mut places = lock(&self.places);
        let at = places.iter().position(|n| *n == node).unwrap_or(places.len());
        if at >= PEERS_MAX {
            return None;
        }
        if at == places.len() {
            places.push(node);
        }
        Some(Peer(at as u8))
    }

    /// The node at a place.
    fn node_at(&self, peer: Peer) -> Option<u16> {
        lock(&self.places).get(usize::from(peer.0)).copied()
    }

    fn taps(&self) -> &[Tap] {
        self.taps.get().map_or(&[], |taps| taps)
    }

    /// Tells all shards.
    fn broadcast(&self, make: impl Fn() -> FromNode) {
        for tap in self.taps() {
            tap.control(Control::Node(make()));
        }
    }

    /// Hands the names on that this process knows: before a policy that uses them.
    pub(crate) fn tell_names(&self) {
        let names = self.policy.names();
        self.broadcast(|| FromNode::Names(names.clone()));
    }

    /// Everything that this node and a peer own is told anew, both ways.
    pub(crate) fn resync(&self, node: u16) {
        self.tell(ToHeart::Resync(node));
        self.tell(ToHeart::Ask(node));
    }

    /// Tells the coordinator; without one it is of no account.
    fn tell(&self, what: ToHeart) {
        // The receiver is held by this very value.
        let _ = self.to_heart.send(what);
    }
}

/// A lock whose holder panicked is still a lock: what it guards is whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
