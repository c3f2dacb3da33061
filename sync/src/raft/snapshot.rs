//! Snapshots: a [`ClusterState`] with a checksum of its own, and Raft's membership beside it.

use super::store::{Batch, Store, StoreError};
use crate::cluster::ClusterState;
use crate::codec;
use raft::eraftpb::{ConfState, HardState, Snapshot};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Longest state in bytes that is read: the policy texts that are kept, and room.
const LONGEST: usize = 256 << 20;
/// Bytes of the checksum in front.
const SUM: usize = 8;

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its bytes are not what was written.
    #[error("the snapshot's checksum is wrong")]
    Checksum,
    /// Another version's, or nonsense.
    #[error("the snapshot holds no state that this version understands")]
    State,
    /// Its parts contradict each other.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// The snapshot that a cluster begins with: `state` as of one index later than it was applied, in `term`.
/// A founder takes term 1; a recovered survivor one above its old term.
pub fn first_snapshot(state: &ClusterState, term: u64) -> Snapshot {
    let mut state = state.clone();
    state.pass(state.applied + 1);
    snapshot(&state, &conf_state(&state), term)
}

/// Writes that snapshot into an empty store. A joiner's store stays empty instead.
///
/// # Errors
/// Those of the store.
pub fn found<S: Store>(store: &mut S, state: &ClusterState, term: u64) -> Result<(), StoreError> {
    let snapshot = first_snapshot(state, term);
    let hard_state = HardState { term, vote: 0, commit: snapshot.get_metadata().index };
    let batch =
        Batch { snapshot: Some(&snapshot), entries: &[], hard_state: Some(&hard_state), must_sync: true };
    store.persist(&batch)
}

/// The state in a snapshot.
///
/// # Errors
/// It is damaged, not ours, or would make raft-rs panic.
pub fn state_of(snapshot: &Snapshot) -> Result<ClusterState, SnapshotError> {
    let (sum, body) = snapshot.data.split_first_chunk::<SUM>().ok_or(SnapshotError::Checksum)?;
    if *sum != checksum(body) {
        return Err(SnapshotError::Checksum);
    }
    let state = codec::decode::<ClusterState, LONGEST>(body).map_err(|_| SnapshotError::State)?;
    let meta = snapshot.metadata.as_ref().ok_or(SnapshotError::Contradiction("no metadata"))?;
    if meta.index == 0 || meta.term == 0 {
        return Err(SnapshotError::Contradiction("it is of no index or term"));
    }
    if state.applied != meta.index {
        return Err(SnapshotError::Contradiction("the state is of another index"));
    }
    check_membership(meta.get_conf_state(), &state)?;
    Ok(state)
}

/// The snapshot of a state at the index up to which it was applied.
pub(super) fn snapshot(state: &ClusterState, conf: &ConfState, term: u64) -> Snapshot {
    let body = codec::encode(state);
    let mut snapshot = Snapshot { data: [&checksum(&body)[..], &body].concat(), ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    meta.index = state.applied;
    meta.term = term;
    meta.conf_state = Some(conf.clone());
    snapshot
}

/// Raft's membership outside of a joint change.
pub(super) fn conf_state(state: &ClusterState) -> ConfState {
    let (voters, learners): (Vec<_>, Vec<_>) = state.members.iter().partition(|(_, m)| m.voter);
    let ids = |of: Vec<(&crate::cluster::NodeId, _)>| of.into_iter().map(|(id, _)| id.0).collect();
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

/// What raft-rs demands of a configuration, and that it is the state's.
fn check_membership(conf: &ConfState, state: &ClusterState) -> Result<(), SnapshotError> {
    let wrong = |what| Err(SnapshotError::Contradiction(what));
    let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    let (voters, learners) = (set(&conf.voters), set(&conf.learners));
    let (outgoing, next) = (set(&conf.voters_outgoing), set(&conf.learners_next));
    if voters.is_empty() || [&voters, &learners, &outgoing].iter().any(|ids| ids.contains(&0)) {
        return wrong("nobody votes");
    }
    let lengths = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next].map(Vec::len);
    if lengths != [voters.len(), learners.len(), outgoing.len(), next.len()] {
        return wrong("somebody votes twice");
    }
    if !learners.is_disjoint(&voters) || !learners.is_disjoint(&outgoing) {
        return wrong("a learner votes");
    }
    if !next.is_subset(&outgoing) || !next.is_disjoint(&voters) {
        return wrong("a voter that becomes a learner does not vote");
    }
    if outgoing.is_empty() && conf.auto_leave {
        return wrong("the end of no joint change");
    }
    let members = |votes| state.members.iter().filter(move |(_, m)| m.voter == votes).map(|(id, _)| id.0);
    if !members(true).eq(voters) || !members(false).eq(learners.union(&next).copied()) {
        return wrong("Raft's members are not the state's");
    }
    Ok(())
}

fn checksum(body: &[u8]) -> [u8; SUM] {
    let sum = Sha256::digest(body);
    std::array::from_fn(|n| sum[n])
}
