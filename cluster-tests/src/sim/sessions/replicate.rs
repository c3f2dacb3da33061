//! The nodes' talk with each other: heartbeats, links and what they carry.

use super::check::Finding;
use super::hub::BACK;
use super::net::Arrival;
use super::world::{Event, World};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;

/// How often nodes look for links that are missing or dead, in microseconds.
const DIAL_EVERY: u64 = 40_000;
/// How long a link that carries nothing is believed in.
const LINK_IDLE: u64 = 1_000_000;
/// How often a heartbeat leaves in an interval.
const COPIES: u64 = 3;

impl World {
    /// A node's heart beats.
    pub(super) fn tick(&mut self, place: usize, run: u64) -> Result<(), Finding> {
        let now = self.now;
        let Some(slot) = self.places.get_mut(place).filter(|p| p.run == run) else { return Ok(()) };
        let Some(node) = slot.node.as_mut().filter(|n| n.frozen.is_none()) else { return Ok(()) };
        let clock = node.clock(now);
        let (owned, used, capacity) = node.occupancy();
        node.hub.coordinator.set_local(true, owned, used, capacity);
        node.hub.coordinator.tick(clock);
        let known: Vec<Boot> = node.hub.known.values().copied().collect();
        let beats: Vec<_> = known.iter().map(|to| (*to, node.hub.heartbeat(*to, clock))).collect();
        for (to, bytes) in beats {
            let to = usize::from(to.node) - 1;
            for (delay, spoilt) in self.net.datagram(place, to, &mut self.rng, &mut self.counts) {
                let mut bytes = bytes.clone();
                if spoilt && let Some(byte) = self.rng.pick(&(0..bytes.len()).collect::<Vec<_>>()) {
                    bytes[*byte] ^= 1 << self.rng.range(0, 8);
                }
                self.at(now + delay, Event::Heartbeat { to, bytes });
            }
        }
        self.obey(place);
        let pause = u64::from(self.plan.interval_ms) * 1_000 / COPIES;
        let when = now + self.rng.range(pause * 9 / 10, pause);
        self.at(when, Event::Tick(place, run));
        Ok(())
    }

    /// A heartbeat reaches a node. One that stands still hears it not, or late.
    pub(super) fn heartbeat(&mut self, to: usize, bytes: &[u8]) {
        let now = self.now;
        if let Some(node) = self.awake(to) {
            let clock = node.clock(now);
            node.hub.heard(bytes, clock);
            self.obey(to);
        }
    }

    /// Does what a node's coordinator wants.
    fn obey(&mut self, place: usize) {
        let Some(node) = self.awake(place) else { return };
        let said = node.hub.orders(&mut node.posts);
        if !said.is_empty() {
            self.soon(place);
        }
        for what in said {
            self.tell(None, || format!("node {}: {what}", place + 1));
        }
    }

    /// Reads what has come from peers, as far as there is room for it.
    pub(super) fn take_in(&mut self, place: usize, clock: Now) -> Result<(), Finding> {
        let Some(node) = self.awake(place) else { return Ok(()) };
        let (mut done, mut broken) = (Vec::new(), None);
        if let Err(error) = node.hub.read(&mut node.posts, &mut node.names, clock, &mut done) {
            broken = Some(error);
        }
        for (link, stream, bytes) in done {
            let end = self.net.links.get(&link).map(|l| usize::from(l.ends[0].0 == place));
            if let Some(from) = end {
                self.net.read(link, from, stream, bytes);
            }
        }
        match broken {
            Some((node, why)) => {
                Err(Finding::from(format!("node {} cannot read what node {node} says: {why}", place + 1)))
            }
            None => Ok(()),
        }
    }

    /// Hands what waits in a node's rings over to its links.
    pub(super) fn give_out(&mut self, place: usize) {
        self.obey(place);
        let now = self.now;
        let World { places, net, rng, counts, .. } = self;
        let Some(node) = places[place].node.as_mut() else { return };
        let mut arrivals = Vec::new();
        for (link, frame) in node.hub.back.drain(..) {
            if let Some(end) = end_of(net, link, place) {
                arrivals.extend(net.send((link, end, BACK), frame, now, rng));
            }
        }
        for (stream, post) in (0u16..).zip(&mut node.posts) {
            while let Some((link, _)) = post.out.front() {
                let link = *link;
                let end = end_of(net, link, place);
                if end.is_some_and(|end| !net.has_room(link, end, stream)) {
                    counts.rings_full += 1;
                    break;
                }
                let Some((_, frame)) = post.out.pop_front() else { break };
                counts.batches += 1;
                counts.batch_bytes += frame.len() as u64;
                if let Some(end) = end {
                    arrivals.extend(net.send((link, end, stream), frame, now, rng));
                }
            }
        }
        for arrival in arrivals {
            self.at(arrival.at, Event::Carried(arrival));
        }
    }

    /// Part of a stream reaches the other end, if it still listens.
    pub(super) fn carried(&mut self, arrival: Arrival) {
        let (link, from, stream) = (arrival.link, arrival.from, arrival.stream);
        let ready = self.net.arrive(arrival);
        let Some(end) = self.net.links.get(&link).filter(|l| l.up[1 - from]).map(|l| l.ends[1 - from]) else {
            return;
        };
        let (place, run) = end;
        let Some(slot) = self.places.get_mut(place).filter(|p| p.run == run) else { return };
        let Some(node) = slot.node.as_mut() else { return };
        ready.into_iter().for_each(|bytes| node.hub.came(link, stream, bytes));
        self.soon(place);
    }

    /// Dead links are given up, missing ones made.
    pub(super) fn dial(&mut self) {
        self.at(self.now + DIAL_EVERY, Event::Dial);
        self.give_up();
        let running = self.running();
        for a in running.iter().copied() {
            for b in running.iter().copied().filter(|b| *b > a) {
                let awake = [a, b].iter().all(|p| self.awake(*p).is_some());
                if awake && self.net.is_whole(a, b) && !self.is_linked(a, b) && self.rng.per_mille(400) {
                    self.connect(a, b);
                }
            }
        }
    }

    /// Whether both nodes, as they run now, believe in the same link.
    fn is_linked(&self, a: usize, b: usize) -> bool {
        let ends = [(a, self.places[a].run), (b, self.places[b].run)];
        self.net.links.values().any(|l| l.up == [true, true] && l.ends == ends)
    }

    fn connect(&mut self, a: usize, b: usize) {
        let old: Vec<u64> = self
            .net
            .links
            .iter()
            .filter(|(_, l)| l.ends.map(|(p, _)| p) == [a, b])
            .map(|(id, _)| *id)
            .collect();
        for link in old {
            self.hang_up(link, 0);
            self.hang_up(link, 1);
        }
        let ends = [(a, self.places[a].run), (b, self.places[b].run)];
        let link = self.net.connect(ends);
        self.counts.links += 1;
        self.tell(None, || format!("link {link} between nodes {} and {}", a + 1, b + 1));
        let now = self.now;
        for (place, other) in [(a, b), (b, a)] {
            let Some((it, streams, uptime_ms)) = self.places[other].node.as_ref().map(|n| n.greeting(now))
            else {
                continue;
            };
            if let Some(node) = self.awake(place) {
                let clock = node.clock(now);
                node.hub.up((link, it), streams, uptime_ms, &mut node.posts, clock);
            }
            self.obey(place);
            self.soon(place);
        }
    }

    /// Each end gives up a link on which nothing comes any more; and what neither believes in is forgotten.
    fn give_up(&mut self) {
        let now = self.now;
        for link in self.net.links.keys().copied().collect::<Vec<_>>() {
            let Some(l) = self.net.links.get(&link) else { continue };
            let (ends, up, broken) = (l.ends, l.up, l.broken_since);
            let idle = |since: Option<u64>| since.is_some_and(|at| at + LINK_IDLE < now);
            for end in [0, 1].into_iter().filter(|end| up[*end]) {
                let ((place, run), (other, its)) = (ends[end], ends[1 - end]);
                let alive =
                    |p: usize, run: u64| self.places[p].node.as_ref().filter(|_| self.places[p].run == run);
                let Some(here) = alive(place, run) else {
                    self.hang_up(link, end);
                    continue;
                };
                let is_awake = here.frozen.is_none();
                let is_silent = alive(other, its).is_none_or(|n| n.frozen.is_some());
                let hung_up = !up[1 - end] && broken.is_none();
                let Some(l) = self.net.links.get_mut(&link) else { continue };
                let silent = is_silent.then(|| *l.silent_since[end].get_or_insert(now));
                l.silent_since[end] = silent;
                if is_awake && (idle(broken) || idle(silent) || hung_up) {
                    self.hang_up(link, end);
                }
            }
            if self.net.links.get(&link).is_some_and(|l| l.up == [false, false]) {
                self.net.links.remove(&link);
            }
        }
    }

    /// One end of a link is no more.
    fn hang_up(&mut self, link: u64, end: usize) {
        let now = self.now;
        let Some(l) = self.net.links.get_mut(&link) else { return };
        if !std::mem::replace(&mut l.up[end], false) {
            return;
        }
        let ((place, run), (other, _)) = (l.ends[end], l.ends[1 - end]);
        self.tell(None, || format!("link {link} is down at node {}", place + 1));
        let number = self.places[other].number;
        let Some(slot) = self.places.get_mut(place).filter(|p| p.run == run) else { return };
        if let Some(node) = slot.node.as_mut() {
            let clock = node.clock(now);
            node.hub.down(number, link, &mut node.posts, clock);
            self.obey(place);
            self.soon(place);
        }
    }

    /// All links of a node that has just died: its own ends are gone, the others' find out.
    pub(super) fn unplug(&mut self, place: usize) {
        for link in self.net.links.values_mut() {
            for end in [0, 1] {
                if link.ends[end].0 == place {
                    link.up[end] = false;
                    // Nobody says goodbye.
                    link.broken_since.get_or_insert(self.now);
                }
            }
        }
    }

    /// Whether a node says that it may be relied on.
    pub(super) fn is_ready(&self, place: usize) -> bool {
        let node = self.places[place].node.as_ref();
        node.is_some_and(|n| n.frozen.is_none() && n.hub.coordinator.is_in_sync())
    }

    /// Every node in a few words.
    pub(super) fn views(&self) -> String {
        let shown = |place: usize| match &self.places[place].node {
            None => format!("node {} is down", place + 1),
            Some(n) => {
                let status = n.hub.coordinator.status(n.clock(self.now));
                format!(
                    "node {}: {:?} used, in sync {}, waits {:?} for {:?}, no room {}, peers {:?}, sees {:?}",
                    place + 1,
                    n.occupancy(),
                    status.in_sync,
                    status.waiting,
                    status.missing,
                    status.no_room,
                    n.wants(),
                    n.hub.coordinator.view().in_sync()
                )
            }
        };
        (0..self.places.len()).map(shown).collect::<Vec<_>>().join("; ")
    }

    /// The packets' ways change now.
    pub(super) fn reroute_now(&mut self) {
        self.routing = super::route::Routing::any(&self.usable(), &mut self.rng);
    }
}

/// Which end of a link a node is, if it still believes in it.
fn end_of(net: &super::net::Net, link: u64, place: usize) -> Option<usize> {
    let l = net.links.get(&link)?;
    l.ends.iter().position(|(p, _)| *p == place).filter(|end| l.up[*end])
}
