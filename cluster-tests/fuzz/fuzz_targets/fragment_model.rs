//! What a fragment cache should do, as slowly and plainly as it can be said: lists of pieces, oldest datagram
//! first, every comparison with every piece.

use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::fragment::{Datagram, DatagramKey, FragmentNote};

/// One fragment: payload bytes `begin..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub begin: u32,
    pub end: u32,
    pub more: bool,
    pub next_header: u8,
    pub first: Option<FragmentNote>,
}

impl Part {
    /// Bytes up to the next multiple of eight belong to a fragment: nobody else can have them.
    fn overlaps(&self, other: &Part) -> bool {
        let end = |part: &Part| part.end.next_multiple_of(8);
        self.begin < end(other) && other.begin < end(self)
    }

    /// Whether no datagram has both.
    fn contradicts(&self, other: &Part) -> bool {
        self.next_header != other.next_header
            || match (self.more, other.more) {
                (true, true) => false,
                (true, false) => self.end >= other.end,
                (false, true) => other.end >= self.end,
                (false, false) => self.end != other.end,
            }
    }
}

/// What should become of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Forward(FragmentNote),
    Await { until: u64 },
    Drop(DropReason),
}

/// What should be told about a datagram whose fragments wait.
pub type Told = (Datagram, Result<FragmentNote, DropReason>);

struct Known {
    key: DatagramKey,
    since: u64,
    parts: Vec<Part>,
    /// What was or will be forwarded: all of it once the first has come.
    note: Option<FragmentNote>,
    refused: Option<DropReason>,
    waiting: usize,
    name: Option<Datagram>,
}

pub struct Model {
    pub capacity: usize,
    pub timeout_ms: u64,
    pub waiting_max: usize,
    /// Oldest first.
    known: Vec<Known>,
}

impl Model {
    pub fn new(capacity: usize, timeout_ms: u64, waiting_max: usize) -> Model {
        Model { capacity, timeout_ms, waiting_max, known: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn sweep(&mut self, now: u64) {
        let timeout_ms = self.timeout_ms;
        self.known.retain(|k| now - k.since < timeout_ms);
    }

    /// What should become of a fragment, and what should be told about others.
    pub fn check(&mut self, key: DatagramKey, part: Part, now: u64) -> (Fate, Vec<Told>) {
        let mut told = Vec::new();
        let timeout_ms = self.timeout_ms;
        self.known.retain(|k| k.key != key || now - k.since < timeout_ms);
        if !self.known.iter().any(|k| k.key == key) {
            if self.known.len() == self.capacity {
                let oldest = self.known.remove(0);
                if let Some(name) = oldest.name.filter(|_| oldest.waiting > 0) {
                    told.push((name, Err(DropReason::FragmentEvicted)));
                }
            }
            let parts = Vec::new();
            let (note, refused, waiting, name) = (None, None, 0, None);
            self.known.push(Known { key, since: now, parts, note, refused, waiting, name });
        }
        let at = self.known.iter().position(|k| k.key == key).unwrap();
        let waiting_max = self.waiting_max;
        let known = &mut self.known[at];
        if let Some(reason) = known.refused {
            return (Fate::Drop(reason), told);
        }
        if let Some(reason) = known.objection(&part) {
            if reason != DropReason::FragmentDuplicate {
                known.refused = Some(reason);
                known.tell(Err(reason), &mut told);
            }
            return (Fate::Drop(reason), told);
        }
        known.parts.push(part);
        if let Some(note) = part.first {
            known.note = Some(note);
            known.tell(Ok(note), &mut told);
        }
        let fate = match known.note {
            Some(note) => Fate::Forward(note),
            None if known.waiting == waiting_max => Fate::Drop(DropReason::FragmentQueueFull),
            None => {
                known.waiting += 1;
                Fate::Await { until: known.since + timeout_ms }
            }
        };
        if known.note.is_some() && known.is_complete() {
            self.known.remove(at);
        }
        (fate, told)
    }

    /// The name that the cache gave a datagram: always the same one.
    pub fn named(&mut self, key: DatagramKey, name: Datagram) {
        let others: Vec<_> = self.known.iter().filter(|k| k.key != key).filter_map(|k| k.name).collect();
        assert!(!others.contains(&name), "two datagrams have one name");
        let known = self.known.iter_mut().find(|k| k.key == key).unwrap();
        assert_eq!(*known.name.get_or_insert(name), name);
    }
}

impl Known {
    fn objection(&self, part: &Part) -> Option<DropReason> {
        if self.parts.iter().any(|p| p.contradicts(part)) {
            return Some(DropReason::FragmentInconsistent);
        }
        if self.parts.iter().any(|p| (p.begin, p.end) == (part.begin, part.end)) {
            return Some(DropReason::FragmentDuplicate);
        }
        self.parts.iter().any(|p| p.overlaps(part)).then_some(DropReason::FragmentOverlap)
    }

    fn tell(&mut self, outcome: Result<FragmentNote, DropReason>, told: &mut Vec<Told>) {
        if let Some(name) = self.name.filter(|_| self.waiting > 0) {
            told.push((name, outcome));
        }
        self.waiting = 0;
    }

    /// Whether a receiver could put it together: byte after byte, from the first to a last one.
    fn is_complete(&self) -> bool {
        let mut at = 0;
        while let Some(part) = self.parts.iter().find(|p| p.begin == at) {
            if !part.more {
                return true;
            }
            at = part.end;
        }
        false
    }
}
