//! Fragments on their way through the engine.
//!
//! A later fragment has no ports, so it cannot say whose its flow is. Each datagram has a *home*, the
//! worker that a keyed hash of its addresses and identification names; there every fragment of it is
//! checked against the others and learns the ports of the first. These are noted on the frame, and with
//! the note it goes the way of any packet of its flow, at the flow's own worker. A frame without a note
//! goes to its home and nowhere else, one with a note to its flow's worker and nowhere else: no
//! hand-over can loop.

use super::process::{NoWay, Work, shard_of};
use super::{Engine, Frame, Verdict};
use crate::addr::{Key, Tuple};
use crate::drops::DropReason;
use crate::fragment::{Checked, DatagramKey, FragmentCache, FragmentNote, Settled};
use crate::names::ZoneId;
use crate::packet::{L4, Packet, Piece};
use crate::policy::Action;
use crate::time::Now;

impl Engine {
    /// The tuple of the datagram that a fragment belongs to, or what else is to be done with it.
    #[cold]
    pub(super) fn fragment_tuple<F: Frame>(
        &mut self,
        frame: &mut F,
        packet: &Packet,
        piece: &Piece,
        zone: ZoneId,
        now: Now,
    ) -> Result<Tuple, Verdict> {
        let note = match frame.note() {
            Some(note) => note,
            None => {
                let note = self.check_fragment(packet, piece, zone, now)?;
                frame.set_note(note);
                note
            }
        };
        let FragmentNote { src_port, dst_port, protocol } = note;
        Ok(Tuple { src_port, dst_port, protocol, ..packet.tuple })
    }

    fn check_fragment(
        &mut self,
        packet: &Packet,
        piece: &Piece,
        zone: ZoneId,
        now: Now,
    ) -> Result<FragmentNote, Verdict> {
        let datagram = DatagramKey::new(packet, piece, zone);
        let hash = self.table.hash(&Key {
            low: datagram.src,
            high: datagram.dst,
            low_port: (datagram.id >> 16) as u16,
            high_port: datagram.id as u16,
            protocol: datagram.protocol,
        });
        let home = shard_of(hash, self.config.shards);
        if home != self.config.shard {
            return Err(Verdict::Handover(home));
        }
        let first = (packet.l4_info != L4::LaterFragment).then_some(FragmentNote {
            src_port: packet.tuple.src_port,
            dst_port: packet.tuple.dst_port,
            protocol: packet.tuple.protocol,
        });
        match self.fragments.check(&datagram, hash, piece, first, now) {
            Checked::Forward(note) => Ok(note),
            Checked::Await { datagram, until } => Err(Verdict::AwaitFragment { datagram, until }),
            Checked::Drop(reason) => Err(Verdict::Drop(reason)),
        }
    }

    /// A later fragment whose flow has no session: its first one waits for a neighbour, and so does it,
    /// or the first was not forwarded. It is neither logged nor counted for a rule: the first was.
    pub(super) fn stray_fragment<F: Frame>(&mut self, frame: &F, w: &Work, now: Now) -> Verdict {
        if self.park(frame, w, DropReason::FragmentUntracked, now) {
            return Verdict::Consumed;
        }
        let untracked = Verdict::Drop(DropReason::FragmentUntracked);
        let Err(NoWay::Await(verdict)) = self.resolve(w) else { return untracked };
        let Verdict::AwaitNeighbour { port, .. } = verdict else { return untracked };
        let (Some(policy), Some(to)) = (&self.policy, self.routes.port(port).and_then(|p| p.zone)) else {
            return untracked;
        };
        let permitted = policy.evaluate(w.zone, to, &w.tuple).action == Action::Permit;
        if permitted { verdict } else { untracked }
    }

    /// Takes one datagram whose waiting fragments may go on, or must be dropped. To be asked after each
    /// batch until there is none.
    pub fn next_settled(&mut self) -> Option<Settled> {
        self.fragments.next_settled()
    }

    /// The fragment cache, for its numbers.
    pub fn fragments(&self) -> &FragmentCache {
        &self.fragments
    }
}
