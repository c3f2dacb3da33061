//! The control socket's file: made with mode 0600 before anyone can connect, one daemon at a time,
//! what a killed daemon left behind replaced.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another daemon has it.
    #[error(
        "another daemon answers at {}\n  help: stop it first, or give this node a `control.socket` of its own",
        .0.display()
    )]
    Taken(PathBuf),
    /// Something that is no socket stands there.
    #[error("{} exists and is no socket; remove it or set another `control.socket`", .0.display())]
    NoSocket(PathBuf),
}

/// A bound control socket. Dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
    /// Held for as long as the daemon lives; the kernel lets go of it even after SIGKILL.
    _lock: File,
}

impl ControlSocket {
    /// Makes the folder if needed, takes the lock, replaces a stale socket, listens.
    pub fn bind(path: &Path) -> Result<ControlSocket, SocketError> {
        let io = |what, at: &Path| {
            let path = at.to_owned();
            move |source| SocketError::Io { what, path, source }
        };
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(io("make the folder", dir))?;
        }
        let lock_path = beside(path, ".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::Taken(path.to_owned())),
            Err(TryLockError::Error(e)) => return Err(io("lock", &lock_path)(e)),
        }
        check_stale(path)?;
        // Bound under another name, so that nobody can connect before the mode is right.
        let fresh = beside(path, ".new");
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(io("bind", &fresh))?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .map_err(io("set the mode of", &fresh))?;
        listener.set_nonblocking(true).map_err(io("set up", &fresh))?;
        std::fs::rename(&fresh, path).map_err(io("put in place", path))?;
        Ok(ControlSocket { path: path.to_owned(), listener: Some(listener), _lock: lock })
    }

    /// The listener, once.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still ours, so the file is too. A failure leaves a stale socket, which the next
        // start replaces.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What stands at the path may be replaced: nothing, or a socket that nobody listens at.
fn check_stale(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if !meta.file_type().is_socket() => Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(SocketError::Taken(path.to_owned())),
            Err(_) => Ok(()),
        },
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tidegate-socket-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn the_socket_is_private_and_goes_with_the_daemon() {
        // Bind without the mode, or drop without removing, and one of these fails.
        let path = dir("mode").join("deep/control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
        std::fs::remove_dir_all(dir("mode")).unwrap_or_default();
    }

    #[test]
    fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
        // Without the lock the second bind would steal the first one's name.
        let path = dir("second").join("control.sock");
        let mut first = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::Taken(_))));
        // As after SIGKILL: the file stays, nobody listens, the lock is free.
        drop(first.take_listener());
        drop(std::mem::replace(&mut first._lock, File::open("/dev/null").unwrap()));
        std::mem::forget(first);
        assert!(path.exists());
        ControlSocket::bind(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        // Replace whatever is there and an operator's file is lost.
        let dir = dir("file");
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("control.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
