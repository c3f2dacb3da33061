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

/// Lets one line a subject through in an interval, and says how many it held back; and so many lines of all
/// subjects together, because strangers can think of any number of them.
pub(crate) struct LogGate {
    interval: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    subjects: BTreeMap<String, (Instant, u64)>,
    /// When the interval of all subjects began, and how many lines passed in it.
    window: Option<(Instant, usize)>,
}

/// Lines of all subjects in an interval.
const LINES: usize = 100;

impl LogGate {
    pub(crate) fn new(interval: Duration) -> Self {
        LogGate { interval, seen: Mutex::default() }
    }

    /// `Some(n)`: log it, n lines like it were held back before.
    pub(crate) fn pass(&self, subject: &str, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let Seen { subjects, window } = &mut *seen;
        let (since, lines) = window.get_or_insert((now, 0));
        if now.duration_since(*since) >= self.interval {
            (*since, *lines) = (now, 0);
            // Older ones may speak again, so nothing is remembered that says otherwise.
            subjects.retain(|_, (last, _)| now.duration_since(*last) < 2 * self.interval);
        }
        if *lines >= LINES {
            return None;
        }
        let passed = match subjects.get_mut(subject) {
            Some((last, held)) if now.duration_since(*last) < self.interval => {
                *held += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                subjects.insert(subject.to_owned(), (now, 0));
                Some(0)
            }
        };
        *lines += usize::from(passed.is_some());
        passed
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
        // Red without the bound of all together: memory and log grow with what strangers think of.
        let passed = (0..10_000).filter(|n| gate.pass(&n.to_string(), at(25)).is_some()).count();
        assert_eq!(passed, LINES);
        assert!(gate.seen.lock().unwrap().subjects.len() <= LINES + 2);
        assert_eq!(gate.pass("a", at(40)), Some(0));
    }
}
