//! Sets of rules as sparse bitmaps that are intersected word by word.
//!
//! Why it exists: the first matching rule is the lowest bit in the intersection of "rules for this
//! source zone", "... destination zone", "... source address", and so on. 10,000 rules are 157
//! words; a summary with one bit for each word skips the empty ones, so the cost hardly depends on
//! the number of rules, as long as few words are in every set ([`super::order`] sees to that). Equal
//! sets are stored once.

use super::compiled::CompileError;
use std::collections::BTreeMap;

/// Number of a set in [`Bitmaps`].
pub(super) type SetId = u32;

/// Upper bound on stored words (256 MiB). Only a policy with very many rules over very many
/// differently overlapping address sets gets there; it is refused ([`CompileError::TooComplex`]).
const WORDS_MAX: usize = 1 << 25;

/// Upper bound on the words of unions that are stored only to be faster (32 MiB).
const UNION_WORDS_MAX: usize = 1 << 22;

/// 64 words of a set: which are not empty, and where the first of those is.
#[derive(Clone, Copy, Default, Debug)]
struct Summary {
    words_present: u64,
    first: u32,
}

/// All sets of one policy.
#[derive(Debug, Default)]
pub(super) struct Bitmaps {
    /// Summaries in one set.
    stride: usize,
    summaries: Vec<Summary>,
    words: Vec<u64>,
}

impl Bitmaps {
    /// How many summaries a set has: the outer loop of an intersection.
    #[inline]
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Something that has to be read to answer for these sets: see [`super::Policy::place`].
    #[inline]
    pub(super) fn touch(&self, union: &[SetId]) -> u32 {
        union.iter().fold(0, |sum, id| sum ^ self.summaries[*id as usize * self.stride].first)
    }

    /// Which of the 64 words of summary `s` are not empty in the union of the sets.
    #[inline]
    pub(super) fn summary(&self, union: &[SetId], s: usize) -> u64 {
        union.iter().fold(0, |acc, id| acc | self.summaries[*id as usize * self.stride + s].words_present)
    }

    /// Word `bit` of summary `s` in the union of the sets.
    #[inline]
    pub(super) fn word(&self, union: &[SetId], s: usize, bit: u32) -> u64 {
        union.iter().fold(0, |acc, id| {
            let summary = self.summaries[*id as usize * self.stride + s];
            if summary.words_present >> bit & 1 == 0 {
                return acc;
            }
            let rank = (summary.words_present & ((1 << bit) - 1)).count_ones();
            acc | self.words[(summary.first + rank) as usize]
        })
    }
}

/// Collects sets and stores equal ones once.
#[derive(Debug)]
pub(super) struct Builder {
    bitmaps: Bitmaps,
    known: BTreeMap<Vec<u32>, SetId>,
    union_words: usize,
}

impl Builder {
    /// For rules `0..rules`.
    pub(super) fn new(rules: usize) -> Self {
        // Four summaries are a cache line: no set has one more than it needs.
        let stride = match rules.div_ceil(64).div_ceil(64).max(1) {
            3 => 4,
            stride => stride,
        };
        Builder { bitmaps: Bitmaps { stride, ..Bitmaps::default() }, known: BTreeMap::new(), union_words: 0 }
    }

    /// The set of these rules; sorted, without duplicates.
    pub(super) fn add(&mut self, rules: Vec<u32>) -> Result<SetId, CompileError> {
        if let Some(id) = self.known.get(&rules) {
            return Ok(*id);
        }
        let b = &mut self.bitmaps;
        let id = (b.summaries.len() / b.stride) as SetId;
        let base = b.summaries.len();
        b.summaries.resize(base + b.stride, Summary::default());
        let mut open: Option<u32> = None;
        for rule in &rules {
            let word = rule / 64;
            if open != Some(word) {
                let summary = &mut b.summaries[base + (word / 64) as usize];
                if summary.words_present == 0 {
                    summary.first = b.words.len() as u32;
                }
                summary.words_present |= 1 << (word % 64);
                b.words.push(0);
                open = Some(word);
            }
            if let Some(last) = b.words.last_mut() {
                *last |= 1 << (rule % 64);
            }
        }
        if b.words.len() + 2 * b.summaries.len() > WORDS_MAX {
            return Err(CompileError::TooComplex);
        }
        self.known.insert(rules, id);
        Ok(id)
    }

    /// A set with the rules of both, or `None` when there is no more room for such.
    pub(super) fn union(&mut self, a: SetId, b: SetId) -> Option<SetId> {
        if self.union_words >= UNION_WORDS_MAX {
            return None;
        }
        let stored = &mut self.bitmaps;
        let id = (stored.summaries.len() / stored.stride) as SetId;
        for s in 0..stored.stride {
            let words_present = stored.summary(&[a, b], s);
            let first = stored.words.len() as u32;
            let mut left = words_present;
            while left != 0 {
                let word = stored.word(&[a, b], s, left.trailing_zeros());
                stored.words.push(word);
                left &= left - 1;
            }
            stored.summaries.push(Summary { words_present, first });
            self.union_words += 2 + words_present.count_ones() as usize;
        }
        Some(id)
    }

    /// No more sets.
    pub(super) fn finish(self) -> Bitmaps {
        self.bitmaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when rank, summary or word arithmetic is off by one anywhere.
    #[test]
    fn sets_read_back_across_words_and_summaries() {
        let rules = vec![0, 1, 63, 64, 4095, 4096, 4097, 9000, 65_534];
        let other = vec![2, 4096];
        let mut b = Builder::new(65_535);
        let x = b.add(rules.clone()).unwrap();
        let y = b.add(other.clone()).unwrap();
        assert_eq!(b.add(rules.clone()).unwrap(), x);
        let union = b.union(x, y).unwrap();
        let b = b.finish();
        let mut both = rules;
        both.extend(other);
        both.sort_unstable();
        both.dedup();
        for sets in [[x, y].as_slice(), &[union]] {
            let mut read = Vec::new();
            for s in 0..b.stride() {
                let summary = b.summary(sets, s);
                for bit in 0..64 {
                    let word = b.word(sets, s, bit);
                    assert_eq!(word != 0, summary >> bit & 1 == 1);
                    let rules = (0..64).filter(|i| word >> i & 1 == 1);
                    read.extend(rules.map(|i| (s as u32 * 64 + bit) * 64 + i));
                }
            }
            assert_eq!(read, both);
        }
    }
}
