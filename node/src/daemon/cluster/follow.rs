//! From what was agreed to what every engine does.
//!
//! One task. It compiles the policy that the member is to enforce, hands it to the workers, and says that
//! it is enforced only once each worker has answered that it has it: a worker takes a policy between two
//! batches, and judges each live session again before the session's next packet. Agreements that come
//! faster than that are left out; the newest always comes next.

use super::seat::Key;
use super::{Agreement, Seat};
use crate::daemon::node::Node;
use crate::daemon::policy::LoadError;
use crate::daemon::workers::ANSWER_MAX;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync_net::cluster::{InForce, Standing};
use tokio::sync::watch;

/// How long a node that has joined waits for the cluster's policy before it denies everything.
const FIRST_POLICY_MAX: Duration = Duration::from_secs(5);

/// Follows whatever cluster the node is in. Never ends.
pub(in crate::daemon) async fn follow(node: Arc<Node>) {
    let mut seats = node.seat.watch();
    if node.is_witness() {
        // It enforces nothing, and must not say that it does.
        return std::future::pending().await;
    }
    loop {
        let cluster = seats.borrow_and_update().clone();
        match cluster {
            Some(cluster) => {
                cluster.answer_nodes(crate::control::members::handler(&node));
                Follower::new(&node, &*cluster).run(&mut seats).await;
            }
            None => {
                if seats.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What waits for the workers' answers.
struct Underway {
    serial: u64,
    key: Option<Key>,
}

struct Follower<'a> {
    node: &'a Node,
    cluster: &'a dyn Agreement,
    policies: watch::Receiver<Option<Arc<InForce>>>,
    /// What was handed to the workers, or could not be.
    handled: Option<Option<Key>>,
    underway: Option<Underway>,
}

impl<'a> Follower<'a> {
    fn new(node: &'a Node, cluster: &'a dyn Agreement) -> Self {
        let policies = cluster.policy();
        Follower { node, cluster, policies, handled: None, underway: None }
    }

    /// Until the node's seat is another one.
    async fn run(mut self, seats: &mut watch::Receiver<Option<Arc<dyn Agreement>>>) {
        let seat: &Seat = &self.node.seat;
        seat.see(|view| *view = Default::default());
        let _numbering = self.number();
        loop {
            let wanted = self.first_wanted().await;
            let key = wanted.as_ref().map(|w| (w.revision, w.sha256));
            if self.handled != Some(key) {
                seat.see(|view| (view.agreed, view.error) = (key, None));
                self.handled = Some(key);
                self.hand_on(wanted).await;
            }
            let taken = async {
                match &self.underway {
                    Some(underway) => self.node.delivery.taken(underway.serial).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // First what the workers say: however fast agreements come, this one counts.
                biased;
                () = taken => self.acknowledge(),
                changed = seats.changed() => {
                    drop(changed);
                    return;
                }
                changed = self.policies.changed() => if changed.is_err() {
                    // The member has stopped: what is in force stays until the seat is another one.
                    drop(seats.changed().await);
                    return;
                },
            }
        }
    }

    /// Sessions made from now on carry the member's number: on a worker that hangs, once it runs again.
    fn number(&self) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        let Ok(number) = u16::try_from(self.cluster.id().0) else {
            tracing::error!(
                node = self.cluster.id().0,
                "a number above 65535 cannot be in a session's id: sessions carry the configured one"
            );
            return tasks;
        };
        for worker in 0..self.node.workers.count() {
            let workers = self.node.workers.clone();
            tasks.spawn(async move {
                while workers.call(worker, move |engine, _| engine.set_node_id(number)).await.is_err() {
                    tokio::time::sleep(ANSWER_MAX).await;
                }
            });
        }
        tasks
    }

    /// What is to be enforced now. A node that has just joined goes on by its own policy for a moment, until
    /// the cluster's has come.
    async fn first_wanted(&mut self) -> Option<Arc<InForce>> {
        let own = || self.node.policy.current().is_some();
        if self.handled.is_none() && *self.cluster.standing().borrow() == Standing::Member && own() {
            let comes = self.policies.wait_for(Option::is_some);
            drop(tokio::time::timeout(FIRST_POLICY_MAX, comes).await);
        }
        self.policies.borrow_and_update().clone()
    }

    async fn hand_on(&mut self, wanted: Option<Arc<InForce>>) {
        let Some(wanted) = wanted else {
            self.node.policy.withdraw();
            tracing::warn!("no policy: everything is denied");
            self.underway = Some(Underway { serial: self.node.delivery.put(None), key: None });
            return;
        };
        let (store, source) = (self.node.policy.clone(), format!("cluster {}", self.cluster.cluster().1));
        let agreed = wanted.clone();
        let compiled =
            tokio::task::spawn_blocking(move || store.put(agreed.revision, &agreed.text, &source)).await;
        let in_force = match compiled {
            Ok(Ok(in_force)) => in_force,
            Ok(Err(error)) => return self.refuse(wanted.revision, &error.in_full()),
            // Broken off at the end of the process, or a panic: a bug, which must not pass in silence.
            Err(error) => return self.refuse(wanted.revision, &error.to_string()),
        };
        let bindings = Node::bindings(&self.node.config, Some(&in_force));
        self.node.mirror.set_bindings(bindings.clone());
        self.node.replication.tell_names();
        let serial = self.node.delivery.put(Some(in_force.policy.clone()));
        // Ports of a zone that is new: what comes in there is dropped until the workers know it, so a mirror
        // in trouble delays the word and does not prevent it.
        if tokio::time::timeout(ANSWER_MAX, self.node.delivery.zones(&bindings)).await.is_err() {
            tracing::warn!(revision = wanted.revision, "workers have not heard of all zones yet");
        }
        if let Some(from) = wanted.fell_back_from {
            tracing::warn!(
                revision = wanted.revision,
                from,
                "the newest policy was not confirmed in time: the last confirmed one is in force again"
            );
        }
        self.underway = Some(Underway { serial, key: Some((wanted.revision, wanted.sha256)) });
    }

    /// A policy that was checked where it was applied does not compile here: another build, most likely.
    fn refuse(&mut self, revision: u32, error: &str) {
        let message = format!("policy revision {revision} cannot be enforced on this node: {error}");
        tracing::error!("{message}");
        self.node.seat.see(|view| view.error = Some(message));
    }

    fn acknowledge(&mut self) {
        let Some(underway) = self.underway.take() else { return };
        self.node.seat.see(|view| view.enforced = underway.key);
        if let Some((revision, sha256)) = underway.key {
            self.cluster.enforced(revision, sha256);
            tracing::info!(revision, "policy enforced by all workers");
        }
    }
}

impl LoadError {
    /// The message and all errors in the text, on one line.
    pub fn in_full(&self) -> String {
        let mut out = self.to_string();
        if let LoadError::Invalid { findings, .. } = self {
            for finding in findings {
                out.push_str(&format!("; {}", finding.render(None).trim_end().replace('\n', " ")));
            }
        }
        out
    }
}
