//! Rule sets of a size and shape at which the order of rules, united sets and tables come into play,
//! against a walk along all rules. Flows lie on the borders of the rules' own prefixes and ports.

use super::oracle::rule_matches;
use super::{Fixture, tuple};
use crate::addr::{Addr, Tuple};
use crate::policy::{AddressRef, Place, PolicyFile, Rule, check};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::Index;
use std::fmt::Write as _;

/// Numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 33) % u64::from(end)) as u32
    }

    fn prefix(&mut self) -> String {
        // Few distinct values of the upper bits: prefixes nest deeply.
        let value = self.below(4) << 24 | self.below(1 << 12) << 8 | self.below(256);
        let written = if self.below(4) == 0 {
            format!("2001:db8:{:x}:{:x}::/{}", value >> 16, value & 0xffff, 36 + self.below(93))
        } else {
            format!("{}/{}", std::net::Ipv4Addr::from(10 << 24 | value), 6 + self.below(27))
        };
        written.parse::<IpNet>().unwrap().trunc().to_string()
    }

    /// One side of a rule; `open` in four are `any`.
    fn side(&mut self, open: u32) -> String {
        match self.below(8) {
            n if n < open * 2 => "any".into(),
            n if n % 2 == 0 => format!("set-{}", self.below(20)),
            _ => self.prefix(),
        }
    }
}

/// A policy whose rules leave source, destination and service open as often as told (in quarters).
fn policy(rules: u32, open: [u32; 3], seed: u64) -> String {
    let mut draw = Draw(seed);
    let mut text: String = ["a", "b", "c"].map(|z| format!("[[zone]]\nname = {z:?}\n")).concat();
    for set in 0..20 {
        let list: Vec<_> = (0..40).map(|_| draw.prefix()).collect();
        let _ = writeln!(text, "[[address_set]]\nname = \"set-{set}\"\nprefixes = {list:?}");
    }
    for app in 0..40 {
        let (first, protocol) = (draw.below(2000), if app % 2 == 0 { "tcp" } else { "udp" });
        let last = first + draw.below(3) * draw.below(900);
        let _ = writeln!(
            text,
            "[[application]]\nname = \"app-{app}\"\n[[application.term]]\nprotocol = \"{protocol}\"\n\
             destination_port = \"{first}-{last}\""
        );
    }
    for n in 0..rules {
        let zone = |draw: &mut Draw| ["a", "b", "c", "any"][draw.below(4) as usize];
        let (from, to) = (zone(&mut draw), zone(&mut draw));
        let (source, destination) = (draw.side(open[0]), draw.side(open[1]));
        let app = if draw.below(4) < open[2] { "any".into() } else { format!("app-{}", draw.below(40)) };
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"r{n}\"\nfrom = {from:?}\nto = {to:?}\nsource = {source:?}\n\
             destination = {destination:?}\napplication = {app:?}\naction = \"permit\"\nenabled = {}",
            draw.below(50) > 0
        );
    }
    text
}

/// The first or last address of a rule's side, or one beside it.
fn edge(file: &PolicyFile, side: &[AddressRef], draw: &mut Draw) -> Addr {
    let prefixes = file.prefixes(&side[0]).unwrap_or_default();
    let Some(prefix) = prefixes.get(draw.below(prefixes.len().max(1) as u32) as usize) else {
        return Addr::from(std::net::IpAddr::from([10, draw.below(4) as u8, draw.below(16) as u8, 7]));
    };
    let (first, last): (Addr, Addr) = (prefix.network().into(), prefix.broadcast().into());
    let moved = match draw.below(6) {
        0 => first.0.wrapping_sub(1),
        1 => last.0.wrapping_add(1),
        n if n % 2 == 0 => first.0,
        _ => last.0,
    };
    Addr(moved)
}

/// A flow on the borders of a rule, most often one that the rule holds.
fn flow(file: &PolicyFile, rule: &Rule, draw: &mut Draw) -> Tuple {
    let term = file.terms(rule.application[0]).and_then(|terms| terms.first().copied());
    let (protocol, port) = match (term, draw.below(5)) {
        (None, _) => ([6, 17, 47][draw.below(3) as usize], draw.below(3000) as u16),
        (Some(t), 0) => (t.protocol, t.destination.last.wrapping_add(1)),
        (Some(t), n) => (t.protocol, if n % 2 == 0 { t.destination.first } else { t.destination.last }),
    };
    let (src, dst) = (edge(file, &rule.source, draw), edge(file, &rule.destination, draw));
    let ports = if protocol == 47 { (0, 0) } else { (4000, port) };
    Tuple { src, dst, protocol, src_port: ports.0, dst_port: ports.1 }
}

fn agrees(text: &str, rules: &[Index], seed: u64) -> Result<(), TestCaseError> {
    let fixture = Fixture::new(text);
    let file = check(text, "p").file.unwrap();
    let mut draw = Draw(seed);
    // No packet has addresses of both families: about half of the flows are left.
    let flows: Vec<Tuple> = rules
        .iter()
        .map(|i| flow(&file, &file.rules[i.index(file.rules.len())], &mut draw))
        .filter(|flow| flow.src.is_v4() == flow.dst.is_v4())
        .collect();
    let mut places = vec![Place::default(); flows.len()];
    fixture.policy.place(&flows, &mut places);
    for (flow, place) in flows.iter().zip(places) {
        for (from, to) in [(0, 1), (1, 2), (2, 2)] {
            let expected = file.rules.iter().position(|r| rule_matches(&file, r, from, to, flow));
            let expected = expected.map(|i| fixture.policy.rules()[i].id);
            let [a, b] = [from, to].map(|zone| fixture.zone(["a", "b", "c"][zone]));
            prop_assert_eq!(fixture.policy.evaluate(a, b, flow).rule, expected, "{:?} {} {}", flow, from, to);
            prop_assert_eq!(fixture.policy.evaluate_at(a, b, flow, place).rule, expected, "{:?}", flow);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goes red when a rule that stands elsewhere than in the file is lost or found too late, a search
    /// ends too early, a united set lacks a rule, or a table leads to the wrong neighbourhood.
    #[test]
    fn rule_sets_of_every_shape_agree_with_a_walk(
        rules in 1..1500u32,
        open in [0..4u32, 0..4u32, 0..4u32],
        seed: u64,
        picked in prop::collection::vec(any::<Index>(), 120),
    ) {
        agrees(&policy(rules, open, seed), &picked, seed)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same with 10,000 rules.
    #[test]
    fn ten_thousand_rules_agree_with_a_walk(
        open in [0..3u32, 0..3u32, 0..3u32],
        seed: u64,
        picked in prop::collection::vec(any::<Index>(), 80),
    ) {
        agrees(&policy(10_000, open, seed), &picked, seed)?;
    }
}

/// The borders of the IPv4 space: the value below all and above all prefixes, and all of them.
#[test]
fn the_ends_of_the_address_space_belong_to_their_prefixes() {
    let list: Vec<IpNet> =
        ["0.0.0.0/1", "255.255.255.255/32", "::/1", "ffff::/16"].map(|p| p.parse().unwrap()).into();
    for prefix in list {
        let text = format!(
            "[[zone]]\nname = \"a\"\n[[zone]]\nname = \"b\"\n[[rule]]\nname = \"r\"\nfrom = \"a\"\nto = \"b\"\n\
             source = \"{prefix}\"\ndestination = \"any\"\napplication = \"any\"\naction = \"permit\"\n"
        );
        let fixture = Fixture::new(&text);
        for source in
            ["0.0.0.0", "127.255.255.255", "128.0.0.0", "255.255.255.255", "::", "7fff::", "ffff::", "8000::"]
        {
            let flow = tuple(source, if source.contains(':') { "2001:db8::1" } else { "192.0.2.1" }, 6, 1, 2);
            let holds = prefix.contains(&source.parse::<std::net::IpAddr>().unwrap());
            assert_eq!(!fixture.rule(&flow).is_empty(), holds, "{source} in {prefix}");
        }
    }
}
