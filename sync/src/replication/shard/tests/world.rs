//! Nodes with engines and shards, joined by cables in memory that delay, break and fill up. Time is a number.

use super::super::*;
use crate::replication::message::{Back, Kind, open};
use crate::replication::{Doubt, Inlet, InletConfig, PeerNames};
use arrayvec::ArrayVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use tidegate_dataplane::addr::{Addr, Mac, Tuple};
use tidegate_dataplane::engine::{
    BATCH_MAX, EngineConfig, Frame, ReplicationConfig, SessionFilter, SessionView, Verdict, shard_of,
};
use tidegate_dataplane::fragment::{FragmentConfig, FragmentNote};
use tidegate_dataplane::policy;
use tidegate_dataplane::route::{NextHop, PortId, PortInfo, Route, Snapshot, SnapshotBuilder};
use tidegate_dataplane::session::owner::{Boot, View};
use tidegate_dataplane::session::record::SessionId;
use tidegate_dataplane::table::TupleHasher;

/// Idle timeout of every session, in ms.
pub(super) const TIMEOUT_MS: u64 = 60_000;
/// Detection time that the views have.
pub(super) const DETECTION_MS: u32 = 100;

pub(super) const POLICY: &str = r#"
[[zone]]
name = "outside"
[[zone]]
name = "inside"
[[rule]]
name = "out"
from = "outside"
to = "inside"
source = ["any"]
destination = ["any"]
application = ["game"]
action = "permit"
[[application]]
name = "game"
protocol = "udp"
destination_port = 5000
inactivity_timeout = 60
"#;

/// What the I/O side of a worker holds.
#[derive(Default)]
pub(super) struct MemoryWire {
    pub(super) inbox: VecDeque<FromNode>,
    sent: Vec<(Peer, u64, Vec<u8>)>,
    /// Peers whose ring is full.
    full: BTreeSet<Peer>,
    news: Vec<News>,
}

impl Wire for MemoryWire {
    fn next(&mut self) -> Option<FromNode> {
        self.inbox.pop_front()
    }

    fn send(&mut self, peer: Peer, link: u64, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        if self.full.contains(&peer) {
            return Err(frame);
        }
        self.sent.push((peer, link, frame));
        Ok(())
    }

    fn tell(&mut self, news: News) {
        self.news.push(news);
    }
}

pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) shard: Shard,
    pub(super) wire: MemoryWire,
}

pub(super) struct Node {
    pub(super) it: Boot,
    pub(super) workers: Vec<Worker>,
    pub(super) names: Names,
    learned: u32,
    hasher: TupleHasher,
    /// Its clock is that far ahead of the world's.
    ahead_ms: i64,
    pub(super) stopped: bool,
    /// By peer and stream.
    inlets: BTreeMap<(Peer, u16), Inlet>,
    /// Batches with parts that are not applied: peer, stream, number.
    unapplied: BTreeMap<(Peer, u16), BTreeMap<u64, usize>>,
    resyncs: u64,
    ordered_at: BTreeMap<Peer, u64>,
    pub(super) news: Vec<News>,
    pub(super) doubts: [u64; Doubt::ALL.len()],
    /// Links that were closed because of what came by them.
    pub(super) closed: u64,
}

/// One direction between two nodes.
#[derive(Default)]
struct Cable {
    /// Number of the link; 0 while it is cut.
    link: u64,
    delay_ms: u64,
    /// When it arrives, by which stream (`None`: the way back), what.
    queues: BTreeMap<Option<u16>, VecDeque<(u64, Vec<u8>)>>,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) ms: u64,
    links: u64,
    cables: BTreeMap<(usize, usize), Cable>,
}

struct TestFrame {
    port: PortId,
    bytes: Vec<u8>,
}

impl Frame for TestFrame {
    fn port(&self) -> PortId {
        self.port
    }
    fn data(&self) -> &[u8] {
        &self.bytes
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn note(&self) -> Option<FragmentNote> {
        None
    }
    fn set_note(&mut self, _: FragmentNote) {}
}

fn ip(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

fn port_mac(port: PortId) -> Mac {
    Mac([2, 0xf, 0, 0, 0, port.0])
}

/// The `n`th flow: UDP from 10.1.0.2, port 1024 and `n`.
pub(super) fn flow(n: u16) -> Tuple {
    Tuple { src: ip("10.1.0.2"), dst: ip("10.2.0.2"), src_port: 1024 + n, dst_port: 5000, protocol: 17 }
}

fn packet(t: Tuple, forward: bool) -> Vec<u8> {
    let t = if forward { t } else { t.reversed() };
    let mut h = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0];
    h.extend(t.src.to_v4().unwrap());
    h.extend(t.dst.to_v4().unwrap());
    let sum: u32 = h.chunks(2).map(|b| u32::from(b[0]) << 8 | u32::from(b[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    let port = PortId(u8::from(!forward));
    let mut frame = [&port_mac(port).0[..], &[2, 0xc, 0, 0, 0, port.0], &[8, 0], &h].concat();
    for word in [t.src_port, t.dst_port, 12, 0, 0x5a5a, 0x5a5a] {
        frame.extend(word.to_be_bytes());
    }
    frame
}

fn routes(names: &Names) -> Snapshot {
    let mut b = SnapshotBuilder::new(1);
    for (id, zone, addr) in [(PortId(0), "outside", "10.1.0.1"), (PortId(1), "inside", "10.2.0.1")] {
        b.port(PortInfo {
            id,
            name: zone.into(),
            mac: port_mac(id),
            mtu: 1500,
            up: true,
            zone: names.find_zone(zone),
            ipv4: Some(ip(addr)),
            ipv6: None,
            partial_checksums: false,
        });
    }
    for (prefix, port, host) in
        [("10.1.0.0/24", PortId(0), "10.1.0.2"), ("10.2.0.0/24", PortId(1), "10.2.0.2")]
    {
        let hop = NextHop { port: Some(port), gateway: None, weight: 1, mtu: None };
        b.route(prefix.parse().unwrap(), Route::Via(vec![hop]));
        b.neighbour(port, ip(host), Mac([2, 0xc, 0, 0, 0, port.0]));
    }
    b.build()
}

/// How a node is made.
#[derive(Clone, Copy)]
pub(super) struct Make {
    pub(super) workers: u16,
    pub(super) capacity: u32,
    pub(super) replication: ReplicationConfig,
    pub(super) shard: ShardConfig,
}

impl Default for Make {
    fn default() -> Self {
        Make {
            workers: 1,
            capacity: 4096,
            replication: ReplicationConfig::default(),
            shard: ShardConfig::default(),
        }
    }
}

impl Node {
    fn new(it: Boot, make: Make, ahead_ms: i64) -> Node {
        let (mut names, hash_key) = (Names::default(), [u64::from(it.node), 7]);
        // Numbers of names differ from node to node.
        (0..it.node).for_each(|n| assert!(names.zone(&format!("unused-{n}")).is_ok()));
        let file = policy::check(POLICY, "test.toml").file.unwrap();
        let compiled = Arc::new(policy::compile(&file, 1, &mut names).unwrap());
        let routes = Arc::new(routes(&names));
        let workers = (0..make.workers).map(|shard| {
            let config = EngineConfig {
                shard,
                shards: make.workers,
                capacity: make.capacity,
                hash_key,
                node_id: it.node,
                boot: it.boot,
                icmp_errors_per_s: 10,
                fragments: FragmentConfig { datagrams: 8, timeout_ms: 1000 },
            };
            let mut engine = Engine::new(config, routes.clone()).unwrap();
            engine.set_policy(compiled.clone());
            engine.enable_replication(make.replication).unwrap();
            let mut wire = MemoryWire::default();
            wire.inbox.push_back(FromNode::Names(Arc::new(names.clone())));
            wire.inbox.push_back(FromNode::View(Arc::new(View::alone(it))));
            Worker { engine, shard: Shard::new(make.shard), wire }
        });
        Node {
            it,
            workers: workers.collect(),
            names,
            learned: 0,
            hasher: TupleHasher::new(hash_key),
            ahead_ms,
            stopped: false,
            inlets: BTreeMap::new(),
            unapplied: BTreeMap::new(),
            resyncs: 0,
            ordered_at: BTreeMap::new(),
            news: Vec::new(),
            doubts: Default::default(),
            closed: 0,
        }
    }

    fn shard_of(&self, tuple: &Tuple) -> u16 {
        shard_of(self.hasher.hash(&tuple.canonical().0), self.workers.len() as u16)
    }

    pub(super) fn all(&mut self, message: impl Fn() -> FromNode) {
        self.workers.iter_mut().for_each(|w| w.wire.inbox.push_back(message()));
    }

    /// What a coordinator does: one order for all that ask within a moment.
    fn order_resync(&mut self, peer: Peer, ms: u64) {
        if self.ordered_at.get(&peer).is_some_and(|at| ms < at + 20) {
            return;
        }
        self.ordered_at.insert(peer, ms);
        self.resyncs += 1;
        let number = self.resyncs;
        self.all(|| FromNode::Resync { peer, number });
    }

    /// How often a resync was wanted because views differed.
    pub(super) fn views_differed(&self) -> usize {
        let differ = |n: &&News| matches!(n, News::WantsResync { why: ResyncWhy::ViewsDiffered, .. });
        self.news.iter().filter(differ).count()
    }

    fn now(&self, ms: u64) -> Now {
        Now(ms.checked_add_signed(self.ahead_ms).unwrap())
    }

    fn sessions(&self, ms: u64) -> Vec<SessionView> {
        let mut out = Vec::new();
        for worker in &self.workers {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                cursor = worker.engine.list(at, 64, &SessionFilter::default(), self.now(ms), &mut out);
            }
        }
        out
    }
}

impl World {
    /// Nodes 1, 2, ... made like this.
    pub(super) fn new(makes: &[Make]) -> World {
        let node = |(n, make): (usize, &Make)| {
            Node::new(Boot { node: n as u16 + 1, boot: 7 }, *make, 1_000_000 * n as i64)
        };
        World { nodes: makes.iter().enumerate().map(node).collect(), ms: 1_000_000, ..World::default() }
    }

    /// A cluster of such nodes, all joined and in sync.
    pub(super) fn cluster(makes: &[Make]) -> World {
        let mut world = World::new(makes);
        let all: Vec<usize> = (0..makes.len()).collect();
        all.iter().for_each(|n| world.view(*n, &all));
        for a in 0..makes.len() {
            (a + 1..makes.len()).for_each(|b| world.join(a, b));
        }
        world.run(300);
        world
    }

    /// What node `at` believes: these are alive and in sync.
    pub(super) fn view(&mut self, at: usize, in_sync: &[usize]) {
        let boots: Vec<Boot> = in_sync.iter().map(|n| self.nodes[*n].it).collect();
        let view = Arc::new(View::new(self.nodes[at].it, [], boots, DETECTION_MS));
        self.nodes[at].all(|| FromNode::View(view.clone()));
    }

    /// The node starts anew, empty, with one more boot.
    pub(super) fn reboot(&mut self, at: usize) {
        let old = &self.nodes[at];
        let make = Make { workers: old.workers.len() as u16, ..Make::default() };
        let it = Boot { boot: old.it.boot + 1, ..old.it };
        // Its clock begins anew too.
        self.nodes[at] = Node::new(it, make, -(self.ms as i64));
    }

    /// A link between two nodes.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        self.links += 1;
        for (from, to) in [(a, b), (b, a)] {
            let cable = self.cables.entry((from, to)).or_default();
            cable.link = self.links;
            cable.queues.clear();
            self.up(from, to);
        }
    }

    /// Node `to` hears that its link to `from` is up.
    fn up(&mut self, from: usize, to: usize) {
        let (ms, link, peer) = (self.ms, self.links, Peer(from as u8));
        let (it, streams) = (self.nodes[from].it, self.nodes[from].workers.len().max(1) as u16);
        let uptime_ms = self.nodes[from].now(ms).0;
        let node = &mut self.nodes[to];
        for stream in 0..streams {
            let config = InletConfig {
                teller: it,
                me: node.it,
                stream,
                shards: node.workers.len() as u16,
                uptime_ms,
                up_at: node.now(ms),
                records_per_s_max: 100_000,
            };
            node.inlets.insert((peer, stream), Inlet::new(config));
            node.unapplied.insert((peer, stream), BTreeMap::new());
        }
        node.all(|| FromNode::Up { peer, it, link, streams, uptime_ms });
    }

    /// What is on its way is lost.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let Some(cable) = self.cables.get_mut(&(from, to)).filter(|cable| cable.link != 0) else {
                continue;
            };
            let (link, peer) = (std::mem::take(&mut cable.link), Peer(to as u8));
            cable.queues.clear();
            self.nodes[from].all(|| FromNode::Down { peer, link });
        }
    }

    pub(super) fn delay(&mut self, from: usize, to: usize, ms: u64) {
        self.cables.entry((from, to)).or_default().delay_ms = ms;
    }

    /// The rings of `from` towards `to` take nothing.
    pub(super) fn jam(&mut self, from: usize, to: usize, jammed: bool) {
        for worker in &mut self.nodes[from].workers {
            if jammed {
                worker.wire.full.insert(Peer(to as u8));
            } else {
                worker.wire.full.remove(&Peer(to as u8));
            }
        }
    }

    /// A packet of the `n`th flow through a node, of its first direction or the reply; whether it is forwarded.
    pub(super) fn send(&mut self, at: usize, n: u16, forward: bool) -> bool {
        let ms = self.ms;
        let node = &mut self.nodes[at];
        let (now, shard) = (node.now(ms), node.shard_of(&flow(n)));
        let mut frames = [TestFrame { port: PortId(u8::from(!forward)), bytes: packet(flow(n), forward) }];
        let mut verdicts: ArrayVec<Verdict, BATCH_MAX> = ArrayVec::new();
        node.workers[usize::from(shard)].engine.process(&mut frames, &mut verdicts, now);
        matches!(verdicts[0], Verdict::Transmit(_))
    }

    /// Clears a flow at a node.
    pub(super) fn clear(&mut self, at: usize, n: u16) {
        let ms = self.ms;
        let node = &mut self.nodes[at];
        let (now, shard) = (node.now(ms), node.shard_of(&flow(n)));
        let port = flow(n).src_port;
        let filter = SessionFilter {
            source_port: Some(tidegate_dataplane::engine::PortRange { first: port, last: port }),
            ..Default::default()
        };
        node.workers[usize::from(shard)].engine.clear(0, u32::MAX, &filter, now);
    }

    /// Lets time pass, a millisecond at a time.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            self.work();
            self.deliver();
        }
    }

    /// One pass of every worker.
    pub(super) fn work(&mut self) {
        for at in 0..self.nodes.len() {
            let (now, node) = (self.nodes[at].now(self.ms), &mut self.nodes[at]);
            if node.stopped {
                continue;
            }
            let mut news = Vec::new();
            for Worker { engine, shard, wire } in &mut node.workers {
                shard.watch(engine, now, wire);
                engine.sweep(now);
                engine.take_events(|_| {});
                shard.run(engine, now, wire);
                news.append(&mut wire.news);
                for (peer, link, frame) in wire.sent.drain(..) {
                    let cable = self.cables.entry((at, usize::from(peer.0))).or_default();
                    if cable.link == link {
                        let due = self.ms + cable.delay_ms;
                        let stream = Some(engine.config().shard);
                        cable.queues.entry(stream).or_default().push_back((due, frame));
                    }
                }
            }
            news.into_iter().for_each(|news| self.news(at, news));
        }
    }

    fn news(&mut self, at: usize, news: News) {
        let node = &mut self.nodes[at];
        node.news.push(news);
        match news {
            News::Applied { peer, link, stream, number } => {
                let open = node.unapplied.entry((peer, stream)).or_default();
                if let Some(parts) =
                    open.get_mut(&number).filter(|_| self.cables[&(at, usize::from(peer.0))].link == link)
                {
                    *parts -= 1;
                }
                self.acknowledge(at, peer, stream);
            }
            News::WantsResync { peer, why, .. } if why.asks_peer() => {
                self.back(at, peer, Back::Wants { why })
            }
            News::WantsResync { peer, .. } => node.order_resync(peer, self.ms),
            News::NoRoom { peer, .. } => self.back(at, peer, Back::NoRoom),
            News::Room { peer, .. } => self.back(at, peer, Back::Room),
            News::Paused { .. } | News::ResyncApplied { .. } | News::ResyncSent { .. } => {}
        }
    }

    /// Acknowledges what is applied up to the first batch that is not.
    fn acknowledge(&mut self, at: usize, peer: Peer, stream: u16) {
        let open = self.nodes[at].unapplied.entry((peer, stream)).or_default();
        let mut done = None;
        while let Some(first) = open.first_entry().filter(|first| *first.get() == 0) {
            done = Some(*first.key());
            first.remove();
        }
        if let Some(number) = done {
            self.back(at, peer, Back::Ack { stream, number });
        }
    }

    fn back(&mut self, at: usize, peer: Peer, back: Back) {
        let cable = self.cables.entry((at, usize::from(peer.0))).or_default();
        if cable.link != 0 {
            let due = self.ms + cable.delay_ms;
            cable.queues.entry(None).or_default().push_back((due, back.frame()));
        }
    }

    fn deliver(&mut self) {
        let pairs: Vec<(usize, usize)> = self.cables.keys().copied().collect();
        for (from, to) in pairs {
            if self.nodes[to].stopped {
                continue;
            }
            let (ms, cable) = (self.ms, self.cables.get_mut(&(from, to)).unwrap());
            let link = cable.link;
            let mut came = Vec::new();
            for (stream, queue) in &mut cable.queues {
                while let Some((_, frame)) = queue.pop_front_if(|(due, _)| *due <= ms) {
                    came.push((*stream, frame));
                }
            }
            for (stream, frame) in came {
                self.take(from, to, link, stream, &frame);
            }
        }
    }

    fn take(&mut self, from: usize, to: usize, link: u64, stream: Option<u16>, frame: &[u8]) {
        let (ms, peer, node) = (self.ms, Peer(from as u8), &mut self.nodes[to]);
        let (kind, body) = open(frame).expect("shards make whole frames");
        let Some(stream) = stream else {
            assert_eq!(kind, Kind::Back);
            match Back::read(body).expect("they are written above") {
                Back::Ack { stream, number } => {
                    let at = node.now(ms);
                    let inbox = &mut node.workers[usize::from(stream)].wire.inbox;
                    inbox.push_back(FromNode::Acked { peer, link, number, at });
                }
                Back::NoRoom => node.all(|| FromNode::Full { peer, link, full: true }),
                Back::Room => node.all(|| FromNode::Full { peer, link, full: false }),
                Back::Wants { .. } => node.order_resync(peer, ms),
            }
            return;
        };
        assert_eq!(kind, Kind::Batch);
        let (now, hasher, shards) = (node.now(ms), node.hasher, node.workers.len() as u16);
        let mut names = PeerNames { names: &mut node.names, learned: &mut node.learned };
        let place = |tuple: &Tuple| shard_of(hasher.hash(&tuple.canonical().0), shards);
        let Some(inlet) = node.inlets.get_mut(&(peer, stream)) else { return };
        let Ok(decoded) = inlet.read(body, now, &mut names, &place) else {
            node.closed += 1;
            return self.cut(from, to);
        };
        if decoded.learned {
            let names = Arc::new(node.names.clone());
            node.all(|| FromNode::Names(names.clone()));
        }
        node.doubts.iter_mut().zip(decoded.refused).for_each(|(sum, n)| *sum += n);
        let number = decoded.number;
        let mut parts = 0;
        for (worker, items) in
            node.workers.iter_mut().zip(decoded.shards).filter(|(_, items)| !items.is_empty())
        {
            parts += 1;
            worker.wire.inbox.push_back(FromNode::Items { peer, link, stream, number, items });
        }
        node.unapplied.entry((peer, stream)).or_default().insert(number, parts);
        self.acknowledge(to, peer, stream);
    }

    /// What a peer that is no shard says by stream 0.
    pub(super) fn forge(&mut self, from: usize, to: usize, frame: Vec<u8>) {
        let ms = self.ms;
        let cable = self.cables.get_mut(&(from, to)).unwrap();
        cable.queues.entry(Some(0)).or_default().push_back((ms, frame));
    }

    /// Flows that a node has a session of.
    pub(super) fn flows(&self, at: usize) -> BTreeSet<u16> {
        self.sessions(at).iter().map(|s| s.wings[0].tuple.src_port - 1024).collect()
    }

    pub(super) fn sessions(&self, at: usize) -> Vec<SessionView> {
        self.nodes[at].sessions(self.ms)
    }

    /// Identity of a flow's session at a node.
    pub(super) fn id(&self, at: usize, n: u16) -> Option<SessionId> {
        self.sessions(at).iter().find(|s| s.wings[0].tuple == flow(n)).map(|s| s.id)
    }

    /// What a node's first worker says of a peer.
    pub(super) fn status(&self, at: usize, of: usize) -> PeerStatus {
        let worker = &self.nodes[at].workers[0];
        let status = worker.shard.status(&worker.engine);
        status.peers.into_iter().find(|p| p.peer == Peer(of as u8)).expect("it was connected")
    }

    /// Runs until that holds; half of the sessions' timeout is far more than anything takes.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            self.run(50);
        }
        let flows: Vec<usize> = (0..self.nodes.len()).map(|n| self.flows(n).len()).collect();
        for a in 0..self.nodes.len() {
            let (here, there) = (self.sessions(a), self.sessions((a + 1) % self.nodes.len()));
            let differ = here.iter().filter(|s| !there.iter().any(|t| t.id == s.id && t.state == s.state));
            println!(
                "only at node {}: {:?}",
                a + 1,
                differ.map(|s| (s.id, s.state, s.owner)).collect::<Vec<_>>()
            );
        }
        panic!("never: {what}; flows {flows:?}");
    }
}
