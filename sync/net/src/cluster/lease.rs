//! Which revision this node is to enforce now.
//!
//! A lease is counted from when this node first saw it: no longer than it was given for, whatever the
//! clocks say, and by a clock that nobody sets. So each node falls back by itself, also without a quorum.

use super::InForce;
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{Lease, PolicyLog, Revision};

/// Counts the newest revision's lease.
#[derive(Default)]
pub(crate) struct LeaseClock {
    counting: Option<(u32, Lease, Instant)>,
}

impl LeaseClock {
    /// What is in force at `now`, and when to ask again.
    pub(crate) fn in_force(
        &mut self,
        log: &PolicyLog,
        now: Instant,
        now_unix_ms: u64,
    ) -> (Option<InForce>, Option<Instant>) {
        let Some((pending, lease)) = log.pending() else {
            self.counting = None;
            return (log.in_force().and_then(|r| shown(r, None, None)), None);
        };
        let end = match self.counting {
            Some((number, counted, end)) if (number, counted) == (pending.number, lease) => end,
            _ => {
                let left = lease.within_ms.min(lease.deadline_unix_ms.saturating_sub(now_unix_ms));
                // A lease of centuries has no end that matters.
                let end = now.checked_add(Duration::from_millis(left)).unwrap_or(now);
                self.counting = Some((pending.number, lease, end));
                end
            }
        };
        if now >= end {
            let fallen = log.fallback().and_then(|r| shown(r, Some(pending.number), None));
            return (fallen, None);
        }
        let left = u64::try_from((end - now).as_millis()).unwrap_or(u64::MAX);
        (shown(pending, None, Some(left)), Some(end))
    }
}

fn shown(
    revision: &Revision,
    fell_back_from: Option<u32>,
    confirm_within_ms: Option<u64>,
) -> Option<InForce> {
    Some(InForce {
        revision: revision.number,
        text: revision.text.clone()?,
        sha256: revision.sha256,
        fell_back_from,
        confirm_within_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sync::cluster::*;

    struct Log(ClusterState, u64);

    impl Log {
        fn new() -> Self {
            Log(
                ClusterState::founded(Founding {
                    cluster: ClusterId([7; 16]),
                    name: "edge".to_owned(),
                    node: "a".to_owned(),
                    addresses: vec![],
                    store: StoreId([1; 16]),
                    key_sha256: [1; 32],
                    not_after_unix_s: 0,
                    by: "root".to_owned(),
                    at_unix_ms: 1_000,
                    policy: Some("one".into()),
                }),
                0,
            )
        }

        fn apply(&mut self, command: Command) {
            self.1 += 1;
            let id = RequestId([self.1 as u8; 16]);
            let proposal = Proposal { id, by: "root".to_owned(), via: NodeId(1), at_unix_ms: 1_000, command };
            self.0.apply(self.1, &proposal);
        }

        fn leased(&mut self, base: u32, text: &str) {
            let lease = Some(Lease { within_ms: 10_000, deadline_unix_ms: 20_000 });
            self.apply(Command::ApplyPolicy { base, text: text.into(), lease });
        }
    }

    fn number(found: &(Option<InForce>, Option<Instant>)) -> u32 {
        found.0.as_ref().map_or(0, |p| p.revision)
    }

    #[test]
    fn a_lease_ends_by_this_node_s_own_count() {
        // Read the wall clock again at each look, and the second block never falls back.
        let (mut log, mut clock, start) = (Log::new(), LeaseClock::default(), Instant::now());
        assert_eq!(number(&clock.in_force(&log.0.policy, start, 10_000)), 1);
        log.leased(1, "two");
        let seen = clock.in_force(&log.0.policy, start, 12_000);
        assert_eq!((number(&seen), seen.1), (2, Some(start + Duration::from_secs(8))));
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(number(&clock.in_force(&log.0.policy, at(7), 0)), 2);
        let fallen = clock.in_force(&log.0.policy, at(8), 0);
        assert_eq!((number(&fallen), fallen.0.unwrap().fell_back_from), (1, Some(2)));
        // The log says the same later.
        log.apply(Command::ExpirePolicy { revision: 2 });
        let settled = clock.in_force(&log.0.policy, at(9), 0).0.unwrap();
        assert_eq!((settled.revision, settled.fell_back_from), (1, None));
    }

    #[test]
    fn no_clock_makes_a_lease_longer_than_it_was_given() {
        let (mut log, mut clock, start) = (Log::new(), LeaseClock::default(), Instant::now());
        log.leased(1, "two");
        let seen = clock.in_force(&log.0.policy, start, 0);
        assert_eq!(seen.1, Some(start + Duration::from_secs(10)));
        // Confirmed in time: no end.
        log.apply(Command::ConfirmPolicy { revision: 2 });
        let kept = clock.in_force(&log.0.policy, start + Duration::from_secs(60), 0);
        assert_eq!((number(&kept), kept.1), (2, None));
    }

    #[test]
    fn a_second_lease_is_counted_anew_and_falls_back_to_what_was_confirmed() {
        let (mut log, mut clock, start) = (Log::new(), LeaseClock::default(), Instant::now());
        log.leased(1, "two");
        clock.in_force(&log.0.policy, start, 10_000);
        log.leased(2, "three");
        let later = start + Duration::from_secs(9);
        let seen = clock.in_force(&log.0.policy, later, 10_000);
        assert_eq!((number(&seen), seen.1), (3, Some(later + Duration::from_secs(10))));
        assert_eq!(number(&clock.in_force(&log.0.policy, later + Duration::from_secs(10), 0)), 1);
    }
}
