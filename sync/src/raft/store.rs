//! What is durable of one member.

use raft::Storage;
use raft::eraftpb::{Entry, HardState, Snapshot};

/// Durable log of one member. One call is one durable transaction: all of it or nothing is there after a
/// crash, and it returns only once it is synced (but see [`Batch::must_sync`]).
///
/// The reads of [`raft::Storage`] are used once, by `Replica::open`: the replica keeps the log's tail in
/// memory and never reads the store afterwards. `entries` must give all from `first_index` to
/// `last_index`, `snapshot` the one that `persist` or `compact` took last (an empty one before the
/// first), `initial_state` the hard state (its membership is taken from the snapshot instead). A
/// [`StoreError`] travels inside [`raft::StorageError::Other`].
pub trait Store: Storage {
    /// Takes a batch.
    ///
    /// # Errors
    /// Nothing, or an unknown part, of the batch is durable. The replica stops.
    fn persist(&mut self, batch: &Batch<'_>) -> Result<(), StoreError>;

    /// Puts the snapshot in the place of the old one, and drops all entries up to its index. Later ones
    /// stay.
    ///
    /// # Errors
    /// As for `persist`.
    fn compact(&mut self, snapshot: &Snapshot) -> Result<(), StoreError>;

    /// Syncs what a batch without [`Batch::must_sync`] wrote. Called an election timeout after such a
    /// batch, unless another write came in between.
    ///
    /// # Errors
    /// As for `persist`.
    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What is to become durable at once, in this order: snapshot, entries, hard state.
#[derive(Clone, Copy, Default, Debug)]
pub struct Batch<'a> {
    /// Replaces snapshot and whole log: also entries above its index go.
    pub snapshot: Option<&'a Snapshot>,
    /// Replace everything from the first one's index on. Without gap to what is there.
    pub entries: &'a [Entry],
    /// Replaces the hard state: term, vote, commit index.
    pub hard_state: Option<&'a HardState>,
    /// Must be synced before `persist` returns. Otherwise only the commit index changed, which may be
    /// lost.
    pub must_sync: bool,
}

/// Why the store failed; which of them decides the operator's remedy. The text names the place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading, writing or syncing failed.
    #[error("the Raft store failed: {0}")]
    Io(String),
    /// No space is left.
    #[error("the Raft store's file system is full: {0}")]
    Full(String),
    /// What is there is not what was written.
    #[error("the Raft store is damaged: {0}")]
    Corrupt(String),
}
