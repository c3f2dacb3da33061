//! The mirror task: subscribe, read everything, follow, and read again when in doubt.
//!
//! Events about links, addresses, routes and rules are taken as hints only: the tables are read again,
//! a few milliseconds after the first of a burst. The kernel does not announce every change (an IPv4
//! route that goes with its link is silent) and describes some in part (one way of an IPv6 multipath
//! route); a read is always right. Neighbours, which change often, are followed event by event. When
//! the kernel says that events were lost, and once a minute anyway, all is read again.

use super::derive::{Derived, PortBinding, derive, snapshot};
use super::follow::{MirrorError, Pending, connect, foreign_rules, sleep_until};
use super::kernel::Kernel;
use super::read;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_dataplane::route::{PortId, Snapshot};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Reading takes at most one part in so many of the time: big tables are read less often.
const READ_SHARE: u32 = 5;
/// How often everything is read again although nothing seems lost.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// One state of the mirror.
#[derive(Clone, Debug)]
pub struct Update {
    /// What forwarding depends on.
    pub derived: Arc<Derived>,
    /// The snapshot of it.
    pub snapshot: Arc<Snapshot>,
    /// Neighbours behind ports that the kernel holds as stale: to be confirmed while they are used.
    pub stale: Arc<Vec<(u32, std::net::IpAddr)>>,
}

/// How the mirror fares.
#[derive(Clone, Debug, Default)]
pub struct MirrorStatus {
    /// Whether the tables were read since the mirror last (re)connected.
    pub in_sync: bool,
    /// Why it does not follow, when it does not.
    pub error: Option<String>,
    /// Times that everything was read again because events were lost or the connection broke.
    pub resyncs: u64,
    /// Times that the periodic audit found something that no event had told.
    pub audit_finds: u64,
    /// What the mirror leaves out, in words.
    pub notes: Vec<String>,
}

/// What the rest of the daemon tells the mirror.
#[derive(Debug, Default)]
struct Inputs {
    bindings: Vec<PortBinding>,
    open: BTreeMap<PortId, u32>,
}

/// The daemon's end of the mirror.
#[derive(Clone)]
pub struct MirrorHandle {
    inputs: Arc<Mutex<Inputs>>,
    status: Arc<Mutex<MirrorStatus>>,
    changed: Arc<Notify>,
    updates: watch::Receiver<Update>,
}

impl MirrorHandle {
    /// Replaces the ports and their zones.
    pub fn set_bindings(&self, bindings: Vec<PortBinding>) {
        let mut inputs = lock(&self.inputs);
        if inputs.bindings != bindings {
            inputs.bindings = bindings;
            drop(inputs);
            self.changed.notify_one();
        }
    }

    /// Says which interface a port has open; `None`: it is closed.
    pub fn set_open(&self, port: PortId, link: Option<u32>) {
        let mut inputs = lock(&self.inputs);
        let before = match link {
            Some(link) => inputs.open.insert(port, link),
            None => inputs.open.remove(&port),
        };
        drop(inputs);
        if before != link {
            self.changed.notify_one();
        }
    }

    /// The newest state, and a way to wait for the next.
    pub fn updates(&self) -> watch::Receiver<Update> {
        self.updates.clone()
    }

    /// How the mirror fares.
    pub fn status(&self) -> MirrorStatus {
        lock(&self.status).clone()
    }
}

/// The mirror of the network namespace that its task runs in.
pub struct Mirror {
    kernel: Kernel,
    generation: u32,
    inputs: Arc<Mutex<Inputs>>,
    status: Arc<Mutex<MirrorStatus>>,
    changed: Arc<Notify>,
    updates: watch::Sender<Update>,
}

impl Mirror {
    /// A mirror for these ports, and its handle.
    pub fn new(bindings: Vec<PortBinding>) -> (Mirror, MirrorHandle) {
        let inputs = Arc::new(Mutex::new(Inputs { bindings, open: BTreeMap::new() }));
        let status = Arc::new(Mutex::new(MirrorStatus::default()));
        let changed = Arc::new(Notify::new());
        let first =
            Update { derived: Arc::default(), snapshot: Arc::new(Snapshot::empty()), stale: Arc::default() };
        let (sender, receiver) = watch::channel(first);
        let handle = MirrorHandle {
            inputs: inputs.clone(),
            status: status.clone(),
            changed: changed.clone(),
            updates: receiver,
        };
        (
            Mirror { kernel: Kernel::default(), generation: 0, inputs, status, changed, updates: sender },
            handle,
        )
    }

    /// Follows the kernel until the task is dropped; connects again when the connection breaks. While
    /// it is broken the last snapshot stays in force, and the status says so.
    pub async fn run(mut self) {
        let mut pause = Duration::from_millis(50);
        loop {
            let Err(error) = self.follow().await;
            tracing::error!(%error, "the mirror of the kernel's routes lost its connection; connecting again");
            self.note_lost(&error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    fn note_lost(&self, error: &MirrorError) {
        let mut status = lock(&self.status);
        status.in_sync = false;
        status.error = Some(error.to_string());
        status.resyncs += 1;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, MirrorError> {
        let (mut events, reader, _connections) = connect()?;
        self.read_all(&reader).await?;
        let mut audit = tokio::time::interval_at(Instant::now() + AUDIT_INTERVAL, AUDIT_INTERVAL);
        let mut pending = Pending::default();
        let mut pace = Instant::now();
        loop {
            let due = pending.due().map(|d| d.max(pace));
            tokio::select! {
                event = events.next() => match event {
                    Some((message, _)) => self.event(message, &mut pending),
                    None => return Err(MirrorError::Closed),
                },
                () = self.changed.notified() => pending.note(false),
                _ = audit.tick() => {
                    let before = self.kernel.clone();
                    self.read_all(&reader).await?;
                    if pending.first.is_none() && !same_but_neighbours(&before, &self.kernel) {
                        lock(&self.status).audit_finds += 1;
                    }
                }
                () = sleep_until(due) => {
                    let begin = Instant::now();
                    let again = std::mem::take(&mut pending);
                    if again.everything {
                        self.read_all(&reader).await?;
                    } else if again.tables {
                        self.read_tables(&reader).await?;
                    }
                    self.publish();
                    pace = Instant::now() + begin.elapsed() * READ_SHARE;
                }
            }
        }
    }

    fn event(&mut self, message: NetlinkMessage<RouteNetlinkMessage>, pending: &mut Pending) {
        match message.payload {
            NetlinkPayload::Overrun(_) => {
                tracing::warn!("the kernel dropped route events; reading all tables again");
                lock(&self.status).resyncs += 1;
                pending.everything = true;
                pending.note(true);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(m)) => {
                if let Some((key, found)) = read::neighbour(&m) {
                    match found {
                        Some(neighbour) => drop(self.kernel.neighbours.insert(key, neighbour)),
                        None => drop(self.kernel.neighbours.remove(&key)),
                    }
                    pending.note(false);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(m)) => {
                if let Some((key, _)) = read::neighbour(&m) {
                    self.kernel.neighbours.remove(&key);
                    pending.note(false);
                }
            }
            NetlinkPayload::InnerMessage(_) => pending.note(true),
            _ => {}
        }
    }

    /// Links, addresses, routes and rules.
    async fn read_tables(&mut self, reader: &Handle) -> Result<(), MirrorError> {
        let mut links = reader.link().get().execute();
        self.kernel.links.clear();
        while let Some(message) = links.try_next().await? {
            let message: LinkMessage = message;
            self.kernel.links.insert(message.header.index, read::link(&message));
        }
        self.kernel.addresses = reader
            .address()
            .get()
            .execute()
            .try_filter_map(async |m| Ok(read::address(&m)))
            .try_collect()
            .await?;
        self.kernel.routes.clear();
        self.kernel.foreign_routes = 0;
        for request in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let mut routes = reader.route().get(request).execute();
            while let Some(message) = routes.try_next().await? {
                let message: RouteMessage = message;
                self.kernel.routes.extend(read::route(&message));
                let known = [read::MAIN, read::LOCAL].contains(&read::table(&message));
                self.kernel.foreign_routes += usize::from(!known);
            }
        }
        self.kernel.foreign_rules = foreign_rules(reader).await?;
        Ok(())
    }

    async fn read_all(&mut self, reader: &Handle) -> Result<(), MirrorError> {
        self.read_tables(reader).await?;
        let mut neighbours = reader.neighbours().get().execute();
        self.kernel.neighbours.clear();
        while let Some(message) = neighbours.try_next().await? {
            if let Some((key, Some(neighbour))) = read::neighbour(&message) {
                self.kernel.neighbours.insert(key, neighbour);
            }
        }
        self.publish();
        Ok(())
    }

    /// Hands out what changed. A change that forwarding does not depend on (a neighbour that was
    /// reachable and is stale) keeps snapshot and generation.
    fn publish(&mut self) {
        let derived = {
            let inputs = lock(&self.inputs);
            derive(&self.kernel, &inputs.bindings, &|port, link| inputs.open.get(&port) == Some(&link))
        };
        let ours =
            |link: &u32| derived.ports.iter().any(|p| p.link.as_ref().is_some_and(|l| l.index == *link));
        let stale: Vec<_> = self
            .kernel
            .neighbours
            .iter()
            .filter(|((link, _), n)| n.stale && ours(link))
            .map(|(key, _)| *key)
            .collect();
        self.updates.send_if_modified(|update| {
            let first = self.generation == 0;
            let forwarding_changed = first || !same_forwarding(&update.derived, &derived);
            let changed = forwarding_changed || *update.derived != derived;
            if forwarding_changed {
                self.generation = self.generation.wrapping_add(1).max(1);
                update.snapshot = Arc::new(snapshot(&derived, self.generation));
            }
            if changed {
                update.derived = Arc::new(derived);
            }
            update.stale = Arc::new(stale);
            changed
        });
        let mut status = lock(&self.status);
        status.in_sync = true;
        status.error = None;
        status.notes = notes(&self.kernel);
    }
}

fn same_forwarding(a: &Derived, b: &Derived) -> bool {
    a.infos == b.infos && a.routes == b.routes && a.local == b.local && a.neighbours == b.neighbours
}

fn same_but_neighbours(a: &Kernel, b: &Kernel) -> bool {
    a.links == b.links && a.addresses == b.addresses && a.routes == b.routes
}

fn notes(kernel: &Kernel) -> Vec<String> {
    let mut notes = Vec::new();
    if kernel.foreign_rules > 0 {
        notes.push(format!(
            "{} policy routing rules are not followed (main table only)",
            kernel.foreign_rules
        ));
    }
    if kernel.foreign_routes > 0 {
        notes.push(format!("{} routes outside the main table are not followed", kernel.foreign_routes));
    }
    notes
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
