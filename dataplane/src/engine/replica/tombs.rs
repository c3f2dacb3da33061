//! Tombstones: ends by identity, in a bounded ring of their own. The oldest is overwritten first.

use crate::addr::Tuple;
use crate::session::EndReason;
use crate::session::copy::EndNote;
use crate::session::record::SessionId;
use crate::time::Now;

const NONE: u32 = u32::MAX;
/// Places for what is remembered of final ends that had to go: most identities have one of their own.
const LOST_PLACES: usize = 1 << 16;

/// One end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tomb {
    pub id: SessionId,
    pub tuple: Tuple,
    pub reason: EndReason,
    pub bits: [u8; 2],
    /// When its last packet came, as far as the decider knew; before this process, it may be.
    seen_ms: i64,
    /// When the end was heard of here, as it stands.
    pub decided_ms: u64,
    /// Number in the log; 0 when it is not told.
    pub number: u64,
    /// Peer that told of it; `None` when it was decided here.
    pub from: Option<u8>,
    next: u32,
    live: bool,
}

impl Tomb {
    pub(super) fn new(note: &EndNote, from: Option<u8>, now: Now) -> Self {
        Tomb {
            id: note.id,
            tuple: note.tuple,
            reason: note.reason,
            bits: note.bits,
            seen_ms: seen_ms(note, now),
            decided_ms: now.0,
            number: 0,
            from,
            next: NONE,
            live: true,
        }
    }

    pub(super) fn age_ms(&self, now: Now) -> u32 {
        u32::try_from((now.0 as i64 - self.seen_ms).max(0)).unwrap_or(u32::MAX)
    }

    pub(super) fn note(&self, now: Now) -> EndNote {
        EndNote {
            id: self.id,
            tuple: self.tuple,
            reason: self.reason,
            age_ms: self.age_ms(now),
            bits: self.bits,
        }
    }
}

fn seen_ms(note: &EndNote, now: Now) -> i64 {
    now.0 as i64 - i64::from(note.age_ms)
}

fn mixed(id: SessionId) -> u64 {
    (id.counter ^ u64::from(id.boot) << 32 ^ u64::from(id.origin) << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn lost_place(id: SessionId) -> usize {
    (mixed(id) >> 20) as usize % LOST_PLACES
}

/// What tells identities of one place apart.
fn fingerprint(id: SessionId) -> u32 {
    (mixed(id) >> 32) as u32 | 1
}

/// A ring of tombstones with an index by identity. Grows to its bound, never beyond.
pub(super) struct Tombs {
    ring: Vec<Tomb>,
    max: usize,
    /// Where the next one goes once the ring is full.
    at: usize,
    heads: Box<[u32]>,
    live: u32,
    /// By a hash of the identity: when the latest of the final ends was decided that had to go; 0 while none had to.
    finals_lost_ms: Box<[u64]>,
    /// By the same hash: fingerprint of the latest identity that was cleared or denied; 0 while there is none.
    revoked_lost: Box<[u32]>,
}

impl Tombs {
    pub(super) fn new(max: u32) -> Self {
        let max = max.clamp(1, 1 << 30) as usize;
        Tombs {
            ring: Vec::with_capacity(max),
            max,
            at: 0,
            heads: vec![NONE; max.next_power_of_two()].into_boxed_slice(),
            live: 0,
            finals_lost_ms: vec![0; LOST_PLACES].into_boxed_slice(),
            revoked_lost: vec![0; LOST_PLACES].into_boxed_slice(),
        }
    }

    /// If the end of that identity was final and was decided later, it is here.
    pub(super) fn final_lost_ms(&self, id: SessionId) -> u64 {
        self.finals_lost_ms[lost_place(id)]
    }

    /// Whether that very identity was cleared or denied, and its tombstone had to go. It may be forgotten, too.
    pub(super) fn is_revoked_lost(&self, id: SessionId) -> bool {
        self.revoked_lost[lost_place(id)] == fingerprint(id)
    }

    pub(super) fn live(&self) -> u32 {
        self.live
    }

    pub(super) fn bytes(&self) -> usize {
        let lost = LOST_PLACES * (size_of::<u64>() + size_of::<u32>());
        self.max * size_of::<Tomb>() + self.heads.len() * size_of::<u32>() + lost
    }

    /// Places that were ever used.
    pub(super) fn len(&self) -> u32 {
        self.ring.len() as u32
    }

    fn bucket(&self, id: SessionId) -> usize {
        (mixed(id) >> 32) as usize & (self.heads.len() - 1)
    }

    pub(super) fn get(&self, at: u32) -> Option<&Tomb> {
        self.ring.get(at as usize).filter(|t| t.live)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Tomb> {
        self.ring.get_mut(at as usize).filter(|t| t.live)
    }

    pub(super) fn set_number(&mut self, at: u32, number: u64) {
        if let Some(tomb) = self.get_mut(at) {
            tomb.number = number;
        }
    }

    /// Takes a second word about an end: what is final beats what is not, and the younger packet counts.
    pub(super) fn strengthen(&mut self, at: u32, note: &EndNote, now: Now) {
        let Some(tomb) = self.get_mut(at) else { return };
        if !tomb.reason.is_final() {
            (tomb.reason, tomb.decided_ms) = (note.reason, now.0);
        }
        tomb.seen_ms = tomb.seen_ms.max(seen_ms(note, now));
        tomb.bits = [tomb.bits[0] | note.bits[0], tomb.bits[1] | note.bits[1]];
    }

    /// Takes fact bits of a session that is superseded: they say whether rightly so.
    pub(super) fn learn(&mut self, id: SessionId, bits: [u8; 2]) {
        if let Some(tomb) = self.find(id).and_then(|at| self.get_mut(at)) {
            tomb.bits = [tomb.bits[0] | bits[0], tomb.bits[1] | bits[1]];
        }
    }

    pub(super) fn find(&self, id: SessionId) -> Option<u32> {
        let mut at = self.heads[self.bucket(id)];
        while let Some(tomb) = self.ring.get(at as usize) {
            if tomb.id == id {
                return Some(at);
            }
            at = tomb.next;
        }
        None
    }

    /// Puts one in; the identity must not be there. Returns its place, and the one that had to go.
    pub(super) fn push(&mut self, mut tomb: Tomb) -> (u32, Option<Tomb>) {
        let bucket = self.bucket(tomb.id);
        let (at, gone) = if self.ring.len() < self.max {
            self.ring.push(tomb);
            (self.ring.len() - 1, None)
        } else {
            let at = self.at;
            self.at = (at + 1) % self.max;
            let old = self.ring[at];
            if old.live {
                self.unlink(at as u32);
                if old.reason.is_final() {
                    let lost_ms = &mut self.finals_lost_ms[lost_place(old.id)];
                    *lost_ms = old.decided_ms.max(*lost_ms);
                }
                if matches!(old.reason, EndReason::Cleared | EndReason::Denied) {
                    self.revoked_lost[lost_place(old.id)] = fingerprint(old.id);
                }
            }
            (at, old.live.then_some(old))
        };
        tomb.next = self.heads[bucket];
        self.ring[at] = tomb;
        self.heads[bucket] = at as u32;
        self.live += 1;
        (at as u32, gone)
    }

    /// Takes one out: its session lives again.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<Tomb> {
        let at = self.find(id)?;
        self.unlink(at);
        let tomb = self.ring[at as usize];
        self.ring[at as usize].live = false;
        Some(tomb)
    }

    fn unlink(&mut self, at: u32) {
        let (bucket, next) = (self.bucket(self.ring[at as usize].id), self.ring[at as usize].next);
        self.live -= 1;
        if self.heads[bucket] == at {
            self.heads[bucket] = next;
            return;
        }
        let mut before = self.heads[bucket];
        while let Some(tomb) = self.ring.get_mut(before as usize) {
            if tomb.next == at {
                tomb.next = next;
                return;
            }
            before = tomb.next;
        }
    }
}
