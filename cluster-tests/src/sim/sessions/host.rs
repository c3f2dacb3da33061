//! One end of a TCP connection, as a host of the simulation: it sends one thing at a time and repeats it
//! until that is acknowledged.

use super::frame::{ACK, RST, SYN, Segment};

/// How often a host repeats itself before it gives up.
const TRIES: u32 = 14;
/// Longest pause between two repetitions, in microseconds.
const PAUSE_MAX: u64 = 1_000_000;
/// The first pause.
const PAUSE: u64 = 200_000;

/// What the application at one end learns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learned {
    Nothing,
    /// What it sent has arrived.
    Acknowledged,
    /// The connection was reset.
    Reset,
}

/// One end.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// Next sequence number to send, and the next one expected.
    next: u32,
    expects: u32,
    /// Whether it has sent anything, and whether the other's SYN has come.
    begun: bool,
    synchronized: bool,
    /// What is not acknowledged yet.
    open: Option<Segment>,
    tries: u32,
    /// Whether it has given up.
    pub(super) gave_up: bool,
}

impl End {
    pub(super) fn new(first: u32) -> Self {
        End { next: first, ..End::default() }
    }

    /// Whether it expects what the other end will never send: the lives of a flow are far apart.
    pub(super) fn is_beside(&self, other: &End) -> bool {
        let off = self.expects.wrapping_sub(other.next) as i32;
        self.synchronized && off.unsigned_abs() > 0x0400_0000
    }

    /// Whether it waits for an acknowledgement.
    pub(super) fn is_waiting(&self) -> bool {
        self.open.is_some()
    }

    /// Sends something new; nothing may be open.
    pub(super) fn send(&mut self, flags: u8, len: u16) -> Segment {
        let flags = if self.synchronized { flags | ACK } else { flags };
        let segment = Segment { flags, seq: self.next, ack: self.acknowledged(), len };
        self.next = self.next.wrapping_add(segment.space());
        self.tries = 0;
        self.begun = true;
        self.open = Some(segment);
        segment
    }

    /// A reset exactly where the other end expects it.
    pub(super) fn reset(&mut self) -> Segment {
        self.open = None;
        Segment { flags: RST | ACK, seq: self.next, ack: self.acknowledged(), len: 0 }
    }

    fn acknowledged(&self) -> u32 {
        if self.synchronized { self.expects } else { 0 }
    }

    /// Repeats what is open, if the host has not had enough; says when to come again.
    pub(super) fn repeat(&mut self) -> Option<(Segment, u64)> {
        let open = self.open.as_mut()?;
        self.tries += 1;
        if self.tries > TRIES {
            self.gave_up = true;
            self.open = None;
            return None;
        }
        if self.synchronized {
            open.flags |= ACK;
            open.ack = self.expects;
        }
        Some((*open, (PAUSE << self.tries.min(4)).min(PAUSE_MAX)))
    }

    /// When to look for the first repetition.
    pub(super) fn first_pause() -> u64 {
        PAUSE
    }

    /// Takes a segment; what to answer, and what the application learns.
    pub(super) fn take(&mut self, segment: &Segment) -> (Option<Segment>, Learned) {
        if segment.has(RST) {
            self.open = None;
            return (None, Learned::Reset);
        }
        let mut learned = Learned::Nothing;
        if let Some(open) = self.open
            && segment.has(ACK)
            && segment.ack == self.next
        {
            // A SYN that crosses another is acknowledged by the answer to it.
            debug_assert!(open.space() > 0);
            self.open = None;
            learned = Learned::Acknowledged;
        }
        if segment.has(SYN) && !self.synchronized {
            self.synchronized = true;
            self.expects = segment.seq.wrapping_add(1);
            return (Some(self.answer_syn()), learned);
        }
        if segment.space() == 0 {
            return (None, learned);
        }
        if segment.seq == self.expects {
            self.expects = self.expects.wrapping_add(segment.space());
        }
        (Some(self.plain_ack()), learned)
    }

    fn plain_ack(&self) -> Segment {
        Segment { flags: ACK, seq: self.next, ack: self.expects, len: 0 }
    }

    /// A listener answers a SYN with its own; who has sent a SYN of its own acknowledges the other's.
    fn answer_syn(&mut self) -> Segment {
        match self.open {
            Some(mine) if mine.has(SYN) => {
                Segment { flags: SYN | ACK, seq: mine.seq, ack: self.expects, len: 0 }
            }
            _ if !self.begun => self.send(SYN, 0),
            _ => self.plain_ack(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FIN;
    use super::*;

    #[test]
    fn two_ends_open_say_something_and_close() {
        let (mut a, mut b) = (End::new(100), End::new(900));
        let syn = a.send(SYN, 0);
        let (syn_ack, _) = b.take(&syn);
        let (ack, learned) = a.take(&syn_ack.unwrap());
        assert_eq!(learned, Learned::Acknowledged);
        assert_eq!(b.take(&ack.unwrap()), (None, Learned::Acknowledged));
        for (flags, len) in [(0, 300), (FIN, 0)] {
            let said = b.send(flags, len);
            // Repeated, it is acknowledged again and moves nothing.
            let (ack, _) = a.take(&said);
            assert_eq!(a.take(&b.repeat().unwrap().0).0, ack);
            assert_eq!(b.take(&ack.unwrap()).1, Learned::Acknowledged);
            assert!(!b.is_waiting());
        }
    }

    #[test]
    fn two_ends_that_open_at_once_are_connected() {
        let (mut a, mut b) = (End::new(100), End::new(900));
        let (from_a, from_b) = (a.send(SYN, 0), b.send(SYN, 0));
        let (to_b, to_a) = (a.take(&from_b).0.unwrap(), b.take(&from_a).0.unwrap());
        assert_eq!(a.take(&to_a).1, Learned::Acknowledged);
        assert_eq!(b.take(&to_b).1, Learned::Acknowledged);
    }
}
