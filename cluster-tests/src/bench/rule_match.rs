//! `rule_match`: what it costs to find the rule of a new flow, by the number of rules, in process.
//!
//! The peer is our own cost with 10 rules of the same shape (and their share of the prefixes). A walk along all rules
//! in file order, as the format defines the answer, stands beside it for information. Both answer alike for a
//! sample of the flows before anything is measured.

use std::hint::black_box;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use tidegate_dataplane::addr::{Addr, Tuple, proto};
use tidegate_dataplane::names::{Names, ZoneId};
use tidegate_dataplane::policy::{self, AddressRef, Place, Policy, PolicyFile};

use super::Scale;
use super::inproc::pin::Pinned;
use super::inproc::{alternate, seconds};
use super::report::{Better, Row, Subject};
use crate::policies::{self, Draw, FIRST_PORT, LAST_PORT, Shape};

/// Name of the bench.
pub const NAME: &str = "rule_match";
/// What is asked of 10,000 rules' cost against that of 10.
const GATE: f64 = 3.0;
const RULES: u32 = 10_000;
const RULES_FEW: u32 = 10;
/// Prefixes for each rule.
const PREFIXES: u32 = 10;
/// Runs of each side, in turn: short ones, for what disturbs a machine's caches lasts for a second or two.
const RUNS: u32 = 41;
const SEED: u64 = 0x7469_6465;
/// Flows of a case: more than fit the first cache with what they touch.
const FLOWS: usize = 8_192;
/// Flows that are placed together.
const BATCH: usize = 64;
/// How many of them the walk along all rules answers too, and is measured with.
const CHECKED: usize = 128;
/// A destination port of no application.
const NO_PORT: u16 = 50_000;

const GENERATOR: &str = "seeded rules and flows, overlapping prefixes, 10 for each rule; place and evaluate_at, in \
                         batches of 64 as the engine asks";

/// Which flows a case has. All have a random rule's source and a random rule's destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flows {
    /// A third each of those below.
    All,
    /// A random rule's source, destination and service, so that rule or one before it matches.
    Any,
    /// Those that only the last rule matches.
    LastRule,
    /// Those that no rule matches.
    NoMatch,
}

/// Measures every case.
pub fn run(scale: &Scale, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let pinned = Pinned::to_last_cpu();
    let (runs, rounds) = if scale.gated { (RUNS, 50) } else { (scale.rounds, 10) };
    let bench = Bench { scale, runs, rounds, placement: pinned.placement() };
    let mut rows = Vec::new();
    for shape in Shape::ALL {
        progress(&format!("{NAME}: {} rules, shape {}", RULES, shape.name()));
        let (few, many) = (Rules::new(shape, RULES_FEW), Rules::new(shape, RULES));
        let cases: &[Flows] = match shape {
            Shape::Mixed => &[Flows::Any, Flows::LastRule, Flows::NoMatch],
            _ => &[Flows::All],
        };
        for flows in cases {
            rows.push(bench.ratio(&few, &many, *flows, Some(GATE)));
        }
        if shape == Shape::Mixed {
            rows.push(bench.ratio(&few, &Rules::new(shape, 1_000), Flows::All, None));
            rows.push(bench.naive(&many));
        }
    }
    rows
}

/// A policy under measurement.
struct Rules {
    shape: Shape,
    rules: u32,
    file: PolicyFile,
    policy: Policy,
    zones: [ZoneId; 2],
}

struct Bench<'a> {
    scale: &'a Scale,
    runs: u32,
    /// How often a run goes over all flows.
    rounds: usize,
    placement: &'a str,
}

impl Rules {
    fn new(shape: Shape, rules: u32) -> Self {
        let text = policies::policy(shape, rules, rules * PREFIXES, SEED);
        let file = policy::check(&text, "bench").file.expect("the benches' policies have no errors");
        let mut names = Names::default();
        let policy = policy::compile(&file, 1, &mut names).expect("the benches' policies compile");
        let zones = ["outside", "inside"].map(|zone| names.find_zone(zone).expect("the policy has the zone"));
        Rules { shape, rules, file, policy, zones }
    }

    /// The rule of a flow, as its index.
    #[inline]
    fn find(&self, flow: &Tuple) -> Option<usize> {
        let rule = self.policy.evaluate(self.zones[0], self.zones[1], flow).rule?;
        self.policy.rules().iter().position(|info| info.id == rule)
    }

    /// Random flows of the case.
    fn flows(&self, flows: Flows) -> Vec<Tuple> {
        let mut draw = Draw::new(SEED + u64::from(self.rules));
        let last = self.policy.rules().last().map(|rule| rule.id);
        let wanted = |kind, flow: &Tuple| {
            let found = self.policy.evaluate(self.zones[0], self.zones[1], flow).rule;
            match kind {
                Flows::LastRule => found == last,
                Flows::NoMatch => found.is_none(),
                _ => true,
            }
        };
        let kinds = [Flows::Any, Flows::LastRule, Flows::NoMatch];
        (0..FLOWS)
            .map(|n| {
                let kind = if flows == Flows::All { kinds[n % 3] } else { flows };
                loop {
                    let flow = self.flow(kind, &mut draw);
                    if wanted(kind, &flow) {
                        return flow;
                    }
                }
            })
            .collect()
    }

    /// A random flow between addresses of the rules.
    fn flow(&self, kind: Flows, draw: &mut Draw) -> Tuple {
        let rules = &self.file.rules;
        let mut rule = || &rules[draw.below(rules.len() as u32) as usize];
        let (a, b) = (rule(), rule());
        let service = self.file.terms(a.application[0]).and_then(|terms| terms.first().copied());
        let (protocol, dst_port) = match kind {
            Flows::LastRule => (proto::UDP, LAST_PORT),
            Flows::NoMatch => (proto::UDP, NO_PORT),
            _ => service.map_or((proto::TCP, FIRST_PORT), |term| (term.protocol, term.destination.first)),
        };
        // With its own destination, rule `a` itself holds the flow.
        let b = if kind == Flows::Any { a } else { b };
        let (src, dst) = (self.address(&a.source, draw), self.address(&b.destination, draw));
        Tuple { src, dst, src_port: 1024 + draw.below(60_000) as u16, dst_port, protocol }
    }

    /// A random address of a rule's side.
    fn address(&self, side: &[AddressRef], draw: &mut Draw) -> Addr {
        let prefixes = side.first().and_then(|entry| self.file.prefixes(entry)).unwrap_or_default();
        let random = draw.address();
        let address = match prefixes.len() as u32 {
            0 => random,
            count => match prefixes[draw.below(count) as usize] {
                IpNet::V4(net) => net.network().to_bits() | random & net.hostmask().to_bits(),
                IpNet::V6(_) => random,
            },
        };
        Addr::from_v4(Ipv4Addr::from_bits(address).octets())
    }

    /// The first rule in file order, found by asking each.
    fn walk(&self, flow: &Tuple) -> Option<usize> {
        self.file.rules.iter().position(|rule| {
            self.holds(&rule.source, flow.src)
                && self.holds(&rule.destination, flow.dst)
                && rule.application.iter().any(|application| match self.file.terms(*application) {
                    None => true,
                    Some(terms) => {
                        terms.iter().any(|t| t.matches(flow.protocol, flow.src_port, flow.dst_port))
                    }
                })
        })
    }

    fn holds(&self, side: &[AddressRef], address: Addr) -> bool {
        let ip = address.to_ip();
        side.iter().any(|entry| match self.file.prefixes(entry) {
            None => true,
            Some(prefixes) => prefixes.iter().any(|prefix| prefix.contains(&ip)),
        })
    }
}

impl Bench<'_> {
    fn ratio(&self, few: &Rules, many: &Rules, flows: Flows, gate: Option<f64>) -> Row {
        let (few_flows, many_flows) = (few.flows(flows), many.flows(flows));
        for flow in &many_flows[..CHECKED] {
            assert_eq!(many.find(flow), many.walk(flow), "{flow:?}");
        }
        let runs = alternate(self.runs, || self.cost_ns(many, &many_flows), || self.cost_ns(few, &few_flows));
        let kind = match flows {
            Flows::All => "all flows",
            Flows::Any => "random rule",
            Flows::LastRule => "last rule",
            Flows::NoMatch => "no match",
        };
        let case = format!("{} rules, {}, {kind}", many.rules, many.shape.name());
        self.row(&case, "10 rules", gate.filter(|_| self.scale.gated), runs)
    }

    fn naive(&self, many: &Rules) -> Row {
        let flows = many.flows(Flows::All);
        let walk = || {
            let elapsed_s = seconds(|| {
                for flow in &flows[..CHECKED] {
                    black_box(many.walk(black_box(flow)));
                }
            });
            elapsed_s * 1e9 / CHECKED as f64
        };
        let runs = alternate(self.scale.rounds, || self.cost_ns(many, &flows), walk);
        self.row(
            &format!("{RULES} rules, {}, all flows", many.shape.name()),
            "walk along all rules",
            None,
            runs,
        )
    }

    /// Nanoseconds for each flow.
    fn cost_ns(&self, subject: &Rules, flows: &[Tuple]) -> f64 {
        let [from, to] = subject.zones;
        let elapsed_s = seconds(|| {
            let mut places = [Place::default(); BATCH];
            for batch in (0..self.rounds).flat_map(|_| flows.chunks(BATCH)) {
                let places = &mut places[..batch.len()];
                subject.policy.place(black_box(batch), places);
                for (flow, place) in batch.iter().zip(places) {
                    black_box(subject.policy.evaluate_at(from, to, flow, *place));
                }
            }
        });
        elapsed_s * 1e9 / (self.rounds * flows.len()) as f64
    }

    fn row(&self, case: &str, peer: &str, gate: Option<f64>, runs: Vec<super::report::Run>) -> Row {
        let subject = Subject {
            name: NAME,
            case,
            peer,
            unit: "ns",
            better: Better::Lower,
            gate,
            generator: GENERATOR,
            sink: "none",
            cpu_placement: self.placement,
        };
        Row::from_runs(&subject, runs)
    }
}
