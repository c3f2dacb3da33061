//! What lies beneath redb: our own header block, and one place that sees every error of the storage.

use super::record;
use redb::StorageBackend;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_sync::cluster::StoreId;
use tidegate_sync::raft::StoreError;

/// Length of our header, in bytes; redb's part of the file begins after it.
pub(super) const HEADER: u64 = 4_096;
const MAGIC: &[u8; 16] = b"tidegate raft 1\n";
/// Where the marks are: in sectors of their own, so that a torn write hurts one of them at most.
const MARKS: [u64; 2] = [512, 1_024];
const MARK: usize = 28;

/// What the store knows to be done, written after the fact and without a sync of its own: a lower bound.
/// redb alone would take a file whose newest transaction is damaged for one that crashed before it was
/// written, and go back to the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mark {
    /// Counts marks; the higher one is the newer.
    pub(super) count: u64,
    /// Number of the newest transaction that was synced.
    pub(super) seq: u64,
    /// Commit index.
    pub(super) commit: u64,
}

/// The storage, shared between redb and the store. After the first error it refuses everything: nothing
/// is written on top of a failure, not even by what redb does when it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Below(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Box<dyn StorageBackend>,
    closed: AtomicBool,
    fault: Mutex<Option<StoreError>>,
}

impl Below {
    pub(super) fn new(storage: impl StorageBackend) -> Self {
        let storage: Box<dyn StorageBackend> = Box::new(storage);
        Below(Arc::new(Inner { storage, closed: AtomicBool::new(false), fault: Mutex::new(None) }))
    }

    /// The first error, if there was one.
    pub(super) fn fault(&self) -> Option<StoreError> {
        self.fault_slot().clone()
    }

    /// Makes `error` the first one, unless there was one already; from now on nothing is written.
    pub(super) fn fail(&self, error: StoreError) -> StoreError {
        self.fault_slot().get_or_insert(error).clone()
    }

    fn fault_slot(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing with the storage, and remembers its failure.
    fn at<T>(&self, what: &str, f: impl FnOnce(&dyn StorageBackend) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(fault) = self.fault() {
            return Err(Error::other(fault));
        }
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::NotConnected, "the store is closed"));
        }
        f(&*self.0.storage).inspect_err(|error| {
            self.fail(classify(what, error));
        })
    }

    /// Length of the whole storage, our header included.
    pub(super) fn whole_len(&self) -> Result<u64, Error> {
        self.at("find the length of the store", |s| s.len())
    }

    /// Writes the header of a new store.
    pub(super) fn found(&self, id: StoreId) -> Result<(), Error> {
        let mut header = [0; HEADER as usize];
        header[..16].copy_from_slice(MAGIC);
        header[16..32].copy_from_slice(&id.0);
        let sum = crc32c::crc32c(&header[..32]);
        header[32..36].copy_from_slice(&sum.to_le_bytes());
        self.at("make room for the store", |s| s.set_len(HEADER))?;
        self.at("write the store's header", |s| s.write(0, &header))
    }

    /// Reads the header.
    pub(super) fn read_header(&self) -> Result<(StoreId, Mark), StoreError> {
        let mut header = [0; HEADER as usize];
        let read = self.at("read the store's header", |s| s.read(0, &mut header));
        read.map_err(|e| self.fail(classify("read the store's header", &e)))?;
        let sum = crc32c::crc32c(&header[..32]).to_le_bytes();
        if header[..16] != *MAGIC || header[32..36] != sum {
            let text = "the file is no Raft store of Tidegate, or its header is damaged";
            return Err(self.fail(StoreError::Corrupt(text.to_owned())));
        }
        let mut id = StoreId([0; 16]);
        id.0.copy_from_slice(&header[16..32]);
        let marks = MARKS.iter().filter_map(|at| {
            let at = *at as usize;
            unseal_mark(id, header[at..].first_chunk()?)
        });
        Ok((id, marks.max_by_key(|m| m.count).unwrap_or_default()))
    }

    /// Writes a mark, in turn to one of two places.
    pub(super) fn write_mark(&self, id: StoreId, mark: &Mark) -> Result<(), Error> {
        let at = MARKS[(mark.count % 2) as usize];
        self.at("write the store's mark", |s| s.write(at, &seal_mark(id, mark)))
    }

    /// Everything written so far is on the medium.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.at("sync the store", |s| s.sync_data())
    }
}

fn seal_mark(id: StoreId, mark: &Mark) -> [u8; MARK] {
    let mut bytes = [0; MARK];
    bytes[..8].copy_from_slice(&mark.count.to_le_bytes());
    bytes[8..16].copy_from_slice(&mark.seq.to_le_bytes());
    bytes[16..24].copy_from_slice(&mark.commit.to_le_bytes());
    let sum = record::checksum(record::Place::Mark, 0, &[&id.0, &bytes[..24]]);
    bytes[24..].copy_from_slice(&sum);
    bytes
}

fn unseal_mark(id: StoreId, bytes: &[u8; MARK]) -> Option<Mark> {
    let word = |at: usize| bytes[at..].first_chunk().map(|b| u64::from_le_bytes(*b));
    let mark = Mark { count: word(0)?, seq: word(8)?, commit: word(16)? };
    (seal_mark(id, &mark) == *bytes).then_some(mark)
}

/// Which remedy an error of the storage asks for.
pub(super) fn classify(what: &str, error: &Error) -> StoreError {
    let text = format!("cannot {what}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::Full(text),
        ErrorKind::UnexpectedEof => StoreError::Corrupt(format!("{text} (the file is too short)")),
        ErrorKind::InvalidData => StoreError::Corrupt(text),
        _ => StoreError::Io(text),
    }
}

/// redb's view: the storage without our header. Nobody locks through it, the file is locked already.
impl StorageBackend for Below {
    fn len(&self) -> Result<u64, Error> {
        let whole = self.whole_len()?;
        whole.checked_sub(HEADER).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.at("read the store", |s| s.read(beyond(offset)?, out))
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.at("change the store's length", |s| s.set_len(beyond(len)?))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.at("write the store", |s| s.write(beyond(offset)?, data))
    }

    fn close(&self) -> Result<(), Error> {
        if self.0.closed.swap(true, Ordering::AcqRel) { Ok(()) } else { self.0.storage.close() }
    }
}

fn beyond(offset: u64) -> Result<u64, Error> {
    offset.checked_add(HEADER).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
}
