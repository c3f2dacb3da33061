//! The in-memory twin of an AF_XDP queue: the same [`PacketIo`], a wire that a test holds.
//!
//! It shares the packet memory and the rules of the real one (a fill list, a transmit ring of bounded
//! size, completions that come later), so that the worker's loop runs over it unchanged.

use crate::area::Area;
use crate::area::PortFrame;
use crate::io::{Batch, PacketIo};
use crate::stats::QueueStats;
use crate::sys::EventFd;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_dataplane::engine::Frame;
use tidegate_dataplane::route::PortId;

#[derive(Debug, Default)]
struct Cable {
    to_node: VecDeque<Vec<u8>>,
    from_node: Vec<Vec<u8>>,
    stalled: bool,
}

/// The far end of a [`TwinQueue`]. Clones are the same wire.
#[derive(Clone, Debug)]
pub struct Wire {
    cable: Arc<Mutex<Cable>>,
    arrival: Arc<EventFd>,
}

impl Wire {
    /// A wire with nothing on it.
    ///
    /// # Errors
    /// When the process has no descriptor left for its wake-up.
    pub fn new() -> std::io::Result<Wire> {
        Ok(Wire { cable: Arc::default(), arrival: Arc::new(EventFd::new()?) })
    }

    /// Sends a frame to the node.
    pub fn send(&self, frame: &[u8]) {
        self.cable().to_node.push_back(frame.to_vec());
        self.arrival.wake();
    }

    /// What the node has sent since the last call.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.cable().from_node)
    }

    /// Stops, or starts again, the taking of frames from the node's transmit ring.
    pub fn stall(&self, stalled: bool) {
        self.cable().stalled = stalled;
    }

    /// Frames that the node has not taken yet.
    pub fn waiting(&self) -> usize {
        self.cable().to_node.len()
    }

    fn cable(&self) -> MutexGuard<'_, Cable> {
        self.cable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One queue of one in-memory port.
#[derive(Debug)]
pub struct TwinQueue {
    area: Arc<Area>,
    port: PortId,
    wire: Wire,
    ring_frames: usize,
    fill: Vec<PortFrame>,
    transmit: VecDeque<PortFrame>,
    completed: VecDeque<PortFrame>,
    stats: QueueStats,
}

impl TwinQueue {
    /// A queue of `port` at the end of a wire, with rings of `ring_frames` frames.
    pub fn new(area: &Arc<Area>, port: PortId, wire: Wire, ring_frames: usize) -> TwinQueue {
        TwinQueue {
            area: Arc::clone(area),
            port,
            wire,
            ring_frames,
            fill: Vec::with_capacity(ring_frames),
            transmit: VecDeque::with_capacity(ring_frames),
            completed: VecDeque::with_capacity(ring_frames),
            stats: QueueStats::default(),
        }
    }
}

impl PacketIo for TwinQueue {
    fn receive(&mut self, out: &mut Batch) {
        self.wire.arrival.clear();
        while !out.is_full() {
            let Some(packet) = self.wire.cable().to_node.pop_front() else { break };
            let Some(mut frame) = self.fill.pop() else {
                self.stats.fill_empty += 1;
                continue;
            };
            if !frame.write(&packet) {
                self.stats.kernel_dropped += 1;
                self.fill.push(frame);
                continue;
            }
            frame.set_port(self.port);
            self.stats.rx_packets += 1;
            self.stats.rx_bytes += packet.len() as u64;
            out.push(frame);
        }
        if self.wire.waiting() > 0 {
            self.wire.arrival.wake();
        }
    }

    fn transmit(&mut self, frame: PortFrame) -> Result<(), PortFrame> {
        if self.transmit.len() + self.completed.len() >= self.ring_frames {
            self.stats.tx_full += 1;
            return Err(frame);
        }
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.data().len() as u64;
        self.transmit.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) {
        let mut cable = self.wire.cable();
        if cable.stalled {
            return;
        }
        for frame in self.transmit.drain(..) {
            cable.from_node.push(frame.data().to_vec());
            self.completed.push_back(frame);
        }
    }

    fn complete(&mut self, out: &mut Batch) {
        let n = self.completed.len().min(out.remaining_capacity());
        out.extend(self.completed.drain(..n));
    }

    fn fill(&mut self, pool: &mut Vec<PortFrame>) {
        let n = (self.ring_frames - self.fill.len()).min(pool.len());
        self.fill.extend(pool.drain(pool.len() - n..));
    }

    fn starved(&self) -> bool {
        self.fill.len() < self.ring_frames / 2
    }

    fn busy(&self) -> bool {
        !self.transmit.is_empty()
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.wire.arrival.raw())
    }

    fn stats(&mut self) -> QueueStats {
        self.stats
    }

    fn each_frame(&self, report: &mut dyn FnMut(u32)) {
        for frame in self.fill.iter().chain(&self.transmit).chain(&self.completed) {
            report(self.area.number(frame));
        }
    }

    fn frames(&self) -> u32 {
        (self.fill.len() + self.transmit.len() + self.completed.len()) as u32
    }

    fn close(self) -> Vec<PortFrame> {
        self.fill.into_iter().chain(self.transmit).chain(self.completed).collect()
    }
}
