//! Finds the first rule that matches a flow.
//!
//! Four dimensions (pair of zones, service, source, destination) each give a few sets of rules whose
//! union could match; the first rule in the intersection of the four unions is the answer, once its
//! application has confirmed the source port, which no dimension covers. Nothing here allocates
//! after the build.
//!
//! Rules are numbered anew for this, by [`super::order`]: rules that match the same flows stand
//! together, so that whole words drop out of the intersection.

use super::bitmaps::{Bitmaps, Builder, SetId};
use super::compiled::CompileError;
use super::intervals::{Intervals, Nested, port_prefixes, prefix_bounds};
use super::model::{AddressRef, PolicyFile, PortRange, Rule, ZoneRef};
use super::order::Order;
use crate::addr::{Addr, Tuple};
use std::collections::BTreeMap;
use std::hint::black_box;

/// A flow as the rules see it; zones are indices into the policy's own list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'a> {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) tuple: &'a Tuple,
}

/// Where the addresses of a flow are among the prefixes of one policy ([`super::Policy::place`]).
#[derive(Clone, Copy, Default, Debug)]
pub struct Place {
    source: u32,
    destination: u32,
}

/// One zone dimension: rules for any zone, and for each zone.
#[derive(Debug)]
struct ZoneSide {
    any: Box<[SetId]>,
    zones: Box<[Box<[SetId]>]>,
}

/// One address dimension. The families have an index each: `::/0` holds no IPv4 address.
#[derive(Debug)]
struct AddressSide {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

/// The ports of one protocol.
#[derive(Debug)]
struct Ports {
    protocol: u8,
    index: Intervals<u16>,
}

/// The service dimension: application `any`, and destination ports for each protocol in use.
#[derive(Debug)]
struct Services {
    any: Option<SetId>,
    protocols: Box<[Ports]>,
}

/// The compiled rules of one policy.
#[derive(Debug)]
pub(super) struct Matcher {
    order: Order,
    bitmaps: Bitmaps,
    from: ZoneSide,
    to: ZoneSide,
    source: AddressSide,
    destination: AddressSide,
    services: Services,
}

impl Matcher {
    /// Compiles the enabled rules.
    pub(super) fn new(file: &PolicyFile) -> Result<Self, CompileError> {
        let order = Order::new(file);
        let mut sets = Builder::new(order.len());
        let from = ZoneSide::new(file, &order, &mut sets, |r| r.from)?;
        let to = ZoneSide::new(file, &order, &mut sets, |r| r.to)?;
        let source = AddressSide::new(file, &order, &mut sets, |r| &r.source)?;
        let destination = AddressSide::new(file, &order, &mut sets, |r| &r.destination)?;
        let services = Services::new(file, &order, &mut sets)?;
        Ok(Matcher { order, bitmaps: sets.finish(), from, to, source, destination, services })
    }

    /// Finds the places of many flows at once.
    #[inline]
    pub(super) fn place(&self, flows: &[Tuple], places: &mut [Place]) {
        // Searching and reading are apart, so that the misses of all flows are under way at once.
        for (flow, place) in flows.iter().zip(&mut *places) {
            place.source = self.source.interval(flow.src);
            place.destination = self.destination.interval(flow.dst);
        }
        let unions = |flow: &Tuple, place: &Place| {
            [self.source.around(flow.src, place.source), self.destination.around(flow.dst, place.destination)]
        };
        let mut sum = 0;
        for (flow, place) in flows.iter().zip(&*places) {
            for union in unions(flow, place) {
                sum ^= union.first().copied().unwrap_or_default();
            }
        }
        for (flow, place) in flows.iter().zip(&*places) {
            for union in unions(flow, place) {
                sum ^= self.bitmaps.touch(union);
            }
        }
        black_box(sum);
    }

    /// The place of one flow.
    #[inline]
    pub(super) fn place_one(&self, flow: &Tuple) -> Place {
        Place { source: self.source.interval(flow.src), destination: self.destination.interval(flow.dst) }
    }

    /// The first rule in file order, before rule `before`, whose zones, addresses, protocol and
    /// destination port hold the flow and for which `visit` returns something.
    #[inline]
    pub(super) fn first<T>(
        &self,
        flow: Flow<'_>,
        place: Place,
        before: u32,
        mut visit: impl FnMut(u32) -> Option<T>,
    ) -> Option<(u32, T)> {
        // Those that rule out most come first.
        let unions = [
            self.services.union(flow.tuple),
            self.source.around(flow.tuple.src, place.source),
            self.destination.around(flow.tuple.dst, place.destination),
            self.from.union(flow.from),
            self.to.union(flow.to),
        ];
        let mut best = before;
        let mut found = None;
        for s in 0..self.bitmaps.stride() {
            let mut words = intersect(&unions, |union| self.bitmaps.summary(union, s));
            while words != 0 {
                let bit = words.trailing_zeros();
                words &= words - 1;
                let word = s as u32 * 64 + bit;
                // Words stand in the order of their first rules.
                if self.order.first_rule(word) >= best {
                    return found;
                }
                let mut rules = intersect(&unions, |union| self.bitmaps.word(union, s, bit));
                while rules != 0 {
                    let rule = self.order.rule(word * 64 + rules.trailing_zeros());
                    rules &= rules - 1;
                    if rule >= best {
                        break;
                    }
                    if let Some(value) = visit(rule) {
                        best = rule;
                        found = Some((rule, value));
                        break;
                    }
                }
            }
        }
        found
    }
}

/// What is in all unions.
#[inline]
fn intersect(unions: &[&[SetId]; 5], mut bits: impl FnMut(&[SetId]) -> u64) -> u64 {
    let mut all = u64::MAX;
    for union in unions {
        all &= bits(union);
        if all == 0 {
            break;
        }
    }
    all
}

/// Stores a set unless it is empty.
fn store(sets: &mut Builder, rules: Vec<u32>) -> Result<Option<SetId>, CompileError> {
    if rules.is_empty() { Ok(None) } else { sets.add(rules).map(Some) }
}

impl ZoneSide {
    fn new(
        file: &PolicyFile,
        order: &Order,
        sets: &mut Builder,
        side: impl Fn(&Rule) -> ZoneRef,
    ) -> Result<Self, CompileError> {
        let mut any = Vec::new();
        let mut zones = vec![Vec::new(); file.zones.len()];
        for (i, rule) in order.rules(file) {
            match side(rule) {
                ZoneRef::Any => any.push(i),
                ZoneRef::Zone(z) => zones[usize::from(z)].push(i),
            }
        }
        let any = store(sets, any)?;
        let with_any = |rules| Ok(any.into_iter().chain(store(sets, rules)?).collect());
        Ok(ZoneSide {
            any: any.into_iter().collect(),
            zones: zones.into_iter().map(with_any).collect::<Result<_, CompileError>>()?,
        })
    }

    #[inline]
    fn union(&self, zone: u16) -> &[SetId] {
        self.zones.get(usize::from(zone)).unwrap_or(&self.any)
    }
}

impl AddressSide {
    fn new(
        file: &PolicyFile,
        order: &Order,
        sets: &mut Builder,
        side: impl Fn(&Rule) -> &[AddressRef],
    ) -> Result<Self, CompileError> {
        let mut any = Vec::new();
        // Rules by address set first: a set of 100,000 prefixes in 1,000 rules stays 100,000 entries.
        let mut by_address: BTreeMap<AddressRef, Vec<u32>> = BTreeMap::new();
        for (i, rule) in order.rules(file) {
            let addresses = side(rule);
            if addresses.contains(&AddressRef::Any) {
                any.push(i);
                continue;
            }
            for address in addresses {
                let rules = by_address.entry(*address).or_default();
                if rules.last() != Some(&i) {
                    rules.push(i);
                }
            }
        }
        let addresses: Vec<_> = by_address.iter().collect();
        let mut holders: Vec<((u128, u128), bool, u32)> = Vec::new();
        for (n, (address, _)) in addresses.iter().enumerate() {
            for prefix in file.prefixes(address).unwrap_or_default() {
                holders.push((prefix_bounds(prefix), prefix.addr().is_ipv4(), n as u32));
            }
        }
        holders.sort_unstable();
        holders.dedup();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut known: BTreeMap<Vec<u32>, SetId> = BTreeMap::new();
        for same in holders.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1) {
            let who: Vec<u32> = same.iter().map(|h| h.2).collect();
            let set = match known.get(&who) {
                Some(set) => *set,
                None => {
                    let mut rules: Vec<u32> =
                        who.iter().flat_map(|n| addresses[*n as usize].1).copied().collect();
                    rules.sort_unstable();
                    rules.dedup();
                    let set = sets.add(rules)?;
                    known.insert(who, set);
                    set
                }
            };
            let ((first, last), is_v4, _) = same[0];
            if is_v4 {
                v4.push(Nested { first: first as u32, last: last as u32, set });
            } else {
                v6.push(Nested { first, last, set });
            }
        }
        let any = store(sets, any)?;
        Ok(AddressSide { v4: Intervals::new(v4, any, sets), v6: Intervals::new(v6, any, sets) })
    }

    #[inline]
    fn interval(&self, address: Addr) -> u32 {
        if address.is_v4() { self.v4.interval(address.0 as u32) } else { self.v6.interval(address.0) }
    }

    #[inline]
    fn around(&self, address: Addr, interval: u32) -> &[SetId] {
        if address.is_v4() { self.v4.around(interval) } else { self.v6.around(interval) }
    }
}

impl Services {
    fn new(file: &PolicyFile, order: &Order, sets: &mut Builder) -> Result<Self, CompileError> {
        let mut any = Vec::new();
        let mut by_ports: BTreeMap<(u8, PortRange), Vec<u32>> = BTreeMap::new();
        for (i, rule) in order.rules(file) {
            for application in &rule.application {
                let Some(terms) = file.terms(*application) else {
                    if any.last() != Some(&i) {
                        any.push(i);
                    }
                    continue;
                };
                for term in terms {
                    port_prefixes(term.destination, |ports| {
                        let rules = by_ports.entry((term.protocol, ports)).or_default();
                        if rules.last() != Some(&i) {
                            rules.push(i);
                        }
                    });
                }
            }
        }
        let mut protocols: BTreeMap<u8, Vec<Nested<u16>>> = BTreeMap::new();
        for ((protocol, ports), rules) in by_ports {
            let set = sets.add(rules)?;
            let range = Nested { first: ports.first, last: ports.last, set };
            protocols.entry(protocol).or_default().push(range);
        }
        let any = store(sets, any)?;
        let protocols = protocols
            .into_iter()
            .map(|(protocol, ranges)| Ports { protocol, index: Intervals::new(ranges, any, sets) })
            .collect();
        Ok(Services { any, protocols })
    }

    #[inline]
    fn union(&self, tuple: &Tuple) -> &[SetId] {
        match self.protocols.iter().find(|p| p.protocol == tuple.protocol) {
            Some(ports) => ports.index.holding(tuple.dst_port),
            None => self.any.as_slice(),
        }
    }
}
