//! Sorted lists that are searched by cache lines.
//!
//! Why it exists: a binary search among 200,000 values waits for memory up to 18 times in a row, and
//! guesses as many branches wrong. A [`Tree`] whose nodes are one cache line wide (of IPv6 addresses
//! four) waits five times at most. IPv4 addresses are few enough for [`Blocks`]: two tables lead to the
//! few values near an address.

/// Values of a node.
const WIDE: usize = 16;
/// A list shorter than this needs no tables.
const TABLES_MIN: usize = 256;
/// So many values in a block of 65,536 addresses make it worth a table of its own. It takes 1 KiB.
const TABLE_MIN: u32 = 16;
/// Entries of a block's table: one for each block of 256 addresses, and one behind the last.
const ENTRIES: usize = 257;

/// How a list of such values is searched.
pub(super) trait Search<T> {
    /// From values in ascending order.
    fn new(values: Vec<T>) -> Self;
    /// How many values are at or below this one.
    fn at_or_below(&self, value: T) -> usize;
}

/// What can be searched for.
pub(super) trait Number: Copy + Ord {
    /// How.
    type Search: Search<Self> + std::fmt::Debug;
    /// The greatest value.
    const MAX: Self;
    /// The value behind this one.
    fn next(self) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty: $search:ty,)*) => {$(
        impl Number for $type {
            type Search = $search;
            const MAX: Self = <$type>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    )*};
}
number!(u16: Tree<u16>, u32: Blocks, u128: Tree<u128>,);

/// Each level holds the first value of every node of the level below it; the last level is the list
/// itself.
#[derive(Debug)]
pub(super) struct Tree<T> {
    levels: Vec<Vec<[T; WIDE]>>,
    len: usize,
}

impl<T: Number> Search<T> for Tree<T> {
    fn new(values: Vec<T>) -> Self {
        let len = values.len();
        let mut levels = vec![nodes(values.into_iter())];
        while let Some(above) = levels.last().filter(|below| below.len() > 1) {
            levels.push(nodes(above.iter().map(|node| node[0])));
        }
        levels.reverse();
        Tree { levels, len }
    }

    #[inline]
    fn at_or_below(&self, value: T) -> usize {
        let mut found = 0;
        let mut node = 0;
        for level in &self.levels {
            // What fills up a node above may look like one more node.
            let Some(last) = level.len().checked_sub(1) else { return 0 };
            node = node.min(last);
            let below = level[node].iter().fold(0u32, |sum, v| sum + u32::from(*v <= value)) as usize;
            found = node * WIDE + below;
            node = found.saturating_sub(1);
        }
        // The last node is filled up with the greatest value.
        found.min(self.len)
    }
}

fn nodes<T: Number>(values: impl Iterator<Item = T>) -> Vec<[T; WIDE]> {
    let mut nodes: Vec<[T; WIDE]> = Vec::new();
    for (i, value) in values.enumerate() {
        if i % WIDE == 0 {
            nodes.push([T::MAX; WIDE]);
        }
        if let Some(node) = nodes.last_mut() {
            node[i % WIDE] = value;
        }
    }
    nodes
}

/// IPv4 addresses by their blocks of 65,536 and 256.
#[derive(Debug)]
pub(super) struct Blocks {
    values: Vec<u32>,
    /// For each block of 65,536: how many values are below it. Empty for a short list.
    blocks: Vec<Block>,
    /// For each block of 256 inside a block with many values: how many values are below it.
    tables: Vec<[u32; ENTRIES]>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    below: u32,
    /// Its table plus one, or 0.
    table: u32,
}

impl Search<u32> for Blocks {
    fn new(values: Vec<u32>) -> Self {
        let mut search = Blocks { values, blocks: Vec::new(), tables: Vec::new() };
        if search.values.len() < TABLES_MIN {
            return search;
        }
        let below = |end: u64| search.values.partition_point(|v| u64::from(*v) < end) as u32;
        search.blocks = (0..=1u64 << 16).map(|b| Block { below: below(b << 16), table: 0 }).collect();
        for b in 0..1usize << 16 {
            if search.blocks[b + 1].below - search.blocks[b].below < TABLE_MIN {
                continue;
            }
            let mut table = [0; ENTRIES];
            for (t, entry) in table.iter_mut().enumerate() {
                *entry = below(((b << 16) + (t << 8)) as u64);
            }
            search.tables.push(table);
            search.blocks[b].table = search.tables.len() as u32;
        }
        search
    }

    #[inline]
    fn at_or_below(&self, value: u32) -> usize {
        let (low, high) = self.near(value);
        let (low, high) = (low as usize, high as usize);
        low + self.values[low..high].partition_point(|v| *v <= value)
    }
}

impl Blocks {
    /// The values among which those at or below this one end.
    #[inline]
    fn near(&self, value: u32) -> (u32, u32) {
        let b = (value >> 16) as usize;
        let Some([block, next]) = self.blocks.get(b..b + 2).and_then(<[Block]>::first_chunk) else {
            return (0, self.values.len() as u32);
        };
        match (block.table as usize).checked_sub(1) {
            None => (block.below, next.below),
            Some(table) => {
                let t = (value >> 8 & 0xff) as usize;
                (self.tables[table][t], self.tables[table][t + 1])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Number + std::fmt::Debug>(values: &[T], around: impl Iterator<Item = T>) {
        let search = <T::Search as Search<T>>::new(values.to_vec());
        for value in around {
            let expected = values.partition_point(|v| *v <= value);
            assert_eq!(search.at_or_below(value), expected, "{value:?} among {}", values.len());
        }
    }

    /// Goes red when a node or table is entered too early or too late, or what fills up a node counts.
    #[test]
    fn every_value_and_its_neighbours_are_found() {
        for len in [0, 1, 2, 15, 16, 17, 255, 256, 257, 5000] {
            for step in [3, 200, 70_000] {
                for top in [0, u32::MAX - len * step] {
                    let values: Vec<u32> = (1..=len).map(|n| n * step + top).collect();
                    let near = values.iter().flat_map(|v| [v - 1, *v, v.saturating_add(1)]);
                    let around: Vec<u32> = near.chain([0, u32::MAX]).collect();
                    check(&values, around.iter().copied());
                    // The same at the upper end of the longer number line.
                    let shift = |v: u32| u128::MAX - u128::from(u32::MAX - v);
                    let wide: Vec<u128> = values.iter().map(|v| shift(*v)).collect();
                    check(&wide, around.iter().map(|v| shift(*v)).chain([0]));
                }
            }
        }
    }
}
