//! The node as the control side sees it: one thread-safe value that answers every verb.

use super::cluster::{Clusters, Seat, report};
use super::dataplane::{DataplaneNumbers, Ports};
use super::delivery::Delivery;
use super::events::Events;
use super::flowlog::{Hub, Logs};
use super::policy::{InForce, LoadError, PolicyStore};
use super::ports::PortTable;
use super::replicate::{self, Replication};
use super::workers::{ANSWER_MAX, Workers};
use crate::api;
use crate::config::Config;
use crate::control::query::Vocabulary;
use crate::control::view;
use crate::netlink::{MirrorHandle, PortBinding, Resolver};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_dataplane::engine::{Counters, Summary};
use tidegate_dataplane::fragment::FragmentCounters;
use tidegate_dataplane::route::PortId;
use tidegate_sync::cluster::Role;

/// Everything that the node consists of.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// When the daemon started.
    pub started: Instant,
    /// The engines.
    pub workers: Workers,
    /// Whether each worker answered at the last look.
    pub alive: Vec<AtomicBool>,
    /// The policy.
    pub policy: Arc<PolicyStore>,
    /// Hands policies and routes to the workers.
    pub delivery: Delivery,
    /// The kernel's tables.
    pub mirror: MirrorHandle,
    /// Neighbour requests.
    pub resolver: Resolver,
    /// Workers' events.
    pub events: Arc<Events>,
    /// Those who watch sessions.
    pub(crate) hub: Arc<Hub>,
    /// Where records of flows go.
    pub(crate) logs: Arc<Logs>,
    /// The ports.
    pub ports: Arc<dyn Ports>,
    /// What is open.
    pub port_table: PortTable,
    /// Both walls at the last look.
    pub walls: Mutex<api::Walls>,
    /// The last numbers of the AF_XDP side, for when it does not answer.
    pub last_numbers: Mutex<DataplaneNumbers>,
    /// One policy reload at a time, from the file to the last worker; and no other while the node becomes
    /// a member.
    pub reloading: tokio::sync::Mutex<()>,
    /// Its place in a cluster.
    pub seat: Seat,
    /// How it gets one.
    pub clusters: Arc<dyn Clusters>,
    /// Its sessions on other nodes, and theirs here.
    pub(crate) replication: Arc<Replication>,
}

/// One worker's numbers at a moment.
#[derive(Clone, Debug)]
pub struct EngineNumbers {
    /// Everything that its engine counted.
    pub counters: Counters,
    /// Its table.
    pub summary: Summary,
    /// Incomplete datagrams in its fragment cache: now, and at most.
    pub fragments: (u32, u32),
    /// What its fragment cache counted.
    pub fragment_counters: FragmentCounters,
}

impl Node {
    /// The ports with the zone numbers of the policy in force. A zone that it does not declare has
    /// none: what comes in there is dropped (`no_zone`).
    pub fn bindings(config: &Config, policy: Option<&InForce>) -> Vec<PortBinding> {
        let zone = |name: &str| policy?.policy.zones().iter().find(|z| *z.name == *name).map(|z| z.id);
        config
            .ports
            .iter()
            .enumerate()
            .map(|(i, port)| PortBinding {
                id: PortId(i as u8),
                config: port.clone(),
                zone: zone(&port.zone),
            })
            .collect()
    }

    /// What it is called: in its cluster, or by its configuration.
    pub fn name(&self) -> String {
        self.seat.cluster().map_or_else(|| self.config.name.clone(), |c| c.name())
    }

    /// Its number: in its cluster, or by its configuration.
    pub fn id(&self) -> u16 {
        let number = self.seat.cluster().and_then(|c| u16::try_from(c.id().0).ok());
        number.unwrap_or(self.config.node_id)
    }

    /// Whether it only votes.
    pub fn is_witness(&self) -> bool {
        self.config.role == Role::Witness
    }

    /// Reads the policy file again and puts it in force everywhere, or leaves all as it is.
    pub async fn reload(&self) -> Result<(Arc<InForce>, Vec<u16>), LoadError> {
        let _one_at_a_time = self.reloading.lock().await;
        if let Some(cluster) = self.seat.cluster() {
            return Err(LoadError::Agreed(cluster.cluster().1));
        }
        let in_force = self.policy.load()?;
        self.mirror.set_bindings(Node::bindings(&self.config, Some(&in_force)));
        self.replication.tell_names();
        let serial = self.delivery.put(Some(in_force.policy.clone()));
        let silent = self.delivery.without(serial, ANSWER_MAX).await;
        tracing::info!(revision = in_force.policy.revision(), ?silent, "policy in force");
        for warning in &in_force.warnings {
            tracing::warn!("{}", warning.render(None).trim_end());
        }
        Ok((in_force, silent))
    }

    /// Every engine's numbers, and the workers that gave none.
    pub async fn numbers(&self) -> (Vec<(u16, EngineNumbers)>, Vec<u16>) {
        self.workers
            .all(|engine, _| EngineNumbers {
                counters: engine.counters().clone(),
                summary: engine.summary(),
                fragments: (engine.fragments().in_use(), engine.fragments().capacity()),
                fragment_counters: *engine.fragments().counters(),
            })
            .await
    }

    /// The AF_XDP side's numbers; the last known ones when a worker does not answer.
    pub async fn dataplane_numbers(&self) -> DataplaneNumbers {
        let last = || lock(&self.last_numbers).clone();
        if usize::from(self.alive_workers()) < self.alive.len() {
            return last();
        }
        let ports = self.ports.clone();
        let asked = tokio::task::spawn_blocking(move || ports.numbers());
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(Ok(numbers))) => {
                lock(&self.last_numbers).clone_from(&numbers);
                numbers
            }
            _ => last(),
        }
    }

    /// The ports as they are now, with those numbers.
    pub fn port_list(&self, numbers: &DataplaneNumbers) -> api::PortList {
        let update = self.mirror.updates().borrow().clone();
        let ports = self.config.ports.iter().enumerate().map(|(i, config)| {
            let id = PortId(i as u8);
            let state = update.derived.ports.get(i);
            let link = state.and_then(|s| s.link.as_ref());
            let runtime = self.port_table.get(&id).map(|r| r.clone()).unwrap_or_default();
            let c = numbers.ports.get(&id).cloned().unwrap_or_default();
            let open = link.is_some_and(|l| runtime.open == Some(l.index));
            let (word, problem) = match (link, open) {
                (Some(l), true) if l.up => ("up", None),
                (Some(l), true) if l.admin_up => ("down", Some("no carrier".to_owned())),
                (Some(_), true) => ("down", Some("set down".to_owned())),
                _ => ("absent", runtime.problem.or_else(|| state.and_then(|s| s.problem.clone()))),
            };
            api::Port {
                name: config.name.clone(),
                id: id.0,
                zone: config.zone.clone(),
                select: config.select.to_string(),
                interface: link.map(|l| l.name.clone()),
                ifindex: link.map(|l| l.index),
                state: word.to_owned(),
                problem,
                mac: link.and_then(|l| l.mac).map(|m| m.to_string()),
                mtu: link.map(|l| l.mtu),
                addresses: state
                    .map_or(Vec::new(), |s| s.addresses.iter().map(ToString::to_string).collect()),
                queues: runtime.queues,
                partial_checksums: state.is_some_and(|s| s.partial_checksums),
                opened: c.opened,
                rx_packets: c.rx_packets,
                rx_bytes: c.rx_bytes,
                tx_packets: c.tx_packets,
                tx_bytes: c.tx_bytes,
                kernel_counters: c.kernel.into_iter().map(|(k, n)| (k.to_owned(), n)).collect(),
            }
        });
        api::PortList { ports: ports.collect() }
    }

    /// What runs, what forwards, what is wrong.
    pub async fn status(&self) -> api::Status {
        let (numbers, _) = self.numbers().await;
        let ports = self.port_list(&DataplaneNumbers::default());
        let walls = lock(&self.walls).clone();
        let routes = self.route_status();
        let (capacity, in_use) =
            numbers.iter().fold((0, 0), |(c, u), (_, n)| (c + n.summary.maximum, u + n.summary.in_use));
        let fragments = numbers.iter().fold(api::FragmentUse::default(), |mut all, (_, n)| {
            all.in_use += u64::from(n.fragments.0);
            all.capacity += u64::from(n.fragments.1);
            all.evicted += n.fragment_counters.evicted;
            all
        });
        let occupancy_percent = if capacity == 0 { 0.0 } else { in_use as f64 * 100.0 / capacity as f64 };
        let cluster = match self.seat.cluster() {
            Some(cluster) => Some(report::status(&*cluster, &self.seat).await),
            None => None,
        };
        let mut degraded = self.degraded(&ports, &walls, &routes);
        match &cluster {
            Some(cluster) => degraded.extend(report::degraded(cluster)),
            None => degraded.extend(self.no_cluster()),
        }
        let sync = replicate::report::status(self).await;
        match &sync {
            Some(sync) => degraded.extend(replicate::report::degraded(sync)),
            None => degraded.extend(replicate::report::quick(self)),
        }
        let policy = self.policy.current();
        api::Status {
            version: api::Version::current().version,
            node: self.name(),
            node_id: self.id(),
            role: self.config.role.name().to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            policy_revision: policy.as_ref().map(|p| p.policy.revision()),
            policy_sha256: policy.as_ref().map(|p| report::hex(&p.sha256)),
            cluster,
            sync,
            ports_up: ports.ports.iter().filter(|p| p.state == "up").count() as u32,
            ports_configured: ports.ports.len() as u32,
            workers_alive: self.alive_workers(),
            workers_started: self.workers.count(),
            table: api::TableUse { capacity, in_use, occupancy_percent },
            fragments,
            degraded,
            walls,
            routes,
        }
    }

    /// Whether process and workers live.
    pub fn livez(&self) -> api::Probe {
        let problems = self.dead_workers();
        api::Probe { ok: problems.is_empty(), problems }
    }

    /// What a node that should be in a cluster lacks while it is in none.
    fn no_cluster(&self) -> Option<String> {
        if self.is_witness() {
            Some("this witness is in no cluster: `tidegate cluster join TOKEN` makes it a member".to_owned())
        } else if self.policy.current().is_none() {
            Some(
                "no policy is loaded, everything is denied: `tidegate cluster join TOKEN` gets the cluster's, \
                 `tidegate cluster init` founds one, `policy` in the configuration names a file"
                    .to_owned(),
            )
        } else {
            None
        }
    }

    /// Whether the node does its work: policy in force (a member: the agreed one), ports up, workers alive,
    /// routes in sync. A witness: it is no member in bad standing.
    pub fn readyz(&self) -> api::Probe {
        let mut problems = self.dead_workers();
        match self.seat.cluster() {
            Some(cluster) => {
                let status = report::status_with(&*cluster, &self.seat.view(), Vec::new());
                problems.extend(status.standing_note.clone());
                problems.extend(report::not_enforced(&status));
                problems.extend(replicate::report::quick(self));
            }
            // A witness that waits for its cluster is as ready as it can be: `status` says what it lacks.
            None if self.is_witness() => {}
            None => problems.extend(self.no_cluster()),
        }
        if self.is_witness() {
            return api::Probe { ok: problems.is_empty(), problems };
        }
        problems.extend(port_problems(&self.port_list(&DataplaneNumbers::default())));
        if problems.is_empty() {
            // A port is open a moment before the workers forward to it.
            let ports = (0..self.config.ports.len()).map(|i| PortId(i as u8));
            let late = self.delivery.workers_without(ports);
            problems.extend(late.iter().map(|w| format!("worker {w} has not heard that all ports are up")));
        }
        let mirror = self.mirror.status();
        if !mirror.in_sync {
            problems.push("the kernel's routes have not been read".to_owned());
        }
        api::Probe { ok: problems.is_empty(), problems }
    }

    fn alive_workers(&self) -> u16 {
        self.alive.iter().filter(|a| a.load(Ordering::Relaxed)).count() as u16
    }

    fn dead_workers(&self) -> Vec<String> {
        let dead = self.alive.iter().enumerate().filter(|(_, a)| !a.load(Ordering::Relaxed));
        dead.map(|(w, _)| format!("worker {w} does not answer")).collect()
    }

    fn route_status(&self) -> api::RouteStatus {
        let update = self.mirror.updates().borrow().clone();
        let status = self.mirror.status();
        api::RouteStatus {
            generation: update.snapshot.generation(),
            routes: update.derived.routes.len() as u64,
            neighbours: update.derived.neighbours.len() as u64,
            resyncs: status.resyncs,
            notes: status.notes,
            error: status.error,
        }
    }

    fn degraded(&self, ports: &api::PortList, walls: &api::Walls, routes: &api::RouteStatus) -> Vec<String> {
        let mut why = self.dead_workers();
        why.extend(port_problems(ports));
        if let Some(in_force) = self.policy.current() {
            let zones = in_force.policy.zones();
            let lost = self.config.ports.iter().filter(|p| !zones.iter().any(|z| *z.name == *p.zone));
            why.extend(lost.map(|p| {
                format!(
                    "port {}: the policy has no zone \"{}\"; what comes in there is dropped",
                    p.name, p.zone
                )
            }));
        }
        if self.is_witness() {
            return why;
        }
        if !walls.kernel_forwarding_off {
            why.push(
                "KERNEL FORWARDING IS ON and cannot be switched off: transit may bypass the policy"
                    .to_owned(),
            );
        }
        why.extend(walls.wrong_settings.iter().map(|s| format!("kernel setting {s} should be 0")));
        if !walls.xdp_program_attached {
            why.push("the XDP program is missing on an open port: transit may reach the kernel".to_owned());
        }
        why.extend(routes.error.iter().map(|e| format!("the kernel's routes are not followed: {e}")));
        why
    }

    /// `session summary`, `drops` and others name sessions by the numbers of this policy's names.
    pub fn names(&self) -> view::NamesView {
        view::NamesView {
            names: self.policy.names(),
            ports: self.config.ports.iter().map(|p| p.name.clone()).collect(),
            node: self.name(),
            nodes: replicate::report::node_names(self),
            view: self.replication.view(),
            told: self.policy.current().map(|p| p.policy.replication().protocols),
        }
    }

    /// Number and name of each node that has sessions, this one first.
    fn nodes_with_sessions(&self) -> Vec<(u16, String)> {
        let mut nodes = vec![(self.id(), self.name())];
        if let Some(cluster) = self.seat.cluster() {
            let state = cluster.state().borrow().clone();
            let others = state.members.iter().filter(|(id, m)| m.role == Role::Node && **id != cluster.id());
            nodes.extend(others.filter_map(|(id, m)| Some((u16::try_from(id.0).ok()?, m.name.clone()))));
        }
        nodes
    }

    /// What the words of a session filter can mean now.
    pub(crate) fn vocabulary(&self) -> Vocabulary {
        let update = self.mirror.updates().borrow().clone();
        let interface = |i: usize| update.derived.ports.get(i)?.link.as_ref().map(|l| l.name.clone());
        let ports = self.config.ports.iter().enumerate().map(|(i, p)| (p.name.clone(), interface(i)));
        Vocabulary { names: self.policy.names(), ports: ports.collect(), nodes: self.nodes_with_sessions() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn port_problems(ports: &api::PortList) -> impl Iterator<Item = String> + '_ {
    ports.ports.iter().filter(|p| p.state != "up").map(|p| {
        format!("port {} is {}: {}", p.name, p.state, p.problem.as_deref().unwrap_or("not opened yet"))
    })
}
