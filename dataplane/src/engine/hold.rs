//! First packets that wait until peers hold their session (`setup_ack = "one"` or `"all"`).
//!
//! The session is set up and told at once; its packet is copied and waits until the number of that news is
//! acknowledged, by one connected peer or by all. What comes of the flow meanwhile queues behind it. When the
//! time is over instead, the policy chooses: the packets go on, or they are dropped and the session ends
//! everywhere, so that none is left half made. With no peer connected nothing waits, and a flow whose
//! policy does not ask for it pays nothing: established ones are told by one bit of the hot line.

use super::park::Onward;
use super::process::Work;
use super::room::{Arrival, Bound, Place, Room};
use super::{Engine, Frame, Verdict, hot_flag};
use crate::addr::Key;
use crate::drops::DropReason;
use crate::policy::{OnTimeout, SetupAck};
use crate::session::EndReason;
use crate::session::record::SessionId;
use crate::table::SlotId;
use crate::time::Now;

/// What is known of a packet that waits here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// The first packet of its flow here: the others go with it.
    leads: bool,
    /// It may go, but the outbox had no room.
    released: bool,
    ack: SetupAck,
    /// The change whose acknowledgement it waits for.
    number: u64,
    session: SessionId,
}

/// The first packets, and what queues behind them.
pub(super) struct Hold {
    room: Room<Held>,
    /// Changes below these numbers are held by one connected peer, and by all of them. With no peer connected
    /// that is every number.
    by_one: u64,
    by_all: u64,
    /// An acknowledgement came, or the outbox was full: there may be something to let go.
    stirred: bool,
}

impl Hold {
    pub(super) fn new() -> Self {
        Hold { room: Room::new(Held::default()), by_one: u64::MAX, by_all: u64::MAX, stirred: false }
    }

    pub(super) fn len(&self) -> u32 {
        self.room.len()
    }

    fn is_acknowledged(&self, ack: SetupAck, number: u64) -> bool {
        match ack {
            SetupAck::None => true,
            SetupAck::One => number < self.by_one,
            SetupAck::All => number < self.by_all,
        }
    }
}

impl Engine {
    /// Changes numbered below `by_one` are held by at least one connected peer, those below `by_all` by every
    /// connected one. `u64::MAX` for both when none is connected: then nothing waits.
    pub fn acknowledged(&mut self, by_one: u64, by_all: u64, now: Now) {
        let Some(hold) = &mut self.hold else { return };
        if (hold.by_one, hold.by_all) == (by_one, by_all) {
            return;
        }
        (hold.by_one, hold.by_all) = (by_one, by_all);
        hold.stirred = hold.room.len() > 0;
        if hold.stirred {
            self.clock = now;
            self.tend_hold(now);
        }
    }

    /// Whether first packets wait for acknowledgements.
    pub fn holds_packets(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.len() > 0)
    }

    /// Holds the first packet of a session that was set up just now, if its rule asks for that and peers are
    /// there to wait for. `None`: it goes on.
    #[cold]
    pub(super) fn hold_first<F: Frame>(
        &mut self,
        frame: &F,
        w: &Work,
        slot: SlotId,
        ack: SetupAck,
        now: Now,
    ) -> Option<Verdict> {
        self.hold.as_ref()?;
        let number = self.tell_at_once(slot)?;
        let settings = *self.policy.as_ref()?.replication();
        let source = self.source_hash(w);
        let session = self.table.cold(slot).id();
        let hold = self.hold.as_mut()?;
        if hold.is_acknowledged(ack, number) {
            return None;
        }
        let tag = Held { leads: true, released: false, ack, number, session };
        let until = Now(now.0 + u64::from(settings.setup_ack_timeout_ms));
        if hold.room.push(arrival(frame, w, source, until, tag)).is_ok() {
            self.counters.waiting.setup_held += 1;
            self.table.hot_mut(slot).flags |= hot_flag::HELD;
            return Some(Verdict::Consumed);
        }
        self.counters.waiting.setup_not_held += 1;
        match settings.setup_ack_on_timeout {
            OnTimeout::Release => None,
            OnTimeout::Drop => {
                self.end(slot, EndReason::Unacknowledged);
                Some(Verdict::Drop(DropReason::SetupUnacknowledged))
            }
        }
    }

    /// A further packet of a flow whose first one waits. `None`: it is the one that goes on just now.
    #[cold]
    pub(super) fn queue_behind<F: Frame>(&mut self, frame: &F, w: &Work) -> Option<Verdict> {
        let source = self.source_hash(w);
        let hold = self.hold.as_mut()?;
        let first = hold.room.first_of(&w.key, w.hash)?;
        let (until, tag) = (hold.room.until(first), Held { leads: false, ..hold.room.tag(first) });
        match hold.room.push(arrival(frame, w, source, until, tag)) {
            Ok(()) => Some(Verdict::Consumed),
            Err(Bound::Room | Bound::Flow | Bound::Source | Bound::Length) => {
                Some(Verdict::Drop(DropReason::SetupQueueFull))
            }
        }
    }

    /// Lets go what is acknowledged, and what has waited long enough. Part of the sweep.
    pub(super) fn tend_hold(&mut self, now: Now) {
        let Some(hold) = &mut self.hold else { return };
        let Some(oldest) = hold.room.oldest() else { return };
        if !hold.stirred && hold.room.until(oldest) > now {
            return;
        }
        hold.stirred = false;
        // Taken out of the engine: what is decided meanwhile does not wait again.
        let Some(mut hold) = self.hold.take() else { return };
        let mut next = Some(oldest);
        while let Some(place) = next {
            let held = hold.room.tag(place);
            let over = hold.room.until(place) <= now;
            if !held.leads || !(held.released || over || hold.is_acknowledged(held.ack, held.number)) {
                next = hold.room.younger(place);
                continue;
            }
            if self.outbox.room() == 0 {
                hold.stirred = true;
                break;
            }
            let timed_out = !held.released && !hold.is_acknowledged(held.ack, held.number);
            // What goes with it is younger: the older one stays where it is.
            let older = hold.room.older(place);
            if !self.let_go_flow(&mut hold, place, timed_out, now) {
                break;
            }
            next = older.map_or_else(|| hold.room.oldest(), |older| hold.room.younger(older));
        }
        self.hold = Some(hold);
    }

    /// Sends a flow's packets on in their order, or drops them with their session. `false`: the outbox is full.
    fn let_go_flow(&mut self, hold: &mut Hold, first: Place, timed_out: bool, now: Now) -> bool {
        let (key, hash) = hold.room.flow(first);
        let held = hold.room.tag(first);
        let mut session = self.table.find(&key, hash);
        self.counters.waiting.setup_timeouts += u64::from(timed_out);
        if let Some(slot) = session
            && timed_out
            && self.is_to_be_dropped(slot, held.session)
        {
            self.end(slot, EndReason::Unacknowledged);
            session = None;
        }
        while let Some(place) = hold.room.first_of(&key, hash) {
            if session.is_none() {
                // It ended while its first packet waited: this must not set it up anew.
                self.count_drop(DropReason::SetupUnacknowledged);
            } else if self.outbox.room() == 0 {
                let tag = hold.room.tag_mut(place);
                (tag.leads, tag.released) = (true, true);
                hold.stirred = true;
                return false;
            } else if self.go_on(&mut hold.room, place, now) == Onward::NoNeighbour {
                self.count_drop(DropReason::NeighbourUnresolved);
            }
            hold.room.remove(place);
        }
        if let Some(slot) = self.table.find(&key, hash) {
            self.table.hot_mut(slot).flags &= !hot_flag::HELD;
        }
        true
    }

    /// Whether a session whose peers did not acknowledge it in time is to end: policy says so, it is the very
    /// one, and no other node has told of packets of it.
    fn is_to_be_dropped(&self, slot: SlotId, id: SessionId) -> bool {
        let drops = |p: &std::sync::Arc<crate::policy::Policy>| {
            p.replication().setup_ack_on_timeout == OnTimeout::Drop
        };
        self.policy.as_ref().is_some_and(drops) && self.table.cold(slot).id() == id && !self.is_shared(slot)
    }
}

fn arrival<'a, F: Frame>(frame: &'a F, w: &Work, source: u64, until: Now, tag: Held) -> Arrival<'a, Held> {
    let key: Key = w.key;
    Arrival { key, hash: w.hash, source, port: w.port, note: frame.note(), until, tag, data: frame.data() }
}
