//! The hosts' side of the world: flows begin, speak, repeat themselves; and packets pass through nodes.

use super::check::Finding;
use super::flows::{Flow, Kind, Sent};
use super::frame::{self, Ends, INSIDE, OUTSIDE, SimFrame};
use super::host::End;
use super::node::Fate;
use super::route::Routing;
use super::world::{Event, World};
use tidegate_dataplane::addr::Tuple;

/// Longest way between a host and a node, in microseconds.
const HOST_DELAY: u64 = 1_500;
/// Longest pause between two passes of a worker that has nothing to do, and that has.
const IDLE_PASS: u64 = 4_000;
const BUSY_PASS: u64 = 300;

impl World {
    /// A new flow, and when the next one comes.
    pub(super) fn wish(&mut self) {
        if !self.is_busy {
            return;
        }
        let pause = self.rng.range(1_000, self.plan.wish_every);
        self.at(self.now + pause, Event::Wish);
        let lasting = self.flows.iter().filter(|f| f.kind.is_lasting() && !f.is_over).count();
        let kind = match self.rng.range(0, 100) {
            0..35 => Kind::Talk,
            35..70 => Kind::Datagrams,
            70..78 => Kind::Both,
            _ if lasting >= 60 => Kind::Datagrams,
            78..86 => Kind::Drip,
            86..94 => Kind::Trickle,
            _ => Kind::Shifty,
        };
        self.begin_flow(kind);
    }

    pub(super) fn begin_flow(&mut self, kind: Kind) {
        let number = self.flows.len();
        let flow = Flow::new(number as u32, kind, &mut self.rng);
        self.by_ends.insert(flow.ends, number);
        self.tell(Some(number), || format!("flow {number}: {kind:?} begins, {:?}", flow.ends));
        self.flows.push(flow);
        self.at(self.now, Event::Step(number, 1));
    }

    /// A flow goes on with what comes next.
    pub(super) fn step(&mut self, number: usize, life: u32) {
        let Some(flow) = self.flows.get_mut(number).filter(|f| f.lives == life) else { return };
        let sent = flow.next(&mut self.rng);
        let (is_tcp, is_over) = (flow.kind.is_tcp(), flow.is_over);
        for packet in sent {
            self.send_packet(number, packet);
            if is_tcp {
                self.arm(number, usize::from(!packet.0), End::first_pause());
            }
        }
        if !is_tcp && !is_over {
            self.step_later(number);
        }
    }

    fn step_later(&mut self, number: usize) {
        let flow = &self.flows[number];
        let (pause, life) = (flow.pause(&mut self.rng), flow.lives);
        self.at(self.now + pause, Event::Step(number, life));
    }

    fn arm(&mut self, number: usize, host: usize, pause: u64) {
        let flow = &mut self.flows[number];
        if !std::mem::replace(&mut flow.armed[host], true) {
            let life = flow.lives;
            self.at(self.now + pause, Event::Repeat(number, host, life));
        }
    }

    /// A host looks whether it must repeat itself.
    pub(super) fn repeat(&mut self, number: usize, host: usize, life: u32) -> Result<(), Finding> {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(number) else { return Ok(()) };
        flow.armed[host] = false;
        if flow.lives != life {
            return Ok(());
        }
        let had_failed = flow.failed.is_some();
        if let Some((packet, pause)) = flow.repeat(host, now) {
            self.counts.repetitions += 1;
            self.send_packet(number, packet);
            self.arm(number, host, pause);
        } else if !had_failed && self.flows[number].failed.is_some() {
            self.failed(number, "gave up")?;
        }
        Ok(())
    }

    /// A host's packet goes to the node that the routing says.
    pub(super) fn send_packet(&mut self, number: usize, (up, segment): Sent) {
        let flow = &self.flows[number];
        let place = self.routing.node(flow, up, &mut self.rng);
        let frame = SimFrame::new(if up { OUTSIDE } else { INSIDE }, frame::write(&flow.ends, up, &segment));
        self.counts.packets += 1;
        let when = self.now.max(self.quiet_until) + self.rng.range(50, HOST_DELAY);
        self.tell(Some(number), || {
            format!("flow {number}: {} {segment:?} to node {}", if up { "up" } else { "down" }, place + 1)
        });
        self.at(when, Event::Frame(place, Box::new(frame)));
    }

    /// A frame reaches a node, if that runs; a frozen one's port keeps what it has room for.
    pub(super) fn frame(&mut self, place: usize, frame: SimFrame) {
        let Some(node) = self.places.get_mut(place).and_then(|p| p.node.as_mut()) else {
            self.counts.packets_to_the_dead += 1;
            return;
        };
        if node.receive(frame, &mut self.rng) {
            self.soon(place);
        }
    }

    /// A node's next pass comes soon.
    pub(super) fn soon(&mut self, place: usize) {
        let when = self.now + self.rng.range(20, BUSY_PASS);
        self.pass_at(place, when);
    }

    pub(super) fn pass_at(&mut self, place: usize, when: u64) {
        let Some(slot) = self.places.get_mut(place) else { return };
        let run = slot.run;
        if let Some(node) = slot.node.as_mut().filter(|n| n.frozen.is_none() && when < n.next_pass) {
            node.next_pass = when;
            self.at(when, Event::Pass(place, run));
        }
    }

    /// A node's workers look at what has come.
    pub(super) fn pass(&mut self, place: usize, run: u64) -> Result<(), Finding> {
        let now = self.now;
        let Some(slot) = self.places.get_mut(place).filter(|p| p.run == run) else { return Ok(()) };
        let Some(node) = slot.node.as_mut().filter(|n| n.frozen.is_none() && n.next_pass <= now) else {
            return Ok(());
        };
        node.next_pass = u64::MAX;
        let (mut fates, mut events) = (Vec::new(), Vec::new());
        let (me, clock) = (node.me, node.clock(now));
        self.take_in(place, clock)?;
        let Some(node) = self.awake(place) else { return Ok(()) };
        node.pass(clock, &mut fates, &mut events);
        for event in events {
            self.event(place, me, &event)?;
        }
        for fate in fates {
            self.fate(place, fate)?;
        }
        self.tell_copies(place);
        self.give_out(place);
        let more = self.awake(place).is_some_and(|node| node.has_mail());
        let pause = if more { BUSY_PASS } else { IDLE_PASS };
        let when = now + self.rng.range(pause / 2, pause);
        self.pass_at(place, when);
        Ok(())
    }

    fn fate(&mut self, place: usize, fate: Fate) -> Result<(), Finding> {
        match fate {
            Fate::Left(bytes) => {
                if let Some((ends, up, _)) = frame::read(&bytes)
                    && let Some(flow) = self.by_ends.get(&ends).copied()
                {
                    let (now, timeout) = (self.now, self.flows[flow].kind.timeout());
                    self.oracle.forwarded(flow, place, timeout, now);
                    self.counts.forwarded += 1;
                    self.tell(Some(flow), || {
                        format!("flow {flow}: {} by node {}", if up { "up" } else { "down" }, place + 1)
                    });
                }
                let when = self.now + self.rng.range(50, HOST_DELAY);
                self.at(when, Event::Host(bytes));
                Ok(())
            }
            Fate::Dropped(reason, bytes) => {
                let Some((ends, _, segment)) = frame::read(&bytes) else { return Ok(()) };
                let Some(flow) = self.by_ends.get(&ends).copied() else { return Ok(()) };
                self.tell(Some(flow), || format!("flow {flow}: node {} drops it: {reason:?}", place + 1));
                self.dropped(flow, place, reason, &segment)
            }
        }
    }

    /// A frame reaches a host.
    pub(super) fn host(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let Some((ends, up, segment)) = frame::read(bytes) else { return Ok(()) };
        let Some(number) = self.by_ends.get(&ends).copied() else { return Ok(()) };
        let now = self.now;
        let flow = &mut self.flows[number];
        let had_failed = flow.failed.is_some();
        let (answer, goes_on) = flow.arrive(up, &segment, now);
        let (over, failed) = (flow.is_over, flow.failed.is_some());
        if let Some(packet) = answer {
            self.send_packet(number, packet);
            // An answer that must be acknowledged itself: the second SYN.
            if packet.1.space() > 0 {
                self.arm(number, usize::from(!packet.0), End::first_pause());
            }
        }
        if failed && !had_failed {
            return self.failed(number, "was reset");
        }
        if goes_on && !over {
            self.step_later(number);
        } else if goes_on
            && over
            && self.is_busy
            && self.rng.per_mille(300)
            && self.flows[number].kind == Kind::Talk
        {
            self.open_again(number);
        }
        Ok(())
    }

    /// A closed connection is opened again with the same ports (J6).
    fn open_again(&mut self, number: usize) {
        self.flows[number].again(&mut self.rng);
        self.oracle.reopened(number);
        self.counts.reopened += 1;
        let life = self.flows[number].lives;
        let when = self.now + self.rng.range(1_000, 1_500_000);
        self.at(when, Event::Step(number, life));
    }

    /// The ways of the packets change, if nodes are there that they can take.
    pub(super) fn reroute(&mut self) {
        let pause = self.rng.range(100_000, 2_000_000);
        self.at(self.now + pause, Event::Reroute);
        let nodes = self.usable();
        if !nodes.is_empty() {
            self.routing = Routing::any(&nodes, &mut self.rng);
            self.counts.moves += 1;
            let routing = self.routing.clone();
            self.tell(None, || format!("packets take {routing:?}"));
        }
    }
}

/// The flow that a session's tuple belongs to.
pub(super) fn ends_of(tuple: &Tuple) -> Option<Ends> {
    let (src, dst) = ((tuple.src.to_v4()?, tuple.src_port), (tuple.dst.to_v4()?, tuple.dst_port));
    let (client, server) = if src.0[1] == 1 { (src, dst) } else { (dst, src) };
    Some(Ends { protocol: tuple.protocol, client, server })
}
