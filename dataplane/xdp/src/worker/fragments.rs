//! Frames that wait until the first fragment of their datagram has come.

use super::Worker;
use crate::area::{AreaConfig, PortFrame};
use crate::io::{Batch, PacketIo};
use crate::pipeline::Pipeline;
use std::collections::VecDeque;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::Frame;
use tidegate_dataplane::fragment::{Datagram, Settled, WAITING_MAX};
use tidegate_dataplane::time::Now;

/// Most frames that wait in one worker.
const HELD_MAX: usize = 256;

struct Held {
    frame: PortFrame,
    datagram: Datagram,
    until: Now,
}

/// The bounded queue, allocated once.
pub(super) struct FragmentHold {
    waiting: VecDeque<Held>,
    places: usize,
}

impl FragmentHold {
    /// Places for an eighth of one worker's frames, shared by all workers, for all of them may hold
    /// frames of the one that receives; but always for one whole datagram.
    pub(super) fn new(area: AreaConfig) -> FragmentHold {
        let share = area.frames_per_worker as usize / 8 / usize::from(area.workers.max(1));
        let places = share.clamp(usize::from(WAITING_MAX), HELD_MAX);
        FragmentHold { waiting: VecDeque::with_capacity(places + 1), places }
    }

    /// Adds a frame; gives back the one that has waited longest when there are too many. So fragments
    /// whose first never comes do not keep others from waiting.
    pub(super) fn push(&mut self, frame: PortFrame, datagram: Datagram, until: Now) -> Option<PortFrame> {
        self.waiting.push_back(Held { frame, datagram, until });
        if self.waiting.len() > self.places { self.waiting.pop_front().map(|held| held.frame) } else { None }
    }

    /// Takes out, in the order they came, frames that `wanted` names, as many as fit.
    fn take(&mut self, out: &mut Batch, wanted: impl Fn(&Held) -> bool) {
        for _ in 0..self.waiting.len() {
            let Some(held) = self.waiting.pop_front() else { return };
            if !out.is_full() && wanted(&held) {
                out.push(held.frame);
            } else {
                self.waiting.push_back(held);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &PortFrame> {
        self.waiting.iter().map(|held| &held.frame)
    }
}

impl<P: Pipeline, Q: PacketIo> Worker<P, Q> {
    pub(super) fn hold_fragment(&mut self, frame: PortFrame, datagram: Datagram, until: Now) {
        if let Some(oldest) = self.fragments.push(frame, datagram, until) {
            self.drop_frame(oldest, DropReason::FragmentQueueFull);
        }
    }

    /// Lets fragments go on whose first has come, and drops those whose datagram is given up.
    pub(super) fn settle_fragments(&mut self, now: Now) {
        while let Some(Settled { datagram, outcome }) = self.pipeline.next_settled() {
            loop {
                let mut batch = std::mem::take(&mut self.batch);
                self.fragments.take(&mut batch, |held| held.datagram == datagram);
                let all = !batch.is_full();
                match outcome {
                    Ok(note) => {
                        batch.iter_mut().for_each(|frame| frame.set_note(note));
                        self.process(&mut batch, now);
                    }
                    Err(reason) => batch.drain(..).for_each(|frame| self.drop_frame(frame, reason)),
                }
                self.batch = batch;
                if all {
                    break;
                }
            }
        }
    }

    /// Drops fragments that have waited too long.
    pub(super) fn give_fragments_up(&mut self, now: Now) {
        let mut batch = std::mem::take(&mut self.batch);
        self.fragments.take(&mut batch, |held| held.until <= now);
        batch.drain(..).for_each(|frame| self.drop_frame(frame, DropReason::FragmentTimeout));
        self.batch = batch;
    }
}
