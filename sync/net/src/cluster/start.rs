//! A member's parts, put together and started.

use super::counters::{Counting, LogGate};
use super::handle::Handle;
use super::lease::LeaseClock;
use super::peers::Peers;
use super::shared::{Shared, unix_ms};
use super::thread::{QUEUE, RaftThread};
use super::tls::{self, Tls};
use super::{Cluster, OpenError, Options, Standing, renew, serve, standing};
use crate::identity::{Directory, Identity};
use crate::quic::endpoint::{self, Endpoints};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};
use tidegate_sync::cluster::ClusterState;
use tidegate_sync::raft::{Replica, ReplicaConfig, Store};
use tokio::sync::watch;
use tokio::time::sleep_until;

/// Log lines on one subject at most so often.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Everything that a start needs.
pub(crate) struct Start<S> {
    pub(crate) directory: Directory,
    pub(crate) identity: Identity,
    pub(crate) store: S,
    /// The members as the node was told when it joined, until its log tells.
    pub(crate) seed: Arc<ClusterState>,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) options: Options,
}

/// Binds all addresses; a port 0 becomes a real one in `addresses`.
pub(crate) fn bind(addresses: &mut [SocketAddr], listen: &[SocketAddr]) -> Result<Vec<UdpSocket>, OpenError> {
    let bind = |address: SocketAddr| {
        let error = |e: std::io::Error| OpenError::Listen { address, message: e.to_string() };
        endpoint::bind(address).map_err(error)
    };
    if !listen.is_empty() {
        return listen.iter().map(|address| Ok(bind(*address)?.0)).collect();
    }
    let mut sockets = Vec::new();
    for address in addresses {
        let (socket, real) = bind(*address)?;
        *address = real;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Starts the member; within a tokio runtime.
pub(crate) fn start<S: Store + Send + 'static>(start: Start<S>) -> Result<Cluster, OpenError> {
    let Start { directory, identity, store, seed, sockets, options } = start;
    let config = ReplicaConfig {
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        ..ReplicaConfig::new(identity.node, rand::random())
    };
    let store_error = |e: &dyn std::fmt::Display| OpenError::Store(e.to_string());
    let mut replica = Replica::open(config, store).map_err(|e| store_error(&e))?;
    // Applies what is known to be committed: the first policy that is published is the last agreed one.
    replica.drive().map_err(|e| store_error(&e))?;
    let state = replica.state().cloned().unwrap_or(seed);
    let standing = standing::read(&directory, identity.node, &state);
    if standing != Standing::Member {
        tracing::error!("{standing}");
    }
    let membership = Arc::new(ArcSwap::from_pointee(tls::membership(&state, &BTreeMap::new())));
    let tls = Tls::load(&directory, &membership)?;
    let (reset_key, ca_sha256) = (tls.reset_key, tls.ca_sha256);
    let server = tls.server.clone();
    let (raft, input) = mpsc::sync_channel(QUEUE);
    let shared = Arc::new(Shared {
        cluster: identity.cluster,
        cluster_name: identity.cluster_name,
        id: identity.node,
        name: identity.node_name,
        role: identity.role,
        // The store's word counts: it is written first when a generation begins.
        generation: state.generation,
        store: identity.store,
        ca_sha256,
        boot: rand::random(),
        addresses: identity.addresses,
        versions: options.versions,
        started: Instant::now(),
        raft,
        halt: AtomicBool::new(standing != Standing::Member),
        status: watch::Sender::new(replica.status()),
        standing: watch::Sender::new(standing),
        in_force: watch::Sender::new(None),
        enforced: watch::Sender::new(None),
        stop: watch::Sender::new(false),
        peers: Peers::default(),
        tls: ArcSwap::from_pointee(tls),
        membership,
        endpoints: OnceLock::new(),
        counting: Counting::default(),
        gate: LogGate::new(LOG_EVERY),
        renewal_error: Mutex::new(None),
        renewing: tokio::sync::Mutex::new(()),
        newer: Mutex::default(),
        exchange: ArcSwapOption::empty(),
        told: tokio::sync::Notify::new(),
        handler: OnceLock::new(),
        state: watch::Sender::new(state),
        directory,
        options,
    });
    let address = shared.addresses.first().copied();
    let listen = |e: std::io::Error| OpenError::Listen {
        address: address.unwrap_or_else(|| (std::net::Ipv4Addr::UNSPECIFIED, 0).into()),
        message: e.to_string(),
    };
    let endpoints = Endpoints::new(sockets, &server, &reset_key).map_err(listen)?;
    let endpoints = shared.endpoints.get_or_init(|| endpoints);
    let mut clock = LeaseClock::default();
    let again = publish(&shared, &mut clock);
    shared.spawn(follow_policy(shared.clone(), clock, again));
    shared.spawn(follow_members(shared.clone()));
    shared.spawn(renew::keep(shared.clone()));
    for listener in endpoints.listeners() {
        shared.spawn(serve::listen(shared.clone(), listener.clone()));
    }
    let thread = RaftThread::spawn(replica, shared.clone(), input)
        .map_err(|e| OpenError::Store(format!("no thread for Raft: {e}")))?;
    let handle = Handle { shared, thread: Mutex::new(Some(thread)) };
    Ok(Cluster { handle: Arc::new(handle) })
}

/// Dials who joined, drops who was removed.
async fn follow_members(shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    loop {
        state.borrow_and_update();
        Peers::follow(&shared, &shared.known_members());
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = shared.told.notified() => {}
        }
    }
}

/// Publishes what is in force: by the log, and by the clock where a lease ends.
async fn follow_policy(shared: Arc<Shared>, mut clock: LeaseClock, mut again: Option<Instant>) {
    let (mut state, mut standing) = (shared.state.subscribe(), shared.standing.subscribe());
    loop {
        let lease_end = async {
            match again {
                Some(end) => sleep_until(end.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = standing.changed() => if changed.is_err() { return },
            () = lease_end => {}
        }
        again = publish(&shared, &mut clock);
    }
}

fn publish(shared: &Shared, clock: &mut LeaseClock) -> Option<Instant> {
    let (found, again) = match shared.takes_part() {
        true => clock.in_force(&shared.state.borrow().policy, Instant::now(), unix_ms()),
        false => (None, None),
    };
    shared.in_force.send_if_modified(|now| {
        let key = |p: &super::InForce| (p.revision, p.fell_back_from, p.confirm_within_ms.is_some());
        if now.as_deref().map(key) == found.as_ref().map(key) {
            return false;
        }
        if let Some(fallen) = found.as_ref().and_then(|p| p.fell_back_from) {
            let back = found.as_ref().map_or(0, |p| p.revision);
            tracing::warn!("policy revision {fallen} was not confirmed in time: back to revision {back}");
        }
        *now = found.map(Arc::new);
        true
    });
    again
}
