//! The relay's mind: which frame goes where, when, and how often. Pure; time is a number of microseconds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Impairment, Order, Report, WayReport, frame};

/// Frames that are under way at most; what comes on top is lost, and counted.
const HELD_MAX: usize = 65_536;
/// How long a frame is held back so that others overtake it.
const REORDER_US: std::ops::Range<u64> = 1_000..10_000;

/// Chances that follow from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One bit of a byte.
    pub(super) fn bit(&mut self) -> u8 {
        1 << self.below(8)
    }

    /// True in that many of a hundred cases: never at 0, always at 100.
    fn percent(&mut self, pct: f64) -> bool {
        pct > 0.0 && (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 100.0 < pct
    }
}

/// A switch that learns who is where, with trouble on each way.
#[derive(Debug)]
pub(super) struct Switch {
    names: Vec<String>,
    learned: BTreeMap<[u8; 6], usize>,
    /// For each sender and receiver.
    ways: Vec<Vec<Lane>>,
    held: BinaryHeap<Reverse<Held>>,
    count: u64,
}

#[derive(Debug)]
struct Lane {
    report: WayReport,
    chance: Chance,
}

/// A frame under way. The order is by time, then as they came.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due_us: u64,
    number: u64,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

impl Switch {
    /// A good switch with a port for each name.
    pub(super) fn new(names: Vec<String>, seed: u64) -> Switch {
        let lane = |from: &String, to: &String| Lane {
            report: WayReport { from: from.clone(), to: to.clone(), ..WayReport::default() },
            chance: Chance::new(0),
        };
        let ways = names.iter().map(|from| names.iter().map(|to| lane(from, to)).collect()).collect();
        let mut switch = Switch { names, learned: BTreeMap::new(), ways, held: BinaryHeap::new(), count: 0 };
        switch.draw_anew(seed);
        switch
    }

    fn draw_anew(&mut self, seed: u64) {
        for (number, lane) in self.ways.iter_mut().flatten().enumerate() {
            let mut mixed = Chance::new(seed.wrapping_add((number as u64) << 32));
            lane.chance = Chance::new(mixed.next());
        }
    }

    /// Does what an order says.
    pub(super) fn obey(&mut self, order: &Order) {
        if let Some(seed) = order.seed {
            self.draw_anew(seed);
        }
        for (way, change) in &order.changes {
            let all = self.ways.iter_mut().flatten();
            for lane in all.filter(|lane| way.is(&lane.report.from, &lane.report.to)) {
                change.apply(&mut lane.report.impairment);
            }
        }
    }

    /// All ways between two.
    pub(super) fn report(&self) -> Report {
        let lanes = self.ways.iter().flatten().map(|lane| &lane.report);
        Report { ways: lanes.filter(|way| way.from != way.to).cloned().collect() }
    }

    /// Takes a frame that came in at a port.
    pub(super) fn take(&mut self, from: usize, frame: &[u8], now_us: u64) {
        let Some(source) = frame::source(frame) else { return };
        self.learned.insert(source, from);
        match frame::destination(frame).and_then(|mac| self.learned.get(&mac).copied()) {
            Some(to) if to == from => (),
            Some(to) => self.put(from, to, frame, now_us),
            None => {
                for to in (0..self.names.len()).filter(|to| *to != from) {
                    self.put(from, to, frame, now_us);
                }
            }
        }
    }

    fn put(&mut self, from: usize, to: usize, frame: &[u8], now_us: u64) {
        let Lane { report, chance } = &mut self.ways[from][to];
        let Impairment { delay_ms, loss_pct, duplicate_pct, corrupt_pct, reorder_pct, cut } =
            report.impairment;
        if cut {
            report.cut_off += 1;
            return;
        }
        if chance.percent(loss_pct) {
            report.lost += 1;
            return;
        }
        let mut frame = frame.to_vec();
        if chance.percent(corrupt_pct) && frame::corrupt(&mut frame, chance) {
            report.corrupted += 1;
        }
        let copies = if chance.percent(duplicate_pct) { 2 } else { 1 };
        report.duplicated += copies - 1;
        for _ in 0..copies {
            let mut due_us = now_us + (delay_ms * 1e3) as u64;
            if chance.percent(reorder_pct) {
                report.reordered += 1;
                due_us +=
                    REORDER_US.start + chance.below((REORDER_US.end - REORDER_US.start) as usize) as u64;
            }
            if self.held.len() >= HELD_MAX {
                report.overflowed += 1;
                continue;
            }
            self.count += 1;
            self.held.push(Reverse(Held { due_us, number: self.count, from, to, frame: frame.clone() }));
        }
    }

    /// When the next frame is due.
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.held.peek().map(|Reverse(held)| held.due_us)
    }

    /// Delivers what is due: `send` is told the port and the frame, and says whether it was taken.
    pub(super) fn deliver(&mut self, now_us: u64, mut send: impl FnMut(usize, &[u8]) -> bool) {
        while self.next_due_us().is_some_and(|due| due <= now_us) {
            let Some(Reverse(held)) = self.held.pop() else { return };
            let report = &mut self.ways[held.from][held.to].report;
            match send(held.to, &held.frame) {
                true => report.delivered += 1,
                false => report.overflowed += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Way};
    use super::*;

    fn frame(from: u8, to: u8, number: u8) -> Vec<u8> {
        [[to; 6].as_slice(), &[from; 6], &[0x88, 0xb5], &[number; 50]].concat()
    }

    fn switch() -> Switch {
        let names = ["node1", "node2", "node3"].map(str::to_owned);
        let mut switch = Switch::new(names.into(), 7);
        // Everybody is heard once.
        for port in 0..3u8 {
            switch.take(port.into(), &frame(2 + 2 * port, 0xff, 0), 0);
        }
        while let Some(due) = switch.next_due_us() {
            switch.deliver(due, |_, _| true);
        }
        switch
    }

    fn change(switch: &mut Switch, from: &str, to: &str, change: Change) {
        switch.obey(&Order { changes: vec![(Way::between(from, to), change)], seed: None });
    }

    /// What arrives of 1,000 frames, and where.
    fn arrivals(switch: &mut Switch, from: usize, to: usize) -> Vec<(usize, u8)> {
        let mac = |port: usize| 2 + 2 * port as u8;
        for number in 0..=249 {
            switch.take(from, &frame(mac(from), mac(to), number), u64::from(number));
        }
        let mut arrived = Vec::new();
        switch.deliver(u64::MAX, |port, frame| {
            arrived.push((port, frame[20]));
            true
        });
        arrived
    }

    /// Red when a frame goes to others than it is for, or trouble on one way is trouble on another.
    #[test]
    fn trouble_stays_on_its_way() {
        let mut switch = switch();
        change(&mut switch, "node1", "node2", Change::CUT);
        assert_eq!(arrivals(&mut switch, 0, 1), []);
        for (from, to) in [(1, 0), (0, 2), (2, 0), (1, 2)] {
            let arrived = arrivals(&mut switch, from, to);
            assert_eq!(arrived.len(), 250, "{from} to {to}");
            assert!(arrived.iter().all(|(port, _)| *port == to));
        }
        assert_eq!(switch.report().way("node1", "node2").unwrap().cut_off, 250);
    }

    /// Red when what one order says is forgotten with the next, or healing leaves something.
    #[test]
    fn orders_combine_and_healing_ends_them_all() {
        let mut switch = switch();
        change(&mut switch, "node1", "node2", Change { loss_pct: Some(50.0), ..Change::NOTHING });
        change(&mut switch, "node1", "node2", Change { duplicate_pct: Some(100.0), ..Change::NOTHING });
        let arrived = arrivals(&mut switch, 0, 1).len();
        assert!(arrived.is_multiple_of(2) && (150..350).contains(&arrived), "{arrived}");
        switch.obey(&Order { changes: vec![(Way::default(), Change::HEAL)], seed: None });
        assert_eq!(arrivals(&mut switch, 0, 1).len(), 250);
    }

    /// Red when equal seeds lose other frames, or reordering loses some or none overtakes.
    #[test]
    fn chances_follow_from_the_seed_and_reordered_frames_all_arrive() {
        let lossy = |seed| {
            let mut switch = switch();
            change(&mut switch, "node1", "node2", Change { loss_pct: Some(30.0), ..Change::NOTHING });
            switch.obey(&Order { changes: Vec::new(), seed: Some(seed) });
            arrivals(&mut switch, 0, 1)
        };
        assert_eq!(lossy(1), lossy(1));
        assert_ne!(lossy(1), lossy(2));
        let mut switch = switch();
        change(&mut switch, "node1", "node2", Change { reorder_pct: Some(20.0), ..Change::NOTHING });
        let mut arrived = arrivals(&mut switch, 0, 1);
        assert!(!arrived.is_sorted());
        arrived.sort_unstable();
        assert!(arrived.iter().map(|(_, number)| *number).eq(0..=249));
    }

    #[test]
    fn a_delayed_frame_is_not_early() {
        let mut switch = switch();
        change(&mut switch, "node1", "node2", Change { delay_ms: Some(20.0), ..Change::NOTHING });
        switch.take(0, &frame(2, 4, 1), 1_000);
        assert_eq!(switch.next_due_us(), Some(21_000));
        switch.deliver(20_999, |_, _| panic!("too early"));
    }
}
