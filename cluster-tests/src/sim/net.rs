//! The virtual network: what a message meets on its way.

use super::counts::Counts;
use super::rng::Rng;
use std::collections::BTreeSet;
use tidegate_sync::cluster::NodeId;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Messages lost of a thousand.
    pub(super) loss: u64,
    /// Messages that come twice, of a thousand.
    pub(super) twice: u64,
    /// Longest ordinary delay, in microseconds.
    pub(super) delay: u64,
    /// Messages of a thousand that take ten times as long.
    pub(super) late: u64,
}

impl Weather {
    /// As in a rack.
    pub(super) const FAIR: Weather = Weather { loss: 0, twice: 0, delay: 2_000, late: 0 };
}

/// Links that are cut, by direction.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) weather: Weather,
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Net {
    pub(super) fn new(weather: Weather) -> Self {
        Net { weather, cut: BTreeSet::new() }
    }

    /// When copies of a message arrive, in microseconds from now; none if it is lost.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, rng: &mut Rng, counts: &mut Counts) -> Vec<u64> {
        let weather = self.weather;
        if self.cut.contains(&(from, to)) || rng.per_mille(weather.loss) {
            counts.messages_lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.per_mille(weather.twice));
        counts.messages_twice += copies - 1;
        let mut delay = || {
            let late = rng.per_mille(weather.late);
            rng.range(100, weather.delay) * if late { 10 } else { 1 }
        };
        (0..copies).map(|_| delay()).collect()
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Two groups that do not reach each other.
    pub(super) fn split(&mut self, nodes: &[NodeId], rng: &mut Rng) {
        self.heal();
        let (left, right): (Vec<NodeId>, Vec<NodeId>) = nodes.iter().partition(|_| rng.per_mille(500));
        for a in left {
            self.cut.extend(right.iter().flat_map(|b| [(a, *b), (*b, a)]));
        }
    }

    /// One node that is heard but hears nobody, or hears and is not heard.
    pub(super) fn one_way(&mut self, node: NodeId, nodes: &[NodeId], deaf: bool) {
        self.heal();
        let others = nodes.iter().copied().filter(|id| *id != node);
        self.cut.extend(others.map(|other| if deaf { (other, node) } else { (node, other) }));
    }

    /// One node that nobody reaches.
    pub(super) fn isolate(&mut self, node: NodeId, nodes: &[NodeId]) {
        self.heal();
        for other in nodes.iter().copied().filter(|id| *id != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    /// Two groups of the same size that reach each other through one node only.
    pub(super) fn bridge(&mut self, over: NodeId, nodes: &[NodeId]) {
        self.heal();
        let others: Vec<_> = nodes.iter().copied().filter(|id| *id != over).collect();
        let sides = |n: usize| others.iter().copied().skip(n).step_by(2);
        for a in sides(0) {
            self.cut.extend(sides(1).flat_map(|b| [(a, b), (b, a)]));
        }
    }
}
