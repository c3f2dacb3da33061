//! The ports of a node: opening, closing and opening again at run time, while packets flow.
//!
//! Sockets are made and closed here, in the caller's thread (closing one waits for the kernel), and
//! moved to the workers by command. Queue `q` of every port goes to worker `q % workers`; a worker
//! without a transmit queue of a port sends through one that has it.
//!
//! After every close all frames are counted: each must be found once.

use crate::area::PortFrame;
use crate::error::{PortError, WorkerError};
use crate::pipeline::Pipeline;
use crate::port::{PortInfo, PortSpec};
use crate::program::{Program, QUEUES_MAX};
use crate::socket::{RingSizes, XskQueue};
use crate::stats::{PortStats, QueueReport, QueueStats};
use crate::worker::{Egress, Queue};
use crate::workers::Workers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_dataplane::route::PortId;

struct Open {
    info: PortInfo,
    program: Program,
}

#[derive(Default)]
struct Table {
    open: BTreeMap<PortId, Open>,
    /// What the closed sockets of a port had counted, and how often it was opened.
    past: BTreeMap<PortId, (QueueStats, u64)>,
    local: BTreeSet<IpAddr>,
}

/// Opens and closes AF_XDP ports for a set of workers. Calls block (a close for some tens of
/// milliseconds): from an async runtime, call them on a blocking thread.
pub struct Ports<P: Pipeline> {
    workers: Arc<Workers<P, XskQueue>>,
    rings: RingSizes,
    table: Mutex<Table>,
}

impl<P: Pipeline> Ports<P> {
    /// No port yet.
    pub fn new(workers: Arc<Workers<P, XskQueue>>, rings: RingSizes) -> Ports<P> {
        Ports { workers, rings, table: Mutex::new(Table::default()) }
    }

    /// Opens a port: its program (a leftover of ours is replaced), then a socket for each receive
    /// queue. The interface may be down; it is ready once it comes up.
    pub fn open(&self, spec: &PortSpec) -> Result<PortInfo, PortError> {
        let mut table = self.table();
        let info = PortInfo::find(&spec.selector)?;
        if table.open.contains_key(&spec.id) {
            return Err(PortError::AlreadyOpen { name: info.name });
        }
        if let Some((_, other)) = table.open.iter().find(|(_, o)| o.info.ifindex == info.ifindex) {
            return Err(PortError::AlreadyOpen { name: other.info.name.clone() });
        }
        self.rings.check()?;
        if info.rx_queues > QUEUES_MAX {
            return Err(PortError::Queues { name: info.name, queues: info.rx_queues, most: QUEUES_MAX });
        }
        info.check_mtu(self.workers.area().config().frame_bytes)?;
        let mut program = Program::attach(&info, &table.local)?;
        let moving = self.workers.frames_moving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.open_queues(spec.id, &info) {
            // Another daemon may have the sockets, and needs its own program; if that cannot be put back,
            // ours stays and drops transit. The first error says more than a second.
            let _ = program.put_back(&info);
            return Err(error);
        }
        drop(moving);
        program.keep();
        table.past.entry(spec.id).or_default().1 += 1;
        table.open.insert(spec.id, Open { info: info.clone(), program });
        Ok(info)
    }

    /// Closes a port and takes all its frames back; the program stays on the interface, if there still
    /// is one, and drops transit. Whether the port was open.
    ///
    /// # Panics
    /// When a frame exists twice: going on would mix packets of different flows.
    pub fn close(&self, port: PortId) -> Result<bool, WorkerError> {
        let mut table = self.table();
        if table.open.remove(&port).is_none() {
            return Ok(false);
        }
        let moving = self.workers.frames_moving.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.close_queues(port)?;
        table.past.entry(port).or_default().0.add(&counted);
        let audit = self.workers.audit_now()?;
        drop(moving);
        assert_eq!(audit.duplicates, 0, "a frame of the packet memory exists twice: {audit:?}");
        if audit.is_whole() { Ok(true) } else { Err(WorkerError::Audit(audit)) }
    }

    /// What is open.
    pub fn list(&self) -> BTreeMap<PortId, PortInfo> {
        self.table().open.iter().map(|(id, open)| (*id, open.info.clone())).collect()
    }

    /// Whether a port is open, and its program is still the one on the interface.
    pub fn is_sound(&self, port: PortId) -> bool {
        self.table().open.get(&port).is_some_and(|o| o.program.is_attached(o.info.ifindex))
    }

    /// Tells all programs the addresses of this node: what they pass to the kernel.
    pub fn set_local_addresses(&self, addresses: BTreeSet<IpAddr>) -> Result<(), PortError> {
        let mut table = self.table();
        for open in table.open.values_mut() {
            open.program.set_local(&addresses)?;
        }
        table.local = addresses;
        Ok(())
    }

    /// Numbers of every port that was ever open, and of each queue that is open now.
    pub fn stats(&self) -> Result<(BTreeMap<PortId, PortStats>, Vec<QueueReport>), WorkerError> {
        let table = self.table();
        let (_, queues) = self.workers.stats()?;
        let mut ports: BTreeMap<PortId, PortStats> = table
            .past
            .iter()
            .map(|(id, (total, opened))| {
                (*id, PortStats { total: *total, opened: *opened, ..PortStats::default() })
            })
            .collect();
        for queue in &queues {
            ports.entry(queue.port).or_default().total.add(&queue.stats);
        }
        for (id, open) in &table.open {
            ports.entry(*id).or_default().program = open.program.stats();
        }
        Ok((ports, queues))
    }

    /// The workers that it serves.
    pub fn workers(&self) -> &Arc<Workers<P, XskQueue>> {
        &self.workers
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_queues(&self, port: PortId, info: &PortInfo) -> Result<(), PortError> {
        let workers = u32::from(self.workers.count());
        let mut made: Vec<(u16, Queue<XskQueue>)> = Vec::new();
        for queue in 0..info.rx_queues {
            let worker = (queue % workers) as u16;
            match self.open_queue(port, info, queue, worker) {
                Ok(io) => made.push((worker, Queue { port, queue, io })),
                Err(e) => {
                    use crate::io::PacketIo;
                    let frames = made.into_iter().flat_map(|(_, q)| q.io.close()).collect();
                    self.give_home(frames)?;
                    return Err(e);
                }
            }
        }
        let senders: Vec<(u16, u32)> =
            made.iter().filter(|(_, q)| q.queue < info.tx_queues).map(|(w, q)| (*w, q.queue)).collect();
        let mut by_worker: Vec<Vec<Queue<XskQueue>>> = (0..workers).map(|_| Vec::new()).collect();
        for (worker, queue) in made {
            by_worker[usize::from(worker)].push(queue);
        }
        // All queues first, so that nobody is told to send through a worker that has none yet.
        let mut routes = Vec::new();
        for (worker, queues) in by_worker.into_iter().enumerate() {
            let worker = worker as u16;
            let own = senders.iter().find(|(w, _)| *w == worker).map(|(_, q)| Egress::Queue(*q));
            let via = senders.get(usize::from(worker) % senders.len().max(1)).map(|(w, _)| Egress::Via(*w));
            self.workers
                .call_worker(worker, move |w, _| w.install(queues, port, own.unwrap_or(Egress::None)))
                .map_err(|_| PortError::Stopped)?;
            if let (None, Some(via)) = (own, via) {
                routes.push((worker, via));
            }
        }
        for (worker, via) in routes {
            self.workers
                .call_worker(worker, move |w, _| w.install(Vec::new(), port, via))
                .map_err(|_| PortError::Stopped)?;
        }
        Ok(())
    }

    fn open_queue(
        &self,
        port: PortId,
        info: &PortInfo,
        queue: u32,
        worker: u16,
    ) -> Result<XskQueue, PortError> {
        let want = self.rings.fill as usize;
        let frames = self
            .workers
            .call_worker(worker, move |w, _| {
                let from = w.pool.len().saturating_sub(want);
                w.pool.split_off(from)
            })
            .map_err(|_| PortError::Stopped)?;
        XskQueue::open(self.workers.area(), (port, info), queue, self.rings, frames).map_err(|(e, frames)| {
            match self.give_home(frames) {
                Ok(()) => e,
                Err(stopped) => stopped,
            }
        })
    }

    fn close_queues(&self, port: PortId) -> Result<QueueStats, WorkerError> {
        use crate::io::PacketIo;
        let mut counted = QueueStats::default();
        let mut frames = Vec::new();
        for worker in 0..self.workers.count() {
            for mut queue in self.workers.call_worker(worker, move |w, _| w.remove(port))? {
                counted.add(&queue.io.stats());
                frames.extend(queue.io.close());
            }
        }
        self.workers.give_home(frames)?;
        Ok(counted)
    }

    fn give_home(&self, frames: Vec<PortFrame>) -> Result<(), PortError> {
        self.workers.give_home(frames).map_err(|_| PortError::Stopped)
    }
}
