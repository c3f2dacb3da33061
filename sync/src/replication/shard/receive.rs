//! Messages and items are applied.

use super::line::{Answer, Line, ResyncIn};
use super::{FromNode, Item, News, ResyncWhy, Shard, Wire};
use std::sync::Arc;
use tidegate_dataplane::engine::{Applied, Engine, Peer};
use tidegate_dataplane::session::owner::{Boot, View};
use tidegate_dataplane::time::Now;

/// Messages that one run takes, whatever is in them.
const MESSAGES_PER_RUN: usize = 256;
/// Slots that one run sweeps for each peer.
const SWEEP_SLOTS: u32 = 4096;

impl Shard {
    /// Takes messages until there are none, or as many records came as one run may take.
    pub(super) fn receive(&mut self, engine: &mut Engine, now: Now, wire: &mut dyn Wire) {
        let mut left = self.config.records_per_run;
        for _ in 0..MESSAGES_PER_RUN {
            if left == 0 {
                return;
            }
            let Some(message) = wire.next() else {
                // Only now: what was queued when ageing was to go on is applied.
                if std::mem::take(&mut self.resuming) {
                    self.held = false;
                    engine.hold_ageing(false);
                }
                return;
            };
            if let FromNode::Items { items, .. } = &message {
                left = left.saturating_sub(items.len());
            }
            self.message(message, engine, now, wire);
        }
    }

    fn message(&mut self, message: FromNode, engine: &mut Engine, now: Now, wire: &mut dyn Wire) {
        match message {
            FromNode::Names(names) => self.names = names,
            FromNode::View(view) => self.set_view(view, engine, now),
            FromNode::Resume => self.resuming = true,
            FromNode::Up { peer, it, link, streams, .. } => self.up(peer, it, link, streams, engine, now),
            FromNode::Down { peer, link } => {
                let config = self.config;
                if let Some(line) = self.linked(peer, link) {
                    line.end_link(&config, now);
                    engine.link_ended(peer, line.it, now);
                }
            }
            FromNode::Resync { peer, number } => self.begin_resync(peer, number, now),
            FromNode::Items { peer, link, stream, number, items } => {
                let Some(line) = self.linked(peer, link) else {
                    self.stale += 1;
                    return;
                };
                line.received.batches += 1;
                for item in items {
                    self.item(peer, stream, item, engine, now, wire);
                }
                wire.tell(News::Applied { peer, link, stream, number });
            }
            FromNode::Acked { peer, link, number, at } => self.acked(peer, link, number, at, wire),
            FromNode::Full { peer, link, full } => {
                if let Some(line) = self.linked(peer, link) {
                    line.full = full;
                }
            }
            FromNode::Died { peer, it } => engine.peer_died(peer, it, now),
        }
    }

    fn set_view(&mut self, view: Arc<View>, engine: &mut Engine, now: Now) {
        if engine.view().is_none_or(|old| old.digest() != view.digest()) {
            self.lines.iter_mut().flatten().for_each(|line| line.view_changed());
        }
        engine.set_view(view);
        engine.take_resync_wishes(|peer| {
            if let Some(line) = self.line(peer) {
                line.want_in(ResyncWhy::OriginDied, now);
            }
        });
    }

    fn up(&mut self, peer: Peer, it: Boot, link: u64, streams: u16, engine: &Engine, now: Now) {
        let (config, released) = (self.config, self.released);
        let Some(place) = self.lines.get_mut(usize::from(peer.0)) else { return };
        let known = place.as_ref().is_some_and(|line| line.it == it);
        let line = place.get_or_insert_with(|| Box::new(Line::new(peer, it, &config)));
        if !known {
            line.begin_boot(it, engine.log_head(), now);
        } else if line.seen < released && !line.lacks {
            // Ends that it has not heard of are no longer kept.
            line.lose(ResyncWhy::Joined, engine.log_head(), now);
        }
        line.begin_link(link, streams, &config, now);
    }

    fn item(
        &mut self,
        peer: Peer,
        stream: u16,
        item: Item,
        engine: &mut Engine,
        now: Now,
        wire: &mut dyn Wire,
    ) {
        if let Item::Answered { number, count } = item {
            return self.asking.answered(peer, number, count);
        }
        let digest = || engine.view().map_or(0, |view| view.digest());
        let Some(line) = self.line(peer) else { return };
        match item {
            Item::Copy(copy) => {
                let mark = line.marks.get(usize::from(stream)).copied().unwrap_or(line.boot_mark);
                let applied = engine.apply_copy(peer, line.it, mark, &copy, now);
                line.count(applied, false, now, wire);
            }
            Item::End(end) => {
                let applied = engine.apply_end(peer, line.it, &end, now);
                line.count(applied, true, now, wire);
            }
            Item::ResyncBegin { number, view } => {
                line.resync_begins(stream, number, view == digest(), now);
                engine.resync_begins(peer, line.mark);
            }
            Item::ResyncEnd { number, view } => line.resync_ends(stream, number, view == digest(), now),
            Item::Ask { number, questions } => {
                questions.iter().for_each(|question| engine.answer(question, now));
                let count = questions.len() as u32;
                line.received.questions += u64::from(count);
                line.answer(Answer { after: engine.log_head(), shard: stream, number, count });
            }
            Item::Answered { .. } => {}
        }
    }

    /// Goes on sweeping away what vanished at peers whose resync has come to its end.
    pub(super) fn sweep(&mut self, engine: &mut Engine, now: Now, wire: &mut dyn Wire) {
        for line in self.lines.iter_mut().flatten() {
            let Some(resync) = &mut line.resync_in else { continue };
            let Some(place) = resync.sweep else { continue };
            if !resync.agreed {
                line.resync_in = None;
                line.want_in(ResyncWhy::ViewsDiffered, now);
                continue;
            }
            let (peer, it, mark) = (line.peer, line.it, resync.mark);
            let next = engine.sweep_unmarked(peer, it, line.boot_mark, mark, place, SWEEP_SLOTS, now);
            if next.is_some() {
                resync.sweep = next;
            } else {
                let view = engine.view().map_or(0, |view| view.digest());
                line.resync_applied(view, now, wire);
            }
        }
    }
}

impl Line {
    fn count(&mut self, applied: Applied, is_end: bool, now: Now, wire: &mut dyn Wire) {
        let counts = &mut self.received;
        match applied {
            Applied::New | Applied::Merged if is_end => counts.ends += 1,
            Applied::New => counts.new += 1,
            Applied::Merged => counts.merged += 1,
            Applied::Unchanged => counts.unchanged += 1,
            Applied::Answered => counts.answered += 1,
            Applied::Refused(why) => {
                counts.refused += 1;
                *self.refused.entry(why.name()).or_default() += 1;
            }
            Applied::NoRoom => {
                counts.no_room += 1;
                self.missed += 1;
                if self.want_in.is_none() {
                    self.want_in(ResyncWhy::RoomReturned, now);
                }
                if let (false, Some(link)) = (self.no_room, self.link) {
                    self.no_room = true;
                    wire.tell(News::NoRoom { peer: self.peer, link });
                }
            }
        }
    }

    fn resync_begins(&mut self, stream: u16, number: u64, agreed: bool, now: Now) {
        let streams = self.marks.len();
        if self
            .resync_in
            .as_ref()
            .is_some_and(|r| r.number > number || r.sweep.is_some() && r.number == number)
        {
            return;
        }
        if self.resync_in.as_ref().is_none_or(|r| r.number != number) {
            self.mark += 1;
            self.missed = 0;
            self.resync_in = Some(ResyncIn {
                number,
                mark: self.mark,
                began: vec![false; streams],
                ended: vec![false; streams],
                agreed: true,
                since: now,
                sweep: None,
            });
        }
        let (Some(resync), Some(mark)) = (&mut self.resync_in, self.marks.get_mut(usize::from(stream)))
        else {
            return;
        };
        *mark = resync.mark;
        resync.agreed &= agreed;
        resync.began[usize::from(stream)] = true;
    }

    fn resync_ends(&mut self, stream: u16, number: u64, agreed: bool, now: Now) {
        let Some(resync) = self.resync_in.as_mut().filter(|r| r.number == number) else { return };
        let stream = usize::from(stream);
        if resync.began.get(stream) != Some(&true) {
            return;
        }
        resync.agreed &= agreed;
        resync.ended[stream] = true;
        if !resync.ended.iter().all(|ended| *ended) {
            return;
        }
        if resync.agreed {
            resync.sweep = Some(0);
        } else {
            // Nothing may be removed, and something may be missing.
            self.resync_in = None;
            self.want_in(ResyncWhy::ViewsDiffered, now);
        }
    }

    /// All came, all that is gone is swept away.
    fn resync_applied(&mut self, view: u64, now: Now, wire: &mut dyn Wire) {
        let (Some(resync), peer) = (self.resync_in.take(), self.peer) else { return };
        if self.missed > 0 {
            return self.want_in(ResyncWhy::RoomReturned, now);
        }
        self.want_in = None;
        let Some(link) = self.link else { return };
        if std::mem::take(&mut self.no_room) {
            wire.tell(News::Room { peer, link });
        }
        wire.tell(News::ResyncApplied { peer, link, number: resync.number, view });
    }
}
