//! A worker: the thread that feeds one engine from its queues.
//!
//! One pass of the loop reads the clock once, then: commands, sweep, a batch from its queues, frames
//! from other workers, frames that waited for their first fragment or a neighbour; then it talks to other
//! nodes, sends, wakes whom it handed something, takes sent frames back and refills. No lock, no allocation and no log for a packet.
//!
//! It spins for some microseconds when there is nothing to do, less and less when that wins nothing,
//! then sleeps in one poll over all its sockets and its eventfd.

mod act;
mod fragments;
mod hold;
mod mesh;
#[cfg(test)]
mod tests;

pub(crate) use mesh::{Bell, HANDOVER_RING, Links};

use crate::area::{Area, PortFrame};
use crate::io::{Batch, PacketIo};
use crate::pipeline::Pipeline;
use crate::stats::{QueueReport, WorkerStats};
use crate::sys;
use arrayvec::ArrayVec;
use fragments::FragmentHold;
use hold::Hold;
use mesh::Passed;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use tidegate_dataplane::engine::{BATCH_MAX, Event, Verdict};
use tidegate_dataplane::route::{PORTS_MAX, PortId};
use tidegate_dataplane::time::Now;

/// What the control side has a worker do between two batches.
pub(crate) type Task<P, Q> = Box<dyn FnOnce(&mut Worker<P, Q>, Now) + Send>;

/// Takes events to the control side. Must not block; false when there was no room.
pub type EventSink = Box<dyn FnMut(Event) -> bool + Send>;

/// Commands carried out in one pass, so that a burst of them does not hold up packets.
const TASKS_PER_PASS: usize = 4;

/// When a worker spins and how long it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Longest spin before sleep. 0 never spins.
    pub spin_us: u32,
    /// Longest sleep: the pace of the sweep when no packet comes.
    pub sleep_ms: u32,
}

impl Default for Idle {
    fn default() -> Self {
        Idle { spin_us: 50, sleep_ms: 10 }
    }
}

/// One queue that a worker serves.
pub(crate) struct Queue<Q> {
    pub(crate) port: PortId,
    pub(crate) queue: u32,
    pub(crate) io: Q,
}

/// How a worker sends by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    /// It cannot: the port is not open.
    None,
    /// By a queue of its own (its receive queue number).
    Queue(u32),
    /// Through another worker, which has a transmit queue.
    Via(u16),
}

pub(crate) struct Worker<P, Q> {
    pub(crate) index: u16,
    pub(crate) area: Arc<Area>,
    pub(crate) pipeline: P,
    pub(crate) pool: Vec<PortFrame>,
    /// Numbers of its own frames.
    own: std::ops::Range<u32>,
    queues: Vec<Queue<Q>>,
    egress: [Egress; PORTS_MAX],
    /// `egress` resolved to a place in `queues`.
    place: [u16; PORTS_MAX],
    links: Links,
    /// Workers that were handed something in this pass.
    touched: u64,
    hold: Hold,
    fragments: FragmentHold,
    retry_at: Now,
    tasks: Receiver<Task<P, Q>>,
    /// Taken out of `tasks` while going to sleep.
    next_task: Option<Task<P, Q>>,
    sink: EventSink,
    stats: WorkerStats,
    batch: Batch,
    verdicts: ArrayVec<Verdict, BATCH_MAX>,
    turn: usize,
    idle: Idle,
    spin_us: u32,
    /// Within how many milliseconds the pipeline wants to talk to other nodes again.
    exchange_ms: u32,
    polls: Vec<libc::pollfd>,
    stop: bool,
}

pub(crate) struct Parts<P, Q> {
    pub(crate) index: u16,
    pub(crate) area: Arc<Area>,
    pub(crate) pipeline: P,
    pub(crate) pool: Vec<PortFrame>,
    pub(crate) links: Links,
    pub(crate) tasks: Receiver<Task<P, Q>>,
    pub(crate) sink: EventSink,
    pub(crate) idle: Idle,
}

impl<P: Pipeline, Q: PacketIo> Worker<P, Q> {
    pub(crate) fn new(parts: Parts<P, Q>) -> Self {
        let Parts { index, area, pipeline, pool, links, tasks, sink, idle } = parts;
        let own = area.frames_of(index);
        let mut worker = Worker {
            index,
            own,
            fragments: FragmentHold::new(area.config()),
            area,
            pipeline,
            pool,
            queues: Vec::new(),
            egress: [Egress::None; PORTS_MAX],
            place: [0; PORTS_MAX],
            links,
            touched: 0,
            hold: Hold::default(),
            retry_at: Now(0),
            tasks,
            next_task: None,
            sink,
            stats: WorkerStats { worker: index, ..WorkerStats::default() },
            batch: Batch::new(),
            verdicts: ArrayVec::new(),
            turn: 0,
            idle,
            spin_us: idle.spin_us,
            exchange_ms: u32::MAX,
            polls: Vec::new(),
            stop: false,
        };
        worker.resolve();
        worker
    }

    /// Works until it is told to stop; gives the engine back.
    pub(crate) fn run(mut self, start: Instant) -> P {
        let mut last_work_us = 0;
        while !self.stop {
            let elapsed = start.elapsed();
            let us = elapsed.as_micros() as u64;
            if self.pass(Now(us / 1000)) {
                last_work_us = us;
            } else if us - last_work_us < u64::from(self.spin_us) {
                std::thread::yield_now();
            } else {
                let slept_from = start.elapsed();
                if self.sleep() {
                    self.adapt_spin(start.elapsed().saturating_sub(slept_from));
                }
                // The next pass finds out why it woke; it is worth a spin only if there was work.
            }
        }
        self.pipeline
    }

    /// One pass of the loop; whether there was anything to do.
    pub(crate) fn pass(&mut self, now: Now) -> bool {
        let mut work = self.run_tasks(now);
        self.pipeline.sweep(now);
        work |= self.receive(now);
        self.settle_fragments(now);
        work |= self.take_passed(now);
        self.settle_fragments(now);
        self.try_held_again(now);
        let exchanged = self.pipeline.exchange(now);
        work |= exchanged.worked;
        self.exchange_ms = exchanged.again_ms;
        self.send_outbox();
        self.forward_events();
        for queue in &mut self.queues {
            queue.io.flush();
        }
        self.wake_touched();
        work |= self.take_sent();
        self.take_returned();
        self.refill();
        self.links.bells[usize::from(self.index)].beat();
        work
    }

    /// Sleeps until a packet, a hand-over, a command or another node's word comes, or the time for a sweep or
    /// for what waits to be told to other nodes; whether it did.
    fn sleep(&mut self) -> bool {
        let bells = Arc::clone(&self.links.bells);
        let bell = &bells[usize::from(self.index)];
        bell.lie_down();
        let next = self.tasks.try_recv();
        if matches!(next, Err(TryRecvError::Disconnected)) {
            self.stop = true;
        }
        self.next_task = next.ok();
        let passed = self.links.handover_in.iter().any(|ring| !ring.is_empty());
        if self.stop || self.next_task.is_some() || passed || self.pipeline.has_mail() {
            bell.rise(false);
            return false;
        }
        // What is left in a transmit ring, and what waits for a neighbour, is not reported by poll.
        let soon = self.queues.iter().any(|q| q.io.busy());
        let timeout_ms = if soon { 1 } else { self.idle.sleep_ms.min(self.exchange_ms).max(1) };
        self.stats.sleeps += 1;
        self.polls[0].revents = 0;
        sys::poll(&mut self.polls, i32::try_from(timeout_ms).unwrap_or(i32::MAX));
        // The bell is the first of them.
        bell.rise(self.polls[0].revents != 0);
        true
    }

    /// A sleep shorter than a spin would have been better spun; a spin that ended in a long sleep was
    /// wasted, and halves the next one.
    fn adapt_spin(&mut self, slept: Duration) {
        self.spin_us = if slept.as_micros() < 2 * u128::from(self.idle.spin_us) {
            self.idle.spin_us
        } else {
            (self.spin_us / 2).max(self.idle.spin_us / 8)
        };
    }

    fn run_tasks(&mut self, now: Now) -> bool {
        let mut any = false;
        for _ in 0..TASKS_PER_PASS {
            let task = match self.next_task.take() {
                Some(task) => task,
                None => match self.tasks.try_recv() {
                    Ok(task) => task,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.stop = true;
                        break;
                    }
                },
            };
            task(self, now);
            self.stats.commands += 1;
            // Routes come by command: what waits for a neighbour may go now.
            self.retry_at = now;
            any = true;
        }
        any
    }

    /// Adds queues, and says how to send by their port.
    pub(crate) fn install(&mut self, queues: Vec<Queue<Q>>, port: PortId, egress: Egress) {
        self.queues.extend(queues);
        self.set_egress(port, egress);
        // A packet may be there already; it needs a frame.
        self.refill();
    }

    /// Takes the queues of a port away, and stops sending by it.
    pub(crate) fn remove(&mut self, port: PortId) -> Vec<Queue<Q>> {
        self.set_egress(port, Egress::None);
        let (gone, kept) = std::mem::take(&mut self.queues).into_iter().partition(|q| q.port == port);
        self.queues = kept;
        self.resolve();
        gone
    }

    fn set_egress(&mut self, port: PortId, egress: Egress) {
        if let Some(e) = self.egress.get_mut(usize::from(port.0)) {
            *e = egress;
        }
        self.resolve();
    }

    /// Finds the places of all egress queues anew, and what to poll.
    fn resolve(&mut self) {
        for (port, egress) in self.egress.iter_mut().enumerate() {
            if let Egress::Queue(queue) = *egress {
                let place =
                    self.queues.iter().position(|q| usize::from(q.port.0) == port && q.queue == queue);
                match place.and_then(|p| u16::try_from(p).ok()) {
                    Some(place) => self.place[port] = place,
                    None => *egress = Egress::None,
                }
            }
        }
        let bell = self.links.bells[usize::from(self.index)].fd();
        let fds = self.queues.iter().filter_map(|q| q.io.fd());
        self.polls = std::iter::once(bell)
            .chain(fds)
            .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
            .collect();
    }

    pub(crate) fn stop(&mut self) {
        self.stop = true;
    }

    /// Its numbers, and those of its queues.
    pub(crate) fn report(&mut self) -> (WorkerStats, Vec<QueueReport>) {
        let lent: u64 = self.queues.iter().map(|q| u64::from(q.io.frames())).sum();
        let stats = WorkerStats {
            heartbeat: self.links.bells[usize::from(self.index)].heartbeat(),
            held: self.hold.len() as u64,
            held_fragments: self.fragments.len() as u64,
            frames_free: self.pool.len() as u64,
            frames_lent: lent,
            ..self.stats.clone()
        };
        let worker = self.index;
        let queues = self
            .queues
            .iter_mut()
            .map(|q| QueueReport { port: q.port, queue: q.queue, worker, stats: q.io.stats() })
            .collect();
        (stats, queues)
    }

    /// Counts every frame that it has, at a moment when no worker moves any.
    pub(crate) fn audit(&mut self, seen: &crate::audit::Round) {
        use crate::audit::Place;
        for frame in &self.pool {
            seen.report(self.area.number(frame), Place::Free);
        }
        for queue in &self.queues {
            queue.io.each_frame(&mut |number| seen.report(number, Place::Lent));
        }
        for frame in self.hold.frames().chain(self.fragments.frames()).chain(&self.batch) {
            seen.report(self.area.number(frame), Place::Held);
        }
        // A ring cannot be looked through, only emptied: what it holds is taken in and passed on. The
        // other workers stand still, so nothing is added meanwhile.
        self.take_returned_into(|area, frame| seen.report(area.number(frame), Place::Ring));
        for ring in &mut self.links.handover_in {
            let n = ring.slots();
            if let Ok(chunk) = ring.read_chunk(n) {
                let (a, b) = chunk.as_slices();
                for passed in a.iter().chain(b) {
                    let (Passed::Process(frame) | Passed::Transmit(frame, _)) = passed;
                    seen.report(self.area.number(frame), Place::Ring);
                }
                // Not committed: everything stays in the ring.
            }
        }
    }
}
