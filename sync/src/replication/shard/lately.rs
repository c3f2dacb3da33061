//! What arrives in another order than it was said in.
//!
//! Streams keep their order, and nothing keeps it between nodes: what a replica observed may reach a third node
//! before the birth does, or its owner only after that has told its copy on.

use std::collections::{BTreeMap, VecDeque};
use tidegate_dataplane::engine::Peer;
use tidegate_dataplane::session::copy::SessionCopy;
use tidegate_dataplane::session::record::SessionId;
use tidegate_dataplane::time::Now;

/// How long it takes at most, in all but hopeless cases, until what was observed here is known to its owner and to
/// all whom that tells.
const LATELY_MS: u64 = 60_000;
/// Pause between two samples.
const SAMPLE_MS: u64 = 1_000;
/// Early copies that are kept at most. The oldest goes first: what it says comes with the owner's copy, or with the
/// observer's next.
const EARLY_MAX: usize = 4096;

/// Where the log's head was, for the last minute.
#[derive(Debug, Default)]
pub(super) struct Lately {
    heads: VecDeque<(Now, u64)>,
}

impl Lately {
    /// Notes where the head is.
    pub(super) fn note(&mut self, now: Now, head: u64) {
        if self.heads.back().is_none_or(|(at, _)| now.since(*at) >= SAMPLE_MS) {
            while self.heads.get(1).is_some_and(|(at, _)| now.since(*at) >= LATELY_MS) {
                self.heads.pop_front();
            }
            self.heads.push_back((now, head));
        }
    }

    /// The first log number of the last minute, or an earlier one.
    pub(super) fn since(&self, now: Now) -> u64 {
        let old = self.heads.iter().take_while(|(at, _)| now.since(*at) >= LATELY_MS).last();
        old.map_or(0, |(_, head)| *head)
    }
}

/// A copy of a session that is not here, and which peer told it when, under which mark.
#[derive(Debug)]
pub(super) struct EarlyCopy {
    pub(super) peer: Peer,
    pub(super) mark: u32,
    pub(super) copy: SessionCopy,
    number: u64,
}

/// What peers observed of sessions whose birth has not come yet: told again to the engine when it has.
#[derive(Debug, Default)]
pub(super) struct Early {
    copies: BTreeMap<(SessionId, Peer), EarlyCopy>,
    order: VecDeque<(u64, SessionId, Peer)>,
    number: u64,
}

impl Early {
    /// Keeps a copy; a later one of the same peer takes its place.
    pub(super) fn keep(&mut self, peer: Peer, mark: u32, copy: &SessionCopy) {
        self.number += 1;
        let (number, id) = (self.number, copy.birth.id);
        self.copies.insert((id, peer), EarlyCopy { peer, mark, copy: *copy, number });
        self.order.push_back((number, id, peer));
        while self.order.len() > EARLY_MAX {
            self.drop_oldest();
        }
    }

    /// Takes what came of that session.
    pub(super) fn take(&mut self, id: SessionId) -> Vec<EarlyCopy> {
        if self.copies.is_empty() {
            return Vec::new();
        }
        let peers = self.copies.range((id, Peer(0))..=(id, Peer(u8::MAX))).map(|((_, peer), _)| *peer);
        let peers: Vec<Peer> = peers.collect();
        peers.into_iter().filter_map(|peer| self.copies.remove(&(id, peer))).collect()
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    fn drop_oldest(&mut self) {
        let Some((number, id, peer)) = self.order.pop_front() else { return };
        if self.copies.get(&(id, peer)).is_some_and(|early| early.number == number) {
            self.copies.remove(&(id, peer));
        }
    }
}
