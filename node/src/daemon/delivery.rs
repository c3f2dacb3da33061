//! Hands policies and route snapshots to the workers, and keeps at it until each has them.
//!
//! One task a worker, with what is wanted in a `watch`: a worker that is slow skips what has become
//! old and gets the newest, and never misses the last.

use super::workers::{NoAnswer, Workers};
use crate::netlink::Update;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::policy::Policy;
use tidegate_dataplane::route::{PortId, Snapshot};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause after a worker gave no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What each worker has in force.
#[derive(Clone)]
pub struct Delivery {
    wanted: Arc<watch::Sender<Option<Arc<Policy>>>>,
    in_force: Vec<watch::Receiver<u32>>,
    routes: Vec<watch::Receiver<Option<Arc<Snapshot>>>>,
}

impl Delivery {
    /// Starts the tasks. Workers are taken to have that policy already.
    pub fn start(
        workers: &Workers,
        policy: Option<Arc<Policy>>,
        updates: watch::Receiver<Update>,
        tasks: &mut JoinSet<()>,
    ) -> Delivery {
        let first = policy.as_ref().map_or(0, |p| p.revision());
        let (wanted, _) = watch::channel(policy);
        let (in_force, routes) = (0..workers.count())
            .map(|worker| {
                let (sender, in_force) = watch::channel(first);
                tasks.spawn(deliver_policies(workers.clone(), worker, wanted.subscribe(), sender));
                let (sender, routes) = watch::channel(None);
                tasks.spawn(deliver_routes(workers.clone(), worker, updates.clone(), sender));
                (in_force, routes)
            })
            .unzip();
        Delivery { wanted: Arc::new(wanted), in_force, routes }
    }

    /// Workers that have no route snapshot yet in which all these ports are up: what they get for
    /// one of them, they drop.
    pub fn workers_without(&self, ports: impl Iterator<Item = PortId> + Clone) -> Vec<u16> {
        let lacks = |routes: &watch::Receiver<Option<Arc<Snapshot>>>| {
            let has = |snapshot: &Arc<Snapshot>, id| snapshot.port(id).is_some_and(|port| port.up);
            !routes.borrow().as_ref().is_some_and(|snapshot| ports.clone().all(|id| has(snapshot, id)))
        };
        let all = self.routes.iter().enumerate();
        all.filter(|(_, routes)| lacks(routes)).map(|(worker, _)| worker as u16).collect()
    }

    /// Puts a policy in force on all workers; returns those that have not confirmed it in time. They
    /// take it as soon as they run again.
    pub async fn policy(&self, policy: Arc<Policy>, patience: Duration) -> Vec<u16> {
        let revision = policy.revision();
        self.wanted.send_replace(Some(policy));
        let waits = self.in_force.iter().enumerate().map(|(worker, in_force)| {
            let mut in_force = in_force.clone();
            async move {
                let reached = in_force.wait_for(|r| *r >= revision);
                (worker as u16, tokio::time::timeout(patience, reached).await.is_ok_and(|r| r.is_ok()))
            }
        });
        let all = futures::future::join_all(waits).await;
        all.into_iter().filter(|(_, reached)| !reached).map(|(worker, _)| worker).collect()
    }
}

async fn deliver_policies(
    workers: Workers,
    worker: u16,
    mut wanted: watch::Receiver<Option<Arc<Policy>>>,
    in_force: watch::Sender<u32>,
) {
    while wanted.changed().await.is_ok() {
        loop {
            let Some(policy) = wanted.borrow_and_update().clone() else { break };
            let revision = policy.revision();
            // The policy before comes back, and is freed here when this was its last worker.
            match workers.call(worker, move |engine, _| engine.set_policy(policy)).await {
                Ok(_before) => {
                    in_force.send_replace(revision);
                    break;
                }
                Err(NoAnswer(_)) => retry(worker, "policy").await,
            }
        }
    }
}

async fn deliver_routes(
    workers: Workers,
    worker: u16,
    mut updates: watch::Receiver<Update>,
    in_force: watch::Sender<Option<Arc<Snapshot>>>,
) {
    let mut delivered = None;
    loop {
        let snapshot = updates.borrow_and_update().snapshot.clone();
        let generation = Some(snapshot.generation());
        if delivered == generation {
            if updates.changed().await.is_err() {
                return;
            }
            continue;
        }
        let handed = snapshot.clone();
        match workers.call(worker, move |engine, _| engine.set_routes(handed)).await {
            Ok(()) => {
                delivered = generation;
                in_force.send_replace(Some(snapshot));
            }
            Err(NoAnswer(_)) => retry(worker, "routes").await,
        }
    }
}

async fn retry(worker: u16, what: &'static str) {
    tracing::warn!(worker, what, "a worker did not take what it was handed; trying again");
    tokio::time::sleep(RETRY_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::twin::Twin;
    use tidegate_dataplane::names::Names;

    fn policy(revision: u32) -> Arc<Policy> {
        let report = tidegate_dataplane::policy::check(crate::daemon::twin::POLICY, "p");
        let file = report.file.unwrap_or_else(|| panic!("{:?}", report.errors));
        Arc::new(tidegate_dataplane::policy::compile(&file, revision, &mut Names::default()).unwrap())
    }

    #[tokio::test]
    async fn a_policy_reaches_every_worker_and_a_hung_one_is_named() {
        // Count the send as done without the worker's answer, and the hung worker is not named.
        let (_, mirror) = crate::netlink::Mirror::new(Vec::new());
        let workers = Workers::new(Arc::new(Twin::start(3, 1000, &[2])));
        let mut tasks = JoinSet::new();
        let delivery = Delivery::start(&workers, None, mirror.updates(), &mut tasks);
        assert_eq!(delivery.policy(policy(7), Duration::from_secs(3)).await, [2]);
        for worker in [0, 1] {
            let revision = workers.call(worker, |e, _| e.policy().map(|p| p.revision())).await;
            assert_eq!(revision, Ok(Some(7)));
        }
    }
}
