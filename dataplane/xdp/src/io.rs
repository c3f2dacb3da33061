//! What a worker needs of one queue of one port: [`PacketIo`], with AF_XDP behind it
//! ([`crate::socket`]) or an in-memory twin ([`crate::twin`]).

use crate::area::PortFrame;
use crate::stats::QueueStats;
use arrayvec::ArrayVec;
use std::os::fd::RawFd;
use tidegate_dataplane::engine::BATCH_MAX;

/// Frames of one batch.
pub type Batch = ArrayVec<PortFrame, BATCH_MAX>;

/// Receive, transmit and memory side of one queue of one port. Owned by one worker.
///
/// Frames that are inside (lent to the kernel, staged for transmission) stay accounted for: they
/// come out through [`PacketIo::receive`], [`PacketIo::complete`] or [`PacketIo::close`].
pub trait PacketIo: Send + Sized + 'static {
    /// Takes received frames until `out` is full or none is left. Never blocks.
    fn receive(&mut self, out: &mut Batch);

    /// Stages a frame for [`PacketIo::flush`]. Given back when the transmit ring is full.
    fn transmit(&mut self, frame: PortFrame) -> Result<(), PortFrame>;

    /// Sends what is staged, and what an earlier kick left in the ring.
    fn flush(&mut self);

    /// Takes frames that were sent, at most one batch.
    fn complete(&mut self, out: &mut Batch);

    /// Lends frames from the pool for receiving, as many as the fill ring lacks.
    fn fill(&mut self, pool: &mut Vec<PortFrame>);

    /// Whether the kernel has too few frames to receive into.
    fn starved(&self) -> bool;

    /// Whether something is under way that no poll reports: the worker comes back soon.
    fn busy(&self) -> bool;

    /// What to poll for reading, if it has one.
    fn fd(&self) -> Option<RawFd>;

    /// Counters since it was opened.
    fn stats(&mut self) -> QueueStats;

    /// Reports the number of every frame inside.
    fn each_frame(&self, report: &mut dyn FnMut(u32));

    /// Frames inside.
    fn frames(&self) -> u32;

    /// Ends it, and hands back every frame that was inside. May block.
    fn close(self) -> Vec<PortFrame>;
}
