//! What is told: this node's own observations, logged once each, and read out as copies.

use super::log::Entry;
use super::side::side_flag;
use super::tombs::Tomb;
use super::{Change, Engine, FellOut, hot_flag};
use crate::addr::proto;
use crate::session::EndReason;
use crate::session::copy::{Birth, EndNote, SessionCopy};
use crate::session::record::{SessionId, WingFacts};
use crate::session::tcp::fact;
use crate::table::SlotId;
use crate::time::Now;

/// Entries that one call of [`Engine::next_change`] looks at, at most.
const LOOK_MAX: u32 = 512;

/// Added to the age of the last telling of a session that was never told: overdue, whatever its class.
const OVERDUE_MS: u32 = 1 << 30;

impl Engine {
    /// The number that the next change gets; the first is 1.
    pub fn log_head(&self) -> u64 {
        self.replica.as_ref().map_or(1, |r| r.log.head())
    }

    /// The next change from `cursor` on (the number of the entry to look at; behind it afterwards). What a newer
    /// change covers is skipped. `None`: nothing more, or nothing in a bounded look; there is nothing
    /// more when the cursor has come to [`Engine::log_head`].
    ///
    /// # Errors
    /// When the log no longer holds all that this reader lacks.
    pub fn next_change(&self, cursor: &mut u64, now: Now) -> Result<Option<Change>, FellOut> {
        let Some(r) = &self.replica else { return Ok(None) };
        *cursor = (*cursor).max(1);
        if *cursor < r.log.first() {
            return Err(FellOut);
        }
        for _ in 0..LOOK_MAX {
            let Some(entry) = r.log.get(*cursor) else { break };
            let number = *cursor;
            *cursor += 1;
            match entry {
                Entry::Slot(slot) if r.sides.line(slot).newest == number => {
                    return Ok(Some(Change::Session(slot)));
                }
                Entry::Tomb(at) => match r.log.tombs.get(at) {
                    Some(tomb) if tomb.number == number => return Ok(Some(Change::End(tomb.note(now)))),
                    _ => (),
                },
                Entry::Slot(_) => (),
            }
        }
        Ok(None)
    }

    /// This node's copy of the session in a slot, as it is now.
    pub fn copy(&self, slot: SlotId, now: Now) -> Option<SessionCopy> {
        let hot = self.table.hot_lines().get(slot.0 as usize).filter(|hot| hot.in_use())?;
        let cold = self.table.cold(slot);
        let birth = Birth {
            id: cold.id(),
            tuple: self.first_tuple(slot),
            zones: hot.zone,
            rule: cold.rule,
            application: cold.application,
            revision: cold.revision,
            supersedes: self.replica.as_ref().and_then(|r| r.sides.line(slot).supersedes()),
        };
        Some(SessionCopy {
            birth,
            facts: self.facts(slot),
            sighted: cold.tcp_seen_ms.map(|seen| seen != 0),
            age_ms: hot.idle_ms(now.ms32()),
            created_age_ms: cold.age_ms(now),
            packets: cold.packets,
            bytes: cold.bytes,
        })
    }

    /// The facts of a session as they are told: without TCP only which wing was seen.
    pub(super) fn facts(&self, slot: SlotId) -> [WingFacts; 2] {
        let wings = self.table.cold(slot).wings;
        if self.table.hot(slot).protocol == proto::TCP {
            return wings;
        }
        let seen = |bits: u8| WingFacts { bits: bits & fact::MID, ..WingFacts::default() };
        [seen(fact::MID), seen(wings[1].bits)]
    }

    /// Notes whether policy lets others know of a session. `true`: it did not, and does now.
    pub(in crate::engine) fn set_synced(&mut self, slot: SlotId, synced: bool) -> bool {
        let hot = self.table.hot_mut(slot);
        let before = hot.flags & hot_flag::UNSYNCED == 0;
        hot.flags = if synced { hot.flags & !hot_flag::UNSYNCED } else { hot.flags | hot_flag::UNSYNCED };
        synced && !before
    }

    /// The age from which sessions are told, as the policy in force says.
    pub(in crate::engine) fn set_min_age(&mut self) {
        let min_age_s = self.policy.as_ref().map_or(0, |p| p.replication().min_age_s);
        if let Some(r) = &mut self.replica {
            r.min_age_ms = u64::from(min_age_s) * 1000;
        }
    }

    /// Tells of a session that was set up just now, whatever its age; the number of that news. `None` when it is
    /// not for others.
    pub(in crate::engine) fn tell_at_once(&mut self, slot: SlotId) -> Option<u64> {
        let r = self.replica.as_mut()?;
        let side = r.sides.line_mut(slot);
        side.set(side_flag::YOUNG, false);
        if side.newest == 0 {
            self.log_slot(slot);
        }
        self.replica.as_ref().map(|r| r.sides.line(slot).newest).filter(|number| *number != 0)
    }

    /// A session was set up here.
    pub(in crate::engine) fn log_birth(&mut self, slot: SlotId, supersedes: Option<SessionId>) {
        let now = self.clock;
        let unsynced = self.is_unsynced(slot);
        let Some(r) = &mut self.replica else { return };
        r.sides.clear(slot);
        if unsynced {
            return;
        }
        let side = r.sides.line_mut(slot);
        side.set_supersedes(supersedes);
        if r.min_age_ms > 0 {
            side.set(side_flag::YOUNG, true);
            r.sides.set_told_ms(slot, now.ms32().wrapping_sub(OVERDUE_MS));
            return;
        }
        self.log_slot(slot);
    }

    /// Facts grew here, or else something happened that others must know at once.
    #[cold]
    pub(in crate::engine) fn log_change(&mut self, slot: SlotId) {
        if self.replica.is_some() {
            self.log_slot(slot);
            self.look_again(slot);
        }
    }

    /// The first packet of a copy came by here: its owner hears of that at once.
    pub(in crate::engine) fn note_seen(&mut self, slot: SlotId) {
        let Some(r) = &mut self.replica else { return };
        let side = r.sides.line_mut(slot);
        if side.has(side_flag::UNSEEN) {
            side.set(side_flag::UNSEEN, false);
            self.log_slot(slot);
        }
    }

    /// A TCP wing that was not seen here of late is seen again: others that saw it before must not hold it to the window
    /// that they know. At once, or with the sweep when that was told a moment ago.
    #[cold]
    pub(in crate::engine) fn tell_sight(&mut self, slot: SlotId) {
        let (seen, now) = (self.table.hot(slot).last_seen_ms, self.clock);
        let Some(r) = &mut self.replica else { return };
        if r.sides.line_mut(slot).may_tell_sight(now.ms32()) {
            self.log_slot(slot);
        } else {
            r.sides.set_told_ms(slot, seen.wrapping_sub(OVERDUE_MS));
        }
    }

    /// Logs a session's present state. `false` when it is not for others (yet).
    pub(super) fn log_slot(&mut self, slot: SlotId) -> bool {
        let (seen, now) = (self.table.hot(slot).last_seen_ms, self.clock);
        let age_ms = self.table.cold(slot).age_ms(now);
        if self.is_unsynced(slot) {
            return false;
        }
        let Some(r) = &mut self.replica else { return false };
        if r.sides.line(slot).has(side_flag::YOUNG) {
            if age_ms < r.min_age_ms {
                return false;
            }
            r.sides.line_mut(slot).set(side_flag::YOUNG, false);
        }
        r.sides.line_mut(slot).newest = r.log.push_slot(slot);
        r.sides.set_told_ms(slot, seen);
        self.counters.replication.logged += 1;
        true
    }

    /// A session is about to end by a decision of this node: a tombstone is written and logged.
    pub(in crate::engine) fn log_end(&mut self, slot: SlotId, reason: EndReason) {
        let unsynced = self.is_unsynced(slot);
        let young = |r: &super::Replica| r.sides.line(slot).has(side_flag::YOUNG);
        if unsynced || self.replica.as_deref().is_none_or(young) {
            return;
        }
        let note = self.end_note(slot, reason);
        self.bury_and_log(&note);
    }

    /// How a session ends, as told.
    pub(super) fn end_note(&self, slot: SlotId, reason: EndReason) -> EndNote {
        EndNote {
            id: self.table.cold(slot).id(),
            tuple: self.first_tuple(slot),
            reason,
            age_ms: self.table.hot(slot).idle_ms(self.clock.ms32()),
            bits: self.facts(slot).map(|f| f.bits),
        }
    }

    /// Writes a tombstone of a decision of this node, or one that it tells on, and logs it.
    pub(super) fn bury_and_log(&mut self, note: &EndNote) {
        let now = self.clock;
        let Some(r) = &mut self.replica else { return };
        r.foreign.remove(note.id);
        let at = match r.log.tombs.find(note.id) {
            Some(at) => {
                r.log.tombs.strengthen(at, note, now);
                at
            }
            None => {
                let (at, gone) = r.log.tombs.push(Tomb::new(note, None, now));
                if let Some(gone) = gone
                    && r.log.lose(gone.number)
                {
                    self.counters.replication.tombstones_lost += 1;
                }
                at
            }
        };
        r.log.push_tomb(at);
        self.counters.replication.logged += 1;
    }

    /// Changes below that number are known to every connected peer: their tombstones may be overwritten without
    /// anybody missing them. They are kept as long as there is room.
    pub fn release_tombstones(&mut self, below: u64) {
        if let Some(r) = &mut self.replica {
            r.log.release(below);
        }
    }
}
