//! Finds the first rule that matches a flow.
//!
//! Five dimensions (from, to, source, destination, service) each give a few sets of rules whose
//! union could match; the first rule in the intersection of the five unions is the answer, once its
//! application has confirmed the source port, which no dimension covers. Nothing here allocates
//! after the build.
//!
//! Rules are numbered anew for this, by [`super::order`]: rules that are specific in the same
//! dimensions stand together, so that whole words drop out of the intersection.

use super::bitmaps::{Bitmaps, Builder, SetId};
use super::compiled::CompileError;
use super::intervals::{Intervals, Nested, port_prefixes, prefix_bounds};
use super::model::{AddressRef, PolicyFile, PortRange, Rule, ZoneRef};
use super::order::Order;
use crate::addr::{Addr, Tuple};
use arrayvec::ArrayVec;
use std::collections::BTreeMap;

/// The sets of one dimension for one flow: at most "any" and one for each IPv6 prefix length.
type Union = ArrayVec<SetId, 130>;

/// A flow as the rules see it; zones are indices into the policy's own list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'a> {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) tuple: &'a Tuple,
}

/// One zone dimension: rules for any zone, and for each zone.
#[derive(Debug)]
struct ZoneSide {
    any: Option<SetId>,
    zones: Box<[Option<SetId>]>,
}

/// One address dimension. The families have an index each: `::/0` holds no IPv4 address.
#[derive(Debug)]
struct AddressSide {
    any: Option<SetId>,
    v4: Intervals,
    v6: Intervals,
}

/// The ports of one protocol.
#[derive(Debug)]
struct Ports {
    protocol: u8,
    index: Intervals,
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

    /// The first rule in file order, before rule `before`, whose zones, addresses, protocol and
    /// destination port hold the flow and for which `visit` returns something.
    #[inline]
    pub(super) fn first<T>(
        &self,
        flow: Flow<'_>,
        before: u32,
        mut visit: impl FnMut(u32) -> Option<T>,
    ) -> Option<(u32, T)> {
        let unions = [
            self.from.union(flow.from),
            self.to.union(flow.to),
            self.services.union(flow.tuple),
            self.source.union(flow.tuple.src),
            self.destination.union(flow.tuple.dst),
        ];
        let mut best = before;
        let mut found = None;
        // Words below this one belong to a group that has no rule before `best` any more.
        let mut skip_to = 0;
        for s in 0..self.bitmaps.stride() {
            let base = s as u32 * 64;
            let mut words = unions.iter().fold(u64::MAX, |acc, u| acc & self.bitmaps.summary(u, s));
            while words != 0 {
                let bit = words.trailing_zeros();
                words &= words - 1;
                let word = base + bit;
                if word < skip_to {
                    continue;
                }
                let mut rules = unions.iter().fold(u64::MAX, |acc, u| acc & self.bitmaps.word(u, s, bit));
                while rules != 0 {
                    let rule = self.order.rule(word * 64 + rules.trailing_zeros());
                    rules &= rules - 1;
                    if rule >= best {
                        skip_to = self.order.group_end(word);
                        break;
                    }
                    if let Some(value) = visit(rule) {
                        best = rule;
                        found = Some((rule, value));
                        skip_to = self.order.group_end(word);
                        break;
                    }
                }
            }
        }
        found
    }
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
        Ok(ZoneSide {
            any: store(sets, any)?,
            zones: zones.into_iter().map(|rules| store(sets, rules)).collect::<Result<_, _>>()?,
        })
    }

    #[inline]
    fn union(&self, zone: u16) -> Union {
        self.any.into_iter().chain(self.zones.get(usize::from(zone)).copied().flatten()).collect()
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
            if is_v4 { &mut v4 } else { &mut v6 }.push(Nested { first, last, set });
        }
        Ok(AddressSide { any: store(sets, any)?, v4: Intervals::new(v4), v6: Intervals::new(v6) })
    }

    #[inline]
    fn union(&self, address: Addr) -> Union {
        let index = if address.is_v4() { &self.v4 } else { &self.v6 };
        self.any.into_iter().chain(index.holding(address.0)).collect()
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
        let mut protocols: BTreeMap<u8, Vec<Nested>> = BTreeMap::new();
        for ((protocol, ports), rules) in by_ports {
            let set = sets.add(rules)?;
            let range = Nested { first: ports.first.into(), last: ports.last.into(), set };
            protocols.entry(protocol).or_default().push(range);
        }
        let protocols = protocols
            .into_iter()
            .map(|(protocol, ranges)| Ports { protocol, index: Intervals::new(ranges) })
            .collect();
        Ok(Services { any: store(sets, any)?, protocols })
    }

    #[inline]
    fn union(&self, tuple: &Tuple) -> Union {
        let ports = self.protocols.iter().find(|p| p.protocol == tuple.protocol);
        let specific = ports.into_iter().flat_map(|p| p.index.holding(tuple.dst_port.into()));
        self.any.into_iter().chain(specific).collect()
    }
}
