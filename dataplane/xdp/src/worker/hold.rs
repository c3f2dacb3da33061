//! Frames that wait until the MAC of their next hop is known.

use crate::area::PortFrame;
use crate::io::Batch;
use arrayvec::ArrayVec;
use tidegate_dataplane::addr::Addr;
use tidegate_dataplane::engine::BATCH_MAX;
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::time::Now;

/// Most frames that wait in one worker: what one batch can try again. The next one is dropped as
/// `neighbour_queue_full`; its sender will send it again.
pub(super) const HELD_MAX: usize = BATCH_MAX;
/// Most that wait for the same next hop, so that one dead host cannot take all places. A burst of new
/// connections to one server that is not known yet fits: what is dropped here costs its sender a second.
pub(super) const HELD_PER_HOP: usize = HELD_MAX / 2;
/// A frame that waited this long is dropped as `neighbour_unresolved`: the kernel asks three times a
/// second apart, but the first answer or none is what a sender will wait for.
pub(super) const HELD_MS: u64 = 1_000;
/// Frames are tried again after each command (new routes come by one), and at this pace anyway.
pub(super) const RETRY_MS: u64 = 100;

type NextHop = (PortId, Addr);

struct Held {
    frame: PortFrame,
    next_hop: NextHop,
    since: Now,
}

/// The bounded queue.
#[derive(Default)]
pub(super) struct Hold {
    waiting: ArrayVec<Held, HELD_MAX>,
}

impl Hold {
    /// Adds a frame. Given back when all places, or those of its next hop, are taken.
    pub(super) fn push(&mut self, frame: PortFrame, next_hop: NextHop, since: Now) -> Result<(), PortFrame> {
        let same = self.waiting.iter().filter(|h| h.next_hop == next_hop).count();
        if self.waiting.is_full() || same >= HELD_PER_HOP {
            return Err(frame);
        }
        self.waiting.push(Held { frame, next_hop, since });
        Ok(())
    }

    /// Takes all frames out, in the order they came, with the time since which each has waited.
    pub(super) fn take(&mut self, frames: &mut Batch, since: &mut ArrayVec<Now, BATCH_MAX>) {
        for held in self.waiting.drain(..) {
            frames.push(held.frame);
            since.push(held.since);
        }
    }

    /// Takes every frame out that has waited too long.
    pub(super) fn take_expired(&mut self, now: Now, out: &mut Batch) {
        let mut i = 0;
        while i < self.waiting.len() {
            if now.since(self.waiting[i].since) >= HELD_MS {
                out.push(self.waiting.remove(i).frame);
            } else {
                i += 1;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &PortFrame> {
        self.waiting.iter().map(|h| &h.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::{Area, AreaConfig};

    // Red without the bound for each next hop, or without the one for all.
    #[test]
    fn places_are_bounded_by_hop_and_in_all() {
        let (_area, mut pools) =
            Area::new(AreaConfig { workers: 1, frames_per_worker: 128, frame_bytes: 2048 }).unwrap();
        let mut hold = Hold::default();
        let hop = |n: u8| (PortId(0), Addr::from(std::net::IpAddr::from([10, 0, 0, n])));
        for n in 0..HELD_PER_HOP {
            let frame = pools[0].pop().unwrap();
            assert!(hold.push(frame, hop(1), Now(n as u64)).is_ok());
        }
        assert!(hold.push(pools[0].pop().unwrap(), hop(1), Now(9)).is_err());
        for n in HELD_PER_HOP..HELD_MAX {
            let frame = pools[0].pop().unwrap();
            assert!(hold.push(frame, hop((2 + n / HELD_PER_HOP) as u8), Now(n as u64)).is_ok());
        }
        assert!(hold.push(pools[0].pop().unwrap(), hop(200), Now(99)).is_err());
        let mut expired = Batch::new();
        hold.take_expired(Now(HELD_MS + 3), &mut expired);
        assert_eq!(expired.len(), 4, "those of 0 to 3 ms");
        assert_eq!(hold.len(), HELD_MAX - 4);
    }
}
