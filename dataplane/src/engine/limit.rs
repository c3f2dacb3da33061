//! A token bucket over `now`: bounds what the engine writes by itself.

use crate::time::Now;

/// At most `per_s` in any second, with a burst of a tenth of that (at least one).
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_s: u64,
    /// Tokens in thousandths.
    milli_tokens: u64,
    last: Now,
}

impl RateLimit {
    /// A full bucket. `per_s` 0 allows nothing.
    pub fn new(per_s: u32) -> Self {
        let per_s = u64::from(per_s);
        RateLimit { per_s, milli_tokens: Self::burst(per_s), last: Now(0) }
    }

    fn burst(per_s: u64) -> u64 {
        if per_s == 0 { 0 } else { (per_s * 100).max(1000) }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Now) -> bool {
        let refill = now.since(self.last).saturating_mul(self.per_s);
        self.last = self.last.max(now);
        self.milli_tokens = self.milli_tokens.saturating_add(refill).min(Self::burst(self.per_s));
        if self.milli_tokens < 1000 {
            return false;
        }
        self.milli_tokens -= 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_bounded_over_any_stretch() {
        // Red when `take` always allows, or the burst is not capped after a long pause.
        let mut l = RateLimit::new(100);
        let mut taken = 0;
        for ms in 0..10_000 {
            taken += u32::from(l.take(Now(ms)));
            taken += u32::from(l.take(Now(ms)));
        }
        assert!((1000..=1011).contains(&taken), "{taken}");
        let after_pause = (0..1000).filter(|_| l.take(Now(10_000_000))).count();
        assert_eq!(after_pause, 10);
        assert!(!RateLimit::new(0).take(Now(5)));
    }
}
