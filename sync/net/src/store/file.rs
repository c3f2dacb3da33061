//! The store as a file.

use super::RaftStore;
use crate::identity::files;
use redb::StorageBackend;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tidegate_sync::cluster::StoreId;
use tidegate_sync::raft::StoreError;

/// Why a store's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file itself.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read or write it.
    #[error(transparent)]
    Mode(#[from] files::FileError),
    /// Another process has it open.
    #[error("{}: another process has this store open: stop the daemon that uses this directory", .0.display())]
    Locked(PathBuf),
    /// What is in it.
    #[error("{}: {error}: {}", .path.display(), remedy(.error))]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
}

/// What an operator does about a store that failed.
pub fn remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full(_) => "free space there, then restart the daemon",
        StoreError::Io(_) => "check the disk, then restart the daemon",
        StoreError::Corrupt(_) => {
            "remove this node (`tidegate cluster remove` on another), move its directory away, and join again with a new token"
        }
    }
}

impl RaftStore {
    /// Creates the file of a new, empty store, mode 0600; it has its name only once it is whole.
    ///
    /// # Errors
    /// There is one already, or the storage's.
    pub fn create_file(path: &Path, id: StoreId) -> Result<RaftStore, OpenError> {
        let fault = |error| OpenError::File { path: path.to_owned(), error };
        if path.try_exists().map_err(fault)? {
            return Err(fault(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let new = files::beside(path);
        // Left by an attempt that did not end.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&new).map_err(fault)?;
        lock(&file, &new)?;
        let storage = FileStorage { file };
        let store = RaftStore::create(storage, id)
            .map_err(|error| OpenError::Store { path: path.to_owned(), error })?;
        std::fs::rename(&new, path).and_then(|()| files::sync_parent(path)).map_err(fault)?;
        Ok(store)
    }

    /// Opens the file of a store, and locks it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_file(path: &Path) -> Result<RaftStore, OpenError> {
        let file = Self::lock_file(path)?;
        RaftStore::open(FileStorage { file })
            .map_err(|error| OpenError::Store { path: path.to_owned(), error })
    }

    /// Locks the file of a store and does not look into it: as long as the file is held, no daemon runs
    /// on it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn lock_file(path: &Path) -> Result<File, OpenError> {
        let fault = |error| OpenError::File { path: path.to_owned(), error };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(fault)?;
        files::check_private(path, &file.metadata().map_err(fault)?)?;
        lock(&file, path)?;
        Ok(file)
    }
}

fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked(path.to_owned()),
        TryLockError::Error(error) => OpenError::File { path: path.to_owned(), error },
    })
}

/// A locked file beneath redb.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
}

impl StorageBackend for FileStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
