//! Walks over the table for a peer that lacks much: what this node owns, what vanished there meanwhile, and what a
//! dead peer told last.

use super::side::side_flag;
use super::tombs::Tomb;
use super::{Engine, Peer};
use crate::addr::Tuple;
use crate::session::copy::EndNote;
use crate::session::owner::Boot;
use crate::session::record::SessionId;
use crate::table::SlotId;
use crate::time::Now;

/// How far back the last words of a dead peer are told on, in ms, beside twice the detection.
const ECHO_MS: u64 = 2_000;
/// How long the walk over the table takes that finds them, in ms: a takeover must not wait for it.
const ECHO_PASS_MS: u64 = 500;
/// Slots that are looked at when it begins.
const ECHO_FIRST: u32 = 1_024;

/// The last words of dead peers, being told on.
pub(super) struct Echo {
    peers: u16,
    /// Said since then.
    since: Now,
    /// Slot to go on with, then the tombstone; `None` behind the last one.
    slot: Option<u32>,
    tomb: u32,
    /// Slots that the time since the last slice is worth, times [`ECHO_PASS_MS`].
    debt: u64,
}

impl Engine {
    /// Calls `each` for the sessions that this node owns and that others are to have, among the next
    /// `scan_max` slots from `cursor`. Returns the cursor to go on with, or `None` at the end of the table.
    pub fn scan_owned(&self, cursor: u32, scan_max: u32, each: &mut dyn FnMut(SlotId)) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        for slot in (cursor..end).map(SlotId) {
            if self.is_tellable(slot) && self.is_mine(slot) {
                each(slot);
            }
        }
        next
    }

    /// The same, and with them the sessions of others of which something that this node observed was logged under
    /// `since` or later: for a peer that may not have heard of that, as its owner may not have when it told it.
    pub fn scan_to_tell(
        &self,
        cursor: u32,
        scan_max: u32,
        since: u64,
        each: &mut dyn FnMut(SlotId),
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        let observed =
            |slot| self.replica.as_ref().is_some_and(|r| r.sides.line(slot).newest >= since.max(1));
        for slot in (cursor..end).map(SlotId) {
            if self.is_tellable(slot) && (self.is_mine(slot) || observed(slot)) {
                each(slot);
            }
        }
        next
    }

    /// Calls `each` for the ends that this node told under `since` or later, among the next `scan_max` tombstones from
    /// `cursor`: the log may have forgotten them before the peer was told, and it may be that nobody else tells it,
    /// for a session that has ended has another owner when the view changes. Returns the cursor to go on with.
    pub fn scan_ends(
        &self,
        cursor: u32,
        scan_max: u32,
        since: u64,
        now: Now,
        each: &mut dyn FnMut(EndNote),
    ) -> Option<u32> {
        let tombs = &self.replica.as_ref()?.log.tombs;
        let end = cursor.saturating_add(scan_max.max(1)).min(tombs.len());
        let told = |at| tombs.get(at).filter(|tomb| tomb.number >= since.max(1));
        (cursor..end).filter_map(told).for_each(|tomb| each(tomb.note(now)));
        (end < tombs.len()).then_some(end)
    }

    /// Whether a slot holds a session that others are to have.
    pub(super) fn is_tellable(&self, slot: SlotId) -> bool {
        let young = |r: &super::Replica| r.sides.line(slot).has(side_flag::YOUNG);
        self.table.hot(slot).in_use()
            && !self.is_unsynced(slot)
            && self.replica.as_deref().is_some_and(|r| !young(r))
    }

    /// A resync of that mark begins: what is told to others from here on cannot have vanished before it.
    pub fn resync_begins(&mut self, peer: Peer, mark: u32) {
        let Some(r) = &mut self.replica else { return };
        let head = r.log.head();
        if let Some(known) = r.marks.get_mut(usize::from(peer.0))
            && known.is_none_or(|(old, _)| old < mark)
        {
            *known = Some((mark, head));
        }
    }

    /// Mark and sweep after a resync of `peer`: among the next `scan_max` slots from `cursor`, a session that it owns
    /// and has told of in this boot (mark `boot_mark` or later), but not since `since_mark`, is gone there and
    /// ends here too, without a tombstone; one that it owns and never told of is told to it. Never what was
    /// told from here since the resync began; and what this node itself saw lately is asked for by telling
    /// it, not ended. Returns the cursor to go on with, or `None` at the end of the table.
    #[expect(clippy::too_many_arguments)]
    pub fn sweep_unmarked(
        &mut self,
        peer: Peer,
        teller: Boot,
        boot_mark: u32,
        since_mark: u32,
        cursor: u32,
        scan_max: u32,
        now: Now,
    ) -> Option<u32> {
        self.clock = now;
        let (end, next) = self.slice(cursor, scan_max);
        for slot in (cursor..end).map(SlotId) {
            if !self.is_tellable(slot) {
                continue;
            }
            let id = self.table.cold(slot).id();
            if self.view.as_ref().is_none_or(|v| v.me == teller || v.owner(id) != teller) {
                continue;
            }
            self.sweep_marked_slot(slot, peer, boot_mark, since_mark);
        }
        next
    }

    fn sweep_marked_slot(&mut self, slot: SlotId, peer: Peer, boot_mark: u32, since_mark: u32) {
        let Some(r) = &self.replica else { return };
        let begun = r.marks.get(usize::from(peer.0)).copied().flatten();
        let told_since =
            begun.is_some_and(|(mark, head)| mark >= since_mark && r.sides.line(slot).newest >= head);
        let mark = r.sides.told_line(slot, peer).map(|line| line.mark).filter(|mark| *mark >= boot_mark);
        if told_since || mark.is_some_and(|mark| mark >= since_mark) {
            return;
        }
        // Its newest packet was told by nobody else: the owner knew all that is known here.
        let side = r.sides.line(slot);
        let heard = side.has(side_flag::HEARD) && side.heard_ms == self.table.hot(slot).last_seen_ms;
        if mark.is_some() && heard && side.heard_from == peer.0 {
            self.counters.replication.swept += 1;
            self.free(slot);
        } else if self.log_slot(slot) {
            self.counters.replication.returned += 1;
        }
    }

    /// A peer died: what it told lately may not have reached everybody, so it is told on as this node's own, a
    /// slice with each call of the sweep.
    pub fn peer_died(&mut self, peer: Peer, it: Boot, now: Now) {
        let Some(r) = &mut self.replica else { return };
        r.sides.died(peer, it);
        self.tell_last_words_on(peer, now);
    }

    /// The link to a peer's boot has ended. Of one that never seemed alive here nobody will say that it died, so what it
    /// told is told on now, as after a death.
    pub fn link_ended(&mut self, peer: Peer, it: Boot, now: Now) {
        let is_alive = self.view.as_ref().is_none_or(|view| view.is_alive(it));
        let is_dead = self.replica.as_deref().is_none_or(|r| r.sides.is_dead(peer, it));
        if !is_alive && !is_dead {
            self.tell_last_words_on(peer, now);
        }
    }

    fn tell_last_words_on(&mut self, peer: Peer, now: Now) {
        self.clock = now;
        let lately_ms = ECHO_MS + 2 * self.view.as_ref().map_or(0, |v| u64::from(v.detection_ms));
        let Some(r) = &mut self.replica else { return };
        let before = r.echo.take().map_or((0, now), |e| (e.peers, e.since));
        let since = Now(before.1.0.min(now.0.saturating_sub(lately_ms)));
        r.echo = Some(Echo { peers: before.0 | peer.bit(), since, slot: Some(0), tomb: 0, debt: 0 });
        self.echo_slice(ECHO_FIRST, now);
    }

    /// Tells on what a dead peer said of a session or its end: that was on its way when it died.
    #[cold]
    pub(super) fn tell_on(&mut self, id: SessionId, tuple: &Tuple) {
        let foreign = |r: &super::Replica| {
            let at = r.foreign.find(id)?;
            r.foreign.get(at).map(|tomb| tomb.note(self.clock))
        };
        let told = match (self.find_id(id, tuple), self.replica.as_deref().and_then(foreign)) {
            (Some(slot), _) => self.log_slot(slot),
            (None, Some(note)) => {
                self.bury_and_log(&note);
                true
            }
            (None, None) => false,
        };
        self.counters.replication.echoed += u64::from(told);
    }

    /// Tells on as much of the last words of dead peers as the time since the last call is worth.
    pub(in crate::engine) fn echo(&mut self, elapsed_ms: u64, now: Now) {
        let slots = u64::from(self.table.slots_used().max(ECHO_FIRST));
        let Some(echo) = self.replica.as_mut().and_then(|r| r.echo.as_mut()) else { return };
        echo.debt += elapsed_ms * slots;
        let owed = echo.debt / ECHO_PASS_MS;
        echo.debt %= ECHO_PASS_MS;
        if owed > 0 {
            self.echo_slice(u32::try_from(owed).unwrap_or(u32::MAX), now);
        }
    }

    fn echo_slice(&mut self, slots: u32, now: Now) {
        let Some(mut echo) = self.replica.as_mut().and_then(|r| r.echo.take()) else { return };
        if let Some(cursor) = echo.slot {
            let (end, next) = self.slice(cursor, slots);
            for slot in (cursor..end).map(SlotId) {
                if self.is_last_word(slot, &echo, now) && self.log_slot(slot) {
                    self.counters.replication.echoed += 1;
                }
            }
            echo.slot = next;
        }
        if echo.slot.is_none() {
            let end =
                echo.tomb.saturating_add(slots).min(self.replica.as_ref().map_or(0, |r| r.foreign.len()));
            for at in echo.tomb..end {
                let tomb = self.replica.as_ref().and_then(|r| r.foreign.get(at));
                let is_last_word = |tomb: &&Tomb| {
                    tomb.decided_ms >= echo.since.0
                        && tomb.from.is_some_and(|from| echo.peers & Peer(from).bit() != 0)
                };
                if let Some(note) = tomb.filter(is_last_word).map(|tomb| tomb.note(now)) {
                    self.bury_and_log(&note);
                    self.counters.replication.echoed += 1;
                }
            }
            echo.tomb = end;
        }
        if let Some(r) = &mut self.replica
            && (echo.slot.is_some() || echo.tomb < r.foreign.len())
        {
            r.echo = Some(echo);
        }
    }

    /// Whether a dead peer told of a session lately.
    fn is_last_word(&self, slot: SlotId, echo: &Echo, now: Now) -> bool {
        let Some(r) = &self.replica else { return false };
        let told_by = r.sides.line(slot).told_by & echo.peers;
        let said_ms = now.since(echo.since);
        let lately = |peer: Peer| {
            let line = r.sides.told_line(slot, peer).filter(|_| told_by & peer.bit() != 0);
            line.is_some_and(|line| u64::from(now.ms32().wrapping_sub(line.told_ms)) <= said_ms)
        };
        told_by != 0 && self.is_tellable(slot) && (0..super::PEERS_MAX as u8).map(Peer).any(lately)
    }

    /// Peers that told births of others while those still seemed to be there, and now are not: what was refused
    /// is lacked here, so a resync with each of them is due. Empties the list.
    pub fn take_resync_wishes(&mut self, mut each: impl FnMut(Peer)) {
        let Some(r) = &mut self.replica else { return };
        let wishes = std::mem::take(&mut r.wishes);
        (0..super::PEERS_MAX as u8).map(Peer).filter(|p| wishes & p.bit() != 0).for_each(&mut each);
    }
}
