//! The order in which rules stand in bitmaps.
//!
//! Why it exists: an intersection of sets of rules costs as much as it has words that are empty in
//! none of the sets. In file order hardly any word is empty: 10,000 rules then cost 20 to 40 times as
//! much as 10. So rules that match the same flows are brought together:
//!
//! - Rules that are narrow in the same dimensions form a group. At most 32 groups.
//! - A group is sorted by its dimensions, the one first with which flows meet the fewest words. (That need not be the
//!   one in which they find the fewest rules: a flow's services stand side by side, its address sets do not.)
//! - The sequence is cut into words of 64 rules. Inside a word the order of the file holds, and words
//!   stand in the order of their first rules: so a search ends at the first word that begins behind
//!   what was found.

use super::intervals::{Families, families, prefix_bounds};
use super::model::{AddressRef, ApplicationRef, PolicyFile, PortRange, Rule, Term, ZoneRef};
use ipnet::IpNet;
use std::cmp::{Ordering, Reverse};

/// A prefix this short holds so much that its rule counts as one for any address.
const BROAD_V4: u8 = 8;
/// The same for IPv6.
const BROAD_V6: u8 = 16;
/// A port range this wide counts as any.
const BROAD_PORTS: u32 = 1024;
/// Rules whose own addresses and ports are asked for in a group, to learn which others hold them.
const SAMPLES: usize = 8;

/// Fills up the last word.
const HOLE: u32 = u32::MAX;

/// Position in the bitmaps to rule and back.
#[derive(Debug)]
pub(super) struct Order {
    /// The rule at each position, as its index in the file, or a hole.
    rules: Box<[u32]>,
}

/// What rules are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dimension {
    Zones,
    Service,
    Source,
    Destination,
}

impl Dimension {
    const ALL: [Dimension; 4] =
        [Dimension::Zones, Dimension::Service, Dimension::Source, Dimension::Destination];
}

impl Order {
    /// Sorts the rules that are enabled and not known to be covered by others.
    pub(super) fn new(file: &PolicyFile) -> Self {
        let sets: Vec<bool> = file.address_sets.iter().map(|s| s.prefixes.iter().any(broad_prefix)).collect();
        let applications: Vec<bool> = (0..file.applications.len())
            .map(|i| broad_application(file, ApplicationRef::Own(i as u16)))
            .collect();
        let mut groups: [Vec<u32>; 32] = Default::default();
        let rules = (0u32..).zip(&file.rules);
        for (i, rule) in rules.filter(|(i, rule)| rule.enabled && !file.shadowed.contains(i)) {
            groups[shape(file, rule, &sets, &applications)].push(i);
        }
        let sorter = Sorter::new(file);
        let mut sequence = Vec::new();
        for mut group in groups {
            if group.len() > 64 {
                sorter.sort(&mut group);
            }
            sequence.extend(group);
        }
        sequence.resize(sequence.len().next_multiple_of(64), HOLE);
        let mut words: Vec<&mut [u32]> = sequence.chunks_mut(64).collect();
        words.iter_mut().for_each(|word| word.sort_unstable());
        words.sort_unstable();
        Order { rules: words.concat().into() }
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

    /// The first rule of a word; these ascend.
    #[inline]
    pub(super) fn first_rule(&self, word: u32) -> u32 {
        self.rules[word as usize * 64]
    }

    /// The enabled rules with their positions, ascending.
    pub(super) fn rules<'f>(&self, file: &'f PolicyFile) -> impl Iterator<Item = (u32, &'f Rule)> {
        let positions = self.rules.iter().enumerate().filter(|(_, rule)| **rule != HOLE);
        positions.map(|(at, rule)| (at as u32, &file.rules[*rule as usize]))
    }
}

/// Sorts groups.
struct Sorter<'a> {
    file: &'a PolicyFile,
    sets: Vec<Families>,
}

impl<'a> Sorter<'a> {
    fn new(file: &'a PolicyFile) -> Self {
        Sorter { file, sets: file.address_sets.iter().map(|set| families(&set.prefixes)).collect() }
    }

    fn sort(&self, group: &mut [u32]) {
        let rule = |i: u32| &self.file.rules[i as usize];
        let samples = group.iter().step_by(group.len().div_ceil(SAMPLES)).map(|i| rule(*i));
        // For each sample and dimension, which rules of the group hold its flow.
        let held: Vec<[Vec<bool>; 4]> = samples
            .map(|sample| {
                Dimension::ALL.map(|dimension| {
                    let holds = self.holder(dimension, sample);
                    group.iter().map(|i| holds(rule(*i))).collect()
                })
            })
            .collect();
        let alike =
            |d: &usize| held.iter().map(|h| h[*d].iter().filter(|held| **held).count()).sum::<usize>();
        let mut dimensions = [0, 1, 2, 3];
        dimensions.sort_by_cached_key(alike);
        let sequences = dimensions.iter().map(|first| {
            let others = dimensions.iter().filter(|d| *d != first);
            let order: Vec<_> = [first].into_iter().chain(others).map(|d| Dimension::ALL[*d]).collect();
            let mut sequence: Vec<usize> = (0..group.len()).collect();
            sequence.sort_by(|a, b| {
                let by = |dimension: &Dimension| self.compare(*dimension, rule(group[*a]), rule(group[*b]));
                order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            });
            sequence
        });
        let best =
            sequences.min_by_key(|sequence| held.iter().map(|h| words_met(sequence, h)).sum::<usize>());
        let sorted: Vec<u32> = best.into_iter().flatten().map(|at| group[at]).collect();
        group.copy_from_slice(&sorted);
    }

    fn compare(&self, dimension: Dimension, a: &Rule, b: &Rule) -> Ordering {
        match dimension {
            Dimension::Zones => (a.from, a.to).cmp(&(b.from, b.to)),
            Dimension::Service => self.service(a).cmp(&self.service(b)),
            Dimension::Source => a.source.cmp(&b.source),
            Dimension::Destination => a.destination.cmp(&b.destination),
        }
    }

    /// Protocol and destination ports of the first term, the wider range first.
    fn service(&self, rule: &Rule) -> Option<(u8, u16, Reverse<u16>)> {
        let first = self.terms(rule).next()?;
        Some((first.protocol, first.destination.first, Reverse(first.destination.last)))
    }

    fn terms(&self, rule: &Rule) -> impl Iterator<Item = &Term> {
        rule.application.iter().flat_map(|application| self.file.terms(*application).unwrap_or_default())
    }

    /// Whether a rule holds, in one dimension, a flow that the sample holds.
    fn holder(&self, dimension: Dimension, sample: &Rule) -> Box<dyn Fn(&Rule) -> bool + '_> {
        match dimension {
            Dimension::Zones => {
                let (from, to) = (sample.from, sample.to);
                let within = |a, b| a == ZoneRef::Any || b == ZoneRef::Any || a == b;
                Box::new(move |rule| within(rule.from, from) && within(rule.to, to))
            }
            Dimension::Service => {
                let term = self.terms(sample).next().copied();
                Box::new(move |rule| {
                    let Some(term) = term else { return true };
                    rule.application.contains(&ApplicationRef::Any)
                        || self.terms(rule).any(|t| {
                            t.protocol == term.protocol && t.destination.contains(term.destination.first)
                        })
                })
            }
            Dimension::Source => self.address_holder(&sample.source, |rule| &rule.source),
            Dimension::Destination => self.address_holder(&sample.destination, |rule| &rule.destination),
        }
    }

    fn address_holder(
        &self,
        sample: &[AddressRef],
        side: fn(&Rule) -> &[AddressRef],
    ) -> Box<dyn Fn(&Rule) -> bool + '_> {
        let first = sample.first().and_then(|address| self.file.prefixes(address)?.first());
        let Some((address, v4)) = first.map(|p| (prefix_bounds(p).0, p.addr().is_ipv4())) else {
            return Box::new(|_| true);
        };
        let sets: Vec<bool> = self.sets.iter().map(|set| holds(&set[usize::from(!v4)], address)).collect();
        Box::new(move |rule| {
            side(rule).iter().any(|entry| match entry {
                AddressRef::Any => true,
                AddressRef::Set(i) => sets[*i as usize],
                AddressRef::Prefix(p) => {
                    let (first, last) = prefix_bounds(p);
                    p.addr().is_ipv4() == v4 && first <= address && address <= last
                }
            })
        })
    }
}

/// How many words of a sequence a flow has to look into: those in which every dimension has a rule that holds it.
fn words_met(sequence: &[usize], held: &[Vec<bool>; 4]) -> usize {
    let met = |word: &&[usize]| held.iter().all(|held| word.iter().any(|at| held[*at]));
    sequence.chunks(64).filter(met).count()
}

/// Whether one of the ranges, which ascend, holds the address.
fn holds(ranges: &[(u128, u128)], address: u128) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|i| address <= ranges[i].1)
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

    /// Goes red when a rule is lost or twice there, one that is not enabled gets a place, a word is not in
    /// file order or comes too early, or rules of one destination are torn apart.
    #[test]
    fn rules_that_match_alike_stand_together_and_words_ascend() {
        let rule = |i: usize| {
            let source = if i.is_multiple_of(2) { "any".to_owned() } else { format!("10.0.0.{}", i % 250) };
            format!(
                "[[rule]]\nname = \"r{i}\"\nfrom = \"any\"\nto = \"any\"\nsource = {source:?}\n\
                 destination = \"10.0.{}.0/24\"\napplication = \"any\"\naction = \"deny\"\nenabled = {}\n",
                i % 8,
                i != 6
            )
        };
        let text: String = (0..1000).map(rule).collect();
        let file = check(&text, "p").file.unwrap();
        let order = Order::new(&file);
        assert_eq!(order.len(), 1024);
        let words: Vec<&[u32]> = order.rules.chunks(64).collect();
        assert!(words.is_sorted() && words.iter().all(|word| word.is_sorted()));
        assert!((0..16).all(|w| order.first_rule(w) == words[w as usize][0]));
        let mut rules: Vec<u32> = order.rules(&file).map(|(at, _)| order.rule(at)).collect();
        rules.sort_unstable();
        assert_eq!(rules, (0..1000).filter(|i| *i != 6).collect::<Vec<_>>());
        // Four destinations with 125 rules for any source each: at most three words.
        for destination in [0, 2, 4, 6] {
            let has = |word: &&&[u32]| word.iter().any(|r| *r != HOLE && r % 8 == destination);
            assert!(words.iter().filter(has).count() <= 3);
        }
    }

    /// Goes red when rules that never match stand in the bitmaps all the same, or one that does match is left out.
    #[test]
    fn rules_that_never_match_take_no_place() {
        let rule = |name: &str, destination: String| {
            format!(
                "[[rule]]\nname = \"{name}\"\nfrom = \"any\"\nto = \"any\"\nsource = \"any\"\n\
                 destination = \"{destination}\"\napplication = \"any\"\naction = \"deny\"\n"
            )
        };
        let first = rule("first", "10.0.0.0/24".into());
        let hosts: String =
            (0..500).map(|i| rule(&format!("r{i}"), format!("10.0.{}.{}", i % 2, i / 2))).collect();
        let text = format!("[[zone]]\nname = \"a\"\n{first}{hosts}");
        let file = check(&text, "p").file.unwrap();
        let order = Order::new(&file);
        let rules: Vec<u32> = order.rules(&file).map(|(at, _)| order.rule(at)).collect();
        let expected = |i: &u32| *i == 0 || i.is_multiple_of(2);
        assert_eq!(rules, (0..=500).filter(expected).collect::<Vec<_>>());
    }
}
