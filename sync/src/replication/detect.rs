//! Who is alive: a small table of states for each peer, and what third nodes say.
//!
//! A heartbeat proves little by itself: the way back may be cut. Two nodes are **mutual** when each hears the other and
//! the workers of both run; a heartbeat names whom its sender hears, so both sides come to the same conclusion within
//! one detection time and one heartbeat. Alive is whoever is mutual with this node, or mutual with a node that is
//! mutual with this one, by the word of the latter: so one cut pair among three nodes changes nobody's view. What a
//! third node says counts only as far as what it heard itself, and by its age, so no rumour lives longer than a detection
//! time.
//!
//! | state | Good | NotHeard | Hung | Silence | Reborn |
//! |---|---|---|---|---|---|
//! | Unknown | Alive | OneWay | Hung | Unknown | Unknown |
//! | OneWay | Alive | OneWay | Hung | Silent | Unknown |
//! | Hung | Alive | OneWay | Hung | Silent | Unknown |
//! | Alive | Alive | OneWay | Hung | Silent | Unknown |
//! | Silent | Alive | OneWay | Hung | Silent | Unknown |

use super::heartbeat::{Heard, Heartbeat};
use arrayvec::ArrayVec;
use std::collections::BTreeMap;
use tidegate_dataplane::session::owner::{Boot, NODES_MAX};
use tidegate_dataplane::time::Now;

/// When silence is death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DetectConfig {
    /// From one heartbeat to the next, in ms.
    pub interval_ms: u32,
    /// Heartbeats in a row that must be missed.
    pub misses: u32,
}

impl Default for DetectConfig {
    fn default() -> Self {
        DetectConfig { interval_ms: 20, misses: 5 }
    }
}

impl DetectConfig {
    /// How long a silence is a death, in ms.
    pub fn detection_ms(self) -> u32 {
        self.interval_ms.saturating_mul(self.misses).max(1)
    }
}

/// What is known of a peer by its own heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Nothing was heard of this boot yet.
    Unknown,
    /// It is heard, but does not hear this node.
    OneWay,
    /// It is heard, but its workers do not run.
    Hung,
    /// Each hears the other.
    Alive,
    /// It was heard once.
    Silent,
}

/// What happens to that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A heartbeat: it hears this node, and its workers run.
    Good,
    /// A heartbeat: it does not hear this node.
    NotHeard,
    /// A heartbeat: its workers do not run.
    Hung,
    /// No heartbeat for the time of detection.
    Silence,
    /// The node has another boot now.
    Reborn,
}

/// The table above.
pub fn next(state: State, input: Input) -> State {
    match (state, input) {
        (_, Input::Reborn) | (State::Unknown, Input::Silence) => State::Unknown,
        (_, Input::Silence) => State::Silent,
        (_, Input::Good) => State::Alive,
        (_, Input::NotHeard) => State::OneWay,
        (_, Input::Hung) => State::Hung,
    }
}

/// A node that is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Which.
    pub it: Boot,
    /// Its own word on whether it is in sync.
    pub in_sync: bool,
    /// Whether this node and it hear each other; otherwise a third one says so.
    pub direct: bool,
}

/// What a peer says of itself, by its newest heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Word {
    /// Whether it is in sync.
    pub in_sync: bool,
    /// Sessions that it owns.
    pub owned: u32,
    /// Slots of its table in use.
    pub used: u32,
    /// Slots of its table.
    pub capacity: u32,
    /// Digest of its view.
    pub view: u64,
}

/// What is known of one peer.
#[derive(Clone, Debug)]
struct Peer {
    boot: u32,
    state: State,
    /// When its newest heartbeat came.
    at: Now,
    word: Word,
    heard: ArrayVec<Heard, NODES_MAX>,
}

/// Everybody's state.
#[derive(Clone, Debug)]
pub struct Detector {
    me: Boot,
    config: DetectConfig,
    peers: BTreeMap<u16, Peer>,
    /// Until then, whoever was alive is not taken for deaf: this process was paused, so nobody heard it.
    forgiving: Now,
    /// Heartbeats of boots that are over.
    outdated: u64,
}

impl Detector {
    /// Knows nobody.
    pub fn new(me: Boot, config: DetectConfig) -> Self {
        Detector { me, config, peers: BTreeMap::new(), forgiving: Now(0), outdated: 0 }
    }

    /// Another interval or number of misses.
    pub fn configure(&mut self, config: DetectConfig) {
        self.config = config;
    }

    /// What it goes by.
    pub fn config(&self) -> DetectConfig {
        self.config
    }

    /// From now on only these are known.
    pub fn retain(&mut self, member: impl Fn(u16) -> bool) {
        self.peers.retain(|node, _| member(*node));
    }

    /// A handshake proved that this boot is the node's present one.
    pub fn is_present(&mut self, it: Boot) {
        let unknown = Peer {
            boot: it.boot,
            state: State::Unknown,
            at: Now(0),
            word: Word::default(),
            heard: ArrayVec::new(),
        };
        let peer = self.peers.entry(it.node).or_insert_with(|| unknown.clone());
        if peer.boot != it.boot {
            *peer = Peer { state: next(peer.state, Input::Reborn), ..unknown };
        }
    }

    /// A heartbeat that is proven to be its sender's, and newer than all of that boot before it.
    pub fn heard(&mut self, it: &Heartbeat, now: Now) {
        if it.from.node == self.me.node {
            return;
        }
        if self.peers.get(&it.from.node).is_some_and(|p| p.boot > it.from.boot) {
            self.outdated += 1;
            return;
        }
        self.is_present(it.from);
        let Some(peer) = self.peers.get_mut(&it.from.node) else { return };
        let hears = it.hears(self.me) || (peer.state == State::Alive && now < self.forgiving);
        let input = match (it.workers_ok, hears) {
            (false, _) => Input::Hung,
            (true, true) => Input::Good,
            (true, false) => Input::NotHeard,
        };
        peer.state = next(peer.state, input);
        peer.at = now;
        let Heartbeat { in_sync, owned, used, capacity, view, .. } = *it;
        peer.word = Word { in_sync, owned, used, capacity, view };
        peer.heard.clone_from(&it.heard);
    }

    /// Time passes: who was not heard for too long is silent.
    pub fn tick(&mut self, now: Now) {
        let detection = u64::from(self.config.detection_ms());
        for peer in self.peers.values_mut().filter(|p| now.since(p.at) >= detection) {
            peer.state = next(peer.state, Input::Silence);
        }
    }

    /// This process was paused: whoever was alive before gets one detection time to be heard, and another one to hear
    /// this node again.
    pub fn forgive(&mut self, now: Now) {
        let detection = u64::from(self.config.detection_ms());
        self.forgiving = Now(now.0 + 2 * detection);
        for peer in self.peers.values_mut().filter(|p| p.state == State::Alive) {
            peer.at = now;
        }
    }

    /// What is known of a node by its own heartbeats: the boot, the state, and the newest heartbeat's age in ms.
    pub fn of(&self, node: u16, now: Now) -> Option<(Boot, State, Option<u64>)> {
        let peer = self.peers.get(&node)?;
        let age = (peer.state != State::Unknown).then(|| now.since(peer.at));
        Some((Boot { node, boot: peer.boot }, peer.state, age))
    }

    /// What a node says of itself, while each hears the other.
    pub fn word(&self, node: u16) -> Option<Word> {
        self.peers.get(&node).filter(|p| p.state == State::Alive).map(|p| p.word)
    }

    /// Heartbeats of boots that are over, and were therefore ignored.
    pub fn outdated(&self) -> u64 {
        self.outdated
    }

    /// Whom this node hears: what its own heartbeats say.
    pub fn hearing(&self, now: Now) -> ArrayVec<Heard, NODES_MAX> {
        let detection = u64::from(self.config.detection_ms());
        let heard = self
            .peers
            .iter()
            .filter(|(_, p)| matches!(p.state, State::OneWay | State::Alive) && now.since(p.at) < detection);
        heard
            .take(NODES_MAX)
            .map(|(node, p)| Heard {
                it: Boot { node: *node, boot: p.boot },
                age_ms: u16::try_from(now.since(p.at)).unwrap_or(u16::MAX),
                in_sync: p.word.in_sync,
                mutual: p.state == State::Alive,
            })
            .collect()
    }

    /// Who is alive, sorted by node; this node is not among them.
    pub fn alive(&self, now: Now) -> ArrayVec<Life, NODES_MAX> {
        let mut alive = ArrayVec::<Life, NODES_MAX>::new();
        for (node, peer) in self.peers.iter().filter(|(_, p)| p.state == State::Alive).take(NODES_MAX) {
            let it = Boot { node: *node, boot: peer.boot };
            alive.push(Life { it, in_sync: peer.word.in_sync, direct: true });
        }
        let detection = u64::from(self.config.detection_ms());
        let witnesses = self.peers.values().filter(|p| p.state == State::Alive);
        for (witness, told) in witnesses.flat_map(|p| p.heard.iter().map(move |h| (p, h))) {
            let age = now.since(witness.at).saturating_add(u64::from(told.age_ms));
            if told.mutual && age < detection && self.may_vouch(told.it) {
                put(&mut alive, told);
            }
        }
        alive.sort_unstable_by_key(|life| life.it);
        alive
    }

    /// Whether a third node's word can make that boot alive. What its own heartbeats say goes first: the present boot,
    /// and that its workers hang; and nobody but a node itself says that it has another boot.
    fn may_vouch(&self, it: Boot) -> bool {
        it.node != self.me.node
            && match self.peers.get(&it.node) {
                Some(peer) => peer.boot == it.boot && !matches!(peer.state, State::Alive | State::Hung),
                None => true,
            }
    }
}

/// Adds a node by a third one's word. Two words on its being in sync: it is when one says so, for it says so to all.
fn put(alive: &mut ArrayVec<Life, NODES_MAX>, told: &Heard) {
    match alive.iter_mut().find(|life| life.it.node == told.it.node) {
        Some(life) if life.it == told.it => life.in_sync |= told.in_sync,
        Some(_) => {}
        None => {
            let _ = alive.try_push(Life { it: told.it, in_sync: told.in_sync, direct: false });
        }
    }
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
