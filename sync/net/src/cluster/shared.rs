//! What all tasks of one member share.

use super::admit;
use super::counters::{Counting, LogGate, count};
use super::peers::Peers;
use super::thread::Input;
use super::tls::{self, Tls};
use super::{Health, InForce, NodeReport, Options, Standing};
use crate::identity::Directory;
use crate::quic::Versions;
use crate::quic::endpoint::Endpoints;
use crate::quic::hello::Hello;
use crate::replicate::Plane;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_sync::cluster::{ClusterId, ClusterState, Member, NodeId, Role, StoreId};
use tidegate_sync::raft::{RaftRole, RaftStatus};
use tokio::sync::watch;

/// One member, as its tasks see it.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) directory: Directory,
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: String,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) generation: u32,
    pub(crate) store: StoreId,
    /// SHA-256 of the CA's certificate (DER).
    pub(crate) ca_sha256: [u8; 32],
    /// Drawn at this start.
    pub(crate) boot: [u8; 16],
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) versions: Versions,
    pub(crate) started: Instant,
    /// To the Raft thread. Bounded: at the bound peers' messages are dropped, and calls answered `Busy`.
    pub(crate) raft: SyncSender<Input>,
    /// The Raft thread ends at its next turn.
    pub(crate) halt: AtomicBool,
    pub(crate) state: watch::Sender<Arc<ClusterState>>,
    pub(crate) status: watch::Sender<RaftStatus>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) in_force: watch::Sender<Option<Arc<InForce>>>,
    pub(crate) enforced: watch::Sender<Option<(u32, [u8; 32])>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) peers: Peers,
    pub(crate) tls: ArcSwap<Tls>,
    pub(crate) membership: Arc<ArcSwap<crate::pki::Membership>>,
    pub(crate) endpoints: OnceLock<Endpoints>,
    pub(crate) counting: Counting,
    pub(crate) gate: LogGate,
    pub(crate) renewal_error: Mutex<Option<String>>,
    /// One renewal at a time.
    pub(crate) renewing: tokio::sync::Mutex<()>,
    /// Members that a full member told of and that this node's own log does not know yet.
    pub(crate) newer: Mutex<BTreeMap<NodeId, Member>>,
    /// Session records and heartbeats, while the node has them run.
    pub(crate) exchange: ArcSwapOption<Plane>,
    /// `newer` has others.
    pub(crate) told: tokio::sync::Notify,
    /// Answers other daemons' requests, once there is one.
    pub(crate) handler: OnceLock<super::NodeHandler>,
}

impl Shared {
    /// The newest applied state.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether it takes part in the cluster at all (a failed store does not end that).
    pub(crate) fn takes_part(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Member | Standing::StoreFailed { .. })
    }

    /// Hands something to the Raft thread; `false`: it is full or gone.
    pub(crate) fn input(&self, input: Input) -> bool {
        match self.raft.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                count(&self.counting.messages_dropped);
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Runs a task until it ends or the member stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = task => {}
            }
        });
    }

    /// How this node says hello.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            cluster: self.cluster,
            node: self.id,
            generation: self.generation,
            store: self.store,
            boot: self.boot,
            build: self.options.build.clone(),
        }
    }

    /// A full member holds the CA key and could do anything, so its word that this node was removed or
    /// fenced is taken. A witness's word is not: it would be a switch for the whole cluster.
    pub(crate) fn is_full_member(&self, node: NodeId) -> bool {
        self.state.borrow().members.get(&node).is_some_and(|m| m.role == Role::Node)
    }

    /// This node is out, for good: its part in Raft ends now.
    pub(crate) fn is_out(&self, standing: Standing) {
        let changed = self.standing.send_if_modified(|now| match now {
            Standing::Removed { .. } | Standing::Fenced { .. } => false,
            _ => {
                *now = standing.clone();
                true
            }
        });
        if changed {
            tracing::error!("{standing}");
            super::standing::keep(&self.directory, &standing);
            self.halt.store(true, Ordering::Release);
            self.peers.close_all(crate::quic::endpoint::Close::Shutdown, "this node is no member any more");
        }
    }

    /// From now on handshakes are judged by this state's membership.
    pub(crate) fn follow_membership(&self, state: &ClusterState) {
        let mut newer = self.newer();
        newer.retain(|id, _| !state.members.contains_key(id) && !state.removed.contains_key(id));
        let now = tls::membership(state, &newer);
        drop(newer);
        if **self.membership.load() != now {
            self.membership.store(Arc::new(now));
        }
    }

    fn newer(&self) -> MutexGuard<'_, BTreeMap<NodeId, Member>> {
        self.newer.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes note of members that a peer knows and this node does not: it was away while they joined.
    pub(crate) fn told_members(&self, from: NodeId, members: BTreeMap<NodeId, Member>) {
        /// So many may have joined meanwhile.
        const MOST: usize = 64;
        if !self.is_full_member(from) {
            return;
        }
        let state = self.state();
        let mut newer = self.newer();
        let before = newer.len();
        for (id, member) in members {
            let known = state.members.contains_key(&id) || state.removed.contains_key(&id) || id == self.id;
            let usable = admit::check_name(&member.name).and(admit::check_addresses(&member.addresses));
            if !known && usable.is_ok() && newer.len() < MOST {
                newer.entry(id).or_insert(member);
            }
        }
        let changed = newer.len() != before;
        drop(newer);
        if changed {
            self.follow_membership(&state);
            self.told.notify_one();
        }
    }

    /// The members that this node's log names, and those that it was told of.
    pub(crate) fn known_members(&self) -> BTreeMap<NodeId, Member> {
        let mut members = self.state().members.clone();
        for (id, member) in self.newer().iter() {
            members.entry(*id).or_insert_with(|| member.clone());
        }
        members
    }

    /// Whom a joining node asks: full members, this one first.
    pub(crate) fn join_addresses(&self) -> Vec<SocketAddr> {
        /// So many fit into a token that can still be copied by hand.
        const MOST: usize = 8;
        let state = self.state.borrow();
        let full = |(id, m): &(&NodeId, &Member)| m.role == Role::Node && **id != self.id;
        let others = state.members.iter().filter(full).flat_map(|(_, m)| &m.addresses);
        let own = self.addresses.iter().filter(|_| self.role == Role::Node);
        own.chain(others).copied().take(MOST).collect()
    }

    pub(crate) fn health(&self) -> Health {
        let (state, status) = (self.state(), self.status.borrow().clone());
        Health {
            cluster: self.cluster,
            cluster_name: self.cluster_name.clone(),
            node: self.id,
            node_name: self.name.clone(),
            role: self.role,
            generation: self.generation,
            standing: self.standing(),
            raft: status.role,
            leader: status.leader,
            term: status.term,
            quorum: status.has_quorum,
            commit: status.commit,
            applied: status.applied,
            peers: self.peers.health(self.id, &state),
            certificate_not_after_unix_s: self.tls.load().not_after_unix_s,
            renewal_error: self.renewal_error.lock().unwrap_or_else(|e| e.into_inner()).clone(),
            counters: self.counting.read(),
        }
    }

    /// The Raft thread has ended: this node decides nothing any more until it is started again.
    pub(crate) fn store_failed(&self, message: String) {
        tracing::error!("{message}");
        self.standing.send_if_modified(|now| {
            let member = *now == Standing::Member;
            if member {
                *now = Standing::StoreFailed { message };
            }
            member
        });
    }

    /// The Raft thread has ended: it knows of no leader any more.
    pub(crate) fn no_part(&self) {
        self.status.send_modify(|status| {
            (status.leader, status.has_quorum) = (None, false);
            status.peers.clear();
            if status.role == RaftRole::Leader {
                status.role = RaftRole::Follower;
            }
        });
    }

    /// What this node says of itself.
    pub(crate) fn report(&self) -> NodeReport {
        let state = self.state();
        NodeReport {
            build: self.options.build.clone(),
            enforced: *self.enforced.borrow(),
            certificate_not_after_unix_s: self.tls.load().not_after_unix_s,
            applied: state.applied,
            state_sha256: state.digest(),
            uptime_s: self.started.elapsed().as_secs(),
        }
    }

    /// Whether to log a line about `subject` now; adds how many were held back.
    pub(crate) fn may_log(&self, subject: &str) -> Option<String> {
        let held = self.gate.pass(subject, Instant::now())?;
        Some(if held == 0 { String::new() } else { format!(" ({held} more like this were not logged)") })
    }
}

/// Unix time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
