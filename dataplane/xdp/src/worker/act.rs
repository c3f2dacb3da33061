//! What a worker does with frames: receiving, verdicts, hand-overs, sending, and the way home.

use super::hold::RETRY_MS;
use super::mesh::{HANDOVER_RING, Passed};
use super::{Egress, Worker};
use crate::area::{Area, PortFrame};
use crate::io::{Batch, PacketIo};
use crate::pipeline::Pipeline;
use arrayvec::ArrayVec;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{BATCH_MAX, OUTBOX_PACKETS, Verdict};
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::time::Now;

impl<P: Pipeline, Q: PacketIo> Worker<P, Q> {
    /// A batch from its queues, beginning with another one each time.
    pub(super) fn receive(&mut self, now: Now) -> bool {
        let n = self.queues.len();
        if n == 0 {
            return false;
        }
        self.turn = (self.turn + 1) % n;
        let mut batch = std::mem::take(&mut self.batch);
        for i in 0..n {
            self.queues[(self.turn + i) % n].io.receive(&mut batch);
            if batch.is_full() {
                break;
            }
        }
        let any = !batch.is_empty();
        self.process(&mut batch, now);
        self.batch = batch;
        any
    }

    /// Frames that other workers handed over: at most a batch, in turn.
    pub(super) fn take_passed(&mut self, now: Now) -> bool {
        let n = self.links.handover_in.len();
        if n < 2 {
            return false;
        }
        let mut any = false;
        let mut batch = std::mem::take(&mut self.batch);
        for i in 0..n {
            let from = (self.turn + i) % n;
            // Bounded: frames to send do not fill the batch, and the other worker goes on adding.
            for _ in 0..HANDOVER_RING {
                if batch.is_full() {
                    break;
                }
                match self.links.handover_in[from].pop() {
                    Ok(Passed::Process(frame)) => {
                        self.stats.handover_in += 1;
                        batch.push(frame);
                    }
                    Ok(Passed::Transmit(frame, port)) => {
                        any = true;
                        self.stats.transmit_for_others += 1;
                        self.transmit_here(port, frame);
                    }
                    Err(_) => break,
                }
            }
        }
        any |= !batch.is_empty();
        self.process(&mut batch, now);
        self.batch = batch;
        any
    }

    /// Gives the engine a batch and acts on what it says; leaves the batch empty.
    pub(super) fn process(&mut self, batch: &mut Batch, now: Now) {
        if batch.is_empty() {
            return;
        }
        self.stats.batches += 1;
        self.pipeline.process(batch, &mut self.verdicts, now);
        for (i, frame) in batch.drain(..).enumerate() {
            let verdict = self.verdicts.get(i).copied();
            self.act(verdict, frame, now);
        }
        self.send_outbox();
    }

    fn act(&mut self, verdict: Option<Verdict>, frame: PortFrame, since: Now) {
        match verdict {
            Some(Verdict::Transmit(port)) => self.transmit(port, frame),
            Some(Verdict::Handover(worker)) => self.hand_over(worker, frame),
            Some(Verdict::AwaitNeighbour { port, next_hop }) => {
                if let Err(frame) = self.hold.push(frame, (port, next_hop), since) {
                    self.drop_frame(frame, DropReason::NeighbourQueueFull);
                }
            }
            Some(Verdict::AwaitFragment { datagram, until }) => self.hold_fragment(frame, datagram, until),
            Some(Verdict::Drop(_) | Verdict::Consumed) | None => self.free(frame),
        }
    }

    /// Sends by a port, by whichever worker has a queue of it.
    fn transmit(&mut self, port: PortId, frame: PortFrame) {
        match self.egress.get(usize::from(port.0)) {
            Some(Egress::Queue(_)) => self.transmit_here(port, frame),
            Some(Egress::Via(worker)) => {
                let worker = *worker;
                self.pass_on(worker, Passed::Transmit(frame, port));
            }
            Some(Egress::None) | None => self.drop_frame(frame, DropReason::PortDown),
        }
    }

    /// Sends by a queue of its own, or not at all: a frame that was passed here is not passed on.
    fn transmit_here(&mut self, port: PortId, frame: PortFrame) {
        let at = usize::from(port.0);
        if !matches!(self.egress.get(at), Some(Egress::Queue(_))) {
            return self.drop_frame(frame, DropReason::PortDown);
        }
        if let Err(frame) = self.queues[usize::from(self.place[at])].io.transmit(frame) {
            self.drop_frame(frame, DropReason::TransmitFull);
        }
    }

    fn hand_over(&mut self, worker: u16, frame: PortFrame) {
        self.stats.handover_out += 1;
        self.pass_on(worker, Passed::Process(frame));
    }

    fn pass_on(&mut self, worker: u16, passed: Passed) {
        let other = worker != self.index;
        let ring = self.links.handover_out.get_mut(usize::from(worker)).filter(|_| other);
        let refused = match ring {
            Some(ring) => ring.push(passed).err().map(|rtrb::PushError::Full(p)| p),
            None => Some(passed),
        };
        match refused {
            None => self.touched |= 1 << worker,
            Some(passed) => {
                self.stats.handover_full += 1;
                self.drop_frame(passed.frame(), DropReason::HandoverFull);
            }
        }
    }

    pub(super) fn wake_touched(&mut self) {
        while self.touched != 0 {
            let worker = self.touched.trailing_zeros() as usize;
            self.touched &= self.touched - 1;
            self.links.bells[worker].ring();
        }
    }

    pub(super) fn drop_frame(&mut self, frame: PortFrame, reason: DropReason) {
        self.pipeline.count_drop(reason);
        self.free(frame);
    }

    /// Takes a frame home: into the pool, or back to the worker whose it is.
    pub(crate) fn free(&mut self, frame: PortFrame) {
        if self.own.contains(&self.area.number(&frame)) {
            self.pool.push(frame);
            return;
        }
        let home = usize::from(self.area.home(&frame));
        match self.links.return_out[home].push(frame) {
            Ok(()) => self.links.bells[home].ring_if_short(),
            // Cannot be: the ring has a place for each frame of that home. A frame that stays here is
            // not lost, and goes home the next time that it is freed.
            Err(rtrb::PushError::Full(frame)) => {
                debug_assert!(false, "return ring full");
                self.pool.push(frame);
            }
        }
    }

    /// Frames that were sent.
    pub(super) fn take_sent(&mut self) -> bool {
        let mut any = false;
        let mut batch = std::mem::take(&mut self.batch);
        for i in 0..self.queues.len() {
            self.queues[i].io.complete(&mut batch);
            any |= !batch.is_empty();
            for frame in batch.drain(..) {
                self.free(frame);
            }
        }
        self.batch = batch;
        any
    }

    /// Frames of its own that other workers freed.
    pub(super) fn take_returned(&mut self) {
        self.take_returned_into(|_, _| {});
    }

    pub(super) fn take_returned_into(&mut self, mut each: impl FnMut(&Area, &PortFrame)) {
        for ring in &mut self.links.return_in {
            let n = ring.slots();
            if n == 0 {
                continue;
            }
            if let Ok(chunk) = ring.read_chunk(n) {
                for frame in chunk {
                    each(&self.area, &frame);
                    self.pool.push(frame);
                }
            }
        }
    }

    pub(super) fn refill(&mut self) {
        let mut short = false;
        for queue in &mut self.queues {
            queue.io.fill(&mut self.pool);
            short |= queue.io.starved();
        }
        let short = short && self.pool.is_empty();
        self.stats.pool_empty += u64::from(short);
        self.links.bells[usize::from(self.index)].set_short_of_frames(short);
    }

    /// Frames that wait for a neighbour: given up when they waited too long, else tried again.
    pub(super) fn try_held_again(&mut self, now: Now) {
        if self.hold.len() + self.fragments.len() == 0 || now < self.retry_at {
            return;
        }
        self.retry_at = Now(now.0 + RETRY_MS);
        self.give_fragments_up(now);
        let mut batch = std::mem::take(&mut self.batch);
        self.hold.take_expired(now, &mut batch);
        for frame in batch.drain(..) {
            self.pipeline.neighbour_failed(&frame, now);
            self.free(frame);
        }
        let mut since: ArrayVec<Now, BATCH_MAX> = ArrayVec::new();
        self.hold.take(&mut batch, &mut since);
        if !batch.is_empty() {
            self.pipeline.process(&mut batch, &mut self.verdicts, now);
        }
        for (i, frame) in batch.drain(..).enumerate() {
            let verdict = self.verdicts.get(i).copied();
            self.act(verdict, frame, since[i]);
        }
        self.batch = batch;
    }

    /// Sends the packets that the engine wrote itself.
    pub(super) fn send_outbox(&mut self) {
        let outbox = self.pipeline.outbox();
        if outbox.is_empty() {
            return;
        }
        let mut written: ArrayVec<(PortId, PortFrame), OUTBOX_PACKETS> = ArrayVec::new();
        for (port, packet) in outbox.iter() {
            let Some(mut frame) = self.pool.pop() else {
                self.stats.outbox_dropped += 1;
                continue;
            };
            if frame.write(packet) {
                written.push((port, frame));
            } else {
                self.pool.push(frame);
                self.stats.outbox_dropped += 1;
            }
        }
        outbox.clear();
        for (port, frame) in written {
            self.transmit(port, frame);
        }
    }

    pub(super) fn forward_events(&mut self) {
        let (sink, left_out) = (&mut self.sink, &mut self.stats.events_left_out);
        self.pipeline.take_events(&mut |event| {
            if !sink(event) {
                *left_out += 1;
            }
        });
    }
}
