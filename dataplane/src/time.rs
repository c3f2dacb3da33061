//! Time as the packet path knows it: milliseconds since the node's start, always an argument.

/// Milliseconds since the start of the node (a monotonic clock). Read once a batch by the worker,
/// handed down; never a wall-clock reading, never sent to another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Now(pub u64);

impl Now {
    /// The low 32 bits: how a session holds its last packet. Wraps after 49 days; the longest idle
    /// timeout is 32 days (J2), so a difference of two readings is never ambiguous.
    #[inline]
    pub fn ms32(self) -> u32 {
        self.0 as u32
    }

    /// Milliseconds from `earlier` until now; 0 if `earlier` lies ahead.
    #[inline]
    pub fn since(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
