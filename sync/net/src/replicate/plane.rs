//! What the tasks of the exchange share, and the table of peers, which follows the membership.

use super::counters::{ExchangeHealth, HeartCounters, PeerCounters, PeerExchange};
use super::greeting::Greeting;
use super::keys::KeyRing;
use super::wiring::{ExchangeConfig, Links};
use crate::cluster::shared::Shared;
use crate::quic::endpoint::Close;
use quinn::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidegate_dataplane::time::Now;
use tidegate_sync::cluster::{Member, NodeId, Role};
use tokio::sync::{Notify, mpsc, watch};

/// Connections of one peer that wait to be paired; a further one is closed, and its peer dials again.
const ARRIVALS: usize = 4;
/// How often the membership is looked at without a sign of a change: a node that was told of comes by no other way.
const LOOK: Duration = Duration::from_secs(1);

/// The exchange of one node, as its tasks see it.
pub(crate) struct Plane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: ExchangeConfig,
    pub(crate) links: Arc<dyn Links>,
    /// Where this node takes heartbeats, as it tells its peers; and the addresses of the sockets.
    pub(crate) told: Vec<SocketAddr>,
    pub(crate) sockets: Vec<SocketAddr>,
    pub(crate) keys: KeyRing,
    pub(crate) heart: HeartCounters,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) stop: watch::Sender<bool>,
    /// Number of the newest link.
    link: AtomicU64,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

/// Another full member.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) node: u16,
    pub(crate) addresses: watch::Sender<Vec<SocketAddr>>,
    pub(crate) counters: Arc<PeerCounters>,
    /// Connections that it dialled.
    pub(crate) arrivals: mpsc::Sender<Side>,
    /// It has just shown that it is there: dial now.
    pub(crate) hurry: Notify,
    pub(crate) note: Mutex<Note>,
    pub(crate) gone: watch::Sender<bool>,
}

/// What is known of the way to a peer.
#[derive(Default)]
pub(crate) struct Note {
    pub(crate) link: Option<u64>,
    pub(crate) out: Option<Connection>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) last_error: Option<String>,
    pub(crate) heartbeats: Vec<SocketAddr>,
}

/// One of the two connections with a peer, after hello and greeting.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) greeting: Greeting,
    /// The process at the other end.
    pub(crate) process: [u8; 16],
}

impl Peer {
    pub(crate) fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Ends when the peer is no full member any more.
    pub(crate) async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    fn health(&self, own: &[SocketAddr], now: Now) -> PeerExchange {
        let note = self.note();
        let it = &*self.counters;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let path = note.out.as_ref().map(|out| out.stats().path);
        PeerExchange {
            node: self.node,
            link: note.link,
            address: note.address,
            last_error: note.last_error.clone(),
            rtt_us: path.map(|p| u64::try_from(p.rtt.as_micros()).unwrap_or(u64::MAX)),
            packets_sent: path.map_or(0, |p| p.sent_packets),
            packets_lost: path.map_or(0, |p| p.lost_packets),
            bytes_sent: get(&it.bytes_sent),
            bytes_received: get(&it.bytes_received),
            batches_sent: get(&it.batches_sent),
            batches_received: get(&it.batches_received),
            backs_sent: get(&it.backs_sent),
            backs_received: get(&it.backs_received),
            swallowed: get(&it.swallowed),
            links: get(&it.links),
            replaced: get(&it.replaced),
            dials_failed: get(&it.dials_failed),
            refused: get(&it.refused),
            heartbeats_sent: get(&it.beats_sent),
            heartbeats_failed: get(&it.beats_failed),
            heartbeats_received: get(&it.beats_received),
            heartbeats_old: get(&it.beats_old),
            heartbeats_forged: get(&it.beats_forged),
            paths: it.path_health(&note.heartbeats, own, now),
        }
    }
}

impl Plane {
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: ExchangeConfig,
        links: Arc<dyn Links>,
        told: Vec<SocketAddr>,
        sockets: Vec<SocketAddr>,
    ) -> Self {
        Plane {
            shared,
            config,
            links,
            told,
            sockets,
            keys: KeyRing::default(),
            heart: HeartCounters::default(),
            connections_refused: AtomicU64::new(0),
            stop: watch::Sender::new(false),
            link: AtomicU64::new(0),
            peers: Mutex::default(),
        }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&id).cloned()
    }

    pub(crate) fn next_link(&self) -> u64 {
        self.link.fetch_add(1, Relaxed) + 1
    }

    /// The node's clock.
    pub(crate) fn now(&self) -> Now {
        Now(u64::try_from(self.config.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// What this node tells of itself.
    pub(crate) fn greeting(&self) -> Greeting {
        Greeting {
            boot: self.config.boot,
            streams: self.config.streams,
            uptime_ms: self.now().0,
            heartbeats: self.told.clone(),
        }
    }

    /// Runs a task until it ends or the exchange stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.shared.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = task => {}
            }
        });
    }

    /// The full members but this node; none while this node takes no part.
    fn full_members(&self) -> BTreeMap<NodeId, Member> {
        let mut members = match self.shared.takes_part() {
            true => self.shared.known_members(),
            false => BTreeMap::new(),
        };
        members.retain(|id, member| {
            *id != self.shared.id && member.role == Role::Node && u16::try_from(id.0).is_ok()
        });
        members
    }

    /// Keeps a task for each full member, and ends those of who is none any more.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (mut state, mut standing) = (self.shared.state.subscribe(), self.shared.standing.subscribe());
        loop {
            state.borrow_and_update();
            standing.borrow_and_update();
            self.follow_once(&self.full_members());
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                changed = standing.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn follow_once(self: &Arc<Self>, members: &BTreeMap<NodeId, Member>) {
        let mut peers = self.peers();
        peers.retain(|id, peer| {
            let member = members.contains_key(id);
            if !member {
                peer.gone.send_replace(true);
            }
            member
        });
        self.keys.retain(|node| members.contains_key(&NodeId(u64::from(node))));
        for (id, member) in members {
            if let Some(peer) = peers.get(id) {
                peer.addresses.send_if_modified(|addresses| {
                    let changed = *addresses != member.addresses;
                    if changed {
                        addresses.clone_from(&member.addresses);
                    }
                    changed
                });
                continue;
            }
            let Ok(node) = u16::try_from(id.0) else { continue };
            let (arrivals, arrived) = mpsc::channel(ARRIVALS);
            let peer = Arc::new(Peer {
                id: *id,
                node,
                addresses: watch::Sender::new(member.addresses.clone()),
                counters: Arc::default(),
                arrivals,
                hurry: Notify::new(),
                note: Mutex::default(),
                gone: watch::Sender::new(false),
            });
            peers.insert(*id, peer.clone());
            self.spawn(super::link::keep(self.clone(), peer, arrived));
        }
    }

    /// One look at everything.
    pub(crate) fn health(&self) -> ExchangeHealth {
        let peers: Vec<Arc<Peer>> = self.peers().values().cloned().collect();
        let now = self.now();
        ExchangeHealth {
            heartbeats: self.told.clone(),
            peers: peers.iter().map(|peer| peer.health(&self.told, now)).collect(),
            heartbeats_malformed: self.heart.malformed.load(Relaxed),
            heartbeats_unknown_key: self.heart.unknown_key.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
        }
    }
}

impl Side {
    pub(crate) fn close(&self, why: Close) {
        self.connection.close(why.code(), b"");
    }
}
