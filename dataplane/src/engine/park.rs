//! Early packets (`spec/replication.md`): what would be dropped for want of a session, of a flow that policy
//! permits in one of its directions, waits a moment, in case its session was made on another node and is on
//! its way here.
//!
//! When the session comes, its packets go the way of any packet, in the order of their arrival. When it does not,
//! they are decided as if they had come by then, with the answers that their senders are due. A packet
//! that policy lets open a session itself never waits. The store is bounded ([`super::room`]): when
//! it is full the oldest packet makes room, and is dropped for what it would have been dropped for.

use super::process::Work;
use super::room::{Arrival, Bound, Copied, Place, Room};
use super::{Engine, Frame, Verdict};
use crate::addr::{Key, Tuple};
use crate::drops::DropReason;
use crate::packet::{L4, tcp_flags};
use crate::policy::{Action, Policy};
use crate::route::Resolution;
use crate::time::Now;
use arrayvec::ArrayVec;

/// Packets that one call of the sweep lets go for lack of a session; the next call goes on.
const EXPIRE_MAX: usize = 128;
/// Flows whose session has come, but for whose packets the outbox had no room yet.
const DUE_MAX: usize = 256;
/// Parking time while nobody has measured the round trip to the peers.
const UNMEASURED_US: u64 = 100_000;

/// What became of a packet that waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Onward {
    /// It is in the outbox.
    Forwarded,
    /// It is dropped, and counted.
    Dropped,
    /// The next hop is not known; nothing is counted.
    NoNeighbour,
}

/// What is counted of packets that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WaitingCounters {
    /// Early packets that were parked.
    pub parked: u64,
    /// Of these, packets that went on because their session came.
    pub park_delivered: u64,
    /// Of these, packets whose session came, and that were dropped all the same.
    pub park_undelivered: u64,
    /// Of these, packets whose session did not come in time.
    pub park_expired: u64,
    /// Of these, packets that made room for younger ones.
    pub park_evicted: u64,
    /// Early packets that were not parked because their flow or source had too many waiting.
    pub park_refused: u64,
    /// First packets that waited for peers to hold their session.
    pub setup_held: u64,
    /// Of these, packets that waited in vain: `replication.setup_ack_timeout_ms` was over.
    pub setup_timeouts: u64,
    /// First packets that did not wait, because too many already did.
    pub setup_not_held: u64,
}

impl WaitingCounters {
    /// Adds another engine's counts.
    pub fn add(&mut self, other: &WaitingCounters) {
        self.fields_mut().into_iter().zip(other.fields()).for_each(|(mine, (_, theirs))| *mine += theirs);
    }

    /// Every counter with its name.
    pub fn fields(&self) -> [(&'static str, u64); 9] {
        let mut copy = *self;
        let values = copy.fields_mut().map(|n| *n);
        let names = [
            "parked",
            "park_delivered",
            "park_undelivered",
            "park_expired",
            "park_evicted",
            "park_refused",
            "setup_held",
            "setup_timeouts",
            "setup_not_held",
        ];
        std::array::from_fn(|i| (names[i], values[i]))
    }

    fn fields_mut(&mut self) -> [&mut u64; 9] {
        // Destructured in full, so that a new counter cannot be forgotten.
        let WaitingCounters {
            parked,
            park_delivered,
            park_undelivered,
            park_expired,
            park_evicted,
            park_refused,
            setup_held,
            setup_timeouts,
            setup_not_held,
        } = self;
        [
            parked,
            park_delivered,
            park_undelivered,
            park_expired,
            park_evicted,
            park_refused,
            setup_held,
            setup_timeouts,
            setup_not_held,
        ]
    }
}

/// The early packets of an engine that replicates.
pub(super) struct Park {
    room: Room<DropReason>,
    /// How long a packet waits; 0: parking is off.
    ms: u64,
    /// Whether another node is there that may have the session.
    others: bool,
    round_trip_us: Option<u64>,
    due: ArrayVec<(Key, u64), DUE_MAX>,
}

impl Park {
    pub(super) fn new() -> Self {
        Park {
            room: Room::new(DropReason::TcpNoSession),
            ms: 0,
            others: false,
            round_trip_us: None,
            due: ArrayVec::new(),
        }
    }
}

impl Engine {
    /// What the round trip to the farthest connected peer takes, the maximum while nobody knows: the parking
    /// time follows it where the policy does not set one.
    pub fn set_peer_round_trip_us(&mut self, us: u64) {
        if let Some(park) = &mut self.park {
            park.round_trip_us = Some(us);
        }
        self.set_parking();
    }

    /// Packets that wait here: early ones, and those whose session peers have yet to acknowledge.
    pub fn waiting(&self) -> (u32, u32) {
        let parked = self.park.as_ref().map_or(0, |p| p.room.len());
        (parked, self.hold.as_ref().map_or(0, |h| h.len()))
    }

    /// Policy, view or round trip is another one.
    pub(super) fn set_parking(&mut self) {
        let Some(park) = &mut self.park else { return };
        park.others = self.view.as_ref().is_some_and(|v| v.alive().len() > 1);
        let round_trip_us = park.round_trip_us.unwrap_or(UNMEASURED_US);
        park.ms = self.policy.as_ref().map_or(0, |p| p.replication().parking_ms(round_trip_us));
    }

    /// Whether this node may tell a sender that there is no session: it may not while it lacks sessions.
    pub(super) fn may_answer(&self) -> bool {
        self.view.as_ref().is_none_or(|v| v.in_sync().contains(&v.me))
    }

    /// Parks a packet that is about to be dropped for that reason, if it may be an early one.
    #[cold]
    pub(super) fn park<F: Frame>(&mut self, frame: &F, w: &Work, reason: DropReason, now: Now) -> bool {
        let Some(park) = &self.park else { return false };
        if !park.others || park.ms == 0 || opens(w) {
            return false;
        }
        let source = self.source_hash(w);
        // The bound first: a flood is not to cost two looks at the policy for each packet.
        if park.room.source_is_full(source) {
            self.counters.waiting.park_refused += 1;
            return false;
        }
        if !self.policy.as_ref().is_some_and(|p| self.may_be_early(p, w)) {
            return false;
        }
        let until = Now(now.0 + park.ms);
        let Some(park) = &mut self.park else { return false };
        for _ in 0..=super::room::CHUNKS_OF_ONE_MAX {
            let arrival = Arrival {
                key: w.key,
                hash: w.hash,
                source,
                port: w.port,
                note: frame.note(),
                until,
                tag: reason,
                data: frame.data(),
            };
            match park.room.push(arrival) {
                Ok(()) => {
                    self.counters.waiting.parked += 1;
                    return true;
                }
                Err(Bound::Flow | Bound::Source) => {
                    self.counters.waiting.park_refused += 1;
                    return false;
                }
                Err(Bound::Length) => return false,
                Err(Bound::Room) => {
                    let Some(oldest) = park.room.oldest() else { return false };
                    self.counters.waiting.park_evicted += 1;
                    self.counters.drops.count(park.room.tag(oldest));
                    park.room.remove(oldest);
                }
            }
        }
        false
    }

    /// Keyed, so that nobody can choose whose bound is shared.
    pub(super) fn source_hash(&self, w: &Work) -> u64 {
        self.table.hash(&Key { low: w.packet.tuple.src, high: w.packet.tuple.src, ..Key::default() })
    }

    /// Whether policy permits, and replicates, sessions of the packet's flow in one of the two directions.
    fn may_be_early(&self, policy: &Policy, w: &Work) -> bool {
        let dst = w.packet.tuple.dst;
        if self.routes.is_local(dst) {
            return false;
        }
        let Resolution::Way { port, .. } = self.routes.resolve(dst, w.hash) else { return false };
        let Some(to) = self.routes.port(port).and_then(|p| p.zone) else { return false };
        // An ICMP error runs against the packet that it is about.
        let flow = if matches!(w.packet.l4_info, L4::IcmpError(_)) { w.tuple.reversed() } else { w.tuple };
        [(w.zone, to, flow), (to, w.zone, flow.reversed())].iter().any(|(from, to, tuple)| {
            let judgement = policy.evaluate(*from, *to, tuple);
            judgement.action == Action::Permit && judgement.sync
        })
    }

    /// A session has come from another node: packets that waited for it go on.
    pub(super) fn session_arrived(&mut self, tuple: &Tuple, now: Now) {
        if self.park.as_ref().is_none_or(|p| p.room.len() == 0) {
            return;
        }
        let (key, _) = tuple.canonical();
        let hash = self.table.hash(&key);
        self.deliver_parked(key, hash, now);
    }

    fn deliver_parked(&mut self, key: Key, hash: u64, now: Now) {
        // Taken out of the engine: what is decided meanwhile is not parked again.
        let Some(mut park) = self.park.take() else { return };
        while let Some(place) = park.room.first_of(&key, hash) {
            if self.outbox.room() == 0 {
                // What finds no place in the list goes on when its time is over.
                let _ = park.due.try_push((key, hash));
                break;
            }
            match self.go_on(&mut park.room, place, now) {
                Onward::Forwarded => self.counters.waiting.park_delivered += 1,
                Onward::Dropped => self.counters.waiting.park_undelivered += 1,
                // By the end of its time the next hop may be known.
                Onward::NoNeighbour => break,
            }
            park.room.remove(place);
        }
        self.park = Some(park);
    }

    /// What waited for room in the outbox, or for a session that has not come. Part of the sweep.
    pub(super) fn tend_park(&mut self, now: Now) {
        let Some(park) = &mut self.park else { return };
        if !park.due.is_empty() {
            for (key, hash) in std::mem::take(&mut park.due) {
                self.deliver_parked(key, hash, now);
            }
        }
        for _ in 0..EXPIRE_MAX {
            if self.outbox.room() == 0 {
                return;
            }
            let Some(mut park) = self.park.take() else { return };
            if let Some(oldest) = park.room.oldest().filter(|p| park.room.until(*p) <= now) {
                match self.go_on(&mut park.room, oldest, now) {
                    Onward::Forwarded => self.counters.waiting.park_delivered += 1,
                    Onward::Dropped => self.counters.waiting.park_expired += 1,
                    Onward::NoNeighbour => {
                        self.counters.waiting.park_undelivered += 1;
                        self.count_drop(DropReason::NeighbourUnresolved);
                    }
                }
                park.room.remove(oldest);
                self.park = Some(park);
            } else {
                self.park = Some(park);
                return;
            }
        }
    }

    /// Decides about a packet that waited, now: the way of any packet. It is forwarded by the outbox,
    /// which has room.
    pub(super) fn go_on<T: Copy>(&mut self, room: &mut Room<T>, place: Place, now: Now) -> Onward {
        let mut frame = room.take_out(place);
        match self.decide_copy(&mut frame, now) {
            Verdict::Transmit(port) => {
                let data = frame.data();
                self.outbox.push(port, |out| {
                    out.get_mut(..data.len())?.copy_from_slice(data);
                    Some(data.len())
                });
                Onward::Forwarded
            }
            Verdict::Consumed => Onward::Forwarded,
            Verdict::AwaitNeighbour { .. } => Onward::NoNeighbour,
            Verdict::AwaitFragment { .. } | Verdict::Handover(_) => {
                // Neither can be: it was noted and steered when it came.
                self.count_drop(DropReason::FragmentUntracked);
                Onward::Dropped
            }
            Verdict::Drop(_) => Onward::Dropped,
        }
    }

    fn decide_copy(&mut self, frame: &mut Copied<'_>, now: Now) -> Verdict {
        let w = match self.classify(frame, 0, now) {
            Ok(w) => w,
            Err(verdict) => return self.counted(verdict),
        };
        let slot = self.table.find(&w.key, w.hash);
        let verdict = self.decide(frame, &w, slot, now);
        self.counted(verdict)
    }
}

/// Whether a packet could only open a session: it is no part of one that another node made.
pub(super) fn opens(w: &Work) -> bool {
    match &w.packet.l4_info {
        L4::Tcp(t) => t.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::SYN,
        L4::IcmpQuery { reply } => !reply,
        _ => false,
    }
}
