//! Which frames are lent to the kernel: one bit for each frame of the area.
//!
//! Every socket keeps one. It proves that a frame that comes back was given (a frame that was not
//! would exist twice), and it names the frames that a closed socket takes with it.

/// A set of frame numbers.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    words: Box<[u64]>,
    len: u32,
}

impl Ledger {
    /// An empty set over `frames` frame numbers.
    pub(crate) fn new(frames: u32) -> Ledger {
        Ledger { words: vec![0; frames.div_ceil(64) as usize].into_boxed_slice(), len: 0 }
    }

    /// Adds a frame; whether it was absent.
    #[inline]
    pub(crate) fn insert(&mut self, frame: u32) -> bool {
        let (word, bit) = (frame as usize / 64, 1u64 << (frame % 64));
        let absent = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u32::from(absent);
        absent
    }

    /// Removes a frame; whether it was present.
    #[inline]
    pub(crate) fn remove(&mut self, frame: u32) -> bool {
        let (word, bit) = (frame as usize / 64, 1u64 << (frame % 64));
        let Some(word) = self.words.get_mut(word) else { return false };
        let present = *word & bit != 0;
        *word &= !bit;
        self.len -= u32::from(present);
        present
    }

    /// How many frames are in it.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The frames, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    i as u32 * 64 + bit
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Red when `remove` stops saying whether the frame was there, or the count drifts.
    #[test]
    fn a_frame_is_in_it_once() {
        let mut l = Ledger::new(130);
        assert!(l.insert(0) && l.insert(129) && l.insert(64));
        assert!(!l.insert(64), "the second loan of a frame shows");
        assert_eq!(l.len(), 3);
        assert_eq!(l.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert!(l.remove(64));
        assert!(!l.remove(64), "the second return of a frame shows");
        assert!(!l.remove(100_000), "a number outside of the area is nobody's");
        assert_eq!(l.iter().collect::<Vec<_>>(), [0, 129]);
        assert_eq!(l.len(), 2);
    }
}
