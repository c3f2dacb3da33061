//! Members with an exchange: what came, and what their coordinators believe, for tests to look at.

use super::*;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::mpsc;
use tidegate_dataplane::session::owner::{Boot, View};
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::coordinator::{Coordinator, CoordinatorConfig, Order};
use tidegate_sync::replication::detect::DetectConfig;
use tidegate_sync::replication::heartbeat::Heartbeat;
use tidegate_sync_net::replicate::{
    Exchange, ExchangeConfig, ExchangeHealth, Heart, Intake, Intakes, Link, Links, PeerExchange, Wiring,
};

/// What a test sees of one node.
#[derive(Default)]
pub struct Seen {
    /// `up` and `down` with node and number, in order.
    pub events: Vec<(&'static str, u16, u64)>,
    /// The present link of each node.
    pub links: BTreeMap<u16, Arc<Link>>,
    /// Batches by node and stream, in order.
    pub batches: BTreeMap<(u16, u16), Vec<Bytes>>,
    /// Messages by the way back, by node.
    pub backs: BTreeMap<u16, Vec<Bytes>>,
    /// Nodes whose batches are not taken.
    pub shut: Vec<u16>,
    pub view: Option<Arc<View>>,
    pub died: Vec<Boot>,
    pub heard: Vec<Heartbeat>,
}

pub type Shown = Arc<Mutex<Seen>>;

enum News {
    Up(Boot, u64),
    Down(u16, u64),
}

struct Hub {
    shown: Shown,
    news: mpsc::Sender<News>,
}

impl Links for Hub {
    fn up(&self, link: Link) -> Option<Intakes> {
        let (node, number) = (link.it.node, link.number);
        let streams = (0..link.streams).map(|stream| -> Box<dyn Intake> {
            Box::new(Sink { shown: self.shown.clone(), node, stream: Some(stream) })
        });
        let streams = streams.collect();
        let back = Box::new(Sink { shown: self.shown.clone(), node, stream: None });
        let _ = self.news.send(News::Up(link.it, number));
        let mut seen = self.shown.lock().unwrap();
        seen.events.push(("up", node, number));
        seen.links.insert(node, Arc::new(link));
        Some(Intakes { streams, back })
    }

    fn down(&self, node: u16, link: u64) {
        let _ = self.news.send(News::Down(node, link));
        let mut seen = self.shown.lock().unwrap();
        seen.events.push(("down", node, link));
        seen.links.remove(&node);
    }
}

struct Sink {
    shown: Shown,
    node: u16,
    stream: Option<u16>,
}

impl Intake for Sink {
    fn take(&mut self, batch: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if &batch[..] == b"nonsense" {
                return Err("a batch of nonsense".to_owned());
            }
            while self.stream.is_some() && self.shown.lock().unwrap().shut.contains(&self.node) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let mut seen = self.shown.lock().unwrap();
            match self.stream {
                Some(stream) => seen.batches.entry((self.node, stream)).or_default().push(batch),
                None => seen.backs.entry(self.node).or_default().push(batch),
            }
            Ok(())
        })
    }
}

struct Ticker {
    coordinator: Coordinator,
    news: mpsc::Receiver<News>,
    shown: Shown,
}

impl Heart for Ticker {
    fn heard(&mut self, it: &Heartbeat, now: Now) {
        self.coordinator.heard(it, now);
        let mut seen = self.shown.lock().unwrap();
        if seen.heard.len() < 1_000 {
            seen.heard.push(it.clone());
        }
    }

    fn tick(&mut self, now: Now) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Up(it, link) => self.coordinator.link_up(it, link, now),
                News::Down(node, link) => self.coordinator.link_down(node, link, now),
            }
        }
        self.coordinator.tick(now);
        let mut seen = self.shown.lock().unwrap();
        while let Some(order) = self.coordinator.poll_order() {
            match order {
                Order::View(view) => seen.view = Some(view),
                Order::Died { it } => seen.died.push(it),
                _ => {}
            }
        }
    }

    fn say(&mut self, into: &mut Heartbeat, now: Now) {
        self.coordinator.set_local(true, 1, 2, 3);
        self.coordinator.say(into, now);
    }

    fn interval_ms(&self) -> u32 {
        self.coordinator.interval_ms()
    }
}

/// A node's exchange, as a test drives it.
pub struct Exchanging {
    pub exchange: Option<Exchange>,
    pub shown: Shown,
}

/// So many streams does each node have.
pub const STREAMS: u16 = 2;

/// Starts a node's exchange under that boot, among nodes 1 to `nodes`.
pub fn exchanging(node: &Node, boot: u32, nodes: u16) -> Exchanging {
    let (shown, (news, heard)) = (Shown::default(), mpsc::channel());
    let me = Boot { node: u16::try_from(node.id().0).unwrap(), boot };
    // Not a test of the machine's patience: a second of silence is death here.
    let detect = DetectConfig { interval_ms: 50, misses: 20 };
    let mut coordinator = Coordinator::new(me, CoordinatorConfig { detect, shards: 1 }, Now(0));
    coordinator.set_members(&(1..=nodes).collect::<Vec<_>>(), Now(0));
    let heart = Box::new(Ticker { coordinator, news: heard, shown: shown.clone() });
    let links = Arc::new(Hub { shown: shown.clone(), news });
    let config =
        ExchangeConfig { boot, streams: STREAMS, started: Instant::now(), thread: "heart".to_owned() };
    let exchange = node.run(async { node.cluster().exchange(config, Wiring { links, heart }) }).unwrap();
    Exchanging { exchange: Some(exchange), shown }
}

impl Exchanging {
    pub fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.shown.lock().unwrap())
    }

    /// Waits for a link to that node; its number.
    pub fn linked(&self, node: u16) -> u64 {
        until(&format!("a link to node {node}"), || self.look(|s| s.links.contains_key(&node)));
        self.look(|s| s.links[&node].number)
    }

    /// Hands a batch over, as often as the queue takes it within a while; how many it took.
    pub fn offer(&self, node: u16, stream: u16, batches: &[Vec<u8>], patience: Duration) -> usize {
        let link = self.look(|s| s.links[&node].clone());
        let mut last = Instant::now();
        for (at, batch) in batches.iter().enumerate() {
            let mut batch = batch.clone();
            while let Err(back) = link.outlets[usize::from(stream)].send(batch) {
                if last.elapsed() > patience {
                    return at;
                }
                batch = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            last = Instant::now();
        }
        batches.len()
    }

    pub fn received(&self, node: u16, stream: u16) -> usize {
        self.look(|s| s.batches.get(&(node, stream)).map_or(0, Vec::len))
    }

    pub fn health(&self) -> ExchangeHealth {
        self.exchange.as_ref().expect("it runs").health()
    }

    pub fn peer(&self, node: u16) -> PeerExchange {
        let health = self.health();
        health.peers.into_iter().find(|p| p.node == node).expect("a known peer")
    }

    /// The boots that are alive by this node's view.
    pub fn alive(&self) -> Vec<(u16, u32)> {
        self.look(|s| {
            s.view.as_ref().map_or(Vec::new(), |v| v.alive().iter().map(|b| (b.node, b.boot)).collect())
        })
    }

    pub fn see(&self, boots: &[(u16, u32)]) {
        until(&format!("a view with {boots:?}"), || self.alive() == boots);
    }
}

/// Numbered batches of that length.
pub fn batches(count: usize, length: usize) -> Vec<Vec<u8>> {
    let one = |number: usize| {
        let mut batch = vec![7; length.max(8)];
        batch[..8].copy_from_slice(&(number as u64).to_le_bytes());
        batch
    };
    (0..count).map(one).collect()
}

/// The numbers in these batches.
pub fn numbers(batches: &[Bytes]) -> Vec<u64> {
    batches.iter().map(|b| u64::from_le_bytes(b[..8].try_into().unwrap())).collect()
}
