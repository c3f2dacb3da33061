//! The batch pipeline: parse and hash all, touch all, then decide one after the other.

use super::track::Track;
use super::{BATCH_MAX, Engine, Frame, Verdict, hot_flag};
use crate::addr::{Key, Tuple};
use crate::drops::DropReason;
use crate::names::ZoneId;
use crate::packet::{self, L4, Packet, ParseOptions};
use crate::policy::Place;
use crate::route::{Egress, EgressId, PortId, Resolution};
use crate::table::SlotId;
use crate::time::Now;
use arrayvec::ArrayVec;

/// The shard of a flow: both directions, and the ICMP errors about it, come to the same one. Mixed
/// once more, so that the bits that choose a shard say nothing about those that choose a bucket.
#[inline]
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (((mixed >> 48) * u64::from(shards)) >> 16) as u16
}

/// A parsed packet on its way through the batch.
pub(super) struct Work {
    pub(super) packet: Packet,
    /// The tuple that finds the session: the packet's own, or the one embedded in an ICMP error.
    pub(super) tuple: Tuple,
    pub(super) key: Key,
    pub(super) forward: bool,
    pub(super) hash: u64,
    pub(super) port: PortId,
    pub(super) zone: ZoneId,
    /// Where the tuple stands among the policy's prefixes, if it was new when the batch began.
    pub(super) place: Option<Place>,
    index: u8,
}

/// Why there is no way out now.
pub(super) enum NoWay {
    /// The next hop's MAC is missing.
    Await(Verdict),
    /// Nothing leads there.
    Drop(DropReason),
}

impl Engine {
    /// Decides about a batch of at most [`BATCH_MAX`] frames (more are not looked at): one verdict for
    /// each, in order. Frames to transmit are rewritten in place; all others are left untouched.
    pub fn process<F: Frame>(
        &mut self,
        frames: &mut [F],
        verdicts: &mut ArrayVec<Verdict, BATCH_MAX>,
        now: Now,
    ) {
        self.clock = now;
        verdicts.clear();
        let mut work: ArrayVec<Work, BATCH_MAX> = ArrayVec::new();
        let mut keys: ArrayVec<Key, BATCH_MAX> = ArrayVec::new();
        let mut hashes: ArrayVec<u64, BATCH_MAX> = ArrayVec::new();
        for (index, frame) in frames.iter_mut().take(BATCH_MAX).enumerate() {
            match self.classify(frame, index as u8, now) {
                Ok(w) => {
                    verdicts.push(Verdict::Consumed);
                    keys.push(w.key);
                    hashes.push(w.hash);
                    work.push(w);
                }
                Err(verdict) => verdicts.push(self.counted(verdict)),
            }
        }
        let mut slots = [None; BATCH_MAX];
        self.table.lookup_batch(&keys, &hashes, &mut slots[..keys.len()]);
        self.table.touch_cold(&slots[..keys.len()]);
        self.place_new(&mut work, &slots);
        let made = self.sessions_made;
        for (w, slot) in work.iter().zip(slots) {
            let i = usize::from(w.index);
            let slot = self.confirm(w, slot, made);
            let verdict = self.decide(&mut frames[i], w, slot, now);
            verdicts[i] = self.counted(verdict);
        }
    }

    /// Finds the new flows' places in the policy, so that their misses overlap as well.
    fn place_new(&self, work: &mut [Work], slots: &[Option<SlotId>]) {
        let Some(policy) = &self.policy else { return };
        let is_new = |(_, slot): &(&mut Work, &Option<SlotId>)| slot.is_none();
        let mut new: ArrayVec<&mut Work, BATCH_MAX> =
            work.iter_mut().zip(slots).filter(is_new).map(|(w, _)| w).collect();
        if new.is_empty() {
            return;
        }
        let tuples: ArrayVec<Tuple, BATCH_MAX> = new.iter().map(|w| w.tuple).collect();
        let mut places = [Place::default(); BATCH_MAX];
        policy.place(&tuples, &mut places[..tuples.len()]);
        for (w, place) in new.iter_mut().zip(places) {
            w.place = Some(place);
        }
    }

    pub(super) fn counted(&mut self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Drop(reason) => self.counters.drops.count(reason),
            Verdict::Handover(_) => self.counters.handovers += 1,
            _ => {}
        }
        verdict
    }

    /// Parses a frame and finds out whose it is.
    pub(super) fn classify<F: Frame>(&mut self, frame: &mut F, index: u8, now: Now) -> Result<Work, Verdict> {
        let port = frame.port();
        let Some(info) = self.routes.port(port) else { return Err(Verdict::Drop(DropReason::NoZone)) };
        let data = frame.data();
        if data.len() >= 6 && data[..6] != info.mac.0 {
            return Err(Verdict::Drop(DropReason::NotForUs));
        }
        let options = ParseOptions { partial_checksums: info.partial_checksums };
        let mut packet = packet::parse(data, options).map_err(Verdict::Drop)?;
        if packet.vlan {
            return Err(Verdict::Drop(DropReason::VlanTransit));
        }
        let Some(zone) = info.zone else { return Err(Verdict::Drop(DropReason::NoZone)) };
        if let Some(piece) = packet.fragment.piece() {
            packet.tuple = self.fragment_tuple(frame, &packet, &piece, zone, now)?;
        }
        let tuple = match &packet.l4_info {
            L4::IcmpError(e) => e.embedded,
            L4::IcmpOther { .. } => return Err(Verdict::Drop(DropReason::IcmpErrorUnmatched)),
            _ => packet.tuple,
        };
        let (key, forward) = tuple.canonical();
        let hash = self.table.hash(&key);
        let shard = shard_of(hash, self.config.shards);
        if shard != self.config.shard {
            return Err(Verdict::Handover(shard));
        }
        Ok(Work { packet, tuple, key, forward, hash, port, zone, place: None, index })
    }

    /// A slot found at the start of the batch may have been freed or taken by an earlier packet of it.
    #[inline]
    fn confirm(&self, w: &Work, slot: Option<SlotId>, made_before: u64) -> Option<SlotId> {
        match slot {
            Some(s) if self.table.hot(s).holds(&w.key) => Some(s),
            None if self.sessions_made == made_before => None,
            _ => self.table.find(&w.key, w.hash),
        }
    }

    pub(super) fn decide<F: Frame>(
        &mut self,
        frame: &mut F,
        w: &Work,
        slot: Option<SlotId>,
        now: Now,
    ) -> Verdict {
        let slot = match slot {
            Some(s) if self.is_expired(s, now) => {
                self.expire(s);
                None
            }
            other => other,
        };
        if let L4::IcmpError(e) = w.packet.l4_info {
            return self.pass_icmp_error(frame, w, &e, slot, now);
        }
        match slot {
            Some(s) => self.established(frame, w, s, now),
            None => self.first_packet(frame, w, None, now),
        }
    }

    /// A packet of a session (J1: both wings use the same one).
    fn established<F: Frame>(&mut self, frame: &mut F, w: &Work, slot: SlotId, now: Now) -> Verdict {
        let hot = self.table.hot(slot);
        let wing = usize::from(hot.first_forward() != w.forward);
        if hot.zone[wing] != w.zone {
            return Verdict::Drop(DropReason::ZoneMismatch);
        }
        let out_zone = hot.zone[1 - wing];
        if hot.flags & hot_flag::HELD != 0
            && let Some(verdict) = self.queue_behind(frame, w)
        {
            return verdict;
        }
        if self.needs_judging(slot) && !self.judge_for_packet(slot) {
            return Verdict::Drop(DropReason::PolicyRevoked);
        }
        let egress = match self.way(slot, wing, w) {
            Ok(e) => e,
            Err(no) => return self.no_way(frame.data(), w, no, now),
        };
        if egress.zone != Some(out_zone) {
            return Verdict::Drop(DropReason::ZoneMismatch);
        }
        if let Some(refusal) = self.refuse_ttl(frame.data(), w, now) {
            return refusal;
        }
        if self.is_too_big(w, &egress) && w.packet.dont_fragment {
            return self.refuse_too_big(frame.data(), w, &egress, now);
        }
        let before = self.table.hot(slot).state;
        match self.track(slot, wing, w, now) {
            Track::Continues => {}
            Track::NewConnection => return self.first_packet(frame, w, Some(slot), now),
            Track::Refused(reason) => return Verdict::Drop(reason),
        }
        self.tell_change(slot, before);
        let verdict = self.send(frame, w, &egress);
        self.end_if_over(slot);
        verdict
    }

    /// Writes the frame's new header and counts it as forwarded; a packet that is too big for the
    /// way out and may be fragmented leaves as fragments.
    pub(super) fn send<F: Frame>(&mut self, frame: &mut F, w: &Work, egress: &Egress) -> Verdict {
        packet::rewrite::forward(frame.data_mut(), &w.packet, egress.src_mac, egress.dst_mac);
        if let L4::Tcp(t) = &w.packet.l4_info
            && let (Some(mss), Some(p)) = (t.mss, &self.policy)
            && let Some(max) = p.tcp().mss_max.filter(|max| *max < mss)
        {
            packet::rewrite::lower_mss(frame.data_mut(), &w.packet, t, max);
        }
        if self.is_too_big(w, egress) {
            let verdict = self.send_fragments(frame.data(), w, egress);
            if verdict != Verdict::Consumed {
                return verdict;
            }
        }
        self.counters.forwarded_packets += 1;
        self.counters.forwarded_bytes += u64::from(w.packet.ip_len());
        if self.is_too_big(w, egress) { Verdict::Consumed } else { Verdict::Transmit(egress.port) }
    }

    #[inline]
    pub(super) fn is_too_big(&self, w: &Work, egress: &Egress) -> bool {
        u32::from(w.packet.ip_len()) > egress.mtu
    }

    /// The way out of a session's wing, from its cache while the route snapshot is the same.
    #[inline]
    pub(super) fn way(&mut self, slot: SlotId, wing: usize, w: &Work) -> Result<Egress, NoWay> {
        let generation = self.routes.generation();
        let hot = self.table.hot(slot);
        if hot.egress_generation == generation
            && let Some(egress) = self.routes.egress(EgressId(hot.egress[wing]))
        {
            return Ok(egress);
        }
        let (id, egress) = self.resolve(w)?;
        let hot = self.table.hot_mut(slot);
        if hot.egress_generation != generation {
            hot.egress = [EgressId::NONE.0; 2];
            hot.egress_generation = generation;
        }
        hot.egress[wing] = id.0;
        Ok(egress)
    }

    /// Where the packet's destination leads.
    pub(super) fn resolve(&mut self, w: &Work) -> Result<(EgressId, Egress), NoWay> {
        match self.routes.resolve(w.packet.tuple.dst, w.hash) {
            Resolution::Way { egress: Some(id), .. } => {
                self.routes.egress(id).map(|e| (id, e)).ok_or(NoWay::Drop(DropReason::PortDown))
            }
            Resolution::Way { port, next_hop, egress: None } => {
                Err(NoWay::Await(Verdict::AwaitNeighbour { port, next_hop }))
            }
            Resolution::No(reason) => Err(NoWay::Drop(reason)),
        }
    }
}
