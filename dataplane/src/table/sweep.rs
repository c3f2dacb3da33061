//! The clock hand: a walk over the slots, a slice at a time.
//!
//! The table only walks; what is expired is the engine's predicate. Only hot lines are read, in
//! the order of memory, so the processor fetches ahead and a session costs a few nanoseconds.

use super::{HotLine, SlotId, Table};
use arrayvec::ArrayVec;

/// How far a slice of the sweep came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SweepStep {
    /// Where the next slice starts; 0 once the hand has passed the last slot in use.
    pub next: u32,
    /// Slots looked at.
    pub visited: u32,
}

impl Table {
    /// [`Table::sweep_slice_at`] with a predicate that needs the hot line alone.
    #[inline]
    pub fn sweep_slice<const N: usize>(
        &self,
        from: u32,
        count: u32,
        mut expired: impl FnMut(&HotLine) -> bool,
        found: &mut ArrayVec<SlotId, N>,
    ) -> SweepStep {
        self.sweep_slice_at(from, count, |_, line| expired(line), found)
    }

    /// Walks at most `count` slots from `from` on and collects those sessions for which `wanted`
    /// holds. Ends early when `found` is full (the next slice goes on behind its last slot), and at
    /// the highest slot ever used: a hand that comes there starts anew at 0.
    #[inline]
    pub fn sweep_slice_at<const N: usize>(
        &self,
        from: u32,
        count: u32,
        mut wanted: impl FnMut(SlotId, &HotLine) -> bool,
        found: &mut ArrayVec<SlotId, N>,
    ) -> SweepStep {
        let end = from.saturating_add(count).min(self.fresh_from);
        let Some(lines) = self.hot.all().get(from as usize..end as usize) else {
            return SweepStep { next: 0, visited: 0 };
        };
        if found.is_full() {
            return SweepStep { next: from, visited: 0 };
        }
        let mut visited = end - from;
        for (line, slot) in lines.iter().zip(from..) {
            if line.in_use() & wanted(SlotId(slot), line) {
                found.push(SlotId(slot));
                if found.is_full() {
                    visited = slot + 1 - from;
                    break;
                }
            }
        }
        let next = from + visited;
        SweepStep { next: if next == self.fresh_from { 0 } else { next }, visited }
    }

    /// Calls `visit` for every session among at most `count` slots from `from` on, in the order of
    /// slots. Returns where to go on, or `None` after the last.
    pub fn for_each_in_use(
        &self,
        from: u32,
        count: u32,
        mut visit: impl FnMut(SlotId, &HotLine),
    ) -> Option<u32> {
        let end = from.saturating_add(count).min(self.fresh_from);
        let lines = self.hot.all().get(from as usize..end as usize)?;
        for (line, slot) in lines.iter().zip(from..) {
            if line.in_use() {
                visit(SlotId(slot), line);
            }
        }
        (end < self.fresh_from).then_some(end)
    }
}
