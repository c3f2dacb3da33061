//! How workers reach each other: rings for frames, and a way to wake a sleeper.
//!
//! Between every two workers runs one single-producer ring for hand-overs and one for frames that go
//! home. A hand-over that finds its ring full is dropped as `handover_full`: the other worker is
//! overloaded, and blocking would only spread that. A return never finds its ring full, because the
//! ring has a place for every frame of the home pool.

use crate::area::PortFrame;
use crate::sys::EventFd;
use rtrb::{Consumer, Producer, RingBuffer};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use tidegate_dataplane::route::PortId;

/// Hand-overs that can wait between two workers: eight batches, half a millisecond of work.
pub(crate) const HANDOVER_RING: usize = 512;

/// A frame from another worker.
pub(super) enum Passed {
    /// Its flow is of the receiving worker's shard.
    Process(PortFrame),
    /// Processed; it leaves by a port that only the receiving worker has a transmit queue of.
    Transmit(PortFrame, PortId),
}

impl Passed {
    pub(super) fn frame(self) -> PortFrame {
        match self {
            Passed::Process(frame) | Passed::Transmit(frame, _) => frame,
        }
    }
}

/// What others see of a worker. Lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Bell {
    wake: EventFd,
    sleeping: AtomicBool,
    short_of_frames: AtomicBool,
    heartbeat: AtomicU64,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        Ok(Bell {
            wake: EventFd::new()?,
            sleeping: AtomicBool::new(false),
            short_of_frames: AtomicBool::new(false),
            heartbeat: AtomicU64::new(0),
        })
    }

    /// Wakes the worker if it sleeps. To be called after its ring or queue was written: the fence here
    /// and the one in [`Bell::lie_down`] make sure that either the sleeper sees what was written, or
    /// the writer sees the sleeper.
    #[inline]
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.wake.wake();
        }
    }

    /// Wakes the worker if it sleeps for want of frames.
    #[inline]
    pub(super) fn ring_if_short(&self) {
        if self.short_of_frames.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Announces sleep. The worker looks at its rings once more after this.
    pub(super) fn lie_down(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends it. `rang` says that poll found the eventfd readable: only then is its mark taken off, for
    /// a late ring may still be on its way (it ends the next sleep early, which does no harm).
    pub(super) fn rise(&self, rang: bool) {
        self.sleeping.store(false, Ordering::Relaxed);
        if rang {
            self.wake.clear();
        }
    }

    pub(super) fn set_short_of_frames(&self, short: bool) {
        if self.short_of_frames.load(Ordering::Relaxed) != short {
            self.short_of_frames.store(short, Ordering::Relaxed);
        }
    }

    pub(super) fn fd(&self) -> std::os::fd::RawFd {
        self.wake.raw()
    }

    pub(super) fn beat(&self) {
        // The worker alone writes it.
        self.heartbeat.store(self.heartbeat.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }
}

/// One worker's ends of all rings, by the number of the other worker; its own place is never used.
pub(crate) struct Links {
    pub(super) bells: Arc<[Bell]>,
    pub(super) handover_out: Vec<Producer<Passed>>,
    pub(super) handover_in: Vec<Consumer<Passed>>,
    pub(super) return_out: Vec<Producer<PortFrame>>,
    pub(super) return_in: Vec<Consumer<PortFrame>>,
}

impl Links {
    /// The rings between `bells.len()` workers.
    pub(crate) fn mesh(bells: &Arc<[Bell]>, frames_per_worker: u32, handover_ring: usize) -> Vec<Links> {
        let n = bells.len();
        let mut links: Vec<Links> = (0..n)
            .map(|_| Links {
                bells: Arc::clone(bells),
                handover_out: Vec::new(),
                handover_in: Vec::new(),
                return_out: Vec::new(),
                return_in: Vec::new(),
            })
            .collect();
        for from in 0..n {
            for to in 0..n {
                let own = from == to;
                let (p, c) = RingBuffer::new(if own { 1 } else { handover_ring });
                links[from].handover_out.push(p);
                links[to].handover_in.push(c);
                let (p, c) = RingBuffer::new(if own { 1 } else { frames_per_worker as usize });
                links[from].return_out.push(p);
                links[to].return_in.push(c);
            }
        }
        links
    }
}
