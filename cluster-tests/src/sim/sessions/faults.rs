//! What breaks, what operators do, and how everything is repaired.

use super::check::Finding;
use super::flows::Kind;
use super::net::Weather;
use super::node::Node;
use super::world::{Event, World};
use std::collections::BTreeSet;
use tidegate_dataplane::engine::{PortRange, SessionFilter};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::session::record::SessionId;

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self) -> Result<(), Finding> {
        if !self.is_troubled {
            return Ok(());
        }
        let pause = self.rng.range(1_000, self.plan.fault_every);
        self.at(self.now + pause, Event::Fault);
        let running = self.running();
        let Some(place) = self.rng.pick(&running).copied() else { return Ok(()) };
        match self.rng.range(0, 100) {
            // The last one takes all sessions with it: now and then.
            0..18 if running.len() > 1 || self.rng.per_mille(100) => self.crash(place),
            18..32 => self.freeze(place),
            32..44 => self.cut_off(place),
            44..56 => self.cut_one_way(place),
            56..66 => self.storm(),
            66..78 => self.clear_some()?,
            78..86 => self.change_policy()?,
            86..92 => self.flood(),
            _ => self.disturb_flows(),
        }
        Ok(())
    }

    /// A node is dead at once, with all that it knew. It is started again later.
    fn crash(&mut self, place: usize) {
        let Some(node) = self.places[place].node.take() else { return };
        self.places[place].run += 1;
        self.counts.crashes += 1;
        self.tell(None, || format!("node {} crashes", place + 1));
        self.oracle.crashed(place, node.me);
        let others = self.running().into_iter().flat_map(|p| self.sessions_of(p));
        let held: BTreeSet<SessionId> = others.map(|s| s.id).collect();
        for (_, flow) in self.oracle.made_by(node.me).into_iter().filter(|(id, _)| !held.contains(id)) {
            self.oracle.begun.remove(&flow);
        }
        self.unplug(place);
        let when = self.now + self.rng.range(50_000, 3_000_000);
        self.at(when, Event::Start(place));
    }

    /// A node is started, if it does not run; what it knew in its boot before is gone.
    pub(super) fn start(&mut self, place: usize) -> Result<(), Finding> {
        let now = self.now;
        if self.places[place].node.is_some() {
            return Ok(());
        }
        let slot = &mut self.places[place];
        slot.run += 1;
        let (run, number) = (slot.run, slot.number);
        let me = Boot { node: number, boot: run as u32 * 0x100 + u32::from(number) };
        let mut node = Node::start(me, now, &self.plan, &mut self.rng)?;
        let revision = self.revision;
        node.set_policy(revision, self.denying[revision as usize])?;
        self.places[place].node = Some(node);
        self.counts.starts += 1;
        self.tell(None, || format!("node {} starts", place + 1));
        self.at(now + 1, Event::Tick(place, run));
        self.pass_at(place, now + 2);
        Ok(())
    }

    /// A node stands still in the middle of everything.
    fn freeze(&mut self, place: usize) {
        let now = self.now;
        let Some(node) = self.awake(place) else { return };
        node.frozen = Some(now);
        node.next_pass = u64::MAX;
        self.counts.freezes += 1;
        let how_long = self.rng.range(20_000, 4_000_000);
        self.tell(None, || format!("node {} stands still for {} ms", place + 1, how_long / 1_000));
        self.at(now + how_long, Event::Thaw(place));
    }

    /// It goes on as if nothing had been.
    pub(super) fn thaw(&mut self, place: usize) {
        let Some(slot) = self.places.get_mut(place) else { return };
        let run = slot.run;
        let Some(node) = slot.node.as_mut().filter(|n| n.frozen.is_some()) else { return };
        node.frozen = None;
        self.tell(None, || format!("node {} goes on", place + 1));
        // Whether it looks at its port or at the clock first is chance.
        let (tick, pass) = (self.rng.range(1, 3_000), self.rng.range(1, 3_000));
        self.at(self.now + tick, Event::Tick(place, run));
        self.pass_at(place, self.now + pass);
    }

    fn cut(&mut self, ways: BTreeSet<(usize, usize)>) {
        self.tell(None, || {
            format!("cut: {:?}", ways.iter().map(|(a, b)| (a + 1, b + 1)).collect::<Vec<_>>())
        });
        for arrival in self.net.cut(ways, self.now, &mut self.rng) {
            self.at(arrival.at, Event::Carried(arrival));
        }
        self.trouble();
    }

    /// Nobody reaches one node, or two groups do not reach each other.
    fn cut_off(&mut self, place: usize) {
        self.counts.cuts += 1;
        let apart = self.rng.next();
        let side = |p: usize| if apart & 1 == 0 { p == place } else { apart >> (p + 1) & 1 == 1 };
        let all = 0..self.places.len();
        let pairs = all.clone().flat_map(|a| all.clone().map(move |b| (a, b)));
        let ways = pairs.filter(|(a, b)| side(*a) != side(*b)).collect();
        self.cut(ways);
    }

    /// One node hears nobody, or nobody hears it; or one way between two.
    fn cut_one_way(&mut self, place: usize) {
        self.counts.one_way_cuts += 1;
        let others: Vec<usize> = (0..self.places.len()).filter(|p| *p != place).collect();
        let one = self.rng.pick(&others).copied().unwrap_or(place);
        let ways = match self.rng.range(0, 3) {
            0 => others.iter().map(|o| (*o, place)).collect(),
            1 => others.iter().map(|o| (place, *o)).collect(),
            _ => BTreeSet::from([(place, one)]),
        };
        self.cut(ways);
    }

    /// Much is lost, late, doubled and spoilt for a while.
    fn storm(&mut self) {
        self.counts.storms += 1;
        let (loss, late) = (self.rng.range(50, 400), self.rng.range(0, 200));
        let twice = [100, 500, 1_000][self.rng.range(0, 3) as usize];
        let (spoilt, delay) = (self.rng.range(0, 100), self.rng.range(1_000, 40_000));
        self.net.weather = Weather { loss, twice, late, spoilt, delay };
        self.tell(None, || format!("a storm: {loss} of 1000 lost, {late} late, delays to {delay} us"));
        self.trouble();
    }

    /// The network's trouble ends after a while.
    fn trouble(&mut self) {
        self.troubles += 1;
        let when = self.now + self.rng.range(100_000, 4_000_000);
        self.at(when, Event::Heal(self.troubles));
    }

    pub(super) fn heal(&mut self, trouble: u64) {
        if trouble == self.troubles {
            self.tell(None, || "the network is whole".to_owned());
            self.net.weather = if self.is_troubled { self.plan.weather } else { Weather::FAIR };
            for arrival in self.net.heal(self.now, &mut self.rng) {
                self.at(arrival.at, Event::Carried(arrival));
            }
        }
    }

    /// An operator writes a policy that denies what is shifty, or permits it again. Nodes put it in force one
    /// after the other.
    fn change_policy(&mut self) -> Result<(), Finding> {
        self.revision += 1;
        let (revision, denies) = (self.revision, self.rng.per_mille(500));
        self.denying.push(denies);
        self.counts.policies += 1;
        self.counts.denials += u64::from(denies);
        self.tell(None, || format!("revision {revision}, {}", if denies { "denies" } else { "permits" }));
        for place in 0..self.places.len() {
            let when = self.now + self.rng.range(1_000, 2_000_000);
            self.at(when, Event::Policy(place, revision));
        }
        Ok(())
    }

    pub(super) fn put_policy(&mut self, place: usize, revision: u32) -> Result<(), Finding> {
        let (now, denies) = (self.now, self.denying[revision as usize]);
        let Some(node) = self.places[place].node.as_mut() else { return Ok(()) };
        if node.frozen.is_some() {
            self.at(now + 500_000, Event::Policy(place, revision));
        } else if node.revision < revision {
            node.set_policy(revision, denies)?;
            self.tell(None, || format!("node {} is at revision {revision}", place + 1));
        }
        Ok(())
    }

    /// Many flows at once, of a packet or two each: tables fill up.
    fn flood(&mut self) {
        self.counts.floods += 1;
        for _ in 0..self.rng.range(40, 200) {
            self.begin_flow(Kind::Datagrams);
        }
    }

    /// Some hosts fall silent, some connections are reset, some lasting flows are closed.
    fn disturb_flows(&mut self) {
        for number in 0..self.flows.len() {
            if self.flows[number].is_over || !self.rng.per_mille(200) {
                continue;
            }
            match self.rng.range(0, 3) {
                0 => self.flows[number].fall_silent(),
                1 if self.flows[number].kind.is_tcp() && self.flows[number].is_connected() => {
                    self.counts.resets += 1;
                    let packet = self.flows[number].reset();
                    self.send_packet(number, packet);
                }
                _ => self.flows[number].stop(),
            }
        }
    }

    /// An operator clears what a filter means, on all nodes: each clears what it owns.
    fn clear_some(&mut self) -> Result<(), Finding> {
        let kind = *self.rng.pick(&Kind::ALL).unwrap_or(&Kind::Talk);
        let port = self.rng.range(1_024, 65_000) as u16;
        let source_port = Some(PortRange { first: port.saturating_sub(8_000), last: port });
        let destination_port = Some(PortRange { first: kind.port(), last: kind.port() });
        let filter = SessionFilter { source_port, destination_port, ..SessionFilter::default() };
        self.tell(None, || format!("an operator clears {kind:?}, ports {source_port:?}"));
        for place in self.running() {
            let now = self.now;
            let Some(node) = self.awake(place) else { continue };
            let (clock, me) = (node.clock(now), node.me);
            let (mut cleared, mut events) = (0, Vec::new());
            for worker in &mut node.workers {
                let mut cursor = Some(0);
                while let Some(at) = cursor {
                    let (next, some) = worker.engine.clear(at, 1_024, &filter, clock);
                    (cursor, cleared) = (next, cleared + u64::from(some));
                }
                worker.take_events(&mut events);
            }
            self.counts.cleared += cleared;
            for event in events {
                self.event(place, me, &event)?;
            }
        }
        Ok(())
    }

    /// Nodes that packets may be led to.
    pub(super) fn usable(&self) -> Vec<usize> {
        let running = self.running();
        let ready: Vec<usize> = running.iter().copied().filter(|p| self.is_ready(*p)).collect();
        if ready.is_empty() { running } else { ready }
    }
}
