//! The order in which rules stand in bitmaps.
//!
//! Why it exists: a rule for any source is in the source set of every flow. Where such rules stand
//! among rules for any destination, no word of the intersection of both is ever empty, and 10,000
//! rules cost 20 times as much as 10. Rules that are narrow in the same dimensions therefore stand
//! together as a group of whole words; inside it they keep the order of the file. At most 32 groups.

use super::model::{AddressRef, ApplicationRef, PolicyFile, PortRange, Rule, ZoneRef};
use ipnet::IpNet;

/// A prefix this short holds so much that its rule counts as one for any address.
const BROAD_V4: u8 = 8;
/// The same for IPv6.
const BROAD_V6: u8 = 16;
/// A port range this wide counts as any.
const BROAD_PORTS: u32 = 1024;

/// Fills up the last word of a group.
const HOLE: u32 = u32::MAX;

/// Position in the bitmaps to rule and back.
#[derive(Debug)]
pub(super) struct Order {
    /// The rule at each position, as its index in the file, or a hole.
    rules: Box<[u32]>,
    /// For each word of 64 positions, the word behind its group.
    group_end: Box<[u32]>,
}

impl Order {
    /// Sorts the enabled rules.
    pub(super) fn new(file: &PolicyFile) -> Self {
        let sets: Vec<bool> = file.address_sets.iter().map(|s| s.prefixes.iter().any(broad_prefix)).collect();
        let applications: Vec<bool> = (0..file.applications.len())
            .map(|i| broad_application(file, ApplicationRef::Own(i as u16)))
            .collect();
        let mut groups: [Vec<u32>; 32] = Default::default();
        for (i, rule) in file.rules.iter().enumerate().filter(|(_, r)| r.enabled) {
            groups[shape(file, rule, &sets, &applications)].push(i as u32);
        }
        let (mut rules, mut group_end) = (Vec::new(), Vec::new());
        for group in groups.iter().filter(|g| !g.is_empty()) {
            rules.extend(group);
            rules.resize(rules.len().next_multiple_of(64), HOLE);
            group_end.resize(rules.len() / 64, (rules.len() / 64) as u32);
        }
        Order { rules: rules.into(), group_end: group_end.into() }
    }

    /// How many positions there are.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rule at a position that a bitmap holds.
    #[inline]
    pub(super) fn rule(&self, position: u32) -> u32 {
        self.rules[position as usize]
    }

    /// The word behind the group that a word belongs to.
    #[inline]
    pub(super) fn group_end(&self, word: u32) -> u32 {
        self.group_end[word as usize]
    }

    /// The enabled rules with their positions, ascending.
    pub(super) fn rules<'f>(&self, file: &'f PolicyFile) -> impl Iterator<Item = (u32, &'f Rule)> {
        let positions = self.rules.iter().enumerate().filter(|(_, rule)| **rule != HOLE);
        positions.map(|(at, rule)| (at as u32, &file.rules[*rule as usize]))
    }
}

/// Which dimensions a rule leaves (nearly) open, one bit each.
fn shape(file: &PolicyFile, rule: &Rule, sets: &[bool], applications: &[bool]) -> usize {
    let address = |side: &[AddressRef]| {
        side.iter().any(|a| match a {
            AddressRef::Any => true,
            AddressRef::Set(i) => sets[*i as usize],
            AddressRef::Prefix(p) => broad_prefix(p),
        })
    };
    let service = rule.application.iter().any(|a| match a {
        ApplicationRef::Own(i) => applications[usize::from(*i)],
        other => broad_application(file, *other),
    });
    [
        rule.from == ZoneRef::Any,
        rule.to == ZoneRef::Any,
        address(&rule.source),
        address(&rule.destination),
        service,
    ]
    .iter()
    .fold(0, |bits, open| bits << 1 | usize::from(*open))
}

fn broad_prefix(prefix: &IpNet) -> bool {
    prefix.prefix_len() <= if prefix.addr().is_ipv4() { BROAD_V4 } else { BROAD_V6 }
}

fn broad_application(file: &PolicyFile, application: ApplicationRef) -> bool {
    let broad = |ports: PortRange| ports.width() >= BROAD_PORTS;
    file.terms(application).is_none_or(|terms| terms.iter().any(|t| broad(t.destination)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::check;

    /// Goes red when a rule is lost, a rule that is not enabled gets a place, groups share a word, or
    /// the order of the file is lost inside a group.
    #[test]
    fn rules_of_a_shape_stand_together_in_file_order() {
        let rule = |i: usize| {
            let source = if i.is_multiple_of(2) { "any" } else { "10.0.0.0/24" };
            format!(
                "[[rule]]\nname = \"r{i}\"\nfrom = \"any\"\nto = \"any\"\nsource = {source:?}\n\
                 destination = \"any\"\napplication = \"any\"\naction = \"deny\"\nenabled = {}\n",
                i != 6
            )
        };
        let text: String = (0..200).map(rule).collect();
        let file = check(&text, "p").file.unwrap();
        let order = Order::new(&file);
        assert_eq!(order.len(), 256);
        let rules: Vec<u32> = (0..256).map(|at| order.rule(at)).collect();
        let odd: Vec<u32> = (0..200).filter(|i| i % 2 == 1).collect();
        let even: Vec<u32> = (0..200).filter(|i| i % 2 == 0 && *i != 6).collect();
        assert_eq!(rules[..100], odd);
        assert_eq!(rules[128..227], even);
        assert!(rules[100..128].iter().chain(&rules[227..]).all(|r| *r == HOLE));
        assert_eq!((0..4).map(|w| order.group_end(w)).collect::<Vec<_>>(), [2, 2, 4, 4]);
        assert_eq!(order.rules(&file).count(), 199);
    }
}
