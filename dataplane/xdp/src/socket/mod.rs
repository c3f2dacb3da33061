//! One AF_XDP socket on one queue of one port: `afxdp` made sound.
//!
//! What that crate leaves open, and how it is closed here:
//!
//! - Its buffers know nothing of who has them. A [`Ledger`] says which frames the rings have; what a
//!   ring hands out must be in it (see [`crate::area`]).
//! - Its rings must not be touched after the socket is gone, and the socket's teardown reads the fill
//!   and completion rings. All live in one [`XskQueue`], whose fields fall in the right order.
//! - It hides the descriptor: found as the one AF_XDP socket that a creation adds to /proc/self/fd,
//!   under a process-wide lock.
//! - It panics when a kick finds the device deleted. That one call is caught; see `send_staged`.
//! - Its errors are negative numbers, and a kick says nothing of what it left in the ring (a copy-mode
//!   kick sends 32 frames): [`PacketIo::flush`] kicks by itself until the ring is drained.

mod quiet;
mod rings;

pub use rings::RingSizes;

use crate::area::{Area, PortFrame, RawArea, RawBuffer, Tag};
use crate::error::PortError;
use crate::io::{Batch, PacketIo};
use crate::ledger::Ledger;
use crate::port::PortInfo;
use crate::stats::QueueStats;
use crate::sys::{self, Kick};
use afxdp::PENDING_LEN;
use afxdp::socket::{Socket, SocketNewError, SocketOptions, SocketRx, SocketTx};
use afxdp::umem::{Umem, UmemCompletionQueue, UmemFillQueue, UmemNewError};
use arraydeque::{ArrayDeque, Wrapping};
use quiet::{expect_panic, install_panic_filter};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_dataplane::engine::{BATCH_MAX, Frame};
use tidegate_dataplane::route::PortId;

/// Frames of one kick in copy mode on kernels that cannot be told otherwise (`TX_BATCH_SIZE`).
const KICK_FRAMES: usize = 32;
/// Frames that move between pool and fill ring at once, so that its shared lines are touched rarely.
const FILL_STEP: u32 = 32;
/// A socket on a queue that another has just left is refused for a moment: waited for, this long.
const REBIND_WAITS_MS: [u64; 8] = [2, 5, 10, 25, 50, 100, 250, 500];

/// The descriptor of a new socket is told by comparison, so one is made at a time.
static CREATION: Mutex<()> = Mutex::new(());

type Queue = Box<ArrayDeque<[RawBuffer; PENDING_LEN], Wrapping>>;

/// A bound socket with its rings.
pub struct XskQueue {
    // The order of the first six is the order of teardown: the socket goes with the last of `rx`, `tx`
    // and `_socket`, and reads the rings of `fill` and `completion` while it does.
    rx: SocketRx<'static, Tag>,
    tx: SocketTx<'static, Tag>,
    _socket: Arc<Socket<'static, Tag>>,
    completion: UmemCompletionQueue<'static, Tag>,
    fill: UmemFillQueue<'static, Tag>,
    _umem: Arc<Umem<'static, Tag>>,
    /// Owned by `_socket`.
    fd: RawFd,
    area: Arc<Area>,
    port: PortId,
    lent: Ledger,
    fill_target: u32,
    fill_lent: u32,
    tx_size: u32,
    tx_lent: u32,
    kick_frames: usize,
    /// The last kick may have left frames in the transmit ring.
    undrained: bool,
    received: Queue,
    staged: Queue,
    scratch: Vec<RawBuffer>,
    stats: QueueStats,
}

impl XskQueue {
    /// Binds a socket to a queue of a port that has our program. `frames` fill its fill ring; on an
    /// error all of them come back with it.
    pub fn open(
        area: &Arc<Area>,
        (port, info): (PortId, &PortInfo),
        queue: u32,
        rings: RingSizes,
        frames: Vec<PortFrame>,
    ) -> Result<XskQueue, (PortError, Vec<PortFrame>)> {
        install_panic_filter();
        let mut frames = frames;
        let mut waits = REBIND_WAITS_MS.iter();
        loop {
            match Self::try_open(area, (port, info), queue, rings, frames) {
                Ok(socket) => return Ok(socket),
                Err((e, back)) => {
                    let busy = matches!(&e, PortError::Socket { source, .. } if source.raw_os_error() == Some(libc::EBUSY));
                    match waits.next() {
                        Some(ms) if busy => std::thread::sleep(Duration::from_millis(*ms)),
                        _ => return Err((e, back)),
                    }
                    frames = back;
                }
            }
        }
    }

    fn try_open(
        area: &Arc<Area>,
        (port, info): (PortId, &PortInfo),
        queue: u32,
        rings: RingSizes,
        mut frames: Vec<PortFrame>,
    ) -> Result<XskQueue, (PortError, Vec<PortFrame>)> {
        let umem_error = |source| PortError::Umem { name: info.name.clone(), source };
        let (umem, completion, mut fill, fd) = match create_umem(area.raw(), rings) {
            Ok(made) => made,
            Err(e) => return Err((umem_error(e), frames)),
        };
        // Filled before bind: some drivers take their frames at that moment.
        let mut lent = Ledger::new(area.frames_total());
        let mut scratch = Vec::with_capacity(BATCH_MAX);
        lend(area, &mut fill, &mut lent, &mut frames, &mut scratch, rings.fill);
        let fill_lent = lent.len();
        let made = Socket::new(
            Arc::clone(&umem),
            &info.name,
            queue as usize,
            rings.rx,
            rings.tx,
            SocketOptions { zero_copy_mode: false, copy_mode: false, ..SocketOptions::default() },
        );
        let (socket, rx, tx) = match made {
            Ok(made) => made,
            Err(e) => {
                let source = match e {
                    SocketNewError::Create(e) => kernel_error(&e),
                    SocketNewError::RingNotPowerOfTwo => io::Error::from_raw_os_error(libc::EINVAL),
                };
                // Closes the descriptor: from here on the kernel has no frame of these rings.
                drop((fill, completion, umem));
                frames.extend(area.recover(lent));
                return Err((PortError::Socket { name: info.name.clone(), queue, source }, frames));
            }
        };
        // SAFETY: `fd` was found by comparison when the umem was made, and the socket owns it from then
        // until its teardown, which is after this borrow.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let whole_ring = sys::set_tx_budget(borrowed, rings.tx);
        let socket = XskQueue {
            rx,
            tx,
            _socket: socket,
            completion,
            fill,
            _umem: umem,
            fd,
            area: Arc::clone(area),
            port,
            lent,
            fill_target: rings.fill,
            fill_lent,
            tx_size: rings.tx,
            tx_lent: 0,
            kick_frames: if whole_ring { rings.tx as usize } else { KICK_FRAMES },
            undrained: false,
            received: Box::new(ArrayDeque::new()),
            staged: Box::new(ArrayDeque::new()),
            scratch,
            stats: QueueStats::default(),
        };
        Ok(socket)
    }

    fn borrow_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `_socket` owns this descriptor and closes it in its teardown only, which cannot come
        // before the end of this borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Gives staged frames to the transmit ring; `afxdp` kicks once a call.
    ///
    /// Its kick panics on an error that it does not expect: the device was deleted (ENXIO), or has
    /// fewer transmit queues than at bind. A firewall must outlive a deleted interface, so that panic
    /// is caught. It strikes after the ring was written and published and holds nothing half done,
    /// which is why going on is right: what left `staged` is in the ring.
    fn send_staged(&mut self) -> usize {
        for buffer in self.staged.iter() {
            self.lent.insert(number(&self.area, buffer));
        }
        let before = self.staged.len();
        let (tx, staged, most) = (&mut self.tx, &mut self.staged, self.kick_frames);
        let panicked = expect_panic(|| {
            // The result is Ok always; how many were taken is read off the queue.
            let _ = tx.try_send(staged, most);
        });
        if panicked {
            self.stats.kick_errors += 1;
        }
        for buffer in self.staged.iter() {
            self.lent.remove(number(&self.area, buffer));
        }
        before - self.staged.len()
    }
}

impl PacketIo for XskQueue {
    fn receive(&mut self, out: &mut Batch) {
        let room = out.remaining_capacity();
        if room == 0 || !matches!(self.rx.try_recv(&mut self.received, room, Tag::default()), Ok(n) if n > 0)
        {
            return;
        }
        // Draining all of it also takes the queue back to its start, which keeps it in the cache.
        for buffer in self.received.drain(..) {
            match self.area.accept(&mut self.lent, buffer) {
                Some(mut frame) => {
                    self.fill_lent = self.fill_lent.saturating_sub(1);
                    self.stats.rx_packets += 1;
                    self.stats.rx_bytes += frame.data().len() as u64;
                    frame.set_port(self.port);
                    out.push(frame);
                }
                None => self.stats.ledger_refused += 1,
            }
        }
    }

    fn transmit(&mut self, frame: PortFrame) -> Result<(), PortFrame> {
        if self.tx_lent as usize + self.staged.len() >= self.tx_size as usize {
            self.stats.tx_full += 1;
            return Err(frame);
        }
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.data().len() as u64;
        // There is room: the queue holds twice the largest ring, and `Wrapping` would push out the oldest.
        let pushed_out = self.staged.push_back(frame.0);
        debug_assert!(pushed_out.is_none());
        Ok(())
    }

    fn flush(&mut self) {
        if !self.staged.is_empty() {
            while !self.staged.is_empty() {
                let sent = self.send_staged();
                self.tx_lent += sent as u32;
                if sent == 0 {
                    break;
                }
            }
            self.undrained = true;
            if self.staged.is_empty() {
                self.staged.clear();
            }
            return;
        }
        if !self.undrained || self.tx_lent == 0 {
            self.undrained = false;
            return;
        }
        if !self.tx.needs_wakeup() {
            return;
        }
        match sys::kick_tx(self.borrow_fd()) {
            Kick::More => {}
            Kick::Drained | Kick::Gone => self.undrained = false,
            Kick::Failed => {
                self.undrained = false;
                self.stats.kick_errors += 1;
            }
        }
    }

    fn complete(&mut self, out: &mut Batch) {
        let room = out.remaining_capacity().min(self.tx_lent as usize);
        if room == 0 {
            return;
        }
        debug_assert!(self.scratch.is_empty());
        if self.completion.service(&mut self.scratch, room).is_err() {
            return;
        }
        for buffer in self.scratch.drain(..) {
            match self.area.accept(&mut self.lent, buffer) {
                Some(frame) => {
                    self.tx_lent -= 1;
                    out.push(frame);
                }
                None => self.stats.ledger_refused += 1,
            }
        }
    }

    fn fill(&mut self, pool: &mut Vec<PortFrame>) {
        let lack = self.fill_target.saturating_sub(self.fill_lent);
        if lack < FILL_STEP {
            return;
        }
        let given = lend(&self.area, &mut self.fill, &mut self.lent, pool, &mut self.scratch, lack);
        self.fill_lent += given;
        if given > 0 && self.fill.needs_wakeup() {
            sys::kick_rx(self.borrow_fd());
        }
    }

    fn starved(&self) -> bool {
        self.fill_lent < self.fill_target / 2
    }

    fn busy(&self) -> bool {
        self.undrained && self.tx_lent > 0
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.fd)
    }

    fn stats(&mut self) -> QueueStats {
        let kernel = sys::xdp_statistics(self.borrow_fd());
        QueueStats {
            fill_empty: kernel.rx_fill_ring_empty_descs,
            rx_ring_full: kernel.rx_ring_full,
            kernel_dropped: kernel.rx_dropped,
            invalid_descriptors: kernel.rx_invalid_descs + kernel.tx_invalid_descs,
            ..self.stats
        }
    }

    fn each_frame(&self, report: &mut dyn FnMut(u32)) {
        self.lent.iter().for_each(&mut *report);
        self.staged.iter().for_each(|b| report(number(&self.area, b)));
    }

    fn frames(&self) -> u32 {
        self.lent.len() + self.staged.len() as u32
    }

    fn close(mut self) -> Vec<PortFrame> {
        let mut frames: Vec<PortFrame> = self.staged.drain(..).map(PortFrame).collect();
        let area = Arc::clone(&self.area);
        let lent = std::mem::replace(&mut self.lent, Ledger::new(0));
        // Closing waits until the kernel has no packet in flight towards these rings.
        drop(self);
        frames.extend(area.recover(lent));
        frames
    }
}

/// Number of a buffer that is not in a frame at the moment.
#[inline]
fn number(area: &Area, buffer: &RawBuffer) -> u32 {
    area.buffer_number(buffer)
}

/// Moves up to `most` frames from a pool into the fill ring; how many.
fn lend(
    area: &Area,
    fill: &mut UmemFillQueue<'static, Tag>,
    lent: &mut Ledger,
    pool: &mut Vec<PortFrame>,
    scratch: &mut Vec<RawBuffer>,
    most: u32,
) -> u32 {
    let mut given = 0;
    while given < most {
        debug_assert!(scratch.is_empty());
        let step = ((most - given) as usize).min(BATCH_MAX).min(pool.len());
        if step == 0 {
            break;
        }
        for frame in pool.drain(pool.len() - step..) {
            lent.insert(number(area, &frame.0));
            scratch.push(frame.0);
        }
        // All or none: the ring takes as many as asked for, or has no room.
        let taken = fill.fill(scratch, step).unwrap_or(0);
        for buffer in scratch.drain(..) {
            lent.remove(number(area, &buffer));
            pool.push(PortFrame(buffer));
        }
        given += taken as u32;
        if taken == 0 {
            break;
        }
    }
    given
}

type UmemParts =
    (Arc<Umem<'static, Tag>>, UmemCompletionQueue<'static, Tag>, UmemFillQueue<'static, Tag>, RawFd);

/// Registers the area, and finds the descriptor that this made.
fn create_umem(area: &Arc<RawArea>, rings: RingSizes) -> io::Result<UmemParts> {
    let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
    let before = sys::xdp_sockets()?;
    let (umem, completion, fill) =
        Umem::new(Arc::clone(area), rings.tx, rings.fill).map_err(|e| match e {
            UmemNewError::Create(e) => kernel_error(&e),
            UmemNewError::RingNotPowerOfTwo => io::Error::from_raw_os_error(libc::EINVAL),
        })?;
    let after = sys::xdp_sockets()?;
    // Sockets are closed without the lock, so `before` may name some that are gone; one is new.
    let mut new = after.difference(&before);
    match (new.next(), new.next()) {
        (Some(fd), None) => {
            sys::set_cloexec(*fd)?;
            Ok((umem, completion, fill, *fd))
        }
        _ => Err(io::Error::other("cannot tell the new AF_XDP socket among /proc/self/fd")),
    }
}

/// libbpf returns `-errno`, and `afxdp` wraps it as it is.
fn kernel_error(e: &io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(n) => io::Error::from_raw_os_error(n.abs()),
        None => io::Error::other(e.to_string()),
    }
}
