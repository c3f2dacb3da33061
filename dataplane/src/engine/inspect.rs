//! List, show, summary and clear: what the control side asks between batches, in bounded slices.

use super::{Engine, SessionFilter};
use crate::addr::{Tuple, proto};
use crate::names::{AppId, RuleId, ZoneId};
use crate::route::{EgressId, PortId, Resolution};
use crate::session::owner::Boot;
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
    /// Port that its last packet came in by; `None` before the first.
    pub ingress: Option<PortId>,
    /// Port that it leaves by, where there is a way now.
    pub egress: Option<PortId>,
    /// Packets forwarded, by this node and by others as far as they told.
    pub packets: u64,
    /// Bytes forwarded (IP length), likewise.
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
    /// The node that decides its fate, by this node's view; `None` without one.
    pub owner: Option<Boot>,
    /// Whether another node holds it too, as far as it told or made it.
    pub shared: bool,
    /// Packets of each wing that other nodes forwarded, as far as they told; part of the wings' counts.
    pub others_packets: [u64; 2],
    /// The same in bytes.
    pub others_bytes: [u64; 2],
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

/// Sessions of a walk over the table, counted (J11). Every session in the table that the filter means
/// is in exactly one of `valid`, `pending`, `invalidated`, `in_drop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Live sessions by state.
    pub by_state: [u64; State::ALL.len()],
    /// Live sessions by protocol number.
    pub by_protocol: [u64; 256],
    /// Sessions that forward.
    pub valid: u64,
    /// TCP sessions whose handshake is not complete.
    pub pending: u64,
    /// Expired sessions that wait for the sweep; they match nothing.
    pub invalidated: u64,
    /// Sessions that the policy in force denies; their next packet is dropped, and the sweep ends them.
    pub in_drop: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            by_state: [0; State::ALL.len()],
            by_protocol: [0; 256],
            valid: 0,
            pending: 0,
            invalidated: 0,
            in_drop: 0,
        }
    }
}

impl Tally {
    /// Live sessions: all but the invalidated ones.
    pub fn live(&self) -> u64 {
        self.valid + self.pending + self.in_drop
    }

    /// Adds another walk's counts.
    pub fn add(&mut self, other: &Tally) {
        let Tally { by_state, by_protocol, valid, pending, invalidated, in_drop } = other;
        self.by_state.iter_mut().zip(by_state).for_each(|(a, b)| *a += b);
        self.by_protocol.iter_mut().zip(by_protocol).for_each(|(a, b)| *a += b);
        self.valid += valid;
        self.pending += pending;
        self.invalidated += invalidated;
        self.in_drop += in_drop;
    }
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
        self.list_some(cursor, scan_max, usize::MAX, filter, now, out)
    }

    /// The same, but ends after `found_max` sessions: looking at one costs more than passing one over.
    pub fn list_some(
        &self,
        cursor: u32,
        scan_max: u32,
        found_max: usize,
        filter: &SessionFilter,
        now: Now,
        out: &mut Vec<SessionView>,
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        let mut found = 0;
        for slot in (cursor..end).map(SlotId) {
            if found == found_max {
                return Some(slot.0);
            }
            if self.is_meant(slot, filter, now) {
                out.push(self.view_of(slot, now));
                found += 1;
            }
        }
        next
    }

    /// Counts the sessions that match among the next `scan_max` slots from `cursor`. Returns the cursor
    /// to go on with, or `None` at the end of the table.
    pub fn tally(
        &self,
        cursor: u32,
        scan_max: u32,
        filter: &SessionFilter,
        now: Now,
        sum: &mut Tally,
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        for slot in (cursor..end).map(SlotId) {
            let hot = self.table.hot(slot);
            if !hot.in_use() || !self.matches(slot, filter, now) {
                continue;
            }
            if self.is_expired(slot, now) {
                sum.invalidated += 1;
                continue;
            }
            let state = State::from_u8(hot.state);
            sum.by_state[state as usize] += 1;
            sum.by_protocol[usize::from(hot.protocol)] += 1;
            if self.needs_judging(slot) && self.judge_live(slot).is_none() {
                sum.in_drop += 1;
            } else if matches!(state, State::SynSent | State::SynReceived) {
                sum.pending += 1;
            } else {
                sum.valid += 1;
            }
        }
        next
    }

    /// Ends the live sessions that match, and that this node owns, among the next `scan_max` slots from
    /// `cursor` (J10). Returns the cursor to go on with, and how many were cleared.
    pub fn clear(
        &mut self,
        cursor: u32,
        scan_max: u32,
        filter: &SessionFilter,
        now: Now,
    ) -> (Option<u32>, u32) {
        self.clock = now;
        let (end, next) = self.slice(cursor, scan_max);
        let mut cleared = 0;
        for slot in (cursor..end).map(SlotId) {
            if self.is_meant(slot, filter, now) && (self.replica.is_none() || self.is_mine(slot)) {
                self.end(slot, EndReason::Cleared);
                cleared += 1;
            }
        }
        (next, cleared)
    }

    pub(super) fn slice(&self, cursor: u32, scan_max: u32) -> (u32, Option<u32>) {
        let touched = self.table.slots_used();
        let end = cursor.saturating_add(scan_max.max(1)).min(touched).max(cursor);
        (end, (end < touched).then_some(end))
    }

    fn is_meant(&self, slot: SlotId, filter: &SessionFilter, now: Now) -> bool {
        self.table.hot(slot).in_use() && !self.is_expired(slot, now) && self.matches(slot, filter, now)
    }

    fn view_of(&self, slot: SlotId, now: Now) -> SessionView {
        let hot = self.table.hot(slot);
        let cold = self.table.cold(slot);
        let first = self.first_tuple(slot);
        let seen = self.seen_ports(slot);
        let (others_packets, others_bytes) = self.others(slot);
        let is_tcp = hot.protocol == proto::TCP;
        let wing = |w: usize| {
            let tuple = if w == 0 { first } else { first.reversed() };
            WingView {
                tuple,
                zone: hot.zone[w],
                ingress: seen[w],
                egress: self.egress_port(slot, w, tuple),
                packets: cold.packets[w].saturating_add(others_packets[w]),
                bytes: cold.bytes[w].saturating_add(others_bytes[w]),
                facts: if is_tcp { cold.wings[w] } else { WingFacts::default() },
            }
        };
        SessionView {
            id: cold.id(),
            state: State::from_u8(hot.state),
            wings: [wing(0), wing(1)],
            rule: cold.rule,
            application: cold.application,
            revision: cold.revision,
            timeout: self.timeout(slot),
            idle_ms: u64::from(hot.idle_ms(now.ms32())),
            remaining_ms: self.remaining_ms(slot, now),
            duration_ms: cold.age_ms(now),
            owner: self.view.as_ref().map(|v| v.owner(cold.id())),
            shared: self.is_shared(slot),
            others_packets,
            others_bytes,
        }
    }

    /// Packets and bytes of each wing that other nodes forwarded.
    pub(super) fn others(&self, slot: SlotId) -> ([u64; 2], [u64; 2]) {
        self.replica.as_ref().map_or_else(Default::default, |r| r.others(slot))
    }

    fn timeout(&self, slot: SlotId) -> Option<TimeoutClass> {
        let class = self.table.hot(slot).class;
        self.policy.as_ref().and_then(|p| p.classes().get(usize::from(class.0)).copied())
    }

    /// Milliseconds until a session ages out; `None` for `never`.
    pub(super) fn remaining_ms(&self, slot: SlotId, now: Now) -> Option<u64> {
        let idle_ms = u64::from(self.table.hot(slot).idle_ms(now.ms32()));
        self.timeout(slot)?.timeout_ms.map(|t| t.saturating_sub(idle_ms))
    }

    /// The port that the last packet of each wing came in by.
    pub(super) fn seen_ports(&self, slot: SlotId) -> [Option<PortId>; 2] {
        self.table.cold(slot).ingress.map(|port| port.checked_sub(1).map(PortId))
    }

    /// Every port that a session came in by or would leave by now.
    pub(super) fn ports_of(&self, slot: SlotId) -> [Option<PortId>; 4] {
        let [a, b] = self.seen_ports(slot);
        let first = self.first_tuple(slot);
        [a, b, self.egress_port(slot, 0, first), self.egress_port(slot, 1, first.reversed())]
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
