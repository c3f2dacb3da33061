//! The proof that no frame was lost or doubled: every worker stands still at a barrier, and each
//! names the frames that it has. Takes some ten nanoseconds a frame.

use crate::stats::FrameAudit;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where a frame was found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Free,
    Lent,
    Ring,
    Held,
}

/// One count over all workers.
pub(crate) struct Round {
    total: u32,
    seen: Box<[AtomicU64]>,
    duplicates: AtomicU32,
    places: [AtomicU32; 4],
    barrier: Barrier,
}

impl Round {
    pub(crate) fn new(total: u32, workers: usize) -> Round {
        Round {
            total,
            seen: (0..total.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            duplicates: AtomicU32::new(0),
            places: [const { AtomicU32::new(0) }; 4],
            barrier: Barrier::new(workers),
        }
    }

    /// Waits until every worker is here, or is done counting.
    pub(crate) fn meet(&self) {
        self.barrier.wait();
    }

    pub(crate) fn report(&self, frame: u32, place: Place) {
        let bit = 1u64 << (frame % 64);
        let before = self.seen[frame as usize / 64].fetch_or(bit, Relaxed);
        if before & bit == 0 {
            self.places[place as usize].fetch_add(1, Relaxed);
        } else {
            self.duplicates.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn result(&self) -> FrameAudit {
        let place = |p: Place| self.places[p as usize].load(Relaxed);
        FrameAudit {
            total: self.total,
            found: self.seen.iter().map(|w| w.load(Relaxed).count_ones()).sum(),
            duplicates: self.duplicates.load(Relaxed),
            free: place(Place::Free),
            lent: place(Place::Lent),
            in_rings: place(Place::Ring),
            held: place(Place::Held),
        }
    }
}
