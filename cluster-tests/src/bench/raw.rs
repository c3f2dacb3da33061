//! The floor to compare with: the `afxdp` crate alone moving frames between two ports, as its own two-link example
//! does, with the MACs written and nothing looked at.
//!
//! Runs as a program of its own (`tidegate-lab raw-forward`) in the node's namespace until it is killed: that crate
//! is only sound while its memory area lives, which here is as long as the process.

use std::sync::Arc;

use crate::LabError;
use crate::sys::pin;
use afxdp::PENDING_LEN;
use afxdp::buf::Buf;
use afxdp::buf_mmap::BufMmap;
use afxdp::mmap_area::{MmapArea, MmapAreaOptions};
use afxdp::socket::{Socket, SocketOptions, SocketRx, SocketTx};
use afxdp::umem::{Umem, UmemCompletionQueue, UmemFillQueue};
use arraydeque::{ArrayDeque, Wrapping};

/// The example's sizes.
const RING_SIZE: u32 = 2048;
const BATCH: usize = 64;
const FRAMES: usize = 16_384;
const FRAME_BYTES: usize = 2048;

/// Nothing travels with a frame.
#[derive(Debug, Default, Clone, Copy)]
struct Nothing;

type Frame = BufMmap<'static, Nothing>;
type Queue = ArrayDeque<[Frame; PENDING_LEN], Wrapping>;

/// A port, and what frames that leave by it carry.
#[derive(Debug, Clone)]
pub struct RawPort {
    /// Interface in the namespace that we run in.
    pub ifname: String,
    /// Destination MAC.
    pub destination: [u8; 6],
    /// Source MAC.
    pub source: [u8; 6],
}

struct Side {
    completed: UmemCompletionQueue<'static, Nothing>,
    fill: UmemFillQueue<'static, Nothing>,
    rx: SocketRx<'static, Nothing>,
    tx: SocketTx<'static, Nothing>,
    lacking: usize,
    received: Box<Queue>,
    macs: [u8; 12],
}

/// Forwards between two ports on one CPU, spinning, until the process is killed.
pub fn forward(ports: [RawPort; 2], cpu: usize) -> Result<(), LabError> {
    pin(cpu)?;
    let options = MmapAreaOptions { huge_tlb: false };
    let (area, mut pool) =
        MmapArea::new(FRAMES, FRAME_BYTES, options).map_err(|error| failed("map memory", error))?;
    let [first, second] = ports;
    let mut sides = [open(&area, &first, &mut pool)?, open(&area, &second, &mut pool)?];
    loop {
        for from in 0..2 {
            turn(&mut sides, from, &mut pool)?;
        }
    }
}

fn open(
    area: &Arc<MmapArea<'static, Nothing>>,
    port: &RawPort,
    pool: &mut Vec<Frame>,
) -> Result<Side, LabError> {
    let (umem, completed, mut fill) =
        Umem::new(area.clone(), RING_SIZE, RING_SIZE).map_err(|error| failed("register memory", error))?;
    fill.fill(pool, RING_SIZE as usize).map_err(|error| failed("fill", error))?;
    let options = SocketOptions::default();
    let (_socket, rx, tx) = Socket::new(umem, &port.ifname, 0, RING_SIZE, RING_SIZE, options)
        .map_err(|error| failed("bind", error))?;
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&port.destination);
    macs[6..].copy_from_slice(&port.source);
    Ok(Side { completed, fill, rx, tx, lacking: 0, received: Box::new(ArrayDeque::new()), macs })
}

fn turn(sides: &mut [Side; 2], from: usize, pool: &mut Vec<Frame>) -> Result<(), LabError> {
    let [first, second] = sides;
    let (here, there) = if from == 0 { (first, second) } else { (second, first) };
    here.completed.service(pool, BATCH).map_err(|error| failed("complete", error))?;
    let received =
        here.rx.try_recv(&mut here.received, BATCH, Nothing).map_err(|error| failed("receive", error))?;
    here.lacking += received;
    if received == 0 && here.fill.needs_wakeup() {
        here.rx.wake();
    }
    for frame in here.received.iter_mut() {
        if let Some(macs) = frame.get_data_mut().first_chunk_mut::<12>() {
            *macs = there.macs;
        }
    }
    if !here.received.is_empty() {
        there.tx.try_send(&mut here.received, BATCH).map_err(|error| failed("send", error))?;
    }
    if here.lacking >= BATCH {
        here.lacking -= here.fill.fill(pool, here.lacking).map_err(|error| failed("fill", error))?;
    }
    Ok(())
}

fn failed(what: &str, error: impl std::fmt::Debug) -> LabError {
    LabError::Check(format!("afxdp cannot {what}: {error:?}"))
}
