//! The packet memory: one area for all ports, cut into frames, each of which exists exactly once.
//!
//! `afxdp` does not tie a buffer to its area, and its rings swallow buffers by address. This module
//! and [`crate::socket`] are the only ones that know its buffers; the rest of the crate moves
//! [`PortFrame`]s, which can be neither made, copied nor taken apart outside.
//!
//! The area is mapped once and never unmapped: the kernel may write to it as long as any socket
//! lives, and nothing would be won by taking it away before the process ends. So no frame can
//! outlive its memory.

use crate::error::AreaError;
use crate::ledger::Ledger;
use afxdp::buf::Buf;
use afxdp::buf_mmap::BufMmap;
use afxdp::mmap_area::{MmapArea, MmapAreaOptions};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex};
use tidegate_dataplane::engine::Frame;
use tidegate_dataplane::fragment::FragmentNote;
use tidegate_dataplane::route::PortId;

/// Bytes at the start of each frame that belong to the driver (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// What travels with a frame in user space. Lost, and of no use, while the kernel has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tag {
    port: u8,
    note: Option<FragmentNote>,
}

pub(crate) type RawBuffer = BufMmap<'static, Tag>;
pub(crate) type RawArea = MmapArea<'static, Tag>;

/// A packet in the memory area, owned by whoever holds this. It is moved, never copied; dropping
/// one outside of a pool would lose its memory, so the crate's own code never does (see the audit).
#[derive(Debug)]
pub struct PortFrame(pub(crate) RawBuffer);

impl PortFrame {
    /// Marks the port that it came in by; whatever was noted on the packet before it is gone.
    #[inline]
    pub(crate) fn set_port(&mut self, port: PortId) {
        *self.0.get_user_mut() = Tag { port: port.0, note: None };
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        usize::from(self.0.get_capacity())
    }

    /// Sets the number of bytes on the wire; at most the capacity.
    #[inline]
    pub(crate) fn set_len(&mut self, len: usize) {
        self.0.set_len(len.min(self.capacity()) as u16);
    }

    /// Overwrites it with a packet. Returns false, and leaves it alone, when that does not fit.
    #[inline]
    pub(crate) fn write(&mut self, packet: &[u8]) -> bool {
        if packet.len() > self.capacity() {
            return false;
        }
        self.0.get_data_mut()[..packet.len()].copy_from_slice(packet);
        self.set_len(packet.len());
        true
    }
}

impl Frame for PortFrame {
    #[inline]
    fn port(&self) -> PortId {
        PortId(self.0.get_user().port)
    }

    #[inline]
    fn data(&self) -> &[u8] {
        &self.0.get_data()[..usize::from(self.0.get_len())]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.0.get_len());
        &mut self.0.get_data_mut()[..len]
    }

    #[inline]
    fn note(&self) -> Option<FragmentNote> {
        self.0.get_user().note
    }

    #[inline]
    fn set_note(&mut self, note: FragmentNote) {
        self.0.get_user_mut().note = Some(note);
    }
}

/// How the memory is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaConfig {
    /// Workers, each with a pool of its own.
    pub workers: u16,
    /// Frames of each worker's pool.
    pub frames_per_worker: u32,
    /// Bytes of a frame, headroom included: 2048 (an MTU up to 1,778) or 4096 (up to 3,826).
    pub frame_bytes: u32,
}

/// The memory area. Shared by all sockets and workers.
pub struct Area {
    raw: Arc<RawArea>,
    base: usize,
    config: AreaConfig,
    frame_shift: u32,
    /// A bitwise copy of each frame's buffer as it was made, to mint a frame anew that the kernel
    /// had when its socket was closed. Never read as a buffer before that.
    prototypes: Mutex<Box<[MaybeUninit<RawBuffer>]>>,
}

impl Area {
    /// Maps the memory and makes all frames: for each worker its pool, in order.
    pub fn new(config: AreaConfig) -> Result<(Arc<Area>, Vec<Vec<PortFrame>>), AreaError> {
        if !matches!(config.frame_bytes, 2048 | 4096) {
            return Err(AreaError::FrameBytes(config.frame_bytes));
        }
        let total = config
            .frames_per_worker
            .checked_mul(u32::from(config.workers))
            .filter(|n| *n > 0 && *n <= 1 << 22)
            .ok_or(AreaError::Frames)?;
        let (raw, buffers) =
            RawArea::new(total as usize, config.frame_bytes as usize, MmapAreaOptions::default())
                .map_err(|_| AreaError::Map { bytes: u64::from(total) * u64::from(config.frame_bytes) })?;
        // Never unmapped, see the module's opening.
        std::mem::forget(Arc::clone(&raw));
        let prototypes = buffers
            .iter()
            .map(|b| {
                let mut copy = MaybeUninit::uninit();
                // SAFETY: `b` is a valid, initialized buffer and `copy` has its size and alignment. The
                // copy is held as uninitialized memory, so no second `&mut` to the frame exists; it
                // becomes a buffer in `mint` alone, under the condition stated there. A buffer has no
                // destructor that frees anything.
                unsafe { std::ptr::copy_nonoverlapping(b, MaybeUninit::as_mut_ptr(&mut copy), 1) };
                copy
            })
            .collect();
        let base = raw.get_ptr() as usize;
        let frame_shift = config.frame_bytes.trailing_zeros();
        let area = Area { raw, base, config, frame_shift, prototypes: Mutex::new(prototypes) };
        let mut pools: Vec<Vec<PortFrame>> =
            (0..config.workers).map(|_| Vec::with_capacity(config.frames_per_worker as usize)).collect();
        for (i, buffer) in buffers.into_iter().enumerate() {
            pools[i / config.frames_per_worker as usize].push(PortFrame(buffer));
        }
        Ok((Arc::new(area), pools))
    }

    /// How it was cut.
    pub fn config(&self) -> AreaConfig {
        self.config
    }

    /// Frames in it.
    pub fn frames_total(&self) -> u32 {
        self.config.frames_per_worker * u32::from(self.config.workers)
    }

    /// Bytes that one frame holds.
    pub fn frame_capacity(&self) -> usize {
        self.config.frame_bytes as usize - HEADROOM
    }

    /// The worker whose pool a frame belongs to.
    #[inline]
    pub(crate) fn home(&self, frame: &PortFrame) -> u16 {
        (self.number(frame) / self.config.frames_per_worker) as u16
    }

    /// The numbers of the frames of a worker's pool.
    pub(crate) fn frames_of(&self, worker: u16) -> std::ops::Range<u32> {
        let first = u32::from(worker) * self.config.frames_per_worker;
        first..first + self.config.frames_per_worker
    }

    /// The number of a frame: its place in the area.
    #[inline]
    pub(crate) fn number(&self, frame: &PortFrame) -> u32 {
        self.buffer_number(&frame.0)
    }

    /// The number of a buffer that a socket is about to lend.
    #[inline]
    pub(crate) fn buffer_number(&self, buffer: &RawBuffer) -> u32 {
        (self.offset(buffer) >> self.frame_shift) as u32
    }

    /// The memory that sockets register.
    pub(crate) fn raw(&self) -> &Arc<RawArea> {
        &self.raw
    }

    #[inline]
    fn offset(&self, buffer: &RawBuffer) -> usize {
        buffer.get_data().as_ptr() as usize - self.base
    }

    /// Takes a buffer that a ring handed out, if it was lent and is not a copy. `None` is a ring that
    /// names a frame which the kernel was not given: the buffer is forgotten, for the frame is
    /// somebody else's.
    #[inline]
    pub(crate) fn accept(&self, lent: &mut Ledger, buffer: RawBuffer) -> Option<PortFrame> {
        let offset = self.offset(&buffer);
        let number = (offset >> self.frame_shift) as u32;
        if !lent.remove(number) {
            return None;
        }
        let place = offset & (self.config.frame_bytes as usize - 1);
        if place == HEADROOM {
            return Some(PortFrame(buffer));
        }
        Some(self.realign(number, buffer, place))
    }

    /// A driver may put the packet elsewhere in its frame (room for metadata before it). The rings of
    /// `afxdp` only send from the usual place, so the packet moves there.
    #[cold]
    fn realign(&self, number: u32, buffer: RawBuffer, place: usize) -> PortFrame {
        let room = (self.config.frame_bytes as usize).saturating_sub(place);
        let len = usize::from(buffer.get_len()).min(room).min(self.frame_capacity());
        let port = buffer.get_user().port;
        drop(buffer);
        let start = number as usize * self.config.frame_bytes as usize;
        let base = self.raw.get_ptr().cast::<u8>();
        // SAFETY: the frame was lent and is now ours alone (`accept` saw its bit), both ranges lie
        // within it (`place + len <= frame_bytes`, `HEADROOM + len <= frame_bytes`), and `copy` allows
        // them to overlap. `start` is within the mapping because the ledger knows only frames of it.
        unsafe { std::ptr::copy(base.add(start + place), base.add(start + HEADROOM), len) };
        let mut frame = self.mint(number);
        frame.set_len(len);
        frame.set_port(PortId(port));
        frame
    }

    /// Makes the frames of a closed socket anew.
    ///
    /// The caller must have closed the socket: then the kernel reads and writes none of them, and the
    /// ledger says that nobody else has them.
    pub(crate) fn recover(&self, lent: Ledger) -> Vec<PortFrame> {
        lent.iter().map(|number| self.mint(number)).collect()
    }

    fn mint(&self, number: u32) -> PortFrame {
        let prototypes = self.prototypes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: every prototype was initialized in `new`. Reading it makes a second buffer of this
        // frame only if another one exists: both callers hold the frame's bit from a ledger, which was
        // set when the one buffer went into a kernel ring (and was consumed there), and is cleared
        // when it comes back; `Area::recover` consumes the ledger, `accept` took the bit out.
        let buffer = unsafe { prototypes[number as usize].assume_init_read() };
        PortFrame(buffer)
    }
}

impl std::fmt::Debug for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Area").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: AreaConfig = AreaConfig { workers: 2, frames_per_worker: 8, frame_bytes: 2048 };

    // Red when a pool gets frames of another, or a frame's number is computed wrong.
    #[test]
    fn every_frame_has_one_number_and_one_home() {
        let (area, pools) = Area::new(SMALL).unwrap();
        let mut seen = Ledger::new(area.frames_total());
        for (worker, pool) in pools.iter().enumerate() {
            assert_eq!(pool.len(), 8);
            for frame in pool {
                assert_eq!(usize::from(area.home(frame)), worker);
                assert!(seen.insert(area.number(frame)));
            }
        }
        assert_eq!(seen.len(), 16);
    }

    // Red when `accept` takes a buffer that was not lent: the same frame would exist twice.
    #[test]
    fn a_buffer_that_was_not_lent_is_refused() {
        let (area, mut pools) = Area::new(SMALL).unwrap();
        let mut lent = Ledger::new(area.frames_total());
        let frame = pools[0].pop().unwrap();
        let number = area.number(&frame);
        assert!(area.accept(&mut lent, frame.0).is_none());
        lent.insert(number);
        let again = area.recover(lent);
        assert_eq!(again.len(), 1);
        assert_eq!(area.number(&again[0]), number);
    }

    // Red when a packet that a driver put elsewhere in its frame is sent from the usual place as it is.
    #[test]
    fn a_packet_at_an_unusual_place_moves_to_the_usual_one() {
        let (area, mut pools) = Area::new(SMALL).unwrap();
        let mut lent = Ledger::new(area.frames_total());
        let mut frame = pools[0].pop().unwrap();
        let number = area.number(&frame);
        assert!(frame.write(&[9; 80]));
        frame.0.get_data_mut()[..80].copy_from_slice(&std::array::from_fn::<u8, 80, _>(|i| i as u8));
        lent.insert(number);
        frame.set_len(64);
        let moved = area.realign(number, frame.0, HEADROOM + 16);
        assert_eq!(moved.data().len(), 64);
        assert_eq!(moved.data()[..4], [16, 17, 18, 19]);
        assert_eq!(area.number(&moved), number);
    }

    // Red when sizes that the kernel refuses, or an area without frames, are taken.
    #[test]
    fn impossible_cuts_are_refused() {
        assert!(matches!(
            Area::new(AreaConfig { frame_bytes: 1500, ..SMALL }),
            Err(AreaError::FrameBytes(1500))
        ));
        assert!(matches!(Area::new(AreaConfig { frames_per_worker: 0, ..SMALL }), Err(AreaError::Frames)));
        assert!(matches!(
            Area::new(AreaConfig { frames_per_worker: u32::MAX, ..SMALL }),
            Err(AreaError::Frames)
        ));
    }
}
