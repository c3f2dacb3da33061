//! Finds rules that can never match because one earlier rule takes every flow that they would.
//!
//! A rule that covers another covers each of its flows. So the matcher, asked for one flow of the
//! rule in question, names the few earlier rules that could cover it; only those are compared in
//! full, over zones, prefixes of each family, protocols and ports.

use super::intervals::{Families, families};
use super::matcher::{Flow, Matcher};
use super::model::{AddressRef, PolicyFile, PortRange, Rule, Term, ZoneRef};
use super::report::Reporter;
use crate::addr::{Addr, Tuple};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;

/// How many ranges and terms one check compares before it gives up with a warning.
const WORK_MAX: u64 = 20_000_000;

/// One side of a rule for one family: `None` is every address.
type Side<'a> = Option<Vec<Cow<'a, [(u128, u128)]>>>;

/// Every IPv4 and every IPv6 address, in the space of [`Addr`].
const WHOLE: [(u128, u128); 2] = [(0xffff << 32, 0xffff_ffff_ffff), (0, u128::MAX)];

/// Adds a warning for each rule that never matches, and returns them.
pub(super) fn find(file: &PolicyFile, matcher: &Matcher, r: &mut Reporter<'_>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let sets: Vec<Families> = file.address_sets.iter().map(|s| families(&s.prefixes)).collect();
    let finder = Finder { file, sets, work: Cell::new(0) };
    for (i, rule) in file.rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
        if finder.given_up() {
            r.warn(rule.at, "the policy is too large to look for rules that never match from here on", None);
            break;
        }
        if finder.family(rule).is_none() {
            found.insert(i as u32);
            let message =
                format!("rule `{}` never matches: its source and destination share no family", rule.name);
            r.warn(rule.at, message, "IPv4 does not talk to IPv6".to_string());
            continue;
        }
        let Some(by) = finder.shadowed_by(i as u32, matcher) else { continue };
        found.insert(i as u32);
        let by = &file.rules[by as usize];
        let message = format!(
            "rule `{}` never matches: rule `{}` in line {} comes first and covers it",
            rule.name, by.name, by.line
        );
        let help = if by.action == rule.action {
            format!("remove it: `{}` does the same", by.name)
        } else {
            format!("move it before `{}`, or remove it", by.name)
        };
        r.warn(rule.at, message, help);
    }
    found
}

struct Finder<'a> {
    file: &'a PolicyFile,
    sets: Vec<Families>,
    work: Cell<u64>,
}

impl Finder<'_> {
    /// The first earlier enabled rule that covers rule `index`.
    fn shadowed_by(&self, index: u32, matcher: &Matcher) -> Option<u32> {
        let rule = &self.file.rules[index as usize];
        let (tuple, from, to) = self.sample(rule)?;
        let place = matcher.place_one(&tuple);
        let covering = matcher.first(Flow { from, to, tuple: &tuple }, place, index, |candidate| {
            (!self.given_up() && self.covers(&self.file.rules[candidate as usize], rule)).then_some(())
        });
        covering.map(|(rule, ())| rule)
    }

    /// One flow that the rule matches, from its narrowest addresses: few other rules match that one.
    fn sample(&self, rule: &Rule) -> Option<(Tuple, u16, u16)> {
        let family = self.family(rule)?;
        let zone = |z| match z {
            ZoneRef::Zone(i) => Some(i),
            ZoneRef::Any if self.file.zones.is_empty() => None,
            ZoneRef::Any => Some(0),
        };
        let term = rule.application.first().and_then(|a| self.file.terms(*a)).and_then(|t| t.first());
        let address = |side: &[AddressRef]| match self.side(side, family) {
            None => Some(WHOLE[family].0),
            Some(lists) => {
                let firsts = lists.iter().filter_map(|l| l.first());
                firsts.min_by_key(|(first, last)| last - first).map(|(first, _)| *first)
            }
        };
        let tuple = Tuple {
            src: Addr(address(&rule.source)?),
            dst: Addr(address(&rule.destination)?),
            src_port: term.map_or(0, |t| t.source.first),
            dst_port: term.map_or(0, |t| t.destination.first),
            // 0 is no protocol of any term: only a rule for `any` application matches it.
            protocol: term.map_or(0, |t| t.protocol),
        };
        Some((tuple, zone(rule.from)?, zone(rule.to)?))
    }

    /// A family that both sides of the rule have.
    fn family(&self, rule: &Rule) -> Option<usize> {
        (0..2).find(|f| self.has(&rule.source, *f) && self.has(&rule.destination, *f))
    }

    fn has(&self, side: &[AddressRef], family: usize) -> bool {
        self.side(side, family).is_none_or(|lists| lists.iter().any(|l| !l.is_empty()))
    }

    /// Whether rule `a` matches every flow that rule `b` matches.
    fn covers(&self, a: &Rule, b: &Rule) -> bool {
        self.spend(1);
        self.zone_within(b.from, a.from)
            && self.zone_within(b.to, a.to)
            && self.services_within(b, a)
            && (0..2).filter(|f| self.has(&b.source, *f) && self.has(&b.destination, *f)).all(|f| {
                self.side_within(&b.source, &a.source, f)
                    && self.side_within(&b.destination, &a.destination, f)
            })
    }

    fn zone_within(&self, inner: ZoneRef, outer: ZoneRef) -> bool {
        outer == ZoneRef::Any || inner == outer || self.file.zones.len() == 1
    }

    fn side_within(&self, inner: &[AddressRef], outer: &[AddressRef], family: usize) -> bool {
        let Some(outer_lists) = self.side(outer, family) else { return true };
        self.spend((inner.len() + outer.len()) as u64);
        let known: BTreeSet<_> = outer.iter().collect();
        let rest: Vec<_> = inner.iter().copied().filter(|a| !known.contains(a)).collect();
        let Some(inner_lists) = self.side(&rest, family) else {
            return self.range_within(WHOLE[family], &outer_lists);
        };
        inner_lists.iter().flat_map(|l| l.iter()).all(|range| self.range_within(*range, &outer_lists))
    }

    /// Walks from the start of a range to its end along the lists.
    fn range_within(&self, (first, last): (u128, u128), lists: &[Cow<'_, [(u128, u128)]>]) -> bool {
        let mut at = first;
        loop {
            self.spend(lists.len() as u64);
            if self.given_up() {
                return false;
            }
            let reach = lists.iter().filter_map(|l| {
                let after = l.partition_point(|(start, _)| *start <= at);
                l.get(after.checked_sub(1)?).map(|(_, end)| *end).filter(|end| *end >= at)
            });
            match reach.max() {
                Some(end) if end >= last => return true,
                Some(end) => at = end + 1,
                None => return false,
            }
        }
    }

    fn services_within(&self, inner: &Rule, outer: &Rule) -> bool {
        let terms = |rule: &Rule| -> Option<Vec<Term>> {
            let lists: Option<Vec<_>> = rule.application.iter().map(|a| self.file.terms(*a)).collect();
            lists.map(|lists| lists.concat())
        };
        let Some(outer) = terms(outer) else { return true };
        let Some(inner) = terms(inner) else { return false };
        inner.iter().all(|term| {
            self.spend(outer.len() as u64);
            let near: Vec<_> = outer.iter().filter(|o| meet(term, o)).collect();
            self.spend((near.len() * near.len()) as u64);
            !self.given_up() && term_within(term, &near)
        })
    }

    /// The ranges of one side of a rule in one family, a list for each of its addresses.
    fn side(&self, side: &[AddressRef], family: usize) -> Side<'_> {
        side.iter()
            .map(|address| match address {
                AddressRef::Any => None,
                AddressRef::Set(i) => Some(Cow::Borrowed(self.sets[*i as usize][family].as_slice())),
                AddressRef::Prefix(p) => {
                    let [v4, v6] = families(std::slice::from_ref(p));
                    Some(Cow::Owned(if family == 0 { v4 } else { v6 }))
                }
            })
            .collect()
    }

    fn spend(&self, work: u64) {
        self.work.set(self.work.get().saturating_add(work));
    }

    fn given_up(&self) -> bool {
        self.work.get() > WORK_MAX
    }
}

/// Whether some flow is of both terms.
fn meet(a: &Term, b: &Term) -> bool {
    let apart = |p: PortRange, q: PortRange| p.last < q.first || q.last < p.first;
    a.protocol == b.protocol && !apart(a.source, b.source) && !apart(a.destination, b.destination)
}

/// Whether the terms together (each of which meets `inner`) hold every flow of `inner`: for each
/// stretch of destination ports between two of their borders, their source ports are added up.
fn term_within(inner: &Term, terms: &[&Term]) -> bool {
    let last = u32::from(inner.destination.last);
    let mut at = u32::from(inner.destination.first);
    while at <= last {
        let here: Vec<_> = terms.iter().filter(|t| t.destination.contains(at as u16)).collect();
        let mut sources: Vec<_> = here.iter().map(|t| t.source).collect();
        sources.sort_unstable();
        let mut need = u32::from(inner.source.first);
        for source in sources {
            if u32::from(source.first) <= need {
                need = need.max(u32::from(source.last) + 1);
            }
        }
        if need <= u32::from(inner.source.last) {
            return false;
        }
        // The picture stays the same up to the next border.
        let ends = here.iter().map(|t| u32::from(t.destination.last) + 1);
        let starts = terms.iter().map(|t| u32::from(t.destination.first)).filter(|s| *s > at);
        at = ends.chain(starts).min().unwrap_or(last + 1);
    }
    true
}
