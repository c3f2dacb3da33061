//! Log and resync become batches.

use super::line::{Line, Phase, ResyncOut, Unacked};
use super::{News, ResyncWhy, Shard, ShardConfig, Wire};
use crate::replication::outlet::FULL_BYTES;
use tidegate_dataplane::engine::{Change, Engine, Peer};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::time::Now;

/// Log entries told, then slots scanned, by turns, while a resync is on its way.
const SLICE: usize = 64;
/// Slots that are scanned for the price of one record: an empty one costs little.
const SCAN_PRICE: usize = 16;

impl Shard {
    /// Sends every peer what is due, as far as its ring takes it.
    pub(super) fn send(&mut self, engine: &Engine, now: Now, wire: &mut dyn Wire) {
        for line in self.lines.iter_mut().flatten() {
            if line.link.is_some() {
                line.send(engine, &self.names, &self.config, now, wire);
            }
        }
    }

    /// A batch of this shard is applied over there.
    pub(super) fn acked(&mut self, peer: Peer, link: u64, number: u64, at: Now, wire: &mut dyn Wire) {
        if let Some(line) = self.linked(peer, link)
            && let Some(number) = line.acked(number, at)
        {
            wire.tell(News::ResyncSent { peer, link, number });
        }
    }

    /// Everything that this node owns is to be sent.
    pub(super) fn begin_resync(&mut self, peer: Peer, number: u64, now: Now) {
        let lately = self.lately.since(now);
        if let Some(line) = self.line(peer).filter(|line| line.link.is_some()) {
            line.lacks = true;
            line.ends = None;
            line.resync = Some(ResyncOut {
                number,
                view: None,
                observed_since: line.lost.min(lately),
                phase: Phase::Begin,
                since: now,
                told: 0,
            });
        }
    }
}

impl Line {
    fn send(&mut self, engine: &Engine, names: &Names, config: &ShardConfig, now: Now, wire: &mut dyn Wire) {
        let mut budget = config.records_per_run;
        loop {
            if self.outlet.len() >= config.flush_bytes {
                self.finish(now);
            }
            if !self.push(wire) || self.unacked.len() >= config.unacked_max {
                return;
            }
            let (before, was_empty) = (budget, self.outlet.is_empty());
            self.tell_changes(engine, names, config, now, &mut budget);
            self.tell_answers();
            self.tell_resync(engine, names, config, now, &mut budget);
            if was_empty {
                self.first_at = now;
            }
            if budget == before || budget == 0 {
                break;
            }
        }
        // What comes after a while of silence leaves at once; what follows closely leaves together.
        let due = now.since(self.finished_at) >= config.flush_ms;
        if due || self.outlet.len() >= config.flush_bytes {
            self.finish(now);
            self.push(wire);
        }
    }

    /// Whether questions may be put into the waiting batch.
    pub(super) fn may_ask(&self) -> bool {
        self.link.is_some() && self.kept.is_none() && self.outlet.len() < FULL_BYTES / 2
    }

    /// Makes the waiting items a batch. Only while none is kept.
    fn finish(&mut self, now: Now) {
        if self.kept.is_none()
            && let Some((number, frame)) = self.outlet.finish()
        {
            let ends = self.ends.take();
            self.finished_at = now;
            self.sent.batches += 1;
            self.sent.bytes += frame.len() as u64;
            let (bytes, since) = (frame.len(), self.first_at);
            self.kept = Some((Unacked { number, cursor: self.cursor, bytes, since, ends }, frame));
        }
    }

    /// Hands the kept batch to the ring; `false` if it is still kept.
    fn push(&mut self, wire: &mut dyn Wire) -> bool {
        let (Some(link), Some((batch, frame))) = (self.link, self.kept.take()) else { return true };
        match wire.send(self.peer, link, frame) {
            Ok(()) => {
                self.unacked_bytes += batch.bytes;
                self.unacked.push_back(batch);
                true
            }
            Err(frame) => {
                self.kept = Some((batch, frame));
                false
            }
        }
    }

    /// Tells a slice of the log.
    fn tell_changes(
        &mut self,
        engine: &Engine,
        names: &Names,
        config: &ShardConfig,
        now: Now,
        budget: &mut usize,
    ) {
        for _ in 0..SLICE.min(*budget) {
            if self.outlet.len() >= config.flush_bytes {
                return;
            }
            match engine.next_change(&mut self.cursor, now) {
                // A look is bounded: what is stale costs little, and not nothing.
                Ok(None) if self.cursor < engine.log_head() => {}
                Ok(None) => return,
                Ok(Some(Change::Session(slot))) => {
                    if let Some(copy) = engine.copy(slot, now) {
                        self.outlet.copy(&copy, names);
                        self.sent.changes += 1;
                    }
                }
                Ok(Some(Change::End(end))) => {
                    self.outlet.end(&end);
                    self.sent.ends += 1;
                }
                Err(_fell_out) => return self.lose(ResyncWhy::FellOut, engine.log_head(), now),
            }
            *budget -= 1;
        }
    }

    /// Says which questions are answered by what was told.
    fn tell_answers(&mut self) {
        while let Some(answer) = self.answers.pop_front_if(|a| a.after <= self.cursor) {
            self.outlet.answered(answer.shard, answer.number, answer.count);
        }
    }

    /// Tells a slice of the table.
    fn tell_resync(
        &mut self,
        engine: &Engine,
        names: &Names,
        config: &ShardConfig,
        now: Now,
        budget: &mut usize,
    ) {
        let Some(resync) = &mut self.resync else { return };
        if self.outlet.len() >= config.flush_bytes {
            return;
        }
        let digest = engine.view().map_or(0, |view| view.digest());
        match resync.phase {
            Phase::Begin => {
                self.outlet.resync_begin(resync.number, digest);
                resync.view = Some(digest);
                resync.phase = Phase::Scan(0);
                *budget = budget.saturating_sub(1);
            }
            Phase::Scan(place) => {
                let mut told = 0;
                let since = resync.observed_since;
                let next = engine.scan_to_tell(place, SLICE as u32, since, &mut |slot| {
                    if let Some(copy) = engine.copy(slot, now) {
                        self.outlet.copy(&copy, names);
                        told += 1;
                    }
                });
                resync.told += told;
                self.sent.resync += told;
                resync.phase = next.map_or(Phase::Ends(0), Phase::Scan);
                *budget = budget.saturating_sub((told as usize).max(SLICE / SCAN_PRICE));
            }
            Phase::Ends(place) => {
                let mut told = 0;
                let since = resync.observed_since;
                let next = engine.scan_ends(place, SLICE as u32, since, now, &mut |end| {
                    self.outlet.end(&end);
                    told += 1;
                });
                self.sent.ends += told;
                resync.phase = next.map_or(Phase::CatchUp(engine.log_head()), Phase::Ends);
                *budget = budget.saturating_sub((told as usize).max(SLICE / SCAN_PRICE));
            }
            Phase::CatchUp(head) if self.cursor >= head => {
                // Another number than any view's tells the peer that this one changed meanwhile.
                let view = resync.view.filter(|view| *view == digest).unwrap_or(!digest);
                self.outlet.resync_end(resync.number, view);
                self.ends = Some(resync.number);
                self.resync = None;
            }
            Phase::CatchUp(_) => {}
        }
    }

    /// The view has changed: a resync that is on its way may have left something out.
    pub(super) fn view_changed(&mut self) {
        if let Some(resync) = &mut self.resync {
            resync.view = None;
        }
        if let Some(resync) = &mut self.resync_in {
            resync.agreed = false;
        }
    }
}
