//! A node for tests: real engines with real sessions on plain threads, no interface, no kernel.

use super::cluster::twin::TwinClusters;
use super::cluster::{Clusters, Seat, follow};
use super::dataplane::NoDataplane;
use super::delivery::Delivery;
use super::events::Events;
use super::flowlog::{self, Clock, Hub, Inlet, Logs};
use super::node::Node;
use super::policy::PolicyStore;
use super::replicate::{Origin, Replication};
use super::tandem::Tandem;
use super::workers::{Command, CommandSink, Refused, Workers};
use crate::config;
use crate::netlink::{Mirror, Resolver, Update};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::engine::{BATCH_MAX, Engine, EngineConfig, Frame};
use tidegate_dataplane::fragment::{FragmentConfig, FragmentNote};
use tidegate_dataplane::names::ZoneId;
use tidegate_dataplane::route::{NextHop, PortId, PortInfo, Route, Snapshot, SnapshotBuilder};
use tidegate_dataplane::time::Now;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Everything from outside to inside is permitted.
pub(crate) const POLICY: &str = r#"
[[zone]]
name = "outside"
[[zone]]
name = "inside"
[[rule]]
name = "in"
from = "outside"
to = "inside"
source = ["any"]
destination = ["any"]
application = ["any"]
action = "permit"
"#;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Workers as plain threads.
pub(crate) struct Twin {
    senders: Vec<mpsc::SyncSender<Command>>,
}

impl Twin {
    /// Workers with engines of that capacity each; `hung` ones never run a command.
    pub(crate) fn start(workers: u16, capacity: u32, hung: &[u16]) -> Twin {
        Twin::start_with(workers, capacity, hung, Instant::now(), flowlog::rings(workers).0)
    }

    /// The same, with the engines' clock, and what takes their events.
    pub(crate) fn start_with(
        workers: u16,
        capacity: u32,
        hung: &[u16],
        start: Instant,
        inlets: Vec<Inlet>,
    ) -> Twin {
        let mut inlets = inlets.into_iter();
        let senders = (0..workers)
            .map(|shard| {
                let (sender, receiver) = mpsc::sync_channel::<Command>(8);
                let hung = hung.contains(&shard);
                let (hash_key, boot) = ([1, 2], 1);
                let config = EngineConfig {
                    shard,
                    shards: workers,
                    capacity,
                    hash_key,
                    node_id: 1,
                    boot,
                    icmp_errors_per_s: 100,
                    fragments: FragmentConfig { datagrams: 64, ..FragmentConfig::default() },
                };
                let mut tandem = Tandem::from(Engine::new(config, Arc::new(snapshot())).unwrap());
                let mut inlet = inlets.next().unwrap();
                std::thread::spawn(move || {
                    if hung {
                        // Holds the queue open without ever looking into it.
                        std::thread::sleep(Duration::from_secs(60));
                    }
                    for command in receiver {
                        command(&mut tandem, Now(start.elapsed().as_millis() as u64));
                        tandem.engine.take_events(|event| {
                            inlet.push(event);
                        });
                    }
                });
                sender
            })
            .collect();
        Twin { senders }
    }
}

impl CommandSink for Twin {
    fn count(&self) -> u16 {
        self.senders.len() as u16
    }

    fn submit(&self, worker: u16, command: Command) -> Result<(), Refused> {
        self.senders[usize::from(worker)].try_send(command).map_err(|e| match e {
            mpsc::TrySendError::Full(_) => Refused::Busy,
            mpsc::TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }
}

/// A folder of its own for a test, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A node with two ports whose policy is [`POLICY`], in `dir`.
pub(crate) fn node(dir: &Path, workers: u16, capacity: u32, hung: &[u16]) -> (Arc<Node>, JoinSet<()>) {
    let (node, _, tasks) = member(dir, workers, capacity, hung);
    (node, tasks)
}

/// The same, with the clusters that it can found, which are twins too.
pub(crate) fn member(
    dir: &Path,
    workers: u16,
    capacity: u32,
    hung: &[u16],
) -> (Arc<Node>, Arc<TwinClusters>, JoinSet<()>) {
    let clusters = Arc::new(TwinClusters::default());
    let (node, tasks) = seated(dir, workers, capacity, hung, clusters.clone());
    (node, clusters, tasks)
}

/// The same with any clusters; its identity would be in `dir`.
pub(crate) fn seated(
    dir: &Path,
    workers: u16,
    capacity: u32,
    hung: &[u16],
    clusters: Arc<dyn Clusters>,
) -> (Arc<Node>, JoinSet<()>) {
    std::fs::write(dir.join("policy.toml"), POLICY).unwrap();
    let text = "policy = \"policy.toml\"\n[node]\nname = \"n1\"\n[[port]]\nname = \"outside\"\nzone = \"outside\"\n\
                interface = \"tg-none0\"\n[[port]]\nname = \"inside\"\nzone = \"inside\"\ninterface = \"tg-none1\"\n";
    let text = format!("{text}[cluster]\ndirectory = \"{}\"\n", dir.join("cluster").display());
    let config = config::parse(&dir.join("node.toml"), text).unwrap();
    let policy = Arc::new(PolicyStore::new(config.policy.clone()));
    let in_force = policy.load().unwrap();
    let (_, mirror) = Mirror::new(Node::bindings(&config, Some(&in_force)));
    let (resolver, _) = Resolver::new(mirror.updates());
    let started = Instant::now();
    let (inlets, outlet) = flowlog::rings(workers);
    let twin = Twin::start_with(workers, capacity, hung, started, inlets);
    let workers = Workers::new(Arc::new(twin));
    let mut tasks = JoinSet::new();
    let first = Update { derived: Arc::default(), snapshot: Arc::new(snapshot()), stale: Arc::default() };
    let (updates, told) = watch::channel(first);
    let delivery = Delivery::start(&workers, None, told, &mut tasks);
    tasks.spawn(async move { updates.closed().await });
    let hub = Hub::new(workers.clone());
    let logs = Arc::new(Logs::start(&config, &mut tasks));
    tasks.spawn(outlet.run(hub.clone(), logs.clone(), policy.clone(), Clock { start: started }));
    let origin = Origin { boot: 1, hash_key: [1, 2], started };
    let replication = Replication::new(origin, workers.clone(), policy.clone());
    let node = Node {
        replication,
        alive: (0..workers.count()).map(|w| AtomicBool::new(!hung.contains(&w))).collect(),
        started,
        events: Arc::new(Events::new(resolver.clone())),
        hub,
        logs,
        config,
        workers,
        policy,
        delivery,
        mirror,
        resolver,
        ports: Arc::new(NoDataplane),
        port_table: Arc::default(),
        walls: Mutex::default(),
        last_numbers: Mutex::default(),
        reloading: tokio::sync::Mutex::default(),
        seat: Seat::default(),
        clusters,
    };
    let node = Arc::new(node);
    tasks.spawn(follow(node.clone()));
    (node, tasks)
}

/// Sets up `flows` UDP sessions: 10.0.a.b:1024+n -> 10.1.0.2:53, spread over the workers that they
/// belong to.
pub(crate) async fn fill(node: &Node, flows: u32) {
    let policy = node.policy.current().unwrap().policy.clone();
    let (_, silent) = node
        .workers
        .all(move |engine, now| {
            engine.set_routes(Arc::new(snapshot()));
            engine.set_policy(policy);
            let numbers: Vec<u32> = (0..flows).collect();
            for batch in numbers.chunks(BATCH_MAX) {
                let mut frames: Vec<Wire> = batch.iter().map(|n| Wire(udp(*n))).collect();
                engine.process(&mut frames, &mut arrayvec::ArrayVec::new(), now);
            }
        })
        .await;
    assert!(silent.is_empty() || flows == 0);
}

/// Sets up one TCP session by its SYN: 10.0.1.9:50000 -> 10.1.0.2:22.
pub(crate) async fn ssh(node: &Node) {
    let (_, silent) = node
        .workers
        .all(|engine, now| {
            let mut frames = [Wire(tcp_syn())];
            engine.process(&mut frames, &mut arrayvec::ArrayVec::new(), now);
        })
        .await;
    assert!(silent.is_empty());
}

fn snapshot() -> Snapshot {
    let mut b = SnapshotBuilder::new(7);
    for id in [0, 1] {
        b.port(PortInfo {
            id: PortId(id),
            name: "p".into(),
            mac: MAC,
            mtu: 1500,
            up: true,
            zone: Some(ZoneId(u16::from(id))),
            ipv4: None,
            ipv6: None,
            partial_checksums: false,
        });
    }
    let server: Addr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)).into();
    let via =
        |port| Route::Via(vec![NextHop { port: Some(PortId(port)), gateway: None, weight: 1, mtu: None }]);
    b.route("10.1.0.0/16".parse().unwrap(), via(1));
    b.route("10.0.0.0/16".parse().unwrap(), via(0));
    b.neighbour(PortId(1), server, Mac([2, 0, 0, 0, 0, 9]));
    b.build()
}

struct Wire(Vec<u8>);

impl Frame for Wire {
    fn port(&self) -> PortId {
        PortId(0)
    }
    fn data(&self) -> &[u8] {
        &self.0
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn note(&self) -> Option<FragmentNote> {
        None
    }
    fn set_note(&mut self, _: FragmentNote) {}
}

/// A UDP packet of flow `n` without a payload; checksum 0, which IPv4 allows (RFC 768).
fn udp(n: u32) -> Vec<u8> {
    let mut l4 = [0; 8];
    l4[..2].copy_from_slice(&(1024 + (n & 0x3fff) as u16).to_be_bytes());
    l4[2..4].copy_from_slice(&53u16.to_be_bytes());
    l4[4..6].copy_from_slice(&8u16.to_be_bytes());
    frame(17, [10, 0, 1 + (n >> 22) as u8, 2 + (n >> 14 & 0x7f) as u8], &l4)
}

fn tcp_syn() -> Vec<u8> {
    let (source, destination) = ([10, 0, 1, 9], [10, 1, 0, 2]);
    let mut l4 = [0; 20];
    l4[..2].copy_from_slice(&50_000u16.to_be_bytes());
    l4[2..4].copy_from_slice(&22u16.to_be_bytes());
    l4[12] = 0x50;
    l4[13] = 0x02;
    l4[14..16].copy_from_slice(&1024u16.to_be_bytes());
    let mut pseudo = [source, destination, [0, 6, 0, 20]].concat();
    pseudo.extend(l4);
    l4[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    frame(6, source, &l4)
}

fn frame(protocol: u8, source: [u8; 4], l4: &[u8]) -> Vec<u8> {
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&[10, 1, 0, 2]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&MAC.0[..], &[2, 0, 0, 0, 0, 8, 8, 0], &ip, l4].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
