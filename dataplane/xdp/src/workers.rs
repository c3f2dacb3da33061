//! The control side's hold on the workers: starting them, commands, numbers, the frame audit, the end.

use crate::area::{Area, AreaConfig, PortFrame};
use crate::audit::Round;
use crate::error::WorkerError;
use crate::io::PacketIo;
use crate::pipeline::Pipeline;
use crate::stats::{FrameAudit, QueueReport, WorkerStats};
use crate::sys;
use crate::worker::{Bell, EventSink, HANDOVER_RING, Idle, Links, Parts, Task, Worker};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_dataplane::time::Now;

/// Commands that may wait for one worker. A sender finds [`WorkerError::Busy`] beyond that: the
/// control side is to slow down, not to pile up.
const COMMANDS_MAX: usize = 64;
/// A worker that does not carry out a command for this long is reported as stopped.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How to run workers.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// Packet memory, and the number of workers.
    pub area: AreaConfig,
    /// CPU of each worker, in order; workers beyond the list run where the scheduler puts them.
    pub cpus: Vec<usize>,
    /// Spinning and sleeping.
    pub idle: Idle,
    /// Zero of the engines' clock.
    pub start: Instant,
}

struct Handle<P: Pipeline, Q: PacketIo> {
    tasks: SyncSender<Task<P, Q>>,
    thread: Option<JoinHandle<P>>,
}

/// All workers of a node. Shared between threads; every call blocks for microseconds at most, or as
/// long as it says.
pub struct Workers<P: Pipeline, Q: PacketIo> {
    area: Arc<Area>,
    bells: Arc<[Bell]>,
    handles: Vec<Handle<P, Q>>,
    /// Held while frames are with the control side (a port is opened or closed) or counted.
    pub(crate) frames_moving: Mutex<()>,
}

impl<P: Pipeline, Q: PacketIo> Workers<P, Q> {
    /// Starts a worker for each engine. `sink` makes the way of a worker's events to the control side.
    ///
    /// A panic in a worker ends the process: a node that forwards with half of its shards would be
    /// worse than one that is gone.
    pub fn spawn(
        config: &WorkersConfig,
        pipelines: Vec<P>,
        mut sink: impl FnMut(u16) -> EventSink,
    ) -> Result<Workers<P, Q>, WorkerError> {
        let workers = config.area.workers;
        if workers == 0 || workers > 64 {
            return Err(WorkerError::Workers(workers));
        }
        if pipelines.len() != usize::from(workers) {
            return Err(WorkerError::Pipelines { pipelines: pipelines.len(), workers });
        }
        sys::raise_memlock();
        let (area, pools) = Area::new(config.area)?;
        let start_error = |worker| move |source| WorkerError::Start { worker, source };
        let bells: Arc<[Bell]> =
            (0..workers).map(|_| Bell::new()).collect::<Result<Vec<_>, _>>().map_err(start_error(0))?.into();
        let mut links = Links::mesh(&bells, config.area.frames_per_worker, HANDOVER_RING);
        let mut handles = Vec::new();
        for (i, (pipeline, pool)) in pipelines.into_iter().zip(pools).enumerate() {
            let index = i as u16;
            let (send, tasks) = sync_channel(COMMANDS_MAX);
            let parts = Parts {
                index,
                area: Arc::clone(&area),
                pipeline,
                pool,
                links: links.remove(0),
                tasks,
                sink: sink(index),
                idle: config.idle,
            };
            let (cpu, start) = (config.cpus.get(i).copied(), config.start);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _end = EndProcessOnPanic(index);
                    if let Some(cpu) = cpu
                        && let Err(e) = sys::pin_to_cpu(cpu)
                    {
                        tracing::warn!(worker = index, cpu, "cannot bind the worker to its CPU: {e}");
                    }
                    Worker::<P, Q>::new(parts).run(start)
                })
                .map_err(start_error(index))?;
            handles.push(Handle { tasks: send, thread: Some(thread) });
        }
        Ok(Workers { area, bells, handles, frames_moving: Mutex::new(()) })
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.handles.len() as u16
    }

    /// The packet memory.
    pub fn area(&self) -> &Arc<Area> {
        &self.area
    }

    /// Wakes a worker if it sleeps: to be called after something was put where its pipeline looks. Costs next to
    /// nothing while it is awake.
    pub fn ring(&self, worker: u16) {
        if let Some(bell) = self.bells.get(usize::from(worker)) {
            bell.ring();
        }
    }

    /// Has a worker run `f` between two batches, without waiting for it. It must be short: packets
    /// wait meanwhile.
    pub fn send(&self, worker: u16, f: impl FnOnce(&mut P, Now) + Send + 'static) -> Result<(), WorkerError> {
        let handle = self.handle(worker)?;
        handle.tasks.try_send(Box::new(move |w, now| f(&mut w.pipeline, now))).map_err(|e| match e {
            TrySendError::Full(_) => WorkerError::Busy(worker),
            TrySendError::Disconnected(_) => WorkerError::Stopped(worker),
        })?;
        self.bells[usize::from(worker)].ring();
        Ok(())
    }

    /// Has a worker run `f` between two batches and waits for its result.
    pub fn call<R: Send + 'static>(
        &self,
        worker: u16,
        f: impl FnOnce(&mut P, Now) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        self.call_worker(worker, move |w, now| f(&mut w.pipeline, now))
    }

    /// [`Workers::call`] for every worker, one after the other.
    pub fn call_all<R: Send + 'static>(
        &self,
        f: impl Fn(&mut P, Now) -> R + Send + Clone + 'static,
    ) -> Result<Vec<R>, WorkerError> {
        (0..self.count()).map(|w| self.call(w, f.clone())).collect()
    }

    /// Passes through each worker's loop so far. One that stands still over a second is stuck.
    pub fn heartbeats(&self) -> Vec<u64> {
        self.bells.iter().map(Bell::heartbeat).collect()
    }

    /// Numbers of all workers and of all queues that are open.
    pub fn stats(&self) -> Result<(Vec<WorkerStats>, Vec<QueueReport>), WorkerError> {
        let mut all = (Vec::new(), Vec::new());
        for worker in 0..self.count() {
            let (stats, queues) = self.call_worker(worker, |w, _| w.report())?;
            all.0.push(stats);
            all.1.extend(queues);
        }
        Ok(all)
    }

    /// Counts all frames while every worker stands still, for a fraction of a millisecond: right after a
    /// port was closed or when an operator asks. For numbers that are read all the time,
    /// [`WorkerStats`] has them without a stop.
    pub fn frame_audit(&self) -> Result<FrameAudit, WorkerError> {
        let _moving = self.frames_moving.lock().unwrap_or_else(PoisonError::into_inner);
        self.audit_now()
    }

    /// The same, by a caller that holds `frames_moving` and no frame.
    pub(crate) fn audit_now(&self) -> Result<FrameAudit, WorkerError> {
        let round = Arc::new(Round::new(self.area.frames_total(), self.handles.len()));
        let mut answers = Vec::new();
        for worker in 0..self.count() {
            let round = Arc::clone(&round);
            answers.push((
                worker,
                self.start_call(worker, move |w, _| {
                    round.meet();
                    w.audit(&round);
                    round.meet();
                })?,
            ));
        }
        for (worker, answer) in answers {
            answer.recv_timeout(ANSWER_WAIT).map_err(|_| WorkerError::Stopped(worker))?;
        }
        Ok(round.result())
    }

    /// Stops all workers and gives the engines back. Sockets are closed; the XDP programs stay on their
    /// ports and drop transit.
    pub fn stop(mut self) -> Vec<P> {
        self.end()
    }

    fn end(&mut self) -> Vec<P> {
        for worker in 0..self.count() {
            // A worker that is gone already needs no telling.
            let _ = self.start_call(worker, |w, _| w.stop());
        }
        self.handles.iter_mut().filter_map(|h| h.thread.take()?.join().ok()).collect()
    }

    /// Has a worker do something that concerns more than its engine, and waits.
    pub(crate) fn call_worker<R: Send + 'static>(
        &self,
        worker: u16,
        f: impl FnOnce(&mut Worker<P, Q>, Now) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        let answer = self.start_call(worker, f)?;
        answer.recv_timeout(ANSWER_WAIT).map_err(|_| WorkerError::Stopped(worker))
    }

    fn start_call<R: Send + 'static>(
        &self,
        worker: u16,
        f: impl FnOnce(&mut Worker<P, Q>, Now) -> R + Send + 'static,
    ) -> Result<std::sync::mpsc::Receiver<R>, WorkerError> {
        let handle = self.handle(worker)?;
        let (reply, answer) = sync_channel(1);
        let task: Task<P, Q> = Box::new(move |w, now| {
            // Nobody waits any more: the result is of no use.
            let _ = reply.try_send(f(w, now));
        });
        handle.tasks.send(task).map_err(|_| WorkerError::Stopped(worker))?;
        self.bells[usize::from(worker)].ring();
        Ok(answer)
    }

    /// Gives frames back to the workers whose they are.
    pub(crate) fn give_home(&self, frames: Vec<PortFrame>) -> Result<(), WorkerError> {
        let mut by_home: Vec<Vec<PortFrame>> = (0..self.count()).map(|_| Vec::new()).collect();
        for frame in frames {
            by_home[usize::from(self.area.home(&frame))].push(frame);
        }
        for (worker, frames) in by_home.into_iter().enumerate().filter(|(_, f)| !f.is_empty()) {
            self.call_worker(worker as u16, move |w, _| w.pool.extend(frames))?;
        }
        Ok(())
    }

    fn handle(&self, worker: u16) -> Result<&Handle<P, Q>, WorkerError> {
        self.handles.get(usize::from(worker)).ok_or(WorkerError::Stopped(worker))
    }
}

impl<P: Pipeline, Q: PacketIo> Drop for Workers<P, Q> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends the process when its worker's thread unwinds.
struct EndProcessOnPanic(u16);

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("tidegate: worker {} panicked; ending the process (transit stays blocked)", self.0);
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::PortFrame;
    use crate::pipeline::Exchanged;
    use crate::twin::{TwinQueue, Wire};
    use crate::worker::{Egress, Queue};
    use arrayvec::ArrayVec;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tidegate_dataplane::drops::DropReason;
    use tidegate_dataplane::engine::{BATCH_MAX, Event, Outbox, Verdict};
    use tidegate_dataplane::route::PortId;

    /// Worker 0 hands everything to worker 1, which sends it by port 1. The last are what came from other
    /// nodes, and what of it was taken.
    struct HandOn(u16, Outbox, u64, Arc<[AtomicU64; 2]>);

    impl Pipeline for HandOn {
        fn process(&mut self, f: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, _: Now) {
            verdicts.clear();
            let verdict = if self.0 == 0 { Verdict::Handover(1) } else { Verdict::Transmit(PortId(1)) };
            verdicts.extend(f.iter().map(|_| verdict));
        }
        fn sweep(&mut self, _: Now) {
            self.2 += 1;
        }
        fn outbox(&mut self) -> &mut Outbox {
            &mut self.1
        }
        fn take_events(&mut self, _: &mut dyn FnMut(Event)) {}
        fn next_settled(&mut self) -> Option<tidegate_dataplane::fragment::Settled> {
            None
        }
        fn count_drop(&mut self, _: DropReason) {}
        fn neighbour_failed(&mut self, _: &PortFrame, _: Now) {}
        fn exchange(&mut self, _: Now) -> Exchanged {
            let came = self.3[0].load(Ordering::Relaxed);
            let worked = self.3[1].swap(came, Ordering::Relaxed) != came;
            Exchanged { worked, ..Exchanged::NOTHING }
        }
        fn has_mail(&self) -> bool {
            self.3[0].load(Ordering::Relaxed) != self.3[1].load(Ordering::Relaxed)
        }
    }

    fn start(sleep_ms: u32) -> (Workers<HandOn, TwinQueue>, Wire, Wire) {
        let config = WorkersConfig {
            area: AreaConfig { workers: 2, frames_per_worker: 64, frame_bytes: 2048 },
            cpus: vec![0],
            idle: Idle { spin_us: 0, sleep_ms },
            start: Instant::now(),
        };
        let engines = (0..2).map(|i| HandOn(i, Outbox::default(), 0, Arc::default())).collect();
        let workers = Workers::<HandOn, TwinQueue>::spawn(&config, engines, |_| Box::new(|_| true)).unwrap();
        let (inward, outward) = (Wire::new().unwrap(), Wire::new().unwrap());
        for (worker, wire) in [(0, &inward), (1, &outward)] {
            let port = PortId(worker as u8);
            let io = TwinQueue::new(workers.area(), port, wire.clone(), 16);
            workers
                .call_worker(worker, move |w, _| {
                    w.install(vec![Queue { port, queue: 0, io }], port, Egress::Queue(0));
                })
                .unwrap();
        }
        (workers, inward, outward)
    }

    // Red when a packet, a hand-over or a command does not wake a sleeper: each sleep lasts an hour.
    #[test]
    fn packets_handovers_and_commands_wake_sleepers() {
        let (workers, inward, outward) = start(3_600_000);
        for round in 0..200u8 {
            inward.send(&[round; 60]);
            while outward.take().is_empty() {
                std::thread::yield_now();
            }
            if round % 16 == 0 {
                // Long enough that both sleep for certain.
                std::thread::sleep(Duration::from_millis(3));
                assert_eq!(workers.call(1, |p, _| p.0).unwrap(), 1);
            }
        }
        let audit = workers.frame_audit().unwrap();
        assert!(audit.is_whole(), "{audit:?}");
        let (stats, queues) = workers.stats().unwrap();
        assert!(stats.iter().all(|s| s.sleeps > 0));
        assert_eq!((stats[0].handover_out, stats[1].handover_in), (200, 200));
        assert_eq!(queues.iter().map(|q| q.stats.tx_packets).sum::<u64>(), 200);
        assert_eq!(workers.stop().len(), 2);
    }

    // Red when a word from another node does not wake a sleeper, or one that came while it lay down is slept over.
    #[test]
    fn words_from_other_nodes_wake_a_sleeper() {
        let (workers, ..) = start(3_600_000);
        let mail = workers.call(1, |p, _| Arc::clone(&p.3)).unwrap();
        for round in 1..=2_000 {
            mail[0].store(round, Ordering::Relaxed);
            workers.ring(1);
            while mail[1].load(Ordering::Relaxed) != round {
                std::thread::yield_now();
            }
        }
        workers.ring(2);
    }

    // Red when an idle worker does not come round to sweep, or its heartbeat stands still.
    #[test]
    fn an_idle_worker_sweeps_and_beats() {
        let (workers, _inward, _outward) = start(1);
        let sweeps = || workers.call(0, |p, _| p.2).unwrap();
        let (swept, beats) = (sweeps(), workers.heartbeats());
        while sweeps() < swept + 20 || workers.heartbeats()[1] < beats[1] + 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    // Red when a command beyond the bound blocks or vanishes instead of being refused.
    #[test]
    fn commands_are_bounded() {
        let (workers, ..) = start(1);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        workers
            .send(0, move |_, _| {
                let _ = held.recv();
            })
            .unwrap();
        let refused = (0..2 * COMMANDS_MAX).find_map(|_| workers.send(0, |_, _| {}).err());
        assert!(matches!(refused, Some(WorkerError::Busy(0))));
        drop(hold);
        assert!(matches!(workers.send(7, |_, _| {}), Err(WorkerError::Stopped(7))));
    }

    // Red when a number of workers or engines that cannot work is taken.
    #[test]
    fn impossible_numbers_of_workers_are_refused() {
        let config = |workers| WorkersConfig {
            area: AreaConfig { workers, frames_per_worker: 64, frame_bytes: 2048 },
            cpus: Vec::new(),
            idle: Idle::default(),
            start: Instant::now(),
        };
        let spawn = |workers| {
            Workers::<HandOn, TwinQueue>::spawn(&config(workers), Vec::new(), |_| Box::new(|_| true)).err()
        };
        assert!(matches!(spawn(0), Some(WorkerError::Workers(0))));
        assert!(matches!(spawn(65), Some(WorkerError::Workers(65))));
        assert!(matches!(spawn(2), Some(WorkerError::Pipelines { pipelines: 0, workers: 2 })));
    }
}
