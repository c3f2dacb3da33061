//! A bound on how many in a second, which counts what it refuses.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// At most so many a second; counts what it refuses.
#[derive(Debug)]
pub(crate) struct RateBound {
    per_s: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begin: Option<Instant>,
    used: u32,
    left_out: u64,
}

impl RateBound {
    /// A bound; 0 admits nothing.
    pub(crate) fn new(per_s: u32) -> Self {
        RateBound { per_s, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more is within the bound; if so, how many were refused since the last one.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        state.roll(now);
        if state.used >= self.per_s {
            state.left_out += 1;
            return None;
        }
        state.used += 1;
        Some(std::mem::take(&mut state.left_out))
    }

    /// How many were refused, once the second in which that happened is over; asked for without having
    /// one more.
    pub(crate) fn owed(&self, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        if state.left_out == 0 || !state.is_over(now) || self.per_s == 0 {
            return None;
        }
        state.roll(now);
        state.used += 1;
        Some(std::mem::take(&mut state.left_out))
    }

    /// Counts what was left out elsewhere.
    pub(crate) fn add_left_out(&self, count: u64) {
        self.lock().left_out += count;
    }
}

impl State {
    fn is_over(&self, now: Instant) -> bool {
        self.begin.is_none_or(|b| now.saturating_duration_since(b) >= SECOND)
    }

    fn roll(&mut self, now: Instant) {
        if self.is_over(now) {
            self.begin = Some(now);
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j14_lines_are_bounded_and_what_was_left_out_is_told() {
        // Without the bound all four are admitted; without the count the last one says 0.
        let bound = RateBound::new(2);
        let t = Instant::now();
        assert_eq!(bound.admit(t), Some(0));
        assert_eq!(bound.admit(t), Some(0));
        assert_eq!(bound.admit(t), None);
        assert_eq!(bound.admit(t), None);
        assert_eq!(bound.owed(t), None);
        assert_eq!(bound.admit(t + SECOND), Some(2));
    }

    #[test]
    fn what_is_owed_is_told_once_without_a_further_record() {
        // Tell it at once, never, or twice, and a line fails.
        let bound = RateBound::new(1);
        let t = Instant::now();
        bound.admit(t);
        bound.admit(t);
        assert_eq!(bound.owed(t), None);
        assert_eq!(bound.owed(t + SECOND), Some(1));
        assert_eq!(bound.owed(t + 2 * SECOND), None);
    }
}
