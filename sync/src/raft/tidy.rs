//! What a cluster proposes by itself.

use super::replica::Replica;
use super::store::Store;
use crate::cluster::{Command, NodeId, Role};
use raft::StateRole;
use std::collections::BTreeSet;

/// Entries that a learner may lack when it becomes a voter.
const BEHIND: u64 = 64;

/// When this node saw a lease first.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseSeen {
    revision: u32,
    at_unix_ms: u64,
    /// Tick at which its end was proposed last.
    proposed: Option<u64>,
}

impl<S: Store> Replica<S> {
    /// What the leader should propose now, if anything: other voters, once new ones have caught up; the
    /// end of an unconfirmed policy. To be called after ticks, on every node; `now_unix_ms` is its clock.
    ///
    /// A leader that is to vote no longer hands over the lead first.
    pub fn tidy(&mut self, now_unix_ms: u64) -> Option<Command> {
        if self.failed.is_some() {
            return None;
        }
        self.expired(now_unix_ms).or_else(|| self.other_voters())
    }

    /// Who could lead instead: of the voters one that answers, a full node, and up to date, in this order.
    pub fn successor(&self) -> Option<NodeId> {
        self.successor_among(&self.state()?.voters())
    }

    fn successor_among(&self, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
        let members = &self.state()?.members;
        let prs = self.node.raft.prs();
        let able = voters.iter().filter(|id| **id != self.id()).filter_map(|id| {
            let progress = prs.get(id.0)?;
            let full = members.get(id).is_some_and(|m| m.role == Role::Node);
            Some((progress.recent_active, full, progress.matched, *id))
        });
        able.max().map(|(_, _, _, id)| id)
    }

    fn other_voters(&mut self) -> Option<Command> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.has_pending_conf() || self.joint() {
            return None;
        }
        let state = self.state()?;
        let (now, wanted) = (state.voters(), state.voters_wanted());
        let next: BTreeSet<_> =
            wanted.iter().copied().filter(|id| now.contains(id) || self.caught_up(*id)).collect();
        // Of two voters each would be needed.
        if next == now || next.is_empty() || (next.len() == 2 && wanted.len() > 2) {
            return None;
        }
        // Without one that votes already this one does it, and steps down once it is applied.
        if !next.contains(&self.id())
            && let Some(to) = self.successor_among(&next.intersection(&now).copied().collect())
        {
            self.transfer_leader(to);
            return None;
        }
        Some(Command::SetVoters { voters: next })
    }

    fn caught_up(&self, id: NodeId) -> bool {
        let raft = &self.node.raft;
        id == self.id()
            || raft.prs().get(id.0).is_some_and(|p| {
                p.recent_active && p.matched > 0 && p.matched + BEHIND >= raft.raft_log.committed
            })
    }

    /// The same rule by which each node falls back by itself: the deadline, but no later than the lease's
    /// length after it was first seen here.
    fn expired(&mut self, now: u64) -> Option<Command> {
        let pending = self.state().and_then(|s| s.policy.pending().map(|(r, lease)| (r.number, lease)));
        let Some((revision, lease)) = pending else {
            self.lease = None;
            return None;
        };
        let seen = match self.lease {
            Some(seen) if seen.revision == revision => seen,
            _ => LeaseSeen { revision, at_unix_ms: now, proposed: None },
        };
        self.lease = Some(seen);
        let end = lease.deadline_unix_ms.min(seen.at_unix_ms.saturating_add(lease.within_ms));
        let again = 2 * u64::from(self.config.election_ticks);
        let asked = seen.proposed.is_some_and(|tick| self.ticks < tick + again);
        if now < end || asked || self.node.raft.state != StateRole::Leader {
            return None;
        }
        self.lease = Some(LeaseSeen { proposed: Some(self.ticks), ..seen });
        Some(Command::ExpirePolicy { revision })
    }
}
