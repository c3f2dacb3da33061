//! Ageing: a hand that passes the whole table about once a second, paced by elapsed time.
//!
//! A packet only writes `last_seen`; the hand asks the same question that lookups ask and collects
//! what is expired. It also judges sessions again that no packet has visited since the policy
//! changed, so that what the policy denies is gone within about a second (see `setup` for packets).

use super::{BATCH_MAX, Engine, hot_flag};
use crate::addr::Tuple;
use crate::policy::{Action, Place};
use crate::session::EndReason;
use crate::table::{HotLine, SlotId};
use crate::time::Now;
use arrayvec::ArrayVec;

/// How long one pass over the table takes, in milliseconds.
const PASS_MS: u64 = 1000;
/// Most slots that one call looks at, so that no batch waits long for the hand.
const SLICE_MAX: u32 = 65_536;
/// Most sessions that one call ends or judges; the hand stops there and goes on at the next call.
const COLLECT_MAX: usize = 1024;

impl Engine {
    /// Moves the hand by what the time since the last call is worth. To be called after each batch,
    /// and at least every few milliseconds when none comes.
    pub fn sweep(&mut self, now: Now) {
        self.clock = now;
        let elapsed = now.since(self.sweep_last).min(PASS_MS);
        self.sweep_last = self.sweep_last.max(now);
        self.fragments.expire(now);
        if self.replica.is_some() {
            self.echo(elapsed, now);
            self.tend_hold(now);
            self.tend_park(now);
            self.retry_early(now);
        }
        self.sweep_debt += elapsed * u64::from(self.table.slots_used());
        let owed = self.sweep_debt / PASS_MS;
        if owed == 0 {
            return;
        }
        let slice = owed.min(u64::from(SLICE_MAX)) as u32;
        // What a long pause owes beyond one slice is forgiven, not hoarded.
        self.sweep_debt = if owed > u64::from(SLICE_MAX) { 0 } else { self.sweep_debt % PASS_MS };
        self.sweep_slots(slice, now);
    }

    fn sweep_slots(&mut self, slice: u32, now: Now) {
        let mut found: ArrayVec<SlotId, COLLECT_MAX> = ArrayVec::new();
        let (expiries, stamp, now_ms) = (&self.expiries_ms, self.stamp, now.ms32());
        let step = if self.replica.is_some() {
            let due = |slot, hot: &HotLine| hot.judged_by != stamp || self.wants_sweep(slot, hot, now);
            self.table.sweep_slice_at(self.sweep_next, slice, due, &mut found)
        } else {
            let due = |hot: &HotLine| {
                let [own, _] = expiries.get(usize::from(hot.class.0)).copied().unwrap_or_default();
                (hot.idle_ms(now_ms) > own) | (hot.judged_by != stamp)
            };
            self.table.sweep_slice(self.sweep_next, slice, due, &mut found)
        };
        if step.next == 0 {
            self.counters.sweep_passes += 1;
        }
        self.sweep_next = step.next;
        let mut stale: ArrayVec<SlotId, COLLECT_MAX> = ArrayVec::new();
        for slot in found {
            let hot = *self.table.hot(slot);
            if self.replica.is_some() && self.wants_sweep(slot, &hot, now) {
                self.sweep_one(slot, now);
            } else if self.replica.is_none() && self.is_expired(slot, now) {
                self.end(slot, EndReason::Aged);
            }
            let hot = self.table.hot(slot);
            if hot.in_use() && hot.judged_by != stamp {
                stale.push(slot);
            }
        }
        stale.chunks(BATCH_MAX).for_each(|slots| self.judge_again(slots));
    }

    /// Ends those of at most [`BATCH_MAX`] live sessions that the policy denies; all when there is none.
    fn judge_again(&mut self, slots: &[SlotId]) {
        let Some(policy) = self.policy.clone() else {
            let (shared, own): (ArrayVec<SlotId, BATCH_MAX>, ArrayVec<SlotId, BATCH_MAX>) =
                slots.iter().copied().partition(|slot| self.is_shared(*slot));
            own.into_iter().for_each(|slot| self.end(slot, EndReason::Denied));
            shared.into_iter().for_each(|slot| self.judged_without(slot));
            return;
        };
        let tuples: ArrayVec<Tuple, BATCH_MAX> = slots.iter().map(|slot| self.first_tuple(*slot)).collect();
        let mut places = [Place::default(); BATCH_MAX];
        policy.place(&tuples, &mut places[..tuples.len()]);
        for ((slot, tuple), place) in slots.iter().zip(&tuples).zip(places) {
            let [from, to] = self.table.hot(*slot).zone;
            if policy.evaluate_at(from, to, tuple, place).action == Action::Permit {
                // Judged; rule and timeout follow with its next packet (F7).
                self.judged_without(*slot);
                if self.is_shared(*slot) {
                    self.classify_copy(*slot, true);
                }
            } else if self.replica.is_none() || self.is_mine(*slot) {
                self.end(*slot, EndReason::Denied);
            }
            // Else it forwards nothing here; its owner, perhaps at another revision, ends it. It is looked at again with
            // each pass, for this node may come to be its owner.
        }
    }

    /// Notes that a session was judged, but not for a packet: its next one is judged in any case.
    fn judged_without(&mut self, slot: SlotId) {
        let stamp = self.stamp;
        let hot = self.table.hot_mut(slot);
        hot.judged_by = stamp;
        hot.flags |= hot_flag::REFRESH;
    }
}
