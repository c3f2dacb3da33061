//! How long it takes until a peer has what it is told: from the first item of a batch to the acknowledgement.
//!
//! Early packets wait by it (`Engine::set_peer_round_trip_us`): their sessions take as long on the way here. Too
//! long a wait costs little, too short a one loses the packet: so it rises at once and falls slowly, a
//! batch that is still on its way counts, and what was measured long ago counts as unknown.

use tidegate_dataplane::time::Now;

/// A measurement older than this says nothing about the way as it is now.
const FRESH_MS: u64 = 1_000;

/// The measurement for one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    /// Eighths of milliseconds, and when it was measured last.
    last: Option<(u64, Now)>,
}

impl Delay {
    /// A batch begun then is acknowledged now.
    pub(super) fn take(&mut self, since: Now, now: Now) {
        let ms = now.since(since);
        let eighths = self.last.map_or(0, |(mean, _)| mean - mean / 8 + ms).max(ms * 8);
        self.last = Some((eighths, now));
    }

    /// In microseconds, the oldest batch on its way begun at `waiting`; the maximum while it is not known.
    pub(super) fn us(self, waiting: Option<Now>, now: Now) -> u64 {
        match self.last.filter(|(_, at)| now.since(*at) <= FRESH_MS) {
            Some((eighths, _)) => (eighths * 125).max(waiting.map_or(0, |w| now.since(w) * 1000)),
            None => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a way that has grown longer is not noticed at once, or an old measurement goes on counting.
    #[test]
    fn it_rises_at_once_falls_slowly_and_is_forgotten() {
        let mut delay = Delay::default();
        assert_eq!(delay.us(None, Now(0)), u64::MAX);
        delay.take(Now(100), Now(102));
        assert_eq!(delay.us(None, Now(102)), 2_000);
        assert_eq!(delay.us(Some(Now(102)), Now(132)), 30_000, "nothing has come back for so long");
        delay.take(Now(102), Now(143));
        assert_eq!(delay.us(None, Now(143)), 41_000);
        delay.take(Now(143), Now(145));
        assert!((30_000..41_000).contains(&delay.us(None, Now(145))));
        (0..100).for_each(|_| delay.take(Now(145), Now(147)));
        assert!((2_000..3_000).contains(&delay.us(None, Now(147))), "{delay:?}");
        assert_eq!(delay.us(None, Now(147 + FRESH_MS + 1)), u64::MAX);
    }
}
