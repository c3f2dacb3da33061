//! From where on in the log what was observed here may not have come to everybody.
//!
//! Streams keep their order, and nothing keeps it between nodes: what a replica observed may reach the session's owner
//! only after that has told its copy on.

use std::collections::VecDeque;
use tidegate_dataplane::time::Now;

/// How long it takes at most, in all but hopeless cases, until what was observed here is known to its owner and to
/// all whom that tells.
const LATELY_MS: u64 = 60_000;
/// Pause between two samples.
const SAMPLE_MS: u64 = 1_000;

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
