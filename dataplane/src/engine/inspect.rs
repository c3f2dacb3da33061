//! List, show, summary and clear: what the control side asks between batches, in bounded slices.

use super::{Engine, SessionFilter};
use crate::addr::Tuple;
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::{EgressId, PortId, Resolution};
use crate::session::record::{SessionId, WingFacts};
use crate::session::timeouts::TimeoutClass;
use crate::session::{EndReason, State};
use crate::table::SlotId;
use crate::time::Now;

/// One direction of a session, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WingView {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Zone that it comes in from.
    pub zone: ZoneId,
    /// Port that it leaves by, where there is a way now.
    pub egress: Option<PortId>,
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes forwarded (IP length).
    pub bytes: u64,
    /// TCP facts (all zero for other protocols).
    pub facts: WingFacts,
}

/// A session as `session list` and `session show` see it (J11). Numbers of zones, rules and
/// applications; the control side has the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Identity.
    pub id: SessionId,
    /// Derived state.
    pub state: State,
    /// First direction (0) and reply (1).
    pub wings: [WingView; 2],
    /// Rule that permits it.
    pub rule: RuleId,
    /// Application that it matched as.
    pub application: AppId,
    /// Policy revision that rule and timeout come from.
    pub revision: u32,
    /// Timeout in force and what set it (F5).
    pub timeout: Option<TimeoutClass>,
    /// Milliseconds since the last packet.
    pub idle_ms: u64,
    /// Milliseconds until it ages out; `None` for `never`.
    pub remaining_ms: Option<u64>,
    /// Milliseconds since it was set up.
    pub duration_ms: u64,
}

/// The table of one shard in numbers (J11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Slots.
    pub maximum: u64,
    /// Slots taken, expired ones that wait for the sweep included.
    pub in_use: u64,
    /// Sessions set up since the start.
    pub created: u64,
    /// New sessions refused because the table was full (J14).
    pub failed: u64,
}

impl Engine {
    /// The table in numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            maximum: u64::from(self.table.capacity()),
            in_use: u64::from(self.table.len()),
            created: self.counters.created,
            failed: self.counters.failed,
        }
    }

    /// Appends the live sessions that match among the next `scan_max` slots from `cursor`. Returns the
    /// cursor to go on with, or `None` at the end of the table. A session that is made or moved
    /// meanwhile may be missed; none is listed twice.
    pub fn list(
        &self,
        cursor: u32,
        scan_max: u32,
        filter: &SessionFilter,
        now: Now,
        out: &mut Vec<SessionView>,
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        let slots = (cursor..end).map(SlotId).filter(|s| self.is_meant(*s, filter, now));
        out.extend(slots.map(|s| self.view(s, now)));
        next
    }

    /// Counts the live sessions that match among the next `scan_max` slots from `cursor`, by state.
    pub fn count(
        &self,
        cursor: u32,
        scan_max: u32,
        filter: &SessionFilter,
        now: Now,
        by_state: &mut [u64; State::ALL.len()],
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        for slot in (cursor..end).map(SlotId).filter(|s| self.is_meant(*s, filter, now)) {
            by_state[State::from_u8(self.table.hot(slot).state) as usize] += 1;
        }
        next
    }

    /// Ends the live sessions that match among the next `scan_max` slots from `cursor` (J10). Returns
    /// the cursor to go on with, and how many were cleared.
    pub fn clear(
        &mut self,
        cursor: u32,
        scan_max: u32,
        filter: &SessionFilter,
        now: Now,
    ) -> (Option<u32>, u32) {
        let (end, next) = self.slice(cursor, scan_max);
        let mut cleared = 0;
        for slot in (cursor..end).map(SlotId) {
            if self.is_meant(slot, filter, now) {
                self.end(slot, EndReason::Cleared);
                cleared += 1;
            }
        }
        (next, cleared)
    }

    fn slice(&self, cursor: u32, scan_max: u32) -> (u32, Option<u32>) {
        let touched = self.table.slots_used();
        let end = cursor.saturating_add(scan_max.max(1)).min(touched).max(cursor);
        (end, (end < touched).then_some(end))
    }

    fn is_meant(&self, slot: SlotId, filter: &SessionFilter, now: Now) -> bool {
        self.table.hot(slot).in_use() && !self.is_expired(slot, now) && self.matches(slot, filter)
    }

    fn view(&self, slot: SlotId, now: Now) -> SessionView {
        let hot = self.table.hot(slot);
        let cold = self.table.cold(slot);
        let first = self.first_tuple(slot);
        let wing = |w: usize| {
            let tuple = if w == 0 { first } else { first.reversed() };
            WingView {
                tuple,
                zone: hot.zone[w],
                egress: self.egress_port(slot, w, tuple),
                packets: cold.packets[w],
                bytes: cold.bytes[w],
                facts: cold.wings[w],
            }
        };
        let timeout = self.policy.as_ref().and_then(|p| p.classes().get(usize::from(hot.class.0)).copied());
        let idle_ms = u64::from(hot.idle_ms(now.ms32()));
        SessionView {
            id: cold.id(),
            state: State::from_u8(hot.state),
            wings: [wing(0), wing(1)],
            rule: cold.rule,
            application: cold.application,
            revision: cold.revision,
            timeout,
            idle_ms,
            remaining_ms: timeout.and_then(|t| t.timeout_ms).map(|t| t.saturating_sub(idle_ms)),
            duration_ms: now.0.saturating_sub(cold.created_ms),
        }
    }

    fn egress_port(&self, slot: SlotId, wing: usize, tuple: Tuple) -> Option<PortId> {
        let hot = self.table.hot(slot);
        if hot.egress_generation == self.routes.generation()
            && let Some(egress) = self.routes.egress(EgressId(hot.egress[wing]))
        {
            return Some(egress.port);
        }
        match self.routes.resolve(tuple.dst, self.table.hash(&hot.key())) {
            Resolution::Way { port, .. } => Some(port),
            Resolution::No(_) => None,
        }
    }
}
