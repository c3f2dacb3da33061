//! A member that forges. Its certificate, its Raft part, its links and its heartbeats are a real node's, made by the
//! product's own code; what it says of sessions is whatever a test wants to have said.
#![allow(unreachable_pub, reason = "a part of one test")]
#![allow(clippy::disallowed_methods, reason = "a node lives in real time")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;
use tidegate_lab::lab::Member;
use tidegate_sync::replication::coordinator::{Coordinator, CoordinatorConfig};
use tidegate_sync::replication::detect::DetectConfig;
use tidegate_sync::replication::heartbeat::Heartbeat;
use tidegate_sync::replication::message::open;
use tidegate_sync::replication::outlet::Outlet;
use tidegate_sync::replication::{Back, Kind};
use tidegate_sync_net::cluster::{Cluster, Options};
use tidegate_sync_net::identity::Directory;
use tidegate_sync_net::replicate::{Exchange, ExchangeConfig, Heart, Intake, Intakes, Link, Links, Wiring};
use tokio::runtime::{Builder, Runtime};

use crate::common::{PATIENCE, eventually, pause};

/// It says that it has been up for so long: sessions that its earlier boots made must be older.
pub const UPTIME: Duration = Duration::from_secs(3_600);
/// Bytes of a batch that is filled; more is taken.
const ROOM: usize = 16 << 10;

/// In the place of a stopped node, until it is dropped.
pub struct Forger {
    me: Boot,
    seen: Arc<Seen>,
    exchange: Option<Exchange>,
    cluster: Option<Cluster>,
    runtime: Option<Runtime>,
}

/// The links that are up, by node.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<u32, Line>>);

/// One link, and what was said by it.
struct Line {
    link: Arc<Link>,
    outlet: Outlet,
    /// The newest batch that the other side has applied.
    acked: u64,
}

impl Seen {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<u32, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, node: u32) -> Option<Arc<Link>> {
        self.lines().get(&node).map(|line| line.link.clone())
    }
}

impl Forger {
    /// Takes the place of a node whose daemon has ended, among nodes 1 to `nodes`, and links up with all others.
    pub fn instead_of(member: Member<'_>, nodes: u16) -> Forger {
        let directory = member.plan().cluster_dir.clone();
        let seen = Arc::new(Seen::default());
        let here = seen.clone();
        // What is made in the namespace stays there: sockets and threads.
        let made = member.netns().run(move || {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let cluster = runtime.block_on(Cluster::open(&directory, Options::default())).unwrap();
            let clock_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
            let boot = Directory::open(&directory).unwrap().unwrap().next_boot(clock_s).unwrap();
            let me = Boot { node: u16::try_from(cluster.id().0).unwrap(), boot };
            let started = Instant::now() - UPTIME;
            let config = ExchangeConfig { boot, streams: 1, started, thread: "forger".to_owned() };
            let heart = Box::new(Liar::new(me, nodes, Now(started.elapsed().as_millis() as u64)));
            let wiring = Wiring { links: Arc::new(Door(here)), heart };
            let exchange = runtime.block_on(async { cluster.exchange(config, wiring) }).unwrap();
            (me, exchange, cluster, runtime)
        });
        let (me, exchange, cluster, runtime) = made.unwrap();
        let forger =
            Forger { me, seen, exchange: Some(exchange), cluster: Some(cluster), runtime: Some(runtime) };
        let others = (1..=u32::from(nodes)).filter(|node| *node != u32::from(me.node));
        others.for_each(|node| drop(forger.linked(node)));
        forger
    }

    /// Who it says that it is.
    pub fn me(&self) -> Boot {
        self.me
    }

    /// The link to a node, when it is up.
    fn linked(&self, node: u32) -> Arc<Link> {
        eventually(&format!("a link to node{node}"), PATIENCE, || self.seen.link(node))
    }

    /// Says something to a node, in one batch, and waits until all of it was judged there.
    pub fn tell(&self, node: u32, say: impl FnOnce(&mut Outlet)) {
        let number = self.hand_over(node, say);
        eventually(&format!("node{node} has read batch {number}"), PATIENCE, || {
            let lines = self.seen.lines();
            let line = lines.get(&node).unwrap_or_else(|| panic!("the link to node{node} is down"));
            (line.acked >= number).then_some(())
        });
    }

    /// Says something without waiting for what becomes of it; the number of the batch.
    pub fn hand_over(&self, node: u32, say: impl FnOnce(&mut Outlet)) -> u64 {
        let link = self.linked(node);
        let (number, mut frame) = {
            let mut lines = self.seen.lines();
            let line = lines.get_mut(&node).expect("a link that is up");
            say(&mut line.outlet);
            line.outlet.finish().expect("something was said")
        };
        while let Err(full) = link.outlets[0].send(frame) {
            frame = full;
            pause(Duration::from_millis(1));
        }
        number
    }

    /// Sends bytes in the place of a batch, and waits until the node has closed the link for them and taken a new one.
    pub fn break_by_batch(&self, node: u32, bytes: Vec<u8>) {
        self.broken(node, |link| drop(link.outlets[0].send(bytes)));
    }

    /// The same by the way back, where acknowledgements go.
    pub fn break_by_back(&self, node: u32, bytes: Vec<u8>) {
        self.broken(node, |link| drop(link.back.send(bytes)));
    }

    /// Says something by the way back.
    pub fn say_back(&self, node: u32, what: Back) {
        drop(self.linked(node).back.send(what.frame()));
    }

    fn broken(&self, node: u32, by: impl FnOnce(&Link)) {
        let link = self.linked(node);
        by(&link);
        eventually(&format!("node{node} closes the link and takes a new one"), PATIENCE, || {
            self.seen.link(node).filter(|new| new.number > link.number)
        });
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        let (Some(runtime), Some(cluster)) = (self.runtime.take(), self.cluster.take()) else { return };
        if let Some(exchange) = self.exchange.take() {
            runtime.block_on(exchange.stop());
        }
        self.seen.lines().clear();
        runtime.block_on(cluster.shutdown());
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

/// Hears of links.
struct Door(Arc<Seen>);

impl Links for Door {
    fn up(&self, link: Link) -> Option<Intakes> {
        let (node, link) = (u32::from(link.it.node), Arc::new(link));
        let stream = |number: u16| -> Box<dyn Intake> { Box::new(Reader { link: link.clone(), number }) };
        let streams = (0..link.streams).map(stream).collect();
        let back = Box::new(WayBack { seen: self.0.clone(), node, link: link.number });
        self.0.lines().insert(node, Line { link, outlet: Outlet::new(ROOM), acked: 0 });
        Some(Intakes { streams, back })
    }

    fn down(&self, node: u16, link: u64) {
        let (mut lines, node) = (self.0.lines(), u32::from(node));
        if lines.get(&node).is_some_and(|line| line.link.number == link) {
            lines.remove(&node);
        }
    }
}

/// Says that it has applied whatever comes.
struct Reader {
    link: Arc<Link>,
    number: u16,
}

impl Intake for Reader {
    fn take(&mut self, batch: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let number = open(&batch).ok().and_then(|(_, body)| body.first_chunk()).copied();
        if let Some(number) = number.map(u64::from_le_bytes) {
            drop(self.link.back.send(Back::Ack { stream: self.number, number }.frame()));
        }
        async { Ok(()) }.boxed()
    }
}

/// Notes what was acknowledged.
struct WayBack {
    seen: Arc<Seen>,
    node: u32,
    link: u64,
}

impl Intake for WayBack {
    fn take(&mut self, message: Bytes) -> BoxFuture<'_, Result<(), String>> {
        if let Ok((Kind::Back, body)) = open(&message)
            && let Ok(Back::Ack { number, .. }) = Back::read(body)
            && let Some(line) = self.seen.lines().get_mut(&self.node)
            && line.link.number == self.link
        {
            line.acked = number;
        }
        async { Ok(()) }.boxed()
    }
}

/// Says to everybody that it is in sync, whatever it holds.
struct Liar {
    coordinator: Coordinator,
}

impl Liar {
    fn new(me: Boot, nodes: u16, now: Now) -> Liar {
        let detect = DetectConfig { interval_ms: 100, misses: 5 };
        let mut coordinator = Coordinator::new(me, CoordinatorConfig { detect, shards: 1 }, now);
        coordinator.set_members(&(1..=nodes).collect::<Vec<_>>(), now);
        Liar { coordinator }
    }
}

impl Heart for Liar {
    fn heard(&mut self, it: &Heartbeat, now: Now) {
        self.coordinator.heard(it, now);
    }

    fn tick(&mut self, now: Now) {
        self.coordinator.tick(now);
        while self.coordinator.poll_order().is_some() {}
    }

    fn say(&mut self, into: &mut Heartbeat, now: Now) {
        self.coordinator.set_local(true, 1, 2, 10_000);
        self.coordinator.say(into, now);
        into.in_sync = true;
    }

    fn interval_ms(&self) -> u32 {
        self.coordinator.interval_ms()
    }
}
