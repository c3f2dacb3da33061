//! A new generation of the cluster from one survivor: the last resort when a quorum is gone for good.
//!
//! The survivor takes its copy of the state, with what its log holds beyond the last commit that it heard
//! of: some of that may have been acknowledged, and what was not may take effect all the same (its asker
//! was told that the outcome is unknown). All others are out, and fenced when they meet it.

use super::form;
use super::shared::unix_ms;
use super::{OpenError, RecoverError};
use crate::store::RaftStore;
use raft::GetEntriesContext;
use raft::eraftpb::{Entry, EntryType};
use std::path::Path;
use tidegate_sync::cluster::{ClusterState, Proposal, Role};
use tidegate_sync::codec;
use tidegate_sync::raft::{Replica, ReplicaConfig, Store, found};

/// Longest entry: a policy of the greatest length, and what is around it.
const LONGEST: usize = (8 << 20) + (64 << 10);

pub(crate) fn recover(path: &Path, by: &str) -> Result<u32, RecoverError> {
    let (directory, mut identity) = form::load(path)?;
    if identity.role == Role::Witness {
        return Err(RecoverError::Witness);
    }
    let store = form::open_store(&directory, &identity)?;
    let open = |e: String| RecoverError::Open(OpenError::Store(e));
    let config = ReplicaConfig::new(identity.node, 0);
    let mut replica = Replica::open(config, store).map_err(|e| open(e.to_string()))?;
    replica.drive().map_err(|e| open(e.to_string()))?;
    let term = replica.status().term;
    let state = replica.state().cloned().ok_or(RecoverError::NotMember)?;
    let mut store = replica.into_store();
    let tail = tail(&store, state.applied).map_err(open)?;
    let now = unix_ms();
    let by = crate::quic::hello::printable(by, super::propose::BY_LONGEST);
    let with_tail = with(&state, &tail).recovered(identity.node, by.clone(), now);
    let recovered = match with_tail {
        Some(state) => state,
        // The tail removed this node, but that was not agreed on as far as it knows.
        None => (*state).clone().recovered(identity.node, by, now).ok_or(RecoverError::NotMember)?,
    };
    let generation = recovered.generation;
    found(&mut store, &recovered, term + 1).map_err(|e| open(e.to_string()))?;
    close(store).map_err(open)?;
    super::standing::forget(&directory).map_err(|e| open(e.to_string()))?;
    // After the store: until here nothing has happened.
    identity.generation = generation;
    let identity_error = |e: crate::identity::IdentityError| OpenError::Identity(e.to_string());
    directory.write_identity(&identity).map_err(identity_error)?;
    Ok(generation)
}

fn close(store: RaftStore) -> Result<(), String> {
    store.close().map_err(|e| e.to_string())
}

/// The entries above `applied`.
fn tail<S: Store>(store: &S, applied: u64) -> Result<Vec<Entry>, String> {
    let (first, last) = (store.first_index(), store.last_index());
    let (first, last) = (first.map_err(|e| e.to_string())?, last.map_err(|e| e.to_string())?);
    let from = first.max(applied + 1);
    if from > last {
        return Ok(Vec::new());
    }
    store.entries(from, last + 1, None, GetEntriesContext::empty(false)).map_err(|e| e.to_string())
}

/// The state after those entries.
fn with(state: &ClusterState, tail: &[Entry]) -> ClusterState {
    let mut state = state.clone();
    for entry in tail {
        let normal = entry.entry_type == EntryType::EntryNormal as i32;
        let bytes = if normal { &entry.data } else { &entry.context };
        match codec::decode::<Proposal, LONGEST>(bytes) {
            Ok(proposal) => drop(state.apply(entry.index, &proposal)),
            // A new leader's first entry, the end of a joint change.
            Err(_) => state.pass(entry.index),
        }
    }
    state
}
