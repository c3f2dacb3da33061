//! What a replica tells of itself.

use super::replica::Replica;
use super::store::Store;
use crate::cluster::NodeId;
use raft::{ProgressState, StateRole};

/// What a replica is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RaftRole {
    /// Decides the order of the log.
    Leader,
    /// Votes, and follows.
    Follower,
    /// Looks for a majority.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Holds no state yet, or is no member: it was removed, or its joining is not replicated yet.
    Outsider,
}

impl RaftRole {
    /// `leader`, `follower`, ...
    pub fn name(self) -> &'static str {
        match self {
            RaftRole::Leader => "leader",
            RaftRole::Follower => "follower",
            RaftRole::Candidate => "candidate",
            RaftRole::Learner => "learner",
            RaftRole::Outsider => "outsider",
        }
    }
}

/// How far a peer is, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerProgress {
    /// The peer.
    pub id: NodeId,
    /// Index up to which it surely holds the leader's log.
    pub matched: u64,
    /// Whether it answered since the last check of the quorum.
    pub active: bool,
    /// Whether a snapshot is on its way to it.
    pub snapshot: bool,
}

/// A replica's view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftStatus {
    /// Whose.
    pub id: NodeId,
    /// The Raft term.
    pub term: u64,
    /// What it is.
    pub role: RaftRole,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// Index up to which the log is committed.
    pub commit: u64,
    /// Index up to which it is applied.
    pub applied: u64,
    /// The log's last index.
    pub last: u64,
    /// Index of the newest snapshot in the store.
    pub snapshot: u64,
    /// Who votes, in order; of both sets during a joint change.
    pub voters: Vec<NodeId>,
    /// Who does not, in order.
    pub learners: Vec<NodeId>,
    /// Whether a joint membership change is on its way.
    pub joint: bool,
    /// Progress of all others, in order; empty unless this one leads.
    pub peers: Vec<PeerProgress>,
    /// A leader that passed its last check of the quorum, or a follower that heard from a leader within
    /// the longest election timeout.
    pub has_quorum: bool,
}

impl<S: Store> Replica<S> {
    /// The view of now.
    pub fn status(&self) -> RaftStatus {
        let raft = &self.node.raft;
        let conf = raft.prs().conf();
        let ids = |ids: &mut dyn Iterator<Item = u64>| {
            let mut ids: Vec<_> = ids.map(NodeId).collect();
            ids.sort_unstable();
            ids
        };
        let mut peers = Vec::new();
        if raft.state == StateRole::Leader {
            peers.extend(raft.prs().iter().filter(|(id, _)| **id != raft.id).map(|(id, p)| PeerProgress {
                id: NodeId(*id),
                matched: p.matched,
                active: p.recent_active,
                snapshot: p.state == ProgressState::Snapshot,
            }));
            peers.sort_unstable_by_key(|p| p.id);
        }
        RaftStatus {
            id: self.id(),
            term: raft.term,
            role: self.role(),
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last: raft.raft_log.last_index(),
            snapshot: self.compacted.index,
            voters: ids(&mut conf.voters().ids().iter()),
            learners: ids(&mut conf.learners().iter().chain(conf.learners_next()).copied()),
            joint: self.joint(),
            peers,
            has_quorum: self.has_quorum(),
        }
    }

    /// What it is now.
    pub fn role(&self) -> RaftRole {
        let raft = &self.node.raft;
        match raft.state {
            StateRole::Leader => RaftRole::Leader,
            _ if raft.prs().get(raft.id).is_none() => RaftRole::Outsider,
            StateRole::Follower if raft.promotable() => RaftRole::Follower,
            StateRole::Follower => RaftRole::Learner,
            StateRole::Candidate | StateRole::PreCandidate => RaftRole::Candidate,
        }
    }

    /// The leader it knows of, perhaps itself.
    pub fn leader(&self) -> Option<NodeId> {
        Some(self.node.raft.leader_id).filter(|id| *id != raft::INVALID_ID).map(NodeId)
    }

    fn has_quorum(&self) -> bool {
        let raft = &self.node.raft;
        match raft.state {
            // It steps down at the first check that fails.
            StateRole::Leader => true,
            _ => self.leader().is_some() && raft.election_elapsed < 2 * raft.election_timeout(),
        }
    }
}
