//! Who speaks with whom: flows of the simulated hosts, and what they do next.

use super::frame::{Ends, FIN, SYN, Segment, TCP, UDP};
use super::host::{End, Learned};
use crate::sim::rng::Rng;

/// Kinds of flows. The server's port says which, to the policies as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// TCP: opens, speaks a few times, closes, and may open again with the same ports.
    Talk,
    /// TCP: speaks once in 0.8 of its timeout.
    Drip,
    /// TCP that both sides open at once.
    Both,
    /// A few datagrams, most of them answered.
    Datagrams,
    /// A datagram once in 0.8 of its timeout.
    Trickle,
    /// The same, where some policies deny it.
    Shifty,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] =
        [Kind::Talk, Kind::Drip, Kind::Both, Kind::Datagrams, Kind::Trickle, Kind::Shifty];

    pub(super) fn port(self) -> u16 {
        match self {
            Kind::Talk => 6004,
            Kind::Drip => 6002,
            Kind::Both => 7004,
            Kind::Datagrams => 5002,
            Kind::Trickle => 5003,
            Kind::Shifty => 6666,
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Kind::Talk | Kind::Drip | Kind::Both => TCP,
            Kind::Datagrams | Kind::Trickle | Kind::Shifty => UDP,
        }
    }

    /// The timeout that every policy gives it once it is established, in microseconds.
    pub(super) fn timeout(self) -> u64 {
        match self {
            Kind::Talk | Kind::Both => 4_000_000,
            Kind::Drip | Kind::Datagrams => 2_000_000,
            Kind::Trickle | Kind::Shifty => 3_000_000,
        }
    }

    pub(super) fn is_tcp(self) -> bool {
        self.protocol() == TCP
    }

    /// Whether it goes on until it is told to stop.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self, Kind::Drip | Kind::Trickle | Kind::Shifty)
    }
}

/// A packet that a host sends: whether it goes up, and what it is.
pub(super) type Sent = (bool, Segment);

/// One flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) ends: Ends,
    pub(super) kind: Kind,
    /// Client and server.
    hosts: [End; 2],
    /// What was done of what is to do.
    step: u32,
    steps: u32,
    /// How often it has opened.
    pub(super) lives: u32,
    /// It sends nothing any more of its own.
    pub(super) is_over: bool,
    /// A host was told that the connection is reset, or gave up; when.
    pub(super) failed: Option<u64>,
    /// Its hosts are gone: they answer nothing.
    is_silent: bool,
    /// Whether a repetition waits, of each host.
    pub(super) armed: [bool; 2],
}

impl Flow {
    pub(super) fn new(number: u32, kind: Kind, rng: &mut Rng) -> Self {
        let host = |net: u8| [10, net, (number >> 8) as u8, number as u8];
        let port = if kind == Kind::Both { kind.port() } else { rng.range(1_024, 65_000) as u16 };
        let ends =
            Ends { protocol: kind.protocol(), client: (host(1), port), server: (host(2), kind.port()) };
        let steps = if kind.is_lasting() { u32::MAX } else { rng.range(2, 9) as u32 };
        let mut flow = Flow {
            ends,
            kind,
            hosts: [End::default(), End::default()],
            step: 0,
            steps,
            lives: 0,
            is_over: false,
            failed: None,
            is_silent: false,
            armed: [false; 2],
        };
        flow.begin(rng);
        flow
    }

    /// New hosts' ends, with numbers far beyond those of the life before.
    fn begin(&mut self, rng: &mut Rng) {
        self.lives += 1;
        self.step = 0;
        self.is_over = false;
        self.is_silent = false;
        let first = self.lives.wrapping_mul(0x1000_0000).wrapping_add(rng.range(0, 1 << 20) as u32);
        self.hosts = [End::new(first), End::new(first.wrapping_add(0x0777_7777))];
    }

    /// Opens again with the same ports; only after a close.
    pub(super) fn again(&mut self, rng: &mut Rng) {
        self.begin(rng);
    }

    /// Sends nothing new from here on; a connection is closed.
    pub(super) fn stop(&mut self) {
        self.steps = self.steps.min(self.step);
    }

    /// Everything ends at once, without a word.
    pub(super) fn fall_silent(&mut self) {
        self.is_over = true;
        self.is_silent = true;
        self.hosts = [End::default(), End::default()];
    }

    /// The client resets the connection.
    pub(super) fn reset(&mut self) -> Sent {
        let segment = self.hosts[0].reset();
        self.fall_silent();
        (true, segment)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.hosts.iter().any(End::is_waiting)
    }

    /// Whether a connection stands: open and not closing.
    pub(super) fn is_connected(&self) -> bool {
        let open = self.step > 1 || (self.step == 1 && !self.is_waiting());
        open && !self.is_over && self.step < self.steps && self.failed.is_none()
    }

    /// What comes next of itself.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Vec<Sent> {
        if self.is_over || self.is_waiting() {
            return Vec::new();
        }
        let step = self.step;
        self.step += 1;
        if !self.kind.is_tcp() {
            if step >= self.steps {
                self.is_over = true;
                return Vec::new();
            }
            let up = step == 0 || rng.per_mille(700);
            return vec![(up, Segment::datagram(rng.range(1, 300) as u16))];
        }
        match step {
            0 if self.kind == Kind::Both => {
                self.hosts.iter_mut().zip([true, false]).map(|(h, up)| (up, h.send(SYN, 0))).collect()
            }
            0 => vec![(true, self.hosts[0].send(SYN, 0))],
            _ if step < self.steps => {
                let up = rng.per_mille(500);
                vec![(up, self.hosts[usize::from(!up)].send(0, rng.range(1, 600) as u16))]
            }
            _ if step == self.steps.max(1) => vec![(true, self.hosts[0].send(FIN, 0))],
            _ => {
                self.is_over = true;
                vec![(false, self.hosts[1].send(FIN, 0))]
            }
        }
    }

    /// How long it waits before it goes on, in microseconds.
    pub(super) fn pause(&self, rng: &mut Rng) -> u64 {
        match self.kind {
            Kind::Drip | Kind::Trickle | Kind::Shifty => self.kind.timeout() * 8 / 10,
            Kind::Datagrams => rng.range(1_000, 300_000),
            Kind::Talk | Kind::Both => rng.range(1_000, 400_000),
        }
    }

    /// Whether an end has taken a SYN of the life before for one of this: these hosts do not sort that out.
    pub(super) fn is_confused(&self) -> bool {
        let [client, server] = &self.hosts;
        client.is_beside(server) || server.is_beside(client)
    }

    /// A host repeats itself; what, and when to come again.
    pub(super) fn repeat(&mut self, host: usize, now: u64) -> Option<(Sent, u64)> {
        let again = self.hosts[host].repeat();
        if self.hosts[host].gave_up {
            self.fail(now);
        }
        again.map(|(segment, pause)| ((host == 0, segment), pause))
    }

    /// A packet arrives; what is answered, and whether the flow goes on to its next step.
    pub(super) fn arrive(&mut self, up: bool, segment: &Segment, now: u64) -> (Option<Sent>, bool) {
        if !self.kind.is_tcp() || self.is_silent {
            return (None, false);
        }
        let host = usize::from(up);
        let (answer, learned) = self.hosts[host].take(segment);
        if learned == Learned::Reset && !self.is_over {
            self.fail(now);
        }
        let goes_on = learned == Learned::Acknowledged && !self.is_waiting();
        (answer.map(|segment| (host == 0, segment)), goes_on)
    }

    fn fail(&mut self, now: u64) {
        self.failed = Some(now);
        self.is_over = true;
    }
}
