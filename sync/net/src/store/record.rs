//! Records in the file: each carries a checksum over its place, its key and its bytes, because redb hands
//! out whatever is on the medium.

use serde::{Deserialize, Serialize};
use tidegate_sync::cluster::StoreId;
use tidegate_sync::raft::StoreError;

/// Where a record lies; part of its checksum, so that one is not taken for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The one [`State`].
    State = 1,
    /// A log entry; its key is the index.
    Entry = 2,
    /// A piece of the snapshot; its key counts from 0.
    Piece = 3,
    /// A mark in our header.
    Mark = 4,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::State => "the state record",
            Place::Entry => "log entry",
            Place::Piece => "snapshot piece",
            Place::Mark => "the mark",
        }
    }
}

pub(super) fn checksum(place: Place, key: u64, parts: &[&[u8]]) -> [u8; 4] {
    let start = crc32c::crc32c_append(crc32c::crc32c(&[place as u8]), &key.to_le_bytes());
    parts.iter().fold(start, |sum, part| crc32c::crc32c_append(sum, part)).to_le_bytes()
}

/// Bytes with their checksum before them.
pub(super) fn seal(place: Place, key: u64, bytes: &[u8]) -> Vec<u8> {
    [&checksum(place, key, &[bytes])[..], bytes].concat()
}

/// The bytes of a sealed record.
pub(super) fn unseal(place: Place, key: u64, sealed: &[u8]) -> Result<&[u8], StoreError> {
    let damaged = || match place {
        Place::Entry | Place::Piece => StoreError::Corrupt(format!("{} {key} is damaged", place.name())),
        Place::State | Place::Mark => StoreError::Corrupt(format!("{} is damaged", place.name())),
    };
    let (sum, bytes) = sealed.split_first_chunk::<4>().ok_or_else(damaged)?;
    if *sum == checksum(place, key, &[bytes]) { Ok(bytes) } else { Err(damaged()) }
}

/// Longest state record, in bytes: a few numbers and the ids of the members.
pub(super) const STATE_LIMIT: usize = 64 << 10;
/// Length of a piece of a snapshot, in bytes: with what is around it, it just fits into one of redb's pages, whose
/// lengths are powers of two.
pub(super) const PIECE: usize = 60 << 10;

/// Everything but entries and the snapshot's bytes; written whole in each transaction, so that a store
/// in which a part went missing contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The store that this record belongs to.
    pub(super) store: Option<StoreId>,
    /// Number of the transaction.
    pub(super) seq: u64,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
    pub(super) snapshot: SnapshotState,
    /// Index and term of the last entry; the snapshot's without entries.
    pub(super) last: (u64, u64),
}

/// The newest snapshot; all zero when there was none yet.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct SnapshotState {
    pub(super) index: u64,
    pub(super) term: u64,
    /// The Raft configuration, as raft-rs writes it.
    pub(super) conf_state: Vec<u8>,
    /// Length of its data, in bytes.
    pub(super) bytes: u64,
}

impl SnapshotState {
    /// In how many pieces its data lies.
    pub(super) fn pieces(&self) -> u64 {
        self.bytes.div_ceil(PIECE as u64)
    }
}
