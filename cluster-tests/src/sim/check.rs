//! What must hold at every moment, and at the end.

use super::counts::Counts;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_sync::cluster::{ClusterState, NodeId, Outcome, RequestId, Standing};
use tidegate_sync::raft::RaftStatus;

/// A rule that was broken.
pub(super) type Finding = String;

/// Remembers what was seen and what was promised.
#[derive(Default)]
pub(super) struct Checker {
    /// Who led in a term.
    leaders: BTreeMap<u64, NodeId>,
    /// Highest term that anybody was in.
    term: u64,
    /// State at an index, and who held it first.
    digests: BTreeMap<u64, ([u8; 32], NodeId)>,
    /// Newest revision that somebody was told of: whoever asks from now on is told of none before it.
    newest: u32,
    /// Revisions that were acknowledged, and to which request.
    revisions: BTreeMap<u32, RequestId>,
    confirmed: BTreeSet<u32>,
    admitted: BTreeMap<NodeId, [u8; 32]>,
    removed: BTreeSet<NodeId>,
}

/// The newest revision's number; 0 for none.
pub(super) fn newest(state: &ClusterState) -> u32 {
    state.policy.all().next_back().map_or(0, |r| r.number)
}

impl Checker {
    /// What a request that begins now must be told of at least.
    pub(super) fn floor(&self) -> u32 {
        self.newest
    }

    /// One node after it was driven and something changed.
    pub(super) fn node(
        &mut self,
        status: &RaftStatus,
        state: Option<&ClusterState>,
        leads: bool,
        counts: &mut Counts,
    ) -> Result<(), Finding> {
        self.term = self.term.max(status.term);
        if leads {
            match self.leaders.insert(status.term, status.id) {
                None => counts.elections += 1,
                Some(before) if before == status.id => {}
                Some(before) => {
                    let (term, id) = (status.term, status.id);
                    return Err(format!("nodes {before} and {id} both lead in term {term}"));
                }
            }
        }
        let Some(state) = state else { return Ok(()) };
        if state.applied != status.applied {
            let (a, b) = (state.applied, status.applied);
            return Err(format!("node {}: the state is of index {a}, Raft is at {b}", status.id));
        }
        let members: BTreeSet<_> = state.members.keys().copied().collect();
        let raft: BTreeSet<_> = status.voters.iter().chain(&status.learners).copied().collect();
        let voters: BTreeSet<_> = status.voters.iter().copied().collect();
        if members != raft || (!status.joint && voters != state.voters()) {
            return Err(format!(
                "node {} at index {}: the members are {members:?}, voting {:?}, but Raft's are {raft:?}, voting {voters:?}",
                status.id,
                state.applied,
                state.voters()
            ));
        }
        // A digest costs more than all the rest: every fourth will do.
        if state.applied.is_multiple_of(4) { self.digest(status.id, state, counts) } else { Ok(()) }
    }

    /// Compares a state with the others' at the same index.
    pub(super) fn digest(
        &mut self,
        id: NodeId,
        state: &ClusterState,
        counts: &mut Counts,
    ) -> Result<(), Finding> {
        let (index, digest) = (state.applied, state.digest());
        match self.digests.insert(index, (digest, id)) {
            Some((other, first)) if other != digest => {
                Err(format!("nodes {first} and {id} hold different states at index {index}"))
            }
            Some((_, first)) => {
                counts.digests_compared += u64::from(first != id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A read that began when `floor` was known was answered from this state.
    pub(super) fn read(&mut self, floor: u32, state: &ClusterState) -> Result<(), Finding> {
        let newest = newest(state);
        if newest < floor {
            return Err(format!("a read was told of revision {newest} after somebody was told of {floor}"));
        }
        self.newest = self.newest.max(newest);
        Ok(())
    }

    /// A new policy revision was acknowledged.
    pub(super) fn revision(&mut self, id: RequestId, floor: u32, number: u32) -> Result<(), Finding> {
        if number <= floor {
            return Err(format!("revision {number} was acknowledged to a request that began after {floor}"));
        }
        match self.revisions.insert(number, id) {
            Some(other) if other != id => Err(format!("revision {number} was acknowledged twice")),
            _ => {
                self.newest = self.newest.max(number);
                Ok(())
            }
        }
    }

    /// A revision's confirmation was acknowledged.
    pub(super) fn confirmed(&mut self, number: u32) {
        self.confirmed.insert(number);
    }

    /// A node was told that it is a member.
    pub(super) fn admitted(&mut self, node: NodeId, key: [u8; 32]) -> Result<(), Finding> {
        if let Some((id, _)) = self.admitted.iter().find(|(id, k)| **k == key && **id != node) {
            return Err(format!("one key was admitted as node {id} and as node {node}"));
        }
        match self.admitted.insert(node, key) {
            Some(other) if other != key => Err(format!("two keys were admitted as node {node}")),
            _ => Ok(()),
        }
    }

    /// A removal was acknowledged.
    pub(super) fn removed(&mut self, node: NodeId) {
        self.removed.insert(node);
    }

    /// Everything that was acknowledged is there at the end.
    pub(super) fn end(&self, state: &ClusterState, counts: &mut Counts) -> Result<(), Finding> {
        counts.terms_without_leader += self.term - self.leaders.len() as u64;
        for (number, id) in &self.revisions {
            if state.policy.get(*number).is_none() {
                return Err(format!("revision {number} was acknowledged and is gone"));
            }
            let kept = state.answer(id);
            if kept.is_some_and(|o| *o != Outcome::Revision { number: *number, unchanged: false }) {
                return Err(format!("revision {number} was acknowledged, but the answer kept is {kept:?}"));
            }
        }
        for number in &self.confirmed {
            let standing = state.policy.get(*number).map(|r| r.standing);
            if standing != Some(Standing::Confirmed) {
                return Err(format!("revision {number} was confirmed and is {standing:?}"));
            }
        }
        for (node, key) in &self.admitted {
            let there = state.members.get(node).is_some_and(|m| m.key_sha256 == *key);
            if !there && !state.removed.contains_key(node) {
                return Err(format!("node {node} was admitted and is no member"));
            }
        }
        match self.removed.iter().find(|id| !state.removed.contains_key(id)) {
            Some(id) => Err(format!("the removal of node {id} was acknowledged and did not happen")),
            None => Ok(()),
        }
    }
}
