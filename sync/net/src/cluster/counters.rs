//! What was refused or dropped, and log lines at a bounded rate.

use super::Counters;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The living twin of [`Counters`].
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) handshakes_refused: AtomicU64,
    pub(crate) hellos_refused: AtomicU64,
    pub(crate) messages_refused: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) joins_refused: AtomicU64,
    pub(crate) proposals: AtomicU64,
    pub(crate) elections: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counting {
    pub(crate) fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Counters {
            handshakes_refused: get(&self.handshakes_refused),
            hellos_refused: get(&self.hellos_refused),
            messages_refused: get(&self.messages_refused),
            messages_dropped: get(&self.messages_dropped),
            joins_refused: get(&self.joins_refused),
            proposals: get(&self.proposals),
            elections: get(&self.elections),
        }
    }
}

/// Lets one line a subject through in an interval, and says how many it held back. What strangers cause
/// shares one subject a kind, so that they cannot fill memory or the log.
pub(crate) struct LogGate {
    interval: Duration,
    seen: Mutex<BTreeMap<String, (Instant, u64)>>,
}

/// Subjects that are remembered; above that all are forgotten, and each may speak once more.
const SUBJECTS: usize = 256;

impl LogGate {
    pub(crate) fn new(interval: Duration) -> Self {
        LogGate { interval, seen: Mutex::default() }
    }

    /// `Some(n)`: log it, n lines like it were held back before.
    pub(crate) fn pass(&self, subject: &str, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if seen.len() >= SUBJECTS && !seen.contains_key(subject) {
            seen.clear();
        }
        match seen.get_mut(subject) {
            Some((last, held)) if now.duration_since(*last) < self.interval => {
                *held += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                seen.insert(subject.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_subject_and_interval_passes() {
        let gate = LogGate::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(gate.pass("a", at(0)), Some(0));
        assert_eq!(gate.pass("a", at(1)), None);
        assert_eq!(gate.pass("b", at(1)), Some(0));
        assert_eq!(gate.pass("a", at(9)), None);
        assert_eq!(gate.pass("a", at(10)), Some(2));
        // Red without the bound: memory grows with the number of strangers.
        for n in 0..10_000 {
            gate.pass(&n.to_string(), at(11));
        }
        assert!(gate.seen.lock().unwrap().len() <= SUBJECTS);
    }
}
