//! What becomes of sessions, told to whoever watches, and to the log where a rule asks for it.
//!
//! A session's birth, each change of its state and its end make one [`SessionEvent`] while somebody
//! watches ([`Engine::set_watched`]); its birth and end also when its rule has `log = true`. Otherwise
//! nothing is done: the packet path asks one bit.

use super::filter::{Detail, Outline};
use super::{Engine, Event, SessionFilter, hot_flag};
use crate::addr::Tuple;
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::{EgressId, PortId};
use crate::session::record::SessionId;
use crate::session::{EndReason, State};
use crate::table::SlotId;
use crate::time::Now;

/// What happened to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It was set up.
    Created,
    /// Its state is another one.
    Changed {
        /// The state before.
        from: State,
    },
    /// It is gone.
    Ended(EndReason),
}

/// One event in a session's life, with what is known of the session at that moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionEvent {
    /// What happened.
    pub what: Happened,
    /// When.
    pub at: Now,
    /// Whether the session's rule wants it logged.
    pub logged: bool,
    /// Identity.
    pub id: SessionId,
    /// First direction.
    pub tuple: Tuple,
    /// Ingress zone of each wing.
    pub zones: [ZoneId; 2],
    /// Port that the first direction comes in by, and the one that it leaves by, where known.
    pub ports: [Option<PortId>; 2],
    /// Derived state; of an ended session the last one.
    pub state: State,
    /// Rule that permits it.
    pub rule: RuleId,
    /// Application that it matched as.
    pub application: AppId,
    /// Policy revision that rule and timeout come from.
    pub revision: u32,
    /// Packets forwarded, of each wing.
    pub packets: [u64; 2],
    /// Bytes forwarded (IP length), of each wing.
    pub bytes: [u64; 2],
    /// When it was set up.
    pub created: Now,
    /// Milliseconds until it ages out; `None` for `never`.
    pub remaining_ms: Option<u64>,
}

impl SessionFilter {
    /// Whether an event is about a session that the filter means.
    pub fn fits_event(&self, e: &SessionEvent) -> bool {
        let detail = Detail {
            id: e.id,
            rule: e.rule,
            application: e.application,
            ports: [e.ports[0], e.ports[1], None, None],
            duration_ms: e.at.since(e.created),
            remaining_ms: e.remaining_ms,
            packets: e.packets[0].saturating_add(e.packets[1]),
            bytes: e.bytes[0].saturating_add(e.bytes[1]),
        };
        self.fits_outline(&Outline { tuple: e.tuple, zones: e.zones, state: e.state })
            && self.fits_detail(&detail)
    }
}

impl Engine {
    /// Starts or stops telling of every session, not only of those that are logged.
    pub fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Whether it tells of every session.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// A session was set up and its first packet counted.
    #[inline]
    pub(super) fn tell_created(&mut self, slot: SlotId) {
        if self.watched || self.is_logged(slot) {
            self.tell(slot, Happened::Created);
        }
    }

    /// A packet was taken into a session whose state was `before`.
    #[inline]
    pub(super) fn tell_change(&mut self, slot: SlotId, before: u8) {
        if self.watched && self.table.hot(slot).state != before {
            self.tell(slot, Happened::Changed { from: State::from_u8(before) });
        }
    }

    /// A session is about to leave the table.
    #[inline]
    pub(super) fn tell_end(&mut self, slot: SlotId, reason: EndReason) {
        if self.watched || self.is_logged(slot) {
            self.tell(slot, Happened::Ended(reason));
        }
    }

    /// Notes whether the rule that lets a session in wants its end logged.
    pub(super) fn set_logged(&mut self, slot: SlotId, logged: bool) {
        let hot = self.table.hot_mut(slot);
        hot.flags = if logged { hot.flags | hot_flag::LOG } else { hot.flags & !hot_flag::LOG };
    }

    fn is_logged(&self, slot: SlotId) -> bool {
        self.table.hot(slot).flags & hot_flag::LOG != 0
    }

    fn tell(&mut self, slot: SlotId, what: Happened) {
        let (hot, cold, now) = (self.table.hot(slot), self.table.cold(slot), self.clock);
        let [_, came_back] = self.seen_ports(slot);
        // Only what is at hand: no route is looked up to tell of a session.
        let egress = match hot.egress_generation == self.routes.generation() {
            true => self.routes.egress(EgressId(hot.egress[0])).map(|e| e.port),
            false => None,
        };
        let (packets, bytes) = self.others(slot);
        let event = SessionEvent {
            what,
            at: now,
            logged: self.is_logged(slot),
            id: cold.id(),
            tuple: self.first_tuple(slot),
            zones: hot.zone,
            ports: [self.seen_ports(slot)[0], egress.or(came_back)],
            state: State::from_u8(hot.state),
            rule: cold.rule,
            application: cold.application,
            revision: cold.revision,
            packets: [0, 1].map(|w| cold.packets[w].saturating_add(packets[w])),
            bytes: [0, 1].map(|w| cold.bytes[w].saturating_add(bytes[w])),
            created: Now(now.0.saturating_sub(cold.age_ms(now))),
            remaining_ms: self.remaining_ms(slot, now),
        };
        self.push_session_event(Event::Session(event));
    }
}
