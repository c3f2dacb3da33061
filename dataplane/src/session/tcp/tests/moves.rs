//! J7 on more than one node: two honest ends whose segments take changing ways over three nodes that tell each other
//! late or not at all, and a forger in between. Whatever happens, the ends go on; and what is forged neither closes
//! the connection nor gets through a node that has seen both sides for a while.

use super::*;
use std::collections::VecDeque;

const NODES: usize = 3;
const SCALE: u8 = 7;
const SEGMENT: u32 = 60_000;
/// How far outside a forged number lies.
const FAR: u32 = 0x4000_0000;
/// How long the ends may stand still: seconds until a bound is learned again, and one retransmission.
const PATIENCE_MS: u32 = 6_500;
const RETRANSMIT_MS: u32 = 600;

/// xorshift64*: every seed is one history.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::from(n)) as u32
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// One end: what it has sent, and what it has received.
#[derive(Clone, Debug)]
struct End {
    next: u32,
    acked: u32,
    expected: u32,
    /// Segments beyond a gap: where they begin and end.
    held: Vec<(u32, u32)>,
    window: u32,
    granted: u32,
    owes_ack: bool,
    moved_ms: u32,
}

impl End {
    fn segment(&self, seq: u32, len: u32) -> Tcp {
        let window = (self.window >> SCALE) as u16;
        Tcp { flags: ACK, seq, ack: self.expected, payload_len: len as u16, window, ..Tcp::default() }
    }

    /// Something new, or an acknowledgement that is due.
    fn say(&mut self, random: &mut Random, wants: bool) -> Option<Tcp> {
        let len = 1 + random.below(SEGMENT);
        let in_flight = self.next.wrapping_sub(self.acked);
        if wants && in_flight + len <= self.granted {
            let t = self.segment(self.next, len);
            self.next = self.next.wrapping_add(len);
            self.owes_ack = false;
            return Some(t);
        }
        std::mem::take(&mut self.owes_ack).then(|| self.segment(self.next, 0))
    }

    /// What has not been acknowledged for too long, again.
    fn repeat(&mut self, now_ms: u32) -> Option<Tcp> {
        let late = self.next != self.acked && now_ms.wrapping_sub(self.moved_ms) > RETRANSMIT_MS;
        late.then(|| {
            self.moved_ms = now_ms;
            let len = self.next.wrapping_sub(self.acked).min(SEGMENT);
            self.segment(self.acked, len)
        })
    }

    fn take(&mut self, t: &Tcp, now_ms: u32) {
        let (begin, end) = (t.seq, t.seq.wrapping_add(u32::from(t.payload_len)));
        let ahead = t.ack.wrapping_sub(self.acked);
        if ahead != 0 && ahead <= self.next.wrapping_sub(self.acked) {
            (self.acked, self.moved_ms) = (t.ack, now_ms);
        }
        self.granted = u32::from(t.window) << SCALE;
        if t.payload_len > 0 {
            self.owes_ack = true;
            if end.wrapping_sub(self.expected) as i32 > 0 {
                self.held.push((begin, end));
            }
            while let Some(n) = self.held.iter().position(|(b, _)| seq_le(*b, self.expected)) {
                let (_, end) = self.held.swap_remove(n);
                self.expected = seq_max(self.expected, end);
            }
        }
    }
}

/// What a node tells: to whom, when it arrives, the facts, which wings it sees, and when it was.
struct Word {
    to: usize,
    at_ms: u32,
    facts: [WingFacts; 2],
    sighted: [bool; 2],
    seen_ms: u32,
}

struct World {
    random: Random,
    now_ms: u32,
    ends: [End; 2],
    nodes: Vec<Conn>,
    /// The last packet that each node forwarded.
    last_ms: [u32; NODES],
    /// The node that each wing takes.
    way: [usize; 2],
    /// Real segments that each node has let pass since the ways changed or it was told something, by wing.
    passed: [[u32; 2]; NODES],
    words: VecDeque<Word>,
    /// Of a hundred words so many are lost.
    deaf: u32,
    loss: u32,
    forged: u32,
    refused: u32,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let isn = [random.below(u32::MAX), random.below(u32::MAX)];
        let window = [200_000, 1_000_000, 4_000_000][random.below(3) as usize];
        let scaled = |t: Tcp| Tcp { window_scale: Some(SCALE), window: 60_000, ..t };
        let mut first = Conn { now_ms: 1_000_000, claims: Some(Claims::default()), ..Conn::default() };
        let begin = isn.map(|n| n.wrapping_add(1));
        first.see(0, &scaled(seg(SYN, isn[0], 0, 0)));
        first.see(1, &scaled(seg(SYN | ACK, isn[1], begin[0], 0)));
        first.see(0, &seg(ACK, begin[0], begin[1], 0));
        let end = |w: usize| End {
            next: begin[w],
            acked: begin[w],
            expected: begin[1 - w],
            held: Vec::new(),
            window,
            granted: 60_000,
            owes_ack: false,
            moved_ms: 1_000_000,
        };
        let copy = Conn { seen_ms: [0; 2], ..first.clone() };
        World {
            ends: [end(0), end(1)],
            nodes: vec![first, copy.clone(), copy],
            last_ms: [1_000_000; NODES],
            now_ms: 1_000_000,
            way: [0; 2],
            passed: [[0; 2]; NODES],
            words: VecDeque::new(),
            deaf: [0, 0, 30, 100][random.below(4) as usize],
            loss: [0, 0, 2, 10][random.below(4) as usize],
            forged: 0,
            refused: 0,
            trace: Vec::new(),
            random,
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace.len() > 40000 {
            self.trace.drain(..200);
        }
        self.trace.push(format!("{} {}", self.now_ms, what()));
    }

    /// A real segment passes a node, and arrives.
    fn pass(&mut self, w: usize, t: &Tcp) {
        let node = self.way[w];
        self.nodes[node].now_ms = self.now_ms;
        let got = self.nodes[node].see(w, t);
        self.note(|| format!("wing {w} by {node}: {} {} +{} -> {got:?}", t.seq, t.ack, t.payload_len));
        if got != Observation::OutOfWindow {
            self.last_ms[node] = self.now_ms;
            self.passed[node][w] += 1;
            if !self.random.chance(self.loss) {
                self.ends[1 - w].take(t, self.now_ms);
            }
        }
        if std::mem::take(&mut self.nodes[node].sighted) {
            self.tell(node);
        }
    }

    fn tell(&mut self, from: usize) {
        let seen = self.nodes[from].seen_ms;
        self.note(|| format!("node {from} tells that it sees {seen:?}"));
        for to in (0..NODES).filter(|to| *to != from) {
            if self.random.chance(self.deaf) {
                continue;
            }
            let at_ms = self.now_ms + 1 + self.random.below(20);
            let (facts, seen) = (self.nodes[from].wings, self.nodes[from].seen_ms);
            let word =
                Word { to, at_ms, facts, sighted: seen.map(|ms| ms != 0), seen_ms: self.last_ms[from] };
            self.words.push_back(word);
        }
    }

    fn hear(&mut self) {
        while let Some(n) = self.words.iter().position(|word| word.at_ms <= self.now_ms) {
            let word = self.words.remove(n).unwrap();
            let node = &mut self.nodes[word.to];
            let heard = Heard { facts: &word.facts, sighted: word.sighted, at_ms: word.seen_ms };
            hear(&mut node.wings, &mut node.seen_ms, &heard);
            self.passed[word.to] = [0; 2];
            self.note(|| format!("node {} hears that {:?} were seen", word.to, word.sighted));
        }
    }

    /// One forged segment from the first wing's side, with at most one right number, through any node.
    fn forge(&mut self) {
        let node = self.random.below(NODES as u32) as usize;
        let (client, server) = (&self.ends[0], &self.ends[1]);
        let (seq, ack) = match self.random.below(4) {
            0 => (client.next.wrapping_add(FAR), server.next),
            1 => (client.next.wrapping_add(FAR), client.expected),
            2 => (client.next, server.next.wrapping_add(FAR)),
            _ => (client.next.wrapping_add(FAR / 2 + self.random.below(FAR)), self.random.below(u32::MAX)),
        };
        let flags = [ACK, ACK, FIN | ACK, RST][self.random.below(4) as usize];
        // An exact RST, and an exact FIN, close in any case.
        if flags != ACK && away_from(seq, client.next, self.nodes[node].wings[0].seq_max) < 10_000_000 {
            return;
        }
        let t = Tcp { window: 60_000, ..seg(flags, seq, ack, 100) };
        self.nodes[node].now_ms = self.now_ms;
        let got = self.nodes[node].see(0, &t);
        self.note(|| format!("forged by {node}: {flags:#x} {seq} {ack} -> {got:?}"));
        assert!(!self.nodes[node].sighted, "a forged segment is told of");
        self.forged += 1;
        if got == Observation::OutOfWindow || got == Observation::RstOutOfWindow {
            self.refused += 1;
        }
        let fresh = self.nodes[node].seen_ms.iter().all(|ms| self.now_ms.wrapping_sub(*ms) <= 1_000);
        if self.passed[node].iter().all(|n| *n >= 8) && fresh {
            let outside = matches!(got, Observation::OutOfWindow | Observation::RstOutOfWindow);
            assert!(outside, "{got:?} of {t:?} by a node that has seen both sides");
        }
    }

    /// Some milliseconds of traffic. `wants`: which ends have data to send.
    fn step(&mut self, wants: [bool; 2], forger_percent: u32) {
        self.now_ms += 1 + self.random.below(4);
        self.hear();
        for (w, wants) in wants.into_iter().enumerate() {
            for _ in 0..1 + self.random.below(4) {
                let Some(t) = self.ends[w].say(&mut self.random, wants) else { break };
                self.pass(w, &t);
            }
            if let Some(t) = self.ends[w].repeat(self.now_ms) {
                self.pass(w, &t);
            }
        }
        if self.random.chance(forger_percent) {
            self.forge();
        }
    }

    /// One of the wings, or both, take another way.
    fn change_ways(&mut self) {
        let node = self.random.below(NODES as u32) as usize;
        match self.random.below(4) {
            0 => self.way[0] = node,
            1 => self.way[1] = node,
            _ => self.way = [node; 2],
        }
        self.passed = [[0; 2]; NODES];
        let way = self.way;
        self.note(|| format!("ways {way:?}"));
    }

    /// How much has arrived, in all.
    fn arrived(&self) -> [u32; 2] {
        [self.ends[0].expected, self.ends[1].expected]
    }
}

fn away_from(seq: u32, a: u32, b: u32) -> u32 {
    let away = |x: u32| (seq.wrapping_sub(x) as i32).unsigned_abs();
    away(a).min(away(b))
}

/// Runs one history.
fn run(world: &mut World) {
    let forger = [0, 5, 30, 90][world.random.below(4) as usize];
    // How often ways change, and how long until the ends fall silent.
    let (busy, moves) = ([5, 100][world.random.below(2) as usize], 2 + world.random.below(8));
    for _ in 0..moves {
        let wants = [[true, false], [false, true], [true, true]][world.random.below(3) as usize];
        world.change_ways();
        if world.random.chance(30) {
            // Idle for a while.
            world.now_ms += [100, 3_000, 8_000, 60_000][world.random.below(4) as usize];
        }
        let (mut since, mut before) = (world.now_ms, world.arrived());
        for _ in 0..busy * (1 + world.random.below(40)) {
            world.step(wants, forger);
            let now = world.arrived();
            if now != before {
                (since, before) = (world.now_ms, now);
            }
            let still = world.now_ms.wrapping_sub(since);
            // Where everybody hears, nobody waits for a bound to grow old.
            let patience = if world.deaf == 0 { 2 * RETRANSMIT_MS } else { PATIENCE_MS };
            assert!(
                still <= patience + 20 * world.loss * RETRANSMIT_MS / 10,
                "the ends stand still for {still} ms"
            );
        }
    }
    for (n, node) in world.nodes.iter().enumerate() {
        assert_eq!(node.state(), State::Established, "at node {n}: nobody has ended it");
    }
}

#[test]
fn j7_connections_go_on_over_any_nodes_whatever_is_forged() {
    // Red when a node holds the ends to a window that is not theirs, believes a forged segment, or lets one pass
    // that it could refuse. Each seed is another history.
    let (mut forged, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut world)));
        assert!(ran.is_ok(), "seed {seed}:\n{}\n{:#?}", world.trace.join("\n"), world.nodes);
        (forged, refused) = (forged + world.forged, refused + world.refused);
    }
    assert!(forged > 5_000 && refused > forged / 10, "{refused} of {forged} refused");
}
