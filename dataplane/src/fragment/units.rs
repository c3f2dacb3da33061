//! The 8-byte units of one datagram.

/// Units of the largest datagram: 65,535 bytes, the last unit not whole.
const UNITS: usize = 8_192;
const WORDS: usize = UNITS / 64;

/// Which units were seen, and in which of them a fragment began: enough to tell a repeated fragment
/// from one that overlaps, exactly.
#[derive(Clone)]
pub(super) struct Units {
    seen: [u64; WORDS],
    begins: [u64; WORDS],
}

/// How a fragment lies to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    /// Where nothing was.
    Apart,
    /// Exactly where one was before.
    Again,
    /// Partly where others were.
    Across,
}

impl Units {
    /// Every bit set, so that the memory is there before the first fragment comes.
    pub(super) const RESIDENT: Units = Units { seen: [!0; WORDS], begins: [!0; WORDS] };

    pub(super) fn clear(&mut self) {
        self.seen.fill(0);
        self.begins.fill(0);
    }

    /// Where a fragment of units `first..end` lies; `first < end <= UNITS`.
    pub(super) fn place(&self, first: u32, end: u32) -> Lies {
        let (mut none, mut all) = (true, true);
        for (word, mask) in words(first, end) {
            none &= self.seen[word] & mask == 0;
            all &= self.seen[word] & mask == mask;
        }
        if none {
            return Lies::Apart;
        }
        let inside = words(first + 1, end).all(|(word, mask)| self.begins[word] & mask == 0);
        let behind = end as usize >= UNITS || !bit(&self.seen, end) || bit(&self.begins, end);
        if all && bit(&self.begins, first) && inside && behind { Lies::Again } else { Lies::Across }
    }

    /// Notes a fragment that lies apart.
    pub(super) fn add(&mut self, first: u32, end: u32) {
        for (word, mask) in words(first, end) {
            self.seen[word] |= mask;
        }
        self.begins[first as usize / 64] |= 1 << (first % 64);
    }
}

fn bit(words: &[u64; WORDS], unit: u32) -> bool {
    words[unit as usize / 64] & 1 << (unit % 64) != 0
}

/// The words that units `first..end` lie in, each with the bits of those units.
fn words(first: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (word, low) = (at / 64, at % 64);
        let high = (end - word * 64).min(64);
        let mask = !0 << low & !0 >> (64 - high);
        at = (word + 1) * 64;
        Some((word as usize, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Red when a mask is one unit too long or too short anywhere, or a repetition is not told from
        // an overlap.
        #[test]
        fn places_are_those_of_a_plain_list(pieces in prop::collection::vec((0..300u32, 1..200u32), 1..40)) {
            let mut units = Units::RESIDENT;
            units.clear();
            let mut list: Vec<(u32, u32)> = Vec::new();
            for (first, len) in pieces {
                // Half of them at the upper end.
                let first = if len % 2 == 0 { first } else { 8_191 - first };
                let end = (first + len).min(8_192);
                let expected = if list.contains(&(first, end)) {
                    Lies::Again
                } else if list.iter().all(|(f, e)| end <= *f || *e <= first) {
                    Lies::Apart
                } else {
                    Lies::Across
                };
                prop_assert_eq!(units.place(first, end), expected);
                if expected == Lies::Apart {
                    units.add(first, end);
                    list.push((first, end));
                }
            }
        }
    }
}
