//! Hands policies and route snapshots to the workers, and keeps at it until each has them.
//!
//! One task a worker, with what is wanted in a `watch`: a worker that is slow skips what has become
//! old and gets the newest, and never misses the last.

use super::workers::{NoAnswer, Workers};
use crate::netlink::{PortBinding, Update};
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::policy::Policy;
use tidegate_dataplane::route::{PortId, Snapshot};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause after a worker gave no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The policy that all workers should have; the count of such wishes tells them apart, as a revision
/// cannot: it may come back.
#[derive(Clone, Default)]
struct Wanted {
    serial: u64,
    policy: Option<Arc<Policy>>,
}

/// What each worker has in force.
#[derive(Clone)]
pub struct Delivery {
    wanted: Arc<watch::Sender<Wanted>>,
    taken: Vec<watch::Receiver<u64>>,
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
        let (wanted, _) = watch::channel(Wanted { serial: 0, policy });
        let (taken, routes) = (0..workers.count())
            .map(|worker| {
                let (sender, taken) = watch::channel(0);
                tasks.spawn(deliver_policies(workers.clone(), worker, wanted.subscribe(), sender));
                let (sender, routes) = watch::channel(None);
                tasks.spawn(deliver_routes(workers.clone(), worker, updates.clone(), sender));
                (taken, routes)
            })
            .unzip();
        Delivery { wanted: Arc::new(wanted), taken, routes }
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

    /// Has all workers take that policy, or none at all; they drop everything then. Returns the number to
    /// ask [`Delivery::taken`] by.
    pub fn put(&self, policy: Option<Arc<Policy>>) -> u64 {
        let mut serial = 0;
        self.wanted.send_modify(|wanted| {
            wanted.serial += 1;
            wanted.policy = policy;
            serial = wanted.serial;
        });
        serial
    }

    /// Waits until every worker has taken what was put with that number, or something newer: whatever it
    /// processes from then on goes by it, and a live session is judged again before its next packet.
    pub async fn taken(&self, serial: u64) {
        let waits = self.taken.iter().map(|taken| {
            let mut taken = taken.clone();
            async move { drop(taken.wait_for(|s| *s >= serial).await) }
        });
        futures::future::join_all(waits).await;
    }

    /// Workers that have not taken it within that time. They do as soon as they run again.
    pub async fn without(&self, serial: u64, patience: Duration) -> Vec<u16> {
        let waits = self.taken.iter().enumerate().map(|(worker, taken)| {
            let mut taken = taken.clone();
            async move {
                let reached = taken.wait_for(|s| *s >= serial);
                (worker as u16, tokio::time::timeout(patience, reached).await.is_ok_and(|r| r.is_ok()))
            }
        });
        let all = futures::future::join_all(waits).await;
        all.into_iter().filter(|(_, reached)| !reached).map(|(worker, _)| worker).collect()
    }

    /// Waits until every worker knows these ports by these zones.
    pub async fn zones(&self, bindings: &[PortBinding]) {
        let told = |snapshot: &Option<Arc<Snapshot>>| {
            let Some(snapshot) = snapshot else { return false };
            bindings.iter().all(|b| snapshot.port(b.id).is_none_or(|port| port.zone == b.zone))
        };
        let waits = self.routes.iter().map(|routes| {
            let mut routes = routes.clone();
            async move { drop(routes.wait_for(told).await) }
        });
        futures::future::join_all(waits).await;
    }
}

async fn deliver_policies(
    workers: Workers,
    worker: u16,
    mut wanted: watch::Receiver<Wanted>,
    taken: watch::Sender<u64>,
) {
    while wanted.changed().await.is_ok() {
        loop {
            let Wanted { serial, policy } = wanted.borrow_and_update().clone();
            // The policy before comes back, and is freed here when this was its last worker.
            let set = workers.call(worker, move |engine, _| match policy {
                Some(policy) => engine.set_policy(policy),
                None => engine.withdraw_policy(),
            });
            match set.await {
                Ok(_before) => {
                    taken.send_replace(serial);
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
        let serial = delivery.put(Some(policy(7)));
        assert_eq!(delivery.without(serial, Duration::from_secs(3)).await, [2]);
        for worker in [0, 1] {
            let revision = workers.call(worker, |e, _| e.policy().map(|p| p.revision())).await;
            assert_eq!(revision, Ok(Some(7)));
        }
    }

    #[tokio::test]
    async fn an_older_revision_and_none_at_all_are_taken_like_any_other() {
        // Wait for a revision that is not lower, and going back to one counts as done before it is.
        let (_, mirror) = crate::netlink::Mirror::new(Vec::new());
        let workers = Workers::new(Arc::new(Twin::start(2, 1000, &[])));
        let mut tasks = JoinSet::new();
        let delivery = Delivery::start(&workers, None, mirror.updates(), &mut tasks);
        for wanted in [Some(7), Some(3), None, Some(3)] {
            let serial = delivery.put(wanted.map(policy));
            delivery.taken(serial).await;
            let (have, _) = workers.all(|e, _| e.policy().map(|p| p.revision())).await;
            assert_eq!(have, [(0, wanted), (1, wanted)]);
        }
    }
}
