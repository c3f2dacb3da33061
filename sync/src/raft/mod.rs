//! One member's part in the agreement: Raft (`raft-rs`) around a [`ClusterState`].
//!
//! A [`Replica`] is a pure state machine. The shell ticks it, hands it what peers sent, calls
//! [`Replica::drive`] after that, and sends what comes out. All that is durable goes through a [`Store`];
//! nothing that depends on a write leaves before the write is synced.
//!
//! [`ClusterState`]: crate::cluster::ClusterState

mod drive;
mod entry;
mod guard;
mod memory;
mod mirror;
mod replica;
mod snapshot;
mod status;
mod store;
mod tidy;

pub use guard::StepError;
pub use memory::MemoryStore;
pub use replica::{CompactAfter, OpenError, Output, ProposeError, ReadId, Replica, ReplicaConfig};
pub use snapshot::{SnapshotError, first_snapshot, found, state_of};
pub use status::{PeerProgress, RaftRole, RaftStatus};
pub use store::{Batch, Store, StoreError};

#[cfg(test)]
mod tests;
