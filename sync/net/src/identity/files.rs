//! Files with secrets: written whole or not at all, and read only when nobody else could have.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read or written.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// `read`, `write`, ...
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "{} has mode {mode:03o}, so others may use what is in it: `chmod {} {}`, and if somebody may have read it, remove this node from the cluster and join again",
        .path.display(), if *.directory { "700" } else { "600" }, .path.display()
    )]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Whether it is a directory.
        directory: bool,
    },
    /// It is longer than anything that belongs there.
    #[error("{} has more than {limit} bytes: it is not what belongs there", .path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// The longest that is read, in bytes.
        limit: u64,
    },
}

/// Longest file that is read here, in bytes.
const LIMIT: u64 = 1 << 20;

/// Refuses what others than the owner may use.
///
/// # Errors
/// [`FileError::Mode`].
pub fn check_private(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let mode = metadata.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(FileError::Mode { path: path.to_owned(), mode, directory: metadata.is_dir() }),
    }
}

/// Where a file is built before it gets its name.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes the names in a file's directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Replaces a file: after a crash either the old or the new one is there, whole.
///
/// # Errors
/// The file system's; the old file is as it was, then.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let new = beside(path);
    let written = (|| {
        // Not to inherit the mode of what an earlier attempt left.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        sync_parent(path)
    })();
    written.map_err(|error| {
        // Best effort: a full disk is the likely reason.
        let _ = std::fs::remove_file(&new);
        FileError::Io { what: "write", path: path.to_owned(), error }
    })
}

/// Removes a file, if there is one.
///
/// # Errors
/// The file system's.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { what: "remove", path: path.to_owned(), error })
        }
        Err(_) => Ok(()),
        Ok(()) => {
            sync_parent(path).map_err(|error| FileError::Io { what: "sync", path: path.to_owned(), error })
        }
    }
}

/// Reads a file; `None` if there is none. A `secret` one must be its owner's alone.
///
/// # Errors
/// The file system's, a looser mode, or too long.
pub fn read(path: &Path, secret: bool) -> Result<Option<Vec<u8>>, FileError> {
    let fault = |error| FileError::Io { what: "read", path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(fault)?,
    };
    if secret {
        check_private(path, &file.metadata().map_err(fault)?)?;
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(fault)?;
    match bytes.len() as u64 > LIMIT {
        true => Err(FileError::TooLong { path: path.to_owned(), limit: LIMIT }),
        false => Ok(Some(bytes)),
    }
}
