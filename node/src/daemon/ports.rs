//! Opens and closes ports as their interfaces come and go.
//!
//! An interface that goes down keeps its sockets and works again when it comes up; one that is
//! deleted and made again has a new index, and is opened anew. What fails is tried again, with the
//! reason shown, until it works: nobody has to restart the node after a flap.

use super::dataplane::Ports;
use crate::netlink::{MirrorHandle, PortState, Update};
use dashmap::DashMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::route::PortId;
use tokio::sync::watch;
use tokio::time::Instant;

/// First and longest pause before a failed open is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What is open, and why the rest is not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortRuntime {
    /// Index of the interface that is open.
    pub open: Option<u32>,
    /// Queues bound.
    pub queues: u16,
    /// Why it is not open.
    pub problem: Option<String>,
}

/// Runtime of all ports, for those who show it.
pub type PortTable = Arc<DashMap<PortId, PortRuntime>>;

/// The task's state.
pub(super) struct PortKeeper {
    ports: Arc<dyn Ports>,
    mirror: MirrorHandle,
    table: PortTable,
    retry_at: Option<Instant>,
    pause: Duration,
    local: Option<BTreeSet<IpAddr>>,
}

impl PortKeeper {
    /// A keeper of these ports.
    pub(super) fn new(ports: Arc<dyn Ports>, mirror: MirrorHandle, table: PortTable) -> Self {
        PortKeeper { ports, mirror, table, retry_at: None, pause: RETRY.0, local: None }
    }

    /// Follows the mirror until it ends.
    pub(super) async fn run(mut self) {
        let mut updates: watch::Receiver<Update> = self.mirror.updates();
        loop {
            let update = updates.borrow_and_update().clone();
            self.settle(&update).await;
            let retry = self.retry_at;
            tokio::select! {
                changed = updates.changed() => if changed.is_err() { return },
                () = wait_until(retry) => {}
            }
        }
    }

    async fn settle(&mut self, update: &Update) {
        let mut failed = !self.settle_local(update).await;
        for state in &update.derived.ports {
            failed |= !self.settle_port(state).await;
        }
        if failed {
            self.retry_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(RETRY.1);
        } else {
            self.retry_at = None;
            self.pause = RETRY.0;
        }
    }

    /// The node's own addresses come first: a port that opens before them would take its neighbours'
    /// pings and BGP for transit.
    async fn settle_local(&mut self, update: &Update) -> bool {
        let wanted: BTreeSet<IpAddr> = update.derived.local.iter().map(|a| a.to_ip()).collect();
        if self.local.as_ref() == Some(&wanted) {
            return true;
        }
        let set = wanted.clone();
        match self.blocking(move |ports| ports.set_local(set)).await {
            Ok(()) => {
                self.local = Some(wanted);
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot tell the XDP program the node's own addresses");
                false
            }
        }
    }

    async fn settle_port(&mut self, state: &PortState) -> bool {
        let id = state.id;
        let before = self.table.get(&id).map(|r| r.clone()).unwrap_or_default();
        let wanted = state.link.as_ref().map(|l| l.index);
        if before.open.is_some() && before.open != wanted {
            self.mirror.set_open(id, None);
            if let Err(error) = self.blocking(move |ports| ports.close(id)).await {
                tracing::error!(port = id.0, %error, "closing a port failed");
            }
            tracing::info!(port = id.0, ifindex = before.open, "port closed: its interface is gone");
            self.note(id, PortRuntime::default());
        }
        let Some(link) = &state.link else {
            self.note(id, PortRuntime { problem: state.problem.clone(), ..PortRuntime::default() });
            return true;
        };
        if before.open == wanted {
            return true;
        }
        if !link.admin_up {
            let problem = Some(format!("{} is set down (`ip link set dev {0} up`)", link.name));
            self.note(id, PortRuntime { problem, ..PortRuntime::default() });
            return true;
        }
        let (index, name) = (link.index, link.name.clone());
        let opened = self.blocking(move |ports| {
            crate::netlink::quicken(Path::new("/proc/sys/net"), &name);
            ports.open(id, &name, index)
        });
        match opened.await {
            Ok(queues) => {
                tracing::info!(port = id.0, interface = link.name, ifindex = index, queues, "port opened");
                self.note(id, PortRuntime { open: Some(index), queues, problem: None });
                self.mirror.set_open(id, Some(index));
                true
            }
            Err(problem) => {
                if before.problem.as_ref() != Some(&problem) {
                    tracing::error!(port = id.0, interface = link.name, %problem, "cannot open a port");
                }
                self.note(id, PortRuntime { problem: Some(problem), ..PortRuntime::default() });
                false
            }
        }
    }

    fn note(&self, id: PortId, runtime: PortRuntime) {
        self.table.insert(id, runtime);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Ports) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let ports = self.ports.clone();
        tokio::task::spawn_blocking(move || work(&*ports)).await.unwrap_or_else(|e| Err(e.to_string()))
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
