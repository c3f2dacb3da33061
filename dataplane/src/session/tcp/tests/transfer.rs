//! J7: a whole transfer between two honest ends, over paths that lose and reorder on both sides of the
//! node, never meets a bound of the window.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SEGMENT: u32 = 1460;
const SCALE: u8 = 7;

/// A path: what was sent and has not arrived; the next to arrive is any of the oldest.
struct Path {
    under_way: Vec<Tcp>,
    overtaking: usize,
    loss_percent: u32,
}

impl Path {
    fn arrival(&mut self, random: &mut impl FnMut() -> u32) -> Option<Tcp> {
        if self.under_way.is_empty() {
            return None;
        }
        let n = random() as usize % self.overtaking.min(self.under_way.len());
        let t = self.under_way.remove(n);
        (random() % 100 >= self.loss_percent).then_some(t)
    }
}

/// The side that receives: what it has, and the window that its reader leaves it.
struct Receiver {
    next: u32,
    held: BTreeSet<u32>,
    edge: u32,
    window_max: u32,
}

impl Receiver {
    fn take(&mut self, t: &Tcp, random: &mut impl FnMut() -> u32) -> Tcp {
        if t.seq.wrapping_sub(self.next) < 1 << 30 {
            self.held.insert(t.seq);
        }
        while self.held.remove(&self.next) {
            self.next = self.next.wrapping_add(SEGMENT);
        }
        // The window opens and closes as the reader reads; its right edge never moves back.
        let open = self.edge.wrapping_sub(self.next);
        let window = open.max(random() % (self.window_max + 1)) >> SCALE;
        self.edge = self.next.wrapping_add(window << SCALE);
        Tcp { flags: ACK, seq: 5001, ack: self.next, window: window as u16, ..Tcp::default() }
    }
}

/// Sends `segments` from the client to the server; every segment and every acknowledgement passes the node.
fn transfer(seed: u32, isn: u32, segments: u32, overtaking: usize, loss_percent: u32, window_max: u32) {
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state >> 4
    };
    let scaled = |t: Tcp| Tcp { window_scale: Some(SCALE), ..t };
    let mut c = Conn::begin(&scaled(seg(SYN, isn, 0, 0)));
    let first = isn.wrapping_add(1);
    c.see(1, &scaled(seg(SYN | ACK, 5000, first, 0)));
    c.see(0, &seg(ACK, first, 5001, 0));
    let path = || Path { under_way: Vec::new(), overtaking, loss_percent };
    // Client to node, node to server, server to node, node to client.
    let [mut a, mut b, mut d, mut e] = [path(), path(), path(), path()];
    let end = first.wrapping_add(segments * SEGMENT);
    let (mut next, mut acked, mut granted) = (first, first, first.wrapping_add(60_000));
    let mut server =
        Receiver { next: first, held: BTreeSet::new(), edge: first.wrapping_add(60_000), window_max };
    let data = |seq| Tcp { payload_len: SEGMENT as u16, ..seg(ACK, seq, 5001, 0) };
    for turn in 0..1_000_000u32 {
        if acked == end {
            return;
        }
        let fits = granted.wrapping_sub(next) >= SEGMENT && (granted.wrapping_sub(next) as i32) > 0;
        if next != end && fits {
            a.under_way.push(data(next));
            next = next.wrapping_add(SEGMENT);
        } else if turn % 64 == 0 {
            // What is missing again, or a probe of the closed window.
            a.under_way.push(if next == acked {
                seg(ACK, acked.wrapping_sub(1), 5001, 0)
            } else {
                data(acked)
            });
        }
        c.now_ms += 1;
        for _ in 0..2 {
            if let Some(t) = a.arrival(&mut random) {
                let got = c.see(0, &t);
                assert!(matches!(got, Observation::Taken | Observation::Learned), "{got:?} {t:?} {c:?}");
                b.under_way.push(t);
            }
            if let Some(t) = b.arrival(&mut random) {
                d.under_way.push(server.take(&t, &mut random));
            }
            if let Some(t) = d.arrival(&mut random) {
                let got = c.see(1, &t);
                assert!(matches!(got, Observation::Taken | Observation::Learned), "{got:?} {t:?} {c:?}");
                e.under_way.push(t);
            }
            if let Some(t) = e.arrival(&mut random) {
                acked = seq_max(acked, t.ack);
                granted = seq_max(granted, t.ack.wrapping_add(u32::from(t.window) << SCALE));
            }
        }
    }
    panic!("the transfer does not end: {}", end.wrapping_sub(acked));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    // Red when a bound is narrower than a window, not scaled, or not kept across the wrap.
    #[test]
    fn j7_an_honest_transfer_never_meets_a_bound(
        seed: u32,
        isn: u32,
        overtaking in 1usize..40,
        loss_percent in 0u32..5,
        window_max in prop::sample::select(vec![8_000u32, 60_000, 400_000, 3_000_000]),
    ) {
        transfer(seed, isn, 3_000, overtaking, loss_percent, window_max);
    }
}
