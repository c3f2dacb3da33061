//! The network between the nodes: datagrams that may come twice, late, spoilt or never, and links whose
//! streams keep their order, stall while they are cut, and end with everything in flight.

use super::counts::Counts;
use crate::sim::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a stream that may be on their way: a sender waits beyond that.
const WINDOW: usize = 64 * 1024;

/// What befalls messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Of a thousand: lost, sent twice, late (ten times the delay), spoilt.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    pub(super) spoilt: u64,
    /// Longest delay in microseconds.
    pub(super) delay: u64,
}

impl Weather {
    pub(super) const FAIR: Weather = Weather { loss: 0, twice: 0, late: 0, spoilt: 0, delay: 2_000 };
}

/// One connection between two nodes, as both saw it begin.
#[derive(Debug)]
pub(super) struct Link {
    /// The nodes, and which of their runs.
    pub(super) ends: [(usize, u64); 2],
    /// Whether each end still believes in it.
    pub(super) up: [bool; 2],
    /// Since when one direction at least carries nothing.
    pub(super) broken_since: Option<u64>,
    /// Since when each end hears nothing, because the other node stands still or is gone.
    pub(super) silent_since: [Option<u64>; 2],
    ways: [BTreeMap<u16, Way>; 2],
}

/// One stream in one direction.
#[derive(Debug, Default)]
struct Way {
    /// How many were sent, and how many were handed to the receiver.
    sent: u64,
    handed: u64,
    /// Bytes sent and not read.
    open: usize,
    /// What waits for the cut to end, and what for something before it.
    held: BTreeMap<u64, Vec<u8>>,
    early: BTreeMap<u64, Vec<u8>>,
}

/// The network.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) weather: Weather,
    cut: BTreeSet<(usize, usize)>,
    pub(super) links: BTreeMap<u64, Link>,
    next_link: u64,
}

/// A batch's arrival: when, on which link, from which end, in which stream.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) at: u64,
    pub(super) link: u64,
    pub(super) from: usize,
    pub(super) stream: u16,
    number: u64,
    bytes: Vec<u8>,
}

impl Net {
    pub(super) fn new() -> Self {
        Net { weather: Weather::FAIR, cut: BTreeSet::new(), links: BTreeMap::new(), next_link: 1 }
    }

    /// When copies of a datagram arrive, in microseconds from now, and whether each is spoilt.
    pub(super) fn datagram(
        &self,
        from: usize,
        to: usize,
        rng: &mut Rng,
        counts: &mut Counts,
    ) -> Vec<(u64, bool)> {
        let weather = self.weather;
        if self.is_cut(from, to) || rng.per_mille(weather.loss) {
            counts.datagrams_lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.per_mille(weather.twice));
        counts.datagrams_twice += copies - 1;
        let mut one = || {
            let spoilt = rng.per_mille(weather.spoilt);
            counts.datagrams_spoilt += u64::from(spoilt);
            (self.delay(rng), spoilt)
        };
        (0..copies).map(|_| one()).collect()
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let late = rng.per_mille(self.weather.late);
        rng.range(100, self.weather.delay) * if late { 10 } else { 1 }
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether two nodes reach each other both ways.
    pub(super) fn is_whole(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    pub(super) fn connect(&mut self, ends: [(usize, u64); 2]) -> u64 {
        let link = self.next_link;
        self.next_link += 1;
        let ways = [BTreeMap::new(), BTreeMap::new()];
        self.links
            .insert(link, Link { ends, up: [true; 2], broken_since: None, silent_since: [None; 2], ways });
        link
    }

    /// Whether a stream takes more now.
    pub(super) fn has_room(&self, link: u64, from: usize, stream: u16) -> bool {
        let way = self.links.get(&link).and_then(|l| l.ways[from].get(&stream));
        way.is_none_or(|way| way.open < WINDOW)
    }

    /// Sends on a stream; `None` while the way is cut: it is kept then.
    pub(super) fn send(
        &mut self,
        (link, from, stream): (u64, usize, u16),
        bytes: Vec<u8>,
        now: u64,
        rng: &mut Rng,
    ) -> Option<Arrival> {
        let lost = rng.per_mille(self.weather.loss);
        // What is lost is sent again, and holds up what follows.
        let delay = self.delay(rng) + if lost { 4 * self.weather.delay } else { 0 };
        let ends = self.links.get(&link)?.ends.map(|(node, _)| node);
        let cut = self.is_cut(ends[from], ends[1 - from]);
        let way = self.links.get_mut(&link)?.ways[from].entry(stream).or_default();
        let number = way.sent;
        way.sent += 1;
        way.open += bytes.len();
        if cut {
            way.held.insert(number, bytes);
            return None;
        }
        Some(Arrival { at: now + delay, link, from, stream, number, bytes })
    }

    /// A batch reaches the other end, or would but for a cut; what the receiver can read now, in order.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Vec<Vec<u8>> {
        let Arrival { link, from, stream, number, bytes, .. } = arrival;
        let Some(ends) = self.links.get(&link).map(|l| l.ends.map(|(node, _)| node)) else {
            return Vec::new();
        };
        let cut = self.is_cut(ends[from], ends[1 - from]);
        let Some(way) = self.links.get_mut(&link).and_then(|l| l.ways[from].get_mut(&stream)) else {
            return Vec::new();
        };
        if cut {
            way.held.insert(number, bytes);
            return Vec::new();
        }
        way.early.insert(number, bytes);
        let mut ready = Vec::new();
        while let Some(bytes) = way.early.remove(&way.handed) {
            way.handed += 1;
            ready.push(bytes);
        }
        ready
    }

    /// The receiver has read that much of a stream.
    pub(super) fn read(&mut self, link: u64, from: usize, stream: u16, bytes: usize) {
        if let Some(way) = self.links.get_mut(&link).and_then(|l| l.ways[from].get_mut(&stream)) {
            way.open = way.open.saturating_sub(bytes);
        }
    }

    /// Ways between nodes are open or cut from now on. What was held goes on its way again.
    fn changed(&mut self, now: u64, rng: &mut Rng) -> Vec<Arrival> {
        let (cut, weather) = (&self.cut, self.weather);
        let mut arrivals = Vec::new();
        for (id, link) in &mut self.links {
            let ends = link.ends.map(|(node, _)| node);
            let is_cut = |from: usize| cut.contains(&(ends[from], ends[1 - from]));
            if is_cut(0) || is_cut(1) {
                link.broken_since.get_or_insert(now);
            } else if link.up == [true, true] {
                link.broken_since = None;
            }
            for from in [0, 1] {
                if is_cut(from) {
                    continue;
                }
                for (stream, way) in &mut link.ways[from] {
                    for (number, bytes) in std::mem::take(&mut way.held) {
                        let at = now + rng.range(100, weather.delay);
                        arrivals.push(Arrival { at, link: *id, from, stream: *stream, number, bytes });
                    }
                }
            }
        }
        arrivals
    }

    pub(super) fn heal(&mut self, now: u64, rng: &mut Rng) -> Vec<Arrival> {
        self.cut.clear();
        self.changed(now, rng)
    }

    /// Cuts these ways, and opens all others.
    pub(super) fn cut(
        &mut self,
        ways: impl IntoIterator<Item = (usize, usize)>,
        now: u64,
        rng: &mut Rng,
    ) -> Vec<Arrival> {
        self.cut = ways.into_iter().collect();
        self.changed(now, rng)
    }
}
