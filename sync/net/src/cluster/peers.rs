//! The table of the other members: queues towards them, connections from them, and how they are.

use super::counters::{Counting, count};
use super::{PeerHealth, shared::Shared};
use crate::quic::endpoint::Close;
use crate::quic::frame::RAFT_LONGEST;
use quinn::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidegate_sync::cluster::{ClusterState, Member, NodeId};
use tokio::sync::{mpsc, watch};

/// Raft messages that wait for a peer's connection to take them; more are dropped, Raft sends again.
const QUEUE: usize = 1_024;
/// Long messages that wait: batches of entries, up to 1 MiB or one long policy each, while a peer catches up.
/// Of snapshots only one is under way.
const BULK: usize = 16;

/// Another member, as this node dials it.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// Short messages, sent in order on one stream.
    queue: mpsc::Sender<Vec<u8>>,
    /// Long ones, each on a stream of its own.
    bulk: mpsc::Sender<Vec<u8>>,
    /// Where it is reached.
    pub(crate) addresses: watch::Sender<Vec<SocketAddr>>,
    /// The connection that this node dialled.
    pub(crate) connection: watch::Sender<Option<Connection>>,
    pub(crate) note: Mutex<PeerNote>,
    gone: watch::Sender<bool>,
}

/// What is known of the way to a peer.
#[derive(Default)]
pub(crate) struct PeerNote {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) last_error: Option<String>,
    pub(crate) build: Option<String>,
    /// The process that was reached last.
    pub(crate) boot: Option<[u8; 16]>,
}

/// The receiving ends of a peer's queues, for its dialling task.
pub(crate) struct PeerQueues {
    pub(crate) queue: mpsc::Receiver<Vec<u8>>,
    pub(crate) bulk: mpsc::Receiver<Vec<u8>>,
}

impl Peer {
    fn new(id: NodeId, addresses: Vec<SocketAddr>) -> (Arc<Self>, PeerQueues) {
        let (queue, queue_rx) = mpsc::channel(QUEUE);
        let (bulk, bulk_rx) = mpsc::channel(BULK);
        let peer = Peer {
            id,
            queue,
            bulk,
            addresses: watch::Sender::new(addresses),
            connection: watch::Sender::new(None),
            note: Mutex::default(),
            gone: watch::Sender::new(false),
        };
        (Arc::new(peer), PeerQueues { queue: queue_rx, bulk: bulk_rx })
    }

    /// Ends when the peer is no member any more.
    pub(crate) async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    pub(crate) fn note(&self) -> MutexGuard<'_, PeerNote> {
        self.note.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn health(&self, member: &Member, connected_from: bool) -> PeerHealth {
        let connection = self.connection.borrow().clone();
        let note = self.note();
        PeerHealth {
            id: self.id,
            name: member.name.clone(),
            role: member.role,
            connected: connection.is_some(),
            connected_from,
            address: note.address,
            rtt_ms: connection.map(|c| c.rtt().as_secs_f64() * 1e3),
            last_error: note.last_error.clone(),
            build: note.build.clone(),
        }
    }
}

/// A connection that a peer dialled.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) connection: Connection,
    pub(crate) boot: [u8; 16],
}

/// All of them.
#[derive(Default)]
pub(crate) struct Peers {
    dialled: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    inbound: Mutex<BTreeMap<NodeId, Inbound>>,
}

impl Peers {
    fn dialled(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.dialled.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn inbound(&self) -> MutexGuard<'_, BTreeMap<NodeId, Inbound>> {
        self.inbound.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Hands a Raft message to a peer's queue.
    ///
    /// # Errors
    /// It was dropped: not connected, or the queue is full. `true`: it was a long one.
    pub(crate) fn send(&self, to: NodeId, message: Vec<u8>, counting: &Counting) -> Result<(), bool> {
        let long = message.len() > RAFT_LONGEST;
        let Some(peer) = self.dialled().get(&to).cloned() else { return Err(long) };
        if peer.connection.borrow().is_none() {
            return Err(long);
        }
        let queue = if long { &peer.bulk } else { &peer.queue };
        queue.try_send(message).map_err(|_| {
            count(&counting.messages_dropped);
            long
        })
    }

    /// This node's own connection to a peer, or why there is none.
    pub(crate) fn connection(&self, to: NodeId) -> Result<Connection, String> {
        let peer = self.dialled().get(&to).cloned().ok_or_else(|| format!("node {to} is no member"))?;
        let connection = peer.connection.borrow().clone();
        connection.ok_or_else(|| {
            let error = peer.note().last_error.clone();
            error.unwrap_or_else(|| "not connected yet".to_owned())
        })
    }

    /// The same, but waits a while for it to come up.
    pub(crate) async fn connected(&self, to: NodeId, within: Duration) -> Result<Connection, String> {
        let peer = self.dialled().get(&to).cloned();
        if let Some(peer) = peer {
            let mut connection = peer.connection.subscribe();
            let _ = tokio::time::timeout(within, connection.wait_for(Option::is_some)).await;
        }
        self.connection(to)
    }

    pub(crate) fn inbound_of(&self, id: NodeId) -> Option<Inbound> {
        self.inbound().get(&id).cloned()
    }

    /// Takes note of a connection that a peer dialled; the one before it is closed, and this node's own if it
    /// leads to a process that is no more.
    pub(crate) fn arrived(&self, id: NodeId, inbound: Inbound) {
        if let Some(peer) = self.dialled().get(&id)
            && peer.note().boot.is_some_and(|boot| boot != inbound.boot)
            && let Some(connection) = &*peer.connection.borrow()
        {
            connection.close(Close::Replaced.code(), b"another process is there now");
        }
        if let Some(old) = self.inbound().insert(id, inbound) {
            old.connection.close(Close::Replaced.code(), b"a newer connection took its place");
        }
    }

    /// Forgets a connection that ended, unless a newer one took its place.
    pub(crate) fn left(&self, id: NodeId, connection: &Connection) {
        let mut inbound = self.inbound();
        if inbound.get(&id).is_some_and(|i| i.connection.stable_id() == connection.stable_id()) {
            inbound.remove(&id);
        }
    }

    pub(crate) fn close_all(&self, why: Close, text: &str) {
        for peer in self.dialled().values() {
            if let Some(connection) = &*peer.connection.borrow() {
                connection.close(why.code(), text.as_bytes());
            }
        }
        for inbound in self.inbound().values() {
            inbound.connection.close(why.code(), text.as_bytes());
        }
    }

    /// Health of all other members of a state.
    pub(crate) fn health(&self, me: NodeId, state: &ClusterState) -> Vec<PeerHealth> {
        let (dialled, inbound) = (self.dialled(), self.inbound());
        let others = state.members.iter().filter(|(id, _)| **id != me);
        others
            .map(|(id, member)| match dialled.get(id) {
                Some(peer) => peer.health(member, inbound.contains_key(id)),
                None => PeerHealth {
                    id: *id,
                    name: member.name.clone(),
                    role: member.role,
                    connected: false,
                    connected_from: inbound.contains_key(id),
                    address: None,
                    rtt_ms: None,
                    last_error: None,
                    build: None,
                },
            })
            .collect()
    }

    /// Makes the table follow the membership: dials new members, and closes the connections of those that
    /// are none any more at once.
    pub(crate) fn follow(shared: &Arc<Shared>, members: &BTreeMap<NodeId, Member>) {
        let mut new = Vec::new();
        let mut dialled = shared.peers.dialled();
        for (id, member) in members.iter().filter(|(id, _)| **id != shared.id) {
            match dialled.get(id) {
                Some(peer) => {
                    peer.addresses.send_if_modified(|addresses| {
                        let changed = *addresses != member.addresses;
                        if changed {
                            addresses.clone_from(&member.addresses);
                        }
                        changed
                    });
                }
                None => {
                    let (peer, queues) = Peer::new(*id, member.addresses.clone());
                    dialled.insert(*id, peer.clone());
                    new.push((peer, queues));
                }
            }
        }
        let text = b"the node was removed from the cluster";
        dialled.retain(|id, peer| {
            let member = members.contains_key(id);
            if !member {
                if let Some(connection) = &*peer.connection.borrow() {
                    connection.close(Close::Removed.code(), text);
                }
                peer.gone.send_replace(true);
            }
            member
        });
        drop(dialled);
        shared.peers.inbound().retain(|id, inbound| {
            let member = members.contains_key(id);
            if !member {
                inbound.connection.close(Close::Removed.code(), text);
            }
            member
        });
        for (peer, queues) in new {
            shared.spawn(super::dial::keep(shared.clone(), peer, queues));
        }
    }
}
