//! From an address or a port to the sets of rules whose prefixes hold it.
//!
//! Why it exists: prefixes either nest or are apart, so all prefixes of a policy cut the number line
//! into at most two intervals each, and each interval has one innermost prefix. A lookup is one search
//! for the interval, and there is the list of sets; port ranges become prefixes of 16 bits.
//!
//! A list names the sets of all prefixes around the interval. So that it stays short, a prefix with
//! many others inside it stands for those around it too, as one united set: there are few such, and
//! every other has at most [`INSIDE_MIN`] lists that name it.

use super::bitmaps::{Builder, SetId};
use super::model::PortRange;
use super::search::{Number, Search};
use crate::addr::Addr;
use ipnet::IpNet;

/// So many ranges inside a range make it worth a united set.
const INSIDE_MIN: u32 = 32;

const NONE: u32 = u32::MAX;

/// One nesting range and the set of rules that it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Nested<T> {
    /// Lowest value.
    pub(super) first: T,
    /// Highest value.
    pub(super) last: T,
    /// What it carries.
    pub(super) set: SetId,
}

/// An immutable index over ranges of which any two either nest or are apart.
#[derive(Debug)]
pub(super) struct Intervals<T: Number> {
    /// Where each interval starts; an interval ends where the next starts.
    starts: T::Search,
    /// Where the list of each interval is in `sets`; first that of what is below all intervals.
    lists: Box<[List]>,
    sets: Box<[SetId]>,
}

/// A part of the sets.
#[derive(Clone, Copy, Debug)]
struct List {
    at: u32,
    len: u32,
}

/// A range while the index is built: the one around it, how many are inside it, and its set.
#[derive(Clone, Copy)]
struct Stored {
    outer: u32,
    inside: u32,
    set: SetId,
    /// The set is united with those of all ranges around it.
    united: bool,
}

impl<T: Number> Intervals<T> {
    /// Builds the index; `any` is in every list. No two ranges may be equal, and none may overlap
    /// without nesting.
    pub(super) fn new(mut ranges: Vec<Nested<T>>, any: Option<SetId>, builder: &mut Builder) -> Self {
        // The outer of two ranges with the same start comes first.
        ranges.sort_unstable_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
        let (cuts, mut stored) = cut_line(&ranges);
        for i in (0..stored.len()).rev() {
            let Stored { outer, inside, .. } = stored[i];
            if let Some(outer) = stored.get_mut(outer as usize) {
                outer.inside += inside + 1;
            }
        }
        let mut sets: Vec<SetId> = any.into_iter().collect();
        let bottom = List { at: 0, len: sets.len() as u32 };
        let mut lists: Vec<List> = Vec::with_capacity(stored.len());
        // Outer ranges come before inner ones.
        for i in 0..stored.len() {
            let around = stored.get(stored[i].outer as usize).copied();
            if stored[i].inside >= INSIDE_MIN {
                unite(&mut stored[i], around, builder);
            }
            let at = sets.len() as u32;
            sets.push(stored[i].set);
            let List { at: from, len } = match around {
                Some(_) if !stored[i].united => lists[stored[i].outer as usize],
                _ => bottom,
            };
            sets.extend_from_within(from as usize..(from + len) as usize);
            lists.push(List { at, len: len + 1 });
        }
        let list = |i: u32| lists.get(i as usize).copied().unwrap_or(bottom);
        Intervals {
            lists: std::iter::once(bottom).chain(cuts.iter().map(|c| list(c.1))).collect(),
            starts: T::Search::new(cuts.into_iter().map(|c| c.0).collect()),
            sets: sets.into(),
        }
    }

    /// Number of the interval that the value is in.
    #[inline]
    pub(super) fn interval(&self, value: T) -> u32 {
        self.starts.at_or_below(value) as u32
    }

    /// The sets of every range around an interval, and `any`.
    #[inline]
    pub(super) fn around(&self, interval: u32) -> &[SetId] {
        let List { at, len } = self.lists[interval as usize];
        &self.sets[at as usize..(at + len) as usize]
    }

    /// The sets of every range that holds the value, and `any`.
    #[inline]
    pub(super) fn holding(&self, value: T) -> &[SetId] {
        self.around(self.interval(value))
    }
}

/// Makes a range's set hold those of all ranges around it, if there is room.
fn unite(range: &mut Stored, around: Option<Stored>, builder: &mut Builder) {
    match around {
        None => range.united = true,
        // The one around it has more inside it, and so is united already unless there was no room.
        Some(outer) if outer.united => {
            if let Some(set) = builder.union(range.set, outer.set) {
                (range.set, range.united) = (set, true);
            }
        }
        Some(_) => {}
    }
}

/// The starts of all intervals with the innermost range of each (or `NONE`), and the ranges.
fn cut_line<T: Number>(ranges: &[Nested<T>]) -> (Vec<(T, u32)>, Vec<Stored>) {
    let mut cuts: Vec<(T, u32)> = Vec::with_capacity(ranges.len() * 2);
    let mut stored = Vec::with_capacity(ranges.len());
    let mut open: Vec<u32> = Vec::new();
    let top = |open: &[u32]| open.last().copied().unwrap_or(NONE);
    let close = |open: &mut Vec<u32>, cuts: &mut Vec<(T, u32)>, before: Option<T>| {
        while let Some(last) = open.last().map(|i| ranges[*i as usize].last) {
            if before.is_some_and(|b| last >= b) {
                break;
            }
            open.pop();
            if let Some(next) = last.next() {
                cut(cuts, next, top(open));
            }
        }
    };
    for (i, range) in ranges.iter().enumerate() {
        close(&mut open, &mut cuts, Some(range.first));
        stored.push(Stored { outer: top(&open), inside: 0, set: range.set, united: false });
        open.push(i as u32);
        cut(&mut cuts, range.first, i as u32);
    }
    close(&mut open, &mut cuts, None);
    (cuts, stored)
}

/// Starts an interval; a later cut at the same place replaces the earlier one.
fn cut<T: PartialEq>(cuts: &mut Vec<(T, u32)>, at: T, innermost: u32) {
    match cuts.last_mut() {
        Some(last) if last.0 == at => last.1 = innermost,
        _ => cuts.push((at, innermost)),
    }
}

/// First and last address, disjoint and ascending.
type Ranges = Vec<(u128, u128)>;

/// Prefixes by family (IPv4, IPv6).
pub(super) type Families = [Ranges; 2];

/// First and last address of a prefix, in the space of [`Addr`].
pub(super) fn prefix_bounds(prefix: &IpNet) -> (u128, u128) {
    (Addr::from(prefix.network()).0, Addr::from(prefix.broadcast()).0)
}

/// Prefixes as disjoint ranges in ascending order, adjacent ones joined.
pub(super) fn families(prefixes: &[IpNet]) -> Families {
    let mut families = Families::default();
    for prefix in prefixes {
        families[usize::from(!prefix.addr().is_ipv4())].push(prefix_bounds(prefix));
    }
    for ranges in &mut families {
        ranges.sort_unstable();
        let mut joined = Ranges::with_capacity(ranges.len());
        for range in ranges.drain(..) {
            match joined.last_mut() {
                Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
                _ => joined.push(range),
            }
        }
        *ranges = joined;
    }
    families
}

/// The prefixes of 16 bits that make up a port range: at most 30, none adjacent to be joined.
pub(super) fn port_prefixes(range: PortRange, mut emit: impl FnMut(PortRange)) {
    let (mut at, end) = (u32::from(range.first), u32::from(range.last) + 1);
    while at < end {
        let aligned = if at == 0 { 1 << 16 } else { 1 << at.trailing_zeros() };
        let mut size = aligned;
        while at + size > end {
            size /= 2;
        }
        emit(PortRange { first: at as u16, last: (at + size - 1) as u16 });
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ranges with a set of one rule each, and which rule.
    fn ranges(list: &[(u8, u8)], builder: &mut Builder) -> Vec<(Nested<u16>, u32)> {
        let mut v: Vec<_> = list
            .iter()
            .map(|(bits, len)| {
                let size = 1u16 << (8 - len % 9);
                let first = u16::from(*bits) / size * size;
                (first, first + size - 1)
            })
            .collect();
        v.sort_unstable();
        v.dedup();
        let nested = |(i, (first, last))| {
            let set = builder.add(vec![i as u32]).unwrap();
            (Nested { first, last, set }, i as u32)
        };
        v.into_iter().enumerate().map(nested).collect()
    }

    fn rules(sets: &[SetId], bitmaps: &super::super::bitmaps::Bitmaps) -> Vec<u32> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        (0..64).flat_map(|w| bits(bitmaps.word(sets, 0, w)).map(move |bit| w * 64 + bit)).collect()
    }

    proptest! {
        /// Goes red when the sweep forgets to return to the outer prefix, loses a boundary, or a united
        /// set lacks one of those around it (with 200 ranges in 256 values many are united).
        #[test]
        fn holding_finds_exactly_the_ranges_around_a_value(
            list in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..200),
            with_any: bool,
        ) {
            let mut builder = Builder::new(1000);
            let ranges = ranges(&list, &mut builder);
            let everywhere = with_any.then(|| builder.add(vec![999]).unwrap());
            let index = Intervals::new(ranges.iter().map(|r| r.0).collect(), everywhere, &mut builder);
            let bitmaps = builder.finish();
            for value in 0..=256u16 {
                let found = rules(index.holding(value), &bitmaps);
                let holds = |r: &Nested<u16>| r.first <= value && value <= r.last;
                let mut expected: Vec<_> = ranges.iter().filter(|(r, _)| holds(r)).map(|r| r.1).collect();
                expected.extend(with_any.then_some(999));
                prop_assert_eq!(found, expected);
            }
        }

        /// Goes red when a piece is misaligned, missing or covers a port twice.
        #[test]
        fn port_prefixes_are_aligned_and_cover_the_range_once(a: u16, b: u16) {
            let range = PortRange { first: a.min(b), last: a.max(b) };
            let mut at = u32::from(range.first);
            let mut pieces = 0;
            port_prefixes(range, |p| {
                assert_eq!(u32::from(p.first), at);
                assert!(p.width().is_power_of_two() && u32::from(p.first).is_multiple_of(p.width()));
                at = u32::from(p.last) + 1;
                pieces += 1;
            });
            prop_assert_eq!(at, u32::from(range.last) + 1);
            prop_assert!(pieces <= 30);
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_found() {
        let all = Nested { first: 0, last: u128::MAX, set: 7 };
        let top = Nested { first: u128::MAX, last: u128::MAX, set: 9 };
        let index = Intervals::new(vec![top, all], None, &mut Builder::new(1));
        assert_eq!(index.holding(0), [7]);
        assert_eq!(index.holding(u128::MAX), [9, 7]);
    }

    /// Goes red when long lists are made where one united set would do.
    #[test]
    fn lists_stay_short_inside_wide_ranges() {
        let mut builder = Builder::new(1000);
        let mut set = |rule| builder.add(vec![rule]).unwrap();
        let mut ranges: Vec<_> =
            (0..16).map(|n| Nested { first: 0u32, last: u32::MAX >> n, set: set(n) }).collect();
        ranges.extend((0..200).map(|n| Nested { first: n, last: n, set: set(100 + n) }));
        let index = Intervals::new(ranges, None, &mut builder);
        let list = index.holding(5);
        assert_eq!(list.len(), 2);
        assert_eq!(rules(list, &builder.finish()), [(0..16).collect(), vec![105]].concat());
    }
}
