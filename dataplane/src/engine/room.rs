//! Where packets wait: copies, in memory that is allocated once.
//!
//! Bounded in packets, bytes, packets of one flow and packets of one source. What a bound means for a
//! packet is the caller's to decide: [`Room::push`] only says which one it was. Packets of a flow come out in the
//! order in which they went in. Sources are told apart by a keyed hash, and a few share a bound by chance.

use super::{Frame, OUTBOX_PACKET_MAX};
use crate::addr::Key;
use crate::fragment::FragmentNote;
use crate::route::PortId;
use crate::time::Now;

/// Bytes of one chunk: most early packets are a SYN-ACK or an ACK, which fit in one.
const CHUNK_BYTES: usize = 128;
/// Chunks that the longest packet takes: so many of the oldest may have to make room for it.
pub(super) const CHUNKS_OF_ONE_MAX: usize = OUTBOX_PACKET_MAX.div_ceil(CHUNK_BYTES);
/// Chunks: 2 MiB, touched as they are needed.
const CHUNKS: usize = 16_384;
/// Packets.
const PACKETS: usize = 4_096;
/// Packets of one flow: three initial windows of TCP (RFC 6928).
pub(super) const PER_FLOW_MAX: usize = 32;
/// Packets of one source: a quarter, so that no single one takes the place of all others.
pub(super) const PER_SOURCE_MAX: u16 = (PACKETS / 4) as u16;
const FLOW_BUCKETS: usize = 2_048;
const SOURCE_BUCKETS: usize = 4_096;

/// End of a list.
const NONE: u16 = u16::MAX;

/// Names a packet that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u16);

/// The bound that a packet meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// Packets or bytes: there is room again once the oldest has gone.
    Room,
    Flow,
    Source,
    /// Longer than anything that is ever sent.
    Length,
}

/// A packet that is to wait, and what is to be known of it.
pub(super) struct Arrival<'a, T> {
    pub(super) key: Key,
    pub(super) hash: u64,
    /// Keyed hash of its sender.
    pub(super) source: u64,
    pub(super) port: PortId,
    pub(super) note: Option<FragmentNote>,
    pub(super) until: Now,
    pub(super) tag: T,
    pub(super) data: &'a [u8],
}

#[derive(Clone, Copy)]
struct Entry<T> {
    key: Key,
    hash: u64,
    until: Now,
    note: Option<FragmentNote>,
    tag: T,
    port: PortId,
    len: u16,
    source: u16,
    chunk: u16,
    older: u16,
    /// The next in age; in a free entry the next free one.
    younger: u16,
    flow_before: u16,
    flow_behind: u16,
}

/// The store. `T` is what its user notes on a packet.
pub(super) struct Room<T> {
    entries: Box<[Entry<T>]>,
    free: u16,
    oldest: u16,
    youngest: u16,
    len: u16,
    bytes: Box<[u8]>,
    next_chunk: Box<[u16]>,
    free_chunk: u16,
    free_chunks: u16,
    /// First and last packet of each bucket of flows.
    flows: Box<[(u16, u16)]>,
    sources: Box<[u16]>,
    /// Where a packet is put together to go on.
    scratch: Box<[u8]>,
}

/// A packet that waited, on its way on.
pub(super) struct Copied<'a> {
    port: PortId,
    data: &'a mut [u8],
    note: Option<FragmentNote>,
}

impl Frame for Copied<'_> {
    fn port(&self) -> PortId {
        self.port
    }
    fn data(&self) -> &[u8] {
        self.data
    }
    fn data_mut(&mut self) -> &mut [u8] {
        self.data
    }
    fn note(&self) -> Option<FragmentNote> {
        self.note
    }
    fn set_note(&mut self, note: FragmentNote) {
        self.note = Some(note);
    }
}

impl<T: Copy> Room<T> {
    /// An empty one. `vacant` is noted where no packet is.
    pub(super) fn new(vacant: T) -> Self {
        let entry = |i: usize| Entry {
            key: Key::default(),
            hash: 0,
            until: Now(0),
            note: None,
            tag: vacant,
            port: PortId(0),
            len: 0,
            source: 0,
            chunk: NONE,
            older: NONE,
            younger: if i + 1 < PACKETS { i as u16 + 1 } else { NONE },
            flow_before: NONE,
            flow_behind: NONE,
        };
        let next_chunk = |i: usize| if i + 1 < CHUNKS { i as u16 + 1 } else { NONE };
        Room {
            entries: (0..PACKETS).map(entry).collect(),
            free: 0,
            oldest: NONE,
            youngest: NONE,
            len: 0,
            bytes: vec![0; CHUNKS * CHUNK_BYTES].into_boxed_slice(),
            next_chunk: (0..CHUNKS).map(next_chunk).collect(),
            free_chunk: 0,
            free_chunks: CHUNKS as u16,
            flows: vec![(NONE, NONE); FLOW_BUCKETS].into_boxed_slice(),
            sources: vec![0; SOURCE_BUCKETS].into_boxed_slice(),
            scratch: vec![0; OUTBOX_PACKET_MAX].into_boxed_slice(),
        }
    }

    pub(super) fn len(&self) -> u32 {
        u32::from(self.len)
    }

    /// Whether a source has as many packets here as one may have.
    pub(super) fn source_is_full(&self, source: u64) -> bool {
        self.sources[source as usize % SOURCE_BUCKETS] >= PER_SOURCE_MAX
    }

    /// Copies a packet in, as the youngest.
    pub(super) fn push(&mut self, a: Arrival<'_, T>) -> Result<(), Bound> {
        let chunks = a.data.len().div_ceil(CHUNK_BYTES).max(1);
        if a.data.len() > OUTBOX_PACKET_MAX {
            return Err(Bound::Length);
        }
        if self.source_is_full(a.source) {
            return Err(Bound::Source);
        }
        let bucket = a.hash as usize % FLOW_BUCKETS;
        if self.of_flow(&a.key, a.hash).count() >= PER_FLOW_MAX {
            return Err(Bound::Flow);
        }
        if self.free == NONE || usize::from(self.free_chunks) < chunks {
            return Err(Bound::Room);
        }
        let at = self.free;
        let source = (a.source as usize % SOURCE_BUCKETS) as u16;
        let chunk = self.store(a.data);
        let (older, flow_before) = (self.youngest, self.flows[bucket].1);
        let entry = &mut self.entries[usize::from(at)];
        self.free = entry.younger;
        *entry = Entry {
            key: a.key,
            hash: a.hash,
            until: a.until,
            note: a.note,
            tag: a.tag,
            port: a.port,
            len: a.data.len() as u16,
            source,
            chunk,
            older,
            younger: NONE,
            flow_before,
            flow_behind: NONE,
        };
        match older {
            NONE => self.oldest = at,
            older => self.entries[usize::from(older)].younger = at,
        }
        self.youngest = at;
        match flow_before {
            NONE => self.flows[bucket].0 = at,
            before => self.entries[usize::from(before)].flow_behind = at,
        }
        self.flows[bucket].1 = at;
        self.sources[usize::from(source)] += 1;
        self.len += 1;
        Ok(())
    }

    /// Writes into free chunks, of which there are enough; returns the first.
    fn store(&mut self, data: &[u8]) -> u16 {
        let first = self.free_chunk;
        let mut chunk = first;
        let mut pieces = data.chunks(CHUNK_BYTES).peekable();
        loop {
            let piece = pieces.next().unwrap_or(&[]);
            let start = usize::from(chunk) * CHUNK_BYTES;
            self.bytes[start..start + piece.len()].copy_from_slice(piece);
            self.free_chunks -= 1;
            let next = self.next_chunk[usize::from(chunk)];
            if pieces.peek().is_none() {
                self.next_chunk[usize::from(chunk)] = NONE;
                self.free_chunk = next;
                return first;
            }
            chunk = next;
        }
    }

    fn of_flow<'a>(&'a self, key: &'a Key, hash: u64) -> impl Iterator<Item = u16> + 'a {
        let first = self.flows[hash as usize % FLOW_BUCKETS].0;
        let behind = |at: &u16| Some(self.entries[usize::from(*at)].flow_behind).filter(|b| *b != NONE);
        std::iter::successors(Some(first).filter(|f| *f != NONE), behind)
            .filter(move |at| self.entries[usize::from(*at)].key == *key)
    }

    /// The packet of a flow that has waited longest.
    pub(super) fn first_of(&self, key: &Key, hash: u64) -> Option<Place> {
        self.of_flow(key, hash).next().map(Place)
    }

    /// The packet that has waited longest.
    pub(super) fn oldest(&self) -> Option<Place> {
        Some(self.oldest).filter(|at| *at != NONE).map(Place)
    }

    /// The next older one.
    pub(super) fn older(&self, place: Place) -> Option<Place> {
        Some(self.entries[usize::from(place.0)].older).filter(|at| *at != NONE).map(Place)
    }

    /// The next younger one.
    pub(super) fn younger(&self, place: Place) -> Option<Place> {
        Some(self.entries[usize::from(place.0)].younger).filter(|at| *at != NONE).map(Place)
    }

    pub(super) fn until(&self, place: Place) -> Now {
        self.entries[usize::from(place.0)].until
    }

    pub(super) fn flow(&self, place: Place) -> (Key, u64) {
        let entry = &self.entries[usize::from(place.0)];
        (entry.key, entry.hash)
    }

    pub(super) fn tag(&self, place: Place) -> T {
        self.entries[usize::from(place.0)].tag
    }

    pub(super) fn tag_mut(&mut self, place: Place) -> &mut T {
        &mut self.entries[usize::from(place.0)].tag
    }

    /// The packet, to go on. It stays here until it is removed.
    pub(super) fn take_out(&mut self, place: Place) -> Copied<'_> {
        let entry = &self.entries[usize::from(place.0)];
        let (mut chunk, len) = (entry.chunk, usize::from(entry.len));
        for piece in self.scratch[..len].chunks_mut(CHUNK_BYTES) {
            let start = usize::from(chunk) * CHUNK_BYTES;
            piece.copy_from_slice(&self.bytes[start..start + piece.len()]);
            chunk = self.next_chunk[usize::from(chunk)];
        }
        Copied { port: entry.port, data: &mut self.scratch[..len], note: entry.note }
    }

    /// Frees its place.
    pub(super) fn remove(&mut self, place: Place) {
        let entry = self.entries[usize::from(place.0)];
        let link = |list: &mut Box<[Entry<T>]>, at: u16, set: &dyn Fn(&mut Entry<T>)| {
            let there = at != NONE;
            if there {
                set(&mut list[usize::from(at)]);
            }
            there
        };
        if !link(&mut self.entries, entry.older, &|e| e.younger = entry.younger) {
            self.oldest = entry.younger;
        }
        if !link(&mut self.entries, entry.younger, &|e| e.older = entry.older) {
            self.youngest = entry.older;
        }
        let bucket = entry.hash as usize % FLOW_BUCKETS;
        if !link(&mut self.entries, entry.flow_before, &|e| e.flow_behind = entry.flow_behind) {
            self.flows[bucket].0 = entry.flow_behind;
        }
        if !link(&mut self.entries, entry.flow_behind, &|e| e.flow_before = entry.flow_before) {
            self.flows[bucket].1 = entry.flow_before;
        }
        let mut last = entry.chunk;
        self.free_chunks += 1;
        while self.next_chunk[usize::from(last)] != NONE {
            last = self.next_chunk[usize::from(last)];
            self.free_chunks += 1;
        }
        self.next_chunk[usize::from(last)] = self.free_chunk;
        self.free_chunk = entry.chunk;
        self.sources[usize::from(entry.source)] -= 1;
        self.len -= 1;
        self.entries[usize::from(place.0)].younger = self.free;
        self.free = place.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn arrival(flow: u16, source: u64, data: &[u8], tag: u32) -> Arrival<'_, u32> {
        let key = Key { low_port: flow, ..Key::default() };
        Arrival {
            key,
            hash: u64::from(flow % 7), // long chains: flows of one bucket must not mix
            source,
            port: PortId(3),
            note: None,
            until: Now(u64::from(tag)),
            tag,
            data,
        }
    }

    /// Red when a list is linked wrongly, chunks leak, or a copy is not what went in: compared with a plain
    /// queue over thousands of random steps.
    #[test]
    fn it_is_a_queue_by_age_and_by_flow() {
        let mut room = Room::new(0);
        let mut model: VecDeque<(u16, u32, Vec<u8>)> = VecDeque::new();
        let mut random = 0x9e37_79b9_u64;
        let mut draw = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % n
        };
        for step in 0..40_000u32 {
            let flow = draw(300) as u16;
            if draw(5) < 3 {
                let data = vec![step as u8; draw(1792) as usize + 1];
                let of_flow = model.iter().filter(|m| m.0 == flow).count();
                let got = room.push(arrival(flow, u64::from(flow), &data, step));
                if of_flow >= PER_FLOW_MAX {
                    assert_eq!(got, Err(Bound::Flow));
                } else if got.is_ok() {
                    model.push_back((flow, step, data));
                } else {
                    assert_eq!(got, Err(Bound::Room));
                    let bytes: usize = model.iter().map(|m| m.2.len().div_ceil(CHUNK_BYTES)).sum();
                    assert!(bytes + data.len().div_ceil(CHUNK_BYTES) > CHUNKS || model.len() == PACKETS);
                }
            } else if draw(2) == 0 {
                let Some(place) = room.oldest() else { continue };
                let (_, tag, data) = model.pop_front().unwrap();
                assert_eq!(room.tag(place), tag);
                assert_eq!(room.take_out(place).data(), data);
                room.remove(place);
            } else {
                let key = Key { low_port: flow, ..Key::default() };
                let at = model.iter().position(|m| m.0 == flow);
                let place = room.first_of(&key, u64::from(flow % 7));
                assert_eq!(place.map(|p| room.tag(p)), at.map(|at| model[at].1));
                let (Some(place), Some(at)) = (place, at) else { continue };
                assert_eq!(room.take_out(place).data(), model[at].2);
                room.remove(place);
                model.remove(at);
            }
            assert_eq!(room.len() as usize, model.len());
        }
        while let Some(place) = room.oldest() {
            assert_eq!(Some(room.tag(place)), model.pop_front().map(|m| m.1));
            room.remove(place);
        }
        assert_eq!((room.len(), usize::from(room.free_chunks)), (0, CHUNKS));
    }

    /// Red when one source can take all places, or its bound outlives its packets.
    #[test]
    fn a_source_has_a_quarter() {
        let mut room = Room::new(0);
        for n in 0..PER_SOURCE_MAX {
            assert_eq!(room.push(arrival(n, 5, &[1; 60], 0)), Ok(()));
        }
        assert_eq!(room.push(arrival(9999, 5, &[1; 60], 0)), Err(Bound::Source));
        assert_eq!(room.push(arrival(9999, 6, &[1; 60], 0)), Ok(()));
        let oldest = room.oldest().unwrap();
        room.remove(oldest);
        assert_eq!(room.push(arrival(9998, 5, &[1; 60], 0)), Ok(()));
        assert_eq!(room.push(arrival(1, 7, &[1; OUTBOX_PACKET_MAX + 1], 0)), Err(Bound::Length));
    }
}
