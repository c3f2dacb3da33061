//! What a shard keeps of one peer.

use super::delay::Delay;
use super::status::{PeerStatus, Received, Sent};
use super::{ResyncWhy, ShardConfig};
use crate::replication::outlet::Outlet;
use std::collections::{BTreeMap, VecDeque};
use tidegate_dataplane::engine::Peer;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;

/// Longest pause between two times that a resync is asked for.
const WANT_PAUSE_MS_MAX: u64 = 10_000;
/// Pause after the first time.
const WANT_PAUSE_MS: u64 = 100;
/// Most askings of a peer whose answers wait to be told; further ones are not answered, and the asker's wait
/// ends by itself.
const ANSWERS_MAX: usize = 256;

/// A resync that is needed and has not come.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) why: ResyncWhy,
    pub(super) since: Now,
    next_at: Now,
    pause_ms: u64,
}

impl Want {
    /// From then on.
    fn new(why: ResyncWhy, since: Now) -> Self {
        Want { why, since, next_at: since, pause_ms: WANT_PAUSE_MS }
    }

    /// Said only after a pause.
    fn after_pause(self) -> Self {
        Want { next_at: Now(self.since.0 + WANT_PAUSE_MS), ..self }
    }

    /// Whether it is time to say so (again).
    pub(super) fn is_due(&mut self, now: Now) -> bool {
        let due = now >= self.next_at;
        if due {
            self.next_at = Now(now.0 + self.pause_ms);
            self.pause_ms = (2 * self.pause_ms).min(WANT_PAUSE_MS_MAX);
        }
        due
    }
}

/// A resync that this shard sends.
#[derive(Debug)]
pub(super) struct ResyncOut {
    pub(super) number: u64,
    /// Digest of the view at its beginning; `None` before that was said, and after the view changed.
    pub(super) view: Option<u64>,
    /// What was observed of others' sessions under this log number or later is told too.
    pub(super) observed_since: u64,
    pub(super) phase: Phase,
    pub(super) since: Now,
    pub(super) told: u64,
}

/// How far a [`ResyncOut`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Its beginning is to be said.
    Begin,
    /// The table is scanned, from this place on.
    Scan(u32),
    /// The tombstones are scanned, from this place on.
    Ends(u32),
    /// What changed until the scan was over is told first: log numbers below this one.
    CatchUp(u64),
}

/// A resync of the peer that is on its way in.
#[derive(Debug)]
pub(super) struct ResyncIn {
    pub(super) number: u64,
    /// Mark of what is told since its beginning.
    pub(super) mark: u32,
    pub(super) began: Vec<bool>,
    pub(super) ended: Vec<bool>,
    /// Whether all views were equal so far.
    pub(super) agreed: bool,
    pub(super) since: Now,
    /// Place of the sweep that follows it.
    pub(super) sweep: Option<u32>,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) number: u64,
    /// Log number below which everything is said by it and those before.
    pub(super) cursor: u64,
    pub(super) bytes: usize,
    /// When its first item was put into it.
    pub(super) since: Now,
    /// The resync whose end it holds.
    pub(super) ends: Option<u64>,
}

/// Questions of a peer that are answered when the log is told up to a number.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) after: u64,
    pub(super) shard: u16,
    pub(super) number: u64,
    pub(super) count: u32,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) peer: Peer,
    pub(super) it: Boot,
    pub(super) link: Option<u64>,
    pub(super) down_at: Now,

    // Telling.
    pub(super) outlet: Outlet,
    /// When the first item of the waiting batch was put there.
    pub(super) first_at: Now,
    /// When the batch before it was finished.
    pub(super) finished_at: Now,
    /// A finished batch that the ring had no place for.
    pub(super) kept: Option<(Unacked, Vec<u8>)>,
    /// Log number to go on with.
    pub(super) cursor: u64,
    /// Log number below which everything that was sent is acknowledged: where a new link to this boot goes on.
    pub(super) seen: u64,
    /// Log number below which the peer has everything, for certain.
    pub(super) sure: u64,
    /// The peer lacks something that only a resync brings.
    pub(super) lacks: bool,
    /// While it does: log number from which on it may not have heard what was observed here.
    pub(super) lost: u64,
    /// The peer has no room for all.
    pub(super) full: bool,
    pub(super) unacked: VecDeque<Unacked>,
    pub(super) unacked_bytes: usize,
    pub(super) delay: Delay,
    /// Of the newest batch that was acknowledged since it was last measured: when it was begun, and when the
    /// acknowledgement came.
    pub(super) answered: Option<(Now, Now)>,
    pub(super) resync: Option<ResyncOut>,
    /// The end of that resync is in the waiting batch.
    pub(super) ends: Option<u64>,
    pub(super) want_out: Option<Want>,
    pub(super) answers: VecDeque<Answer>,

    // Being told.
    /// Newest mark; marks only grow while this process lives.
    pub(super) mark: u32,
    /// First mark of the peer's present boot.
    pub(super) boot_mark: u32,
    /// Mark of what comes by each stream now.
    pub(super) marks: Vec<u32>,
    pub(super) resync_in: Option<ResyncIn>,
    pub(super) want_in: Option<Want>,
    /// Sessions that found no room since the latest resync of the peer began.
    pub(super) missed: u64,
    /// Whether the node was told of that.
    pub(super) no_room: bool,

    pub(super) sent: Sent,
    pub(super) received: Received,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) resyncs: [u64; ResyncWhy::ALL.len()],
}

impl Line {
    pub(super) fn new(peer: Peer, it: Boot, config: &ShardConfig) -> Self {
        Line {
            peer,
            it,
            link: None,
            down_at: Now(0),
            outlet: Outlet::new(config.flush_bytes),
            first_at: Now(0),
            finished_at: Now(0),
            kept: None,
            cursor: 0,
            seen: 0,
            sure: 0,
            lacks: true,
            lost: u64::MAX,
            full: false,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            delay: Delay::default(),
            answered: None,
            resync: None,
            ends: None,
            want_out: None,
            answers: VecDeque::new(),
            mark: 0,
            boot_mark: 0,
            marks: Vec::new(),
            resync_in: None,
            want_in: None,
            missed: 0,
            no_room: false,
            sent: Sent::default(),
            received: Received::default(),
            refused: BTreeMap::new(),
            resyncs: [0; ResyncWhy::ALL.len()],
        }
    }

    /// A boot of the peer that was never connected: it has nothing, and nothing it told before counts.
    pub(super) fn begin_boot(&mut self, it: Boot, head: u64, now: Now) {
        self.it = it;
        self.mark += 1;
        self.boot_mark = self.mark;
        self.full = false;
        (self.missed, self.no_room) = (0, false);
        (self.resync_in, self.want_in) = (None, None);
        (self.seen, self.lost) = (u64::MAX, u64::MAX);
        self.lose(ResyncWhy::Joined, head, now);
    }

    /// A link to the present boot is up: it goes on behind what was acknowledged.
    pub(super) fn begin_link(&mut self, link: u64, streams: u16, config: &ShardConfig, now: Now) {
        self.end_link(config, now);
        self.link = Some(link);
        self.marks = vec![self.mark; usize::from(streams)];
        self.cursor = self.seen;
        if self.lacks {
            let why = self.want_out.as_ref().map_or(ResyncWhy::Interrupted, |w| w.why);
            self.want_out = Some(Want::new(why, now));
        }
        // What was only half said is said anew; the sender knows as much.
        self.resync_in = self.resync_in.take().filter(|r| r.sweep.is_some());
    }

    /// There is no link.
    pub(super) fn end_link(&mut self, config: &ShardConfig, now: Now) {
        self.link = None;
        self.down_at = now;
        self.outlet = Outlet::new(config.flush_bytes);
        (self.kept, self.resync, self.ends) = (None, None, None);
        self.unacked.clear();
        self.unacked_bytes = 0;
        self.answers.clear();
    }

    /// The peer lacks what was logged until now: it needs a resync, and goes on from here.
    pub(super) fn lose(&mut self, why: ResyncWhy, head: u64, now: Now) {
        self.lacks = true;
        self.lost = self.lost.min(self.seen);
        (self.cursor, self.seen) = (head, head);
        (self.resync, self.ends) = (None, None);
        // A resync that was on its way did not bring it.
        self.unacked.iter_mut().for_each(|batch| batch.ends = None);
        self.kept.iter_mut().for_each(|(batch, _)| batch.ends = None);
        self.answers.clear();
        self.resyncs[why as usize] += 1;
        self.want_out = Some(Want::new(why, now));
    }

    /// Only the peer can make it good: it is asked, after a while.
    pub(super) fn want_in(&mut self, why: ResyncWhy, now: Now) {
        self.resyncs[why as usize] += 1;
        match &mut self.want_in {
            // The pause goes on growing.
            Some(want) => want.why = why,
            None => self.want_in = Some(Want::new(why, now).after_pause()),
        }
    }

    /// Notes an asking of the peer, answered when the log is told up to `after`.
    pub(super) fn answer(&mut self, answer: Answer) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(answer);
        }
    }

    /// Notes how long the newest acknowledgement took; what they take, in microseconds.
    pub(super) fn measure(&mut self, now: Now) -> u64 {
        if let Some((since, at)) = self.answered.take() {
            self.delay.take(since, at);
        }
        self.delay.us(self.unacked.front().map(|b| b.since), now)
    }

    /// Whether there is something that can be told at once.
    pub(super) fn has_more(&self, head: u64, unacked_max: usize) -> bool {
        let scans = |r: &ResyncOut| !matches!(r.phase, Phase::CatchUp(_));
        let waits = self.cursor < head || self.resync.as_ref().is_some_and(scans);
        self.link.is_some() && waits && self.kept.is_none() && self.unacked.len() < unacked_max
    }

    /// Takes an acknowledgement that came at that time; says which resync's end it covers.
    pub(super) fn acked(&mut self, number: u64, at: Now) -> Option<u64> {
        let mut ended = None;
        while let Some(batch) = self.unacked.pop_front_if(|b| b.number <= number) {
            self.unacked_bytes -= batch.bytes;
            self.answered = Some((batch.since, at));
            self.seen = self.seen.max(batch.cursor);
            if batch.ends.is_some() {
                ended = batch.ends;
            }
        }
        if ended.is_some() && self.resync.is_none() {
            self.lacks = false;
            self.lost = u64::MAX;
            self.want_out = None;
        }
        if !self.lacks {
            self.sure = self.seen;
        }
        ended
    }

    pub(super) fn status(&self, head: u64) -> PeerStatus {
        let kept = self.kept.as_ref().map_or(0, |(_, frame)| frame.len());
        PeerStatus {
            peer: self.peer,
            it: self.it,
            link: self.link,
            lag_entries: if self.link.is_some() { head.saturating_sub(self.cursor) } else { 0 },
            pending_bytes: (self.unacked_bytes + kept + self.outlet.len()) as u64,
            batches_unacked: self.unacked.len() as u64,
            acked: self.sure,
            resync_out: self.resync.as_ref().map(|r| (r.number, r.since.0, r.told)),
            resync_in: self.resync_in.as_ref().map(|r| (r.number, r.since.0, r.sweep.is_some())),
            wants: self.want_out.as_ref().or(self.want_in.as_ref()).map(|w| w.why),
            no_room: self.no_room,
            sent: self.sent,
            received: self.received,
            refused: self.refused.iter().map(|(why, n)| (*why, *n)).collect(),
            resyncs: self.resyncs,
        }
    }
}
