//! Starts and ends replication with the node's membership, and hands on members, policy and names.

use super::beside::pair;
use super::heart::{Core, ToHeart};
use super::links::Door;
use super::{Replication, lock};
use crate::daemon::cluster::Agreement;
use crate::daemon::node::Node;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_dataplane::engine::ReplicationConfig;
use tidegate_dataplane::session::owner::{Boot, View};
use tidegate_sync::cluster::Role;
use tidegate_sync::replication::coordinator::{Coordinator, CoordinatorConfig};
use tidegate_sync::replication::detect::DetectConfig;
use tidegate_sync_net::cluster::Standing;
use tidegate_sync_net::replicate::{Exchange, ExchangeConfig, Wiring};

/// How often the table's use is looked at for the heartbeats, and a start that failed is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// A worker may have to set up and clear much memory.
const ENABLE_MAX: Duration = Duration::from_secs(60);

/// Follows whatever cluster the node is in. Never ends.
pub(in crate::daemon) async fn follow(node: Arc<Node>) {
    if node.is_witness() {
        return std::future::pending().await;
    }
    let mut seats = node.seat.watch();
    loop {
        let cluster = seats.borrow_and_update().clone();
        let Some(cluster) = cluster else {
            if seats.changed().await.is_err() {
                return;
            }
            continue;
        };
        let ended = tokio::select! {
            () = member(&node, cluster) => true,
            changed = seats.changed() => {
                drop(changed);
                false
            }
        };
        node.replication.rest().await;
        if ended {
            // Removed, or fenced: until it has another seat.
            drop(seats.changed().await);
        }
    }
}

/// One membership, until it ends.
async fn member(node: &Arc<Node>, cluster: Arc<dyn Agreement>) {
    let Ok(number) = u16::try_from(cluster.id().0) else {
        tracing::error!("a node numbered above 65535 does not replicate sessions");
        return std::future::pending().await;
    };
    let replication = &node.replication;
    replication.wanted.store(true, Ordering::Relaxed);
    while let Err(why) = replication.enable().await {
        tracing::error!("sessions are not replicated: {why}");
        tokio::time::sleep(LOOK).await;
    }
    let me = Boot { node: number, boot: replication.origin.boot };
    let mut standing = cluster.standing();
    let taking_part = |s: &Standing| matches!(s, Standing::Member | Standing::StoreFailed { .. });
    if standing.wait_for(taking_part).await.is_err() {
        return;
    }
    replication.clear_heart();
    replication.tell(ToHeart::Members(full_members(&*cluster)));
    replication.tell(ToHeart::Detect(detect(node)));
    let exchange = loop {
        match replication.start(me, &*cluster) {
            Ok(exchange) => break exchange,
            Err(why) => tracing::error!("sessions are not replicated: {why}"),
        }
        tokio::time::sleep(LOOK).await;
    };
    if exchange.is_none() {
        replication.rest().await;
        return std::future::pending().await;
    }
    tracing::info!(node = number, boot = me.boot, "sessions are replicated");
    *lock(&replication.exchange) = exchange;
    let mut state = cluster.state();
    let mut look = tokio::time::interval(LOOK);
    let mut told = Vec::new();
    let mut settings = None;
    loop {
        let members = full_members(&*cluster);
        if told != members {
            told.clone_from(&members);
            replication.tell(ToHeart::Members(members));
        }
        let now = detect(node);
        if settings.replace(now) != Some(now) {
            replication.tell(ToHeart::Detect(now));
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = standing.changed() => {
                if changed.is_err() || !taking_part(&standing.borrow()) {
                    return;
                }
            }
            _ = look.tick() => replication.look().await,
        }
    }
}

fn full_members(cluster: &dyn Agreement) -> Vec<u16> {
    let state = cluster.state().borrow().clone();
    let full = state.members.iter().filter(|(_, m)| m.role == Role::Node);
    full.filter_map(|(id, _)| u16::try_from(id.0).ok()).collect()
}

/// When silence is death, by the policy in force.
fn detect(node: &Node) -> DetectConfig {
    node.policy.current().map_or_else(DetectConfig::default, |in_force| {
        let settings = in_force.policy.replication();
        DetectConfig { interval_ms: settings.heartbeat_interval_ms, misses: settings.heartbeat_misses }
    })
}

impl Replication {
    /// Gives every worker its shard, once.
    async fn enable(&self) -> Result<(), String> {
        if self.taps.get().is_some() {
            return Ok(());
        }
        let mut taps = Vec::new();
        for worker in 0..self.workers.count() {
            let (beside, tap) = pair(worker, &self.workers, self.to_heart.clone());
            let beside = Arc::new(Mutex::new(Some(beside)));
            let enable = move |tandem: &mut crate::daemon::tandem::Tandem, _| {
                tandem.engine.enable_replication(ReplicationConfig::default()).map_err(|e| e.to_string())?;
                if let Some(beside) = beside.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    tandem.replica = Some(Box::new(beside));
                }
                Ok::<_, String>(())
            };
            let enabled = self.workers.call_tandem(ENABLE_MAX, worker, enable).await;
            enabled.map_err(|e| e.to_string())??;
            taps.push(tap);
        }
        if self.taps.set(taps).is_ok() {
            self.tell_names();
        }
        Ok(())
    }

    /// What was meant for a coordinator that is no more.
    fn clear_heart(&self) {
        let inbox = lock(&self.for_heart);
        while inbox.try_recv().is_ok() {}
    }

    fn start(self: &Arc<Self>, me: Boot, cluster: &dyn Agreement) -> Result<Option<Exchange>, String> {
        let shards = self.workers.count();
        let config = CoordinatorConfig { detect: DetectConfig::default(), shards };
        let now = self.now();
        self.view.store(Some(Arc::new(View::new(me, [], [], config.detect.detection_ms()))));
        let core = Core::new(self.clone(), Coordinator::new(me, config, now), now);
        let exchange = ExchangeConfig {
            boot: me.boot,
            streams: shards,
            started: self.origin.started,
            thread: "heartbeat".to_owned(),
        };
        let wiring = Wiring { links: Arc::new(Door(self.clone())), heart: Box::new(core) };
        cluster.replicate(exchange, wiring)
    }

    /// The table's use, for the heartbeats.
    async fn look(&self) {
        let (numbers, _) = self.workers.all(|engine, _| engine.summary()).await;
        let sum =
            |of: fn(&tidegate_dataplane::engine::Summary) -> u64| numbers.iter().map(|(_, s)| of(s)).sum();
        let (used, capacity): (u64, u64) = (sum(|s| s.in_use), sum(|s| s.maximum));
        for (number, place) in [used, used, capacity].into_iter().zip(&self.occupancy) {
            place.store(number, Ordering::Relaxed);
        }
    }

    /// No cluster any more: this node has nobody to share sessions with.
    async fn rest(&self) {
        self.stop().await;
        self.wanted.store(false, Ordering::Relaxed);
        self.status.store(None);
        if let Some(view) = self.view.swap(None) {
            let alone = Arc::new(View::alone(view.me));
            self.broadcast(|| tidegate_sync::replication::FromNode::View(alone.clone()));
            self.broadcast(|| tidegate_sync::replication::FromNode::Resume);
        }
        lock(&self.links).clear();
        *lock(&self.counted) = BTreeMap::new();
    }

    /// Says farewell to the peers, which take over at once.
    pub(in crate::daemon) async fn stop(&self) {
        let exchange = lock(&self.exchange).take();
        if let Some(exchange) = exchange {
            exchange.stop().await;
        }
    }
}
