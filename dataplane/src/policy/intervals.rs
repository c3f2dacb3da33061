//! From an address or a port to the prefixes that hold it.
//!
//! Why it exists: prefixes either nest or are apart, so all prefixes of a policy cut the number line
//! into at most two intervals each, and each interval has one innermost prefix. A lookup is one
//! binary search for the interval and a walk outwards from its prefix; memory is linear in the
//! number of prefixes, whatever their nesting. Port ranges become prefixes of 16 bits.

use super::bitmaps::SetId;
use super::model::PortRange;
use crate::addr::Addr;
use ipnet::IpNet;

const NONE: u32 = u32::MAX;

/// One nesting range and the set of rules that it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Nested {
    /// Lowest value.
    pub(super) first: u128,
    /// Highest value.
    pub(super) last: u128,
    /// What it carries.
    pub(super) set: SetId,
}

/// An immutable index over ranges of which any two either nest or are apart.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    /// Where each interval starts, ascending; an interval ends where the next starts.
    starts: Box<[u128]>,
    /// The innermost range of each interval, or `NONE`.
    innermost: Box<[u32]>,
    /// Each range: the one around it (or `NONE`), and its set.
    ranges: Box<[(u32, SetId)]>,
}

impl Intervals {
    /// Builds the index. No two ranges may be equal, and none may overlap without nesting.
    pub(super) fn new(mut ranges: Vec<Nested>) -> Self {
        // The outer of two ranges with the same start comes first.
        ranges.sort_unstable_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
        let mut cuts: Vec<(u128, u32)> = Vec::with_capacity(ranges.len() * 2);
        let mut stored = Vec::with_capacity(ranges.len());
        let mut open: Vec<u32> = Vec::new();
        let top = |open: &[u32]| open.last().copied().unwrap_or(NONE);
        let close = |open: &mut Vec<u32>, cuts: &mut Vec<(u128, u32)>, before: Option<u128>| {
            while let Some(last) = open.last().map(|i| ranges[*i as usize].last) {
                if before.is_some_and(|b| last >= b) {
                    break;
                }
                open.pop();
                if let Some(next) = last.checked_add(1) {
                    cut(cuts, next, top(open));
                }
            }
        };
        for (i, range) in ranges.iter().enumerate() {
            close(&mut open, &mut cuts, Some(range.first));
            stored.push((top(&open), range.set));
            open.push(i as u32);
            cut(&mut cuts, range.first, i as u32);
        }
        close(&mut open, &mut cuts, None);
        Intervals {
            starts: cuts.iter().map(|c| c.0).collect(),
            innermost: cuts.iter().map(|c| c.1).collect(),
            ranges: stored.into(),
        }
    }

    /// The sets of every range that holds the value, innermost first.
    #[inline]
    pub(super) fn holding(&self, value: u128) -> impl Iterator<Item = SetId> + '_ {
        let after = self.starts.partition_point(|start| *start <= value);
        let mut at = after.checked_sub(1).map_or(NONE, |i| self.innermost[i]);
        std::iter::from_fn(move || {
            let (outer, set) = *self.ranges.get(at as usize)?;
            at = outer;
            Some(set)
        })
    }
}

/// Starts an interval; a later cut at the same place replaces the earlier one.
fn cut(cuts: &mut Vec<(u128, u32)>, at: u128, innermost: u32) {
    match cuts.last_mut() {
        Some(last) if last.0 == at => last.1 = innermost,
        _ => cuts.push((at, innermost)),
    }
}

/// First and last address of a prefix, in the space of [`Addr`].
pub(super) fn prefix_bounds(prefix: &IpNet) -> (u128, u128) {
    (Addr::from(prefix.network()).0, Addr::from(prefix.broadcast()).0)
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

    fn ranges(list: &[(u8, u8)]) -> Vec<Nested> {
        let mut v: Vec<_> = list
            .iter()
            .map(|(bits, len)| {
                let size = 1u128 << (8 - len % 9);
                let first = u128::from(*bits) / size * size;
                Nested { first, last: first + size - 1, set: 0 }
            })
            .collect();
        v.sort_unstable();
        v.dedup();
        for (i, r) in v.iter_mut().enumerate() {
            r.set = i as u32;
        }
        v
    }

    proptest! {
        /// Goes red when the sweep forgets to return to the outer prefix, or loses a boundary.
        #[test]
        fn holding_finds_exactly_the_ranges_around_a_value(
            list in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..40),
        ) {
            let ranges = ranges(&list);
            let index = Intervals::new(ranges.clone());
            for value in 0..=256u128 {
                let mut found: Vec<_> = index.holding(value).collect();
                found.sort_unstable();
                let expected: Vec<_> =
                    ranges.iter().filter(|r| r.first <= value && value <= r.last).map(|r| r.set).collect();
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
        let index = Intervals::new(vec![top, all]);
        assert_eq!(index.holding(0).collect::<Vec<_>>(), [7]);
        assert_eq!(index.holding(u128::MAX).collect::<Vec<_>>(), [9, 7]);
    }
}
