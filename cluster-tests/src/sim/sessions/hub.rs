//! What stands between a node's shards and the links to its peers, and what it believes of them: in the
//! daemon these are threads and rings, here it is queues.

use crate::sim::rng::mix;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::engine::{Peer, shard_of};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::table::TupleHasher;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::coordinator::{Coordinator, CoordinatorConfig, Order};
use tidegate_sync::replication::detect::DetectConfig;
use tidegate_sync::replication::heartbeat::{
    Cover, HEARTBEAT_BYTES_MAX, Heartbeat, Newest, PATHS_MAX, SEAL_BYTES,
};
use tidegate_sync::replication::message::{ENVELOPE_BYTES, Kind, read_envelope};
use tidegate_sync::replication::{
    Back, FromNode, Inlet, InletConfig, News, PeerNames, ResyncWhy, Shard, Wire,
};

/// The stream of acknowledgements.
pub(super) const BACK: u16 = u16::MAX;
/// Messages that wait for a worker; batches are not read beyond.
pub(super) const INBOX: usize = 64;

/// A worker's side of the rings.
pub(super) struct Rings<'a> {
    pub(super) inbox: &'a mut VecDeque<FromNode>,
    pub(super) out: &'a mut VecDeque<(u64, Vec<u8>)>,
    pub(super) news: &'a mut Vec<News>,
    pub(super) room: usize,
}

impl Wire for Rings<'_> {
    fn next(&mut self) -> Option<FromNode> {
        self.inbox.pop_front()
    }

    fn send(&mut self, _peer: Peer, link: u64, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        if self.out.len() >= self.room {
            return Err(frame);
        }
        self.out.push_back((link, frame));
        Ok(())
    }

    fn tell(&mut self, news: News) {
        self.news.push(news);
    }
}

/// One worker's shard with its rings.
pub(super) struct Post {
    pub(super) shard: Shard,
    pub(super) inbox: VecDeque<FromNode>,
    pub(super) out: VecDeque<(u64, Vec<u8>)>,
    pub(super) news: Vec<News>,
}

/// One link, at this end.
pub(super) struct Connected {
    pub(super) link: u64,
    inlets: Vec<Inlet>,
    /// Batches that not all shards have applied: how many have not, by stream and number.
    open: BTreeMap<(u16, u64), usize>,
    /// What came and was not read.
    unread: VecDeque<(u16, Vec<u8>)>,
    /// Shards that lack room for the peer's sessions.
    no_room: BTreeSet<usize>,
}

/// Everything between the shards and the peers.
pub(super) struct Hub {
    me: Boot,
    pub(super) coordinator: Coordinator,
    pub(super) links: BTreeMap<u16, Connected>,
    /// The boot of each peer that a link was made to last: its key seals heartbeats.
    pub(super) known: BTreeMap<u16, Boot>,
    newest: BTreeMap<Boot, Newest>,
    sequence: u64,
    learned: u32,
    hasher: TupleHasher,
    shards: u16,
    /// Frames for peers' back streams.
    pub(super) back: Vec<(u64, Vec<u8>)>,
    /// Resyncs that shards want, for the story.
    said: Vec<String>,
    /// Records that were refused on arrival.
    pub(super) doubts: BTreeMap<&'static str, u64>,
    /// Heartbeats whose seal was wrong, or that were not new.
    pub(super) heartbeats_refused: u64,
}

/// A peer's place.
pub(super) fn peer_of(node: u16) -> Peer {
    Peer((node - 1) as u8)
}

impl Hub {
    pub(super) fn new(
        me: Boot,
        nodes: u16,
        detect: DetectConfig,
        hash_key: [u64; 2],
        shards: u16,
        now: Now,
    ) -> Self {
        let mut coordinator = Coordinator::new(me, CoordinatorConfig { detect, shards }, now);
        coordinator.set_members(&(1..=nodes).collect::<Vec<_>>(), now);
        Hub {
            me,
            coordinator,
            links: BTreeMap::new(),
            known: BTreeMap::new(),
            newest: BTreeMap::new(),
            sequence: 0,
            learned: 0,
            hasher: TupleHasher::new(hash_key),
            shards,
            back: Vec::new(),
            said: Vec::new(),
            doubts: BTreeMap::new(),
            heartbeats_refused: 0,
        }
    }

    /// A link is up.
    pub(super) fn up(
        &mut self,
        connected: (u64, Boot),
        streams: u16,
        uptime_ms: u64,
        posts: &mut [Post],
        now: Now,
    ) {
        let (link, it) = connected;
        let inlet = |stream| {
            let (me, shards) = (self.me, self.shards);
            let records_per_s_max = InletConfig::RECORDS_PER_S_MAX;
            Inlet::new(InletConfig {
                teller: it,
                me,
                stream,
                shards,
                uptime_ms,
                up_at: now,
                records_per_s_max,
            })
        };
        let connected = Connected {
            link,
            inlets: (0..streams).map(inlet).collect(),
            open: BTreeMap::new(),
            unread: VecDeque::new(),
            no_room: BTreeSet::new(),
        };
        self.links.insert(it.node, connected);
        self.known.insert(it.node, it);
        let peer = peer_of(it.node);
        for post in posts {
            post.inbox.push_back(FromNode::Up { peer, it, link, streams, uptime_ms });
        }
        self.coordinator.link_up(it, link, now);
    }

    /// A link is down, if it is the present one.
    pub(super) fn down(&mut self, node: u16, link: u64, posts: &mut [Post], now: Now) {
        if self.links.get(&node).is_none_or(|c| c.link != link) {
            return;
        }
        self.links.remove(&node);
        for post in posts {
            post.inbox.push_back(FromNode::Down { peer: peer_of(node), link });
        }
        self.coordinator.link_down(node, link, now);
    }

    /// Something came by a link; it waits until there is room for it.
    pub(super) fn came(&mut self, link: u64, stream: u16, bytes: Vec<u8>) {
        if let Some(connected) = self.links.values_mut().find(|c| c.link == link) {
            connected.unread.push_back((stream, bytes));
        }
    }

    /// Reads what has come, as far as the shards have room for it; notes what was read, by link and stream, in bytes.
    ///
    /// # Errors
    /// A peer broke the protocol: its node, and how.
    pub(super) fn read(
        &mut self,
        posts: &mut [Post],
        names: &mut Names,
        now: Now,
        done: &mut Vec<(u64, u16, usize)>,
    ) -> Result<(), (u16, String)> {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            while posts.iter().all(|p| p.inbox.len() < INBOX) {
                let Some(connected) = self.links.get_mut(&node) else { break };
                let Some((stream, bytes)) = connected.unread.pop_front() else { break };
                done.push((connected.link, stream, bytes.len()));
                self.read_one(node, stream, &bytes, posts, names, now).map_err(|why| (node, why))?;
            }
        }
        Ok(())
    }

    fn read_one(
        &mut self,
        node: u16,
        stream: u16,
        bytes: &[u8],
        posts: &mut [Post],
        names: &mut Names,
        now: Now,
    ) -> Result<(), String> {
        let (envelope, body) = bytes.split_first_chunk::<ENVELOPE_BYTES>().ok_or("a short frame")?;
        let (kind, length) = read_envelope(envelope).map_err(|e| e.to_string())?;
        if length != body.len() {
            return Err("a frame of another length".to_owned());
        }
        match kind {
            Kind::Back if stream == BACK => self.read_back(node, body, posts, now),
            Kind::Batch => self.read_batch(node, stream, body, posts, names, now),
            Kind::Back => Err("an acknowledgement on a worker's stream".to_owned()),
        }
    }

    fn read_batch(
        &mut self,
        node: u16,
        stream: u16,
        body: &[u8],
        posts: &mut [Post],
        names: &mut Names,
        now: Now,
    ) -> Result<(), String> {
        let Hub { links, hasher, shards, learned, doubts, .. } = self;
        let Some(connected) = links.get_mut(&node) else { return Ok(()) };
        let inlet = connected.inlets.get_mut(usize::from(stream)).ok_or("no such stream")?;
        let shard = |tuple: &Tuple| shard_of(hasher.hash(&tuple.canonical().0), *shards);
        let mut table = PeerNames { names, learned };
        let decoded = inlet.read(body, now, &mut table, &shard).map_err(|e| e.to_string())?;
        for (doubt, count) in tidegate_sync::replication::Doubt::ALL.iter().zip(decoded.refused) {
            if count > 0 {
                *doubts.entry(doubt.name()).or_default() += count;
            }
        }
        if decoded.learned {
            let names = Arc::new(names.clone());
            posts.iter_mut().for_each(|p| p.inbox.push_back(FromNode::Names(names.clone())));
        }
        let (link, number, peer) = (connected.link, decoded.number, peer_of(node));
        connected.open.insert((stream, number), posts.len());
        for (post, items) in posts.iter_mut().zip(decoded.shards) {
            post.inbox.push_back(FromNode::Items { peer, link, stream, number, items });
        }
        Ok(())
    }

    fn read_back(&mut self, node: u16, body: &[u8], posts: &mut [Post], now: Now) -> Result<(), String> {
        let Some(link) = self.links.get(&node).map(|c| c.link) else { return Ok(()) };
        let peer = peer_of(node);
        match Back::read(body).map_err(|e| e.to_string())? {
            Back::Ack { stream, number } => {
                let post = posts.get_mut(usize::from(stream)).ok_or("an acknowledgement of no stream")?;
                post.inbox.push_back(FromNode::Acked { peer, link, number, at: now });
            }
            back @ (Back::NoRoom | Back::Room) => {
                let full = back == Back::NoRoom;
                posts.iter_mut().for_each(|p| p.inbox.push_back(FromNode::Full { peer, link, full }));
                self.coordinator.peer_room(node, !full);
            }
            Back::Wants { .. } => self.coordinator.peer_wants(node, now),
        }
        Ok(())
    }

    fn send_back(&mut self, node: u16, back: Back) {
        if let Some(connected) = self.links.get(&node) {
            self.back.push((connected.link, back.frame()));
        }
    }

    /// Takes what the shards have to say.
    pub(super) fn news(&mut self, posts: &mut [Post], now: Now) {
        for (shard, post) in posts.iter_mut().enumerate() {
            for news in std::mem::take(&mut post.news) {
                self.one_news(shard, news, now);
            }
        }
    }

    fn one_news(&mut self, shard: usize, news: News, now: Now) {
        let present = |hub: &Self, peer: Peer, link: u64| {
            let node = u16::from(peer.0) + 1;
            hub.links.get(&node).filter(|c| c.link == link).map(|_| node)
        };
        match news {
            News::Applied { peer, link, stream, number } => {
                let Some(node) = present(self, peer, link) else { return };
                let Some(connected) = self.links.get_mut(&node) else { return };
                if let Some(left) = connected.open.get_mut(&(stream, number)) {
                    *left -= 1;
                    if *left == 0 {
                        connected.open.remove(&(stream, number));
                        self.send_back(node, Back::Ack { stream, number });
                    }
                }
            }
            News::ResyncApplied { peer, link, number, .. } => {
                if let Some(node) = present(self, peer, link) {
                    self.coordinator.resync_applied(shard as u16, node, link, number, now);
                }
            }
            News::ResyncSent { .. } => {}
            News::WantsResync { peer, link, why, since } => {
                let Some(node) = present(self, peer, link) else { return };
                self.said.push(format!("worker {shard} wants a resync with node {node}: {why:?}"));
                match why.asks_peer() {
                    true => self.send_back(node, Back::Wants { why }),
                    false => self.coordinator.resync_to(node, since, now),
                }
            }
            News::NoRoom { peer, link } => self.room(shard, peer, link, false, now),
            News::Room { peer, link } => self.room(shard, peer, link, true, now),
            News::Paused { .. } => self.coordinator.worker_paused(now),
        }
    }

    fn room(&mut self, shard: usize, peer: Peer, link: u64, room: bool, now: Now) {
        let node = u16::from(peer.0) + 1;
        let Some(connected) = self.links.get_mut(&node).filter(|c| c.link == link) else { return };
        let was_empty = connected.no_room.is_empty();
        if room {
            connected.no_room.remove(&shard);
        } else {
            connected.no_room.insert(shard);
        }
        let is_empty = connected.no_room.is_empty();
        self.coordinator.room(shard as u16, node, room, now);
        if was_empty != is_empty {
            self.send_back(node, if is_empty { Back::Room } else { Back::NoRoom });
        }
    }

    /// Does what the coordinator wants; what there is to log of it.
    pub(super) fn orders(&mut self, posts: &mut [Post]) -> Vec<String> {
        let mut said = std::mem::take(&mut self.said);
        while let Some(order) = self.coordinator.poll_order() {
            let mut all = |message: &dyn Fn() -> FromNode| {
                posts.iter_mut().for_each(|p| p.inbox.push_back(message()));
            };
            match order {
                Order::View(view) => {
                    said.push(format!("sees {:?} in sync, {:?} alive", view.in_sync(), view.alive()));
                    all(&|| FromNode::View(view.clone()));
                }
                Order::Died { it } => all(&|| FromNode::Died { peer: peer_of(it.node), it }),
                Order::Resync { node, number } => {
                    said.push(format!("sends all to node {node}, resync {number}"));
                    all(&|| FromNode::Resync { peer: peer_of(node), number });
                }
                Order::AskResync { node, why } => {
                    said.push(format!("asks node {node} for all, {why:?}"));
                    self.send_back(node, Back::Wants { why: ResyncWhy::Operator });
                }
                Order::Resume => {
                    said.push("lets sessions age".to_owned());
                    all(&|| FromNode::Resume);
                }
                Order::Event(event) => said.push(event.to_string()),
            }
        }
        said
    }

    /// A heartbeat for one peer, sealed with the key that the two share.
    pub(super) fn heartbeat(&mut self, to: Boot, now: Now) -> Vec<u8> {
        self.sequence += 1;
        let mut beat = Heartbeat {
            from: self.me,
            in_sync: false,
            workers_ok: true,
            owned: 0,
            used: 0,
            capacity: 0,
            view: 0,
            heard: arrayvec::ArrayVec::new(),
        };
        self.coordinator.say(&mut beat, now);
        let mut bytes = [0; HEARTBEAT_BYTES_MAX];
        let path = (self.sequence % PATHS_MAX as u64 % 2) as u8;
        let length = beat.write(Cover { path, key: 0, sequence: self.sequence }, &mut bytes);
        let mut bytes = bytes[..length].to_vec();
        let seal = seal(self.me, to, &bytes[..length - SEAL_BYTES]);
        bytes[length - SEAL_BYTES..].copy_from_slice(&seal);
        bytes
    }

    /// A heartbeat comes; it is believed if its seal is right and it is new.
    pub(super) fn heard(&mut self, bytes: &[u8], now: Now) {
        self.heartbeats_refused += 1;
        let Ok((node, cover)) = Heartbeat::cover(bytes) else { return };
        let Some(it) = self.known.get(&node).copied() else { return };
        let (content, theirs) = bytes.split_at(bytes.len() - SEAL_BYTES);
        let Ok(beat) = Heartbeat::read(bytes) else { return };
        if beat.from != it || theirs != seal(it, self.me, content) {
            return;
        }
        if self.newest.entry(it).or_default().admit(cover).is_some() {
            self.heartbeats_refused -= 1;
            self.coordinator.heard(&beat, now);
        }
    }
}

/// What proves who wrote it and that nobody changed it; whoever does not know both boots' key cannot make it.
fn seal(from: Boot, to: Boot, content: &[u8]) -> [u8; SEAL_BYTES] {
    let key = |b: Boot| u64::from(b.node) << 32 | u64::from(b.boot);
    let sum = content.iter().fold(mix(key(from)) ^ mix(!key(to)), |sum, byte| mix(sum ^ u64::from(*byte)));
    let mut out = [0; SEAL_BYTES];
    out[..8].copy_from_slice(&sum.to_le_bytes());
    out[8..].copy_from_slice(&mix(sum).to_le_bytes());
    out
}
