//! Boot numbers: which start of a node something belongs to.

use super::files::{self, FileError};
use super::{Directory, IdentityError};
use std::io;

impl Directory {
    /// The boot number of a start at `clock_s` (seconds since 1970): that, unless an earlier start had it or a later
    /// one, because two followed one another within a second or the clock was set back. Durable when this returns, so
    /// that no number is used twice. The start in which the node became a member was numbered by the clock alone, perhaps
    /// in this very second: what is written down first comes after that.
    ///
    /// # Errors
    /// The file system's, or there are no numbers left.
    pub fn next_boot(&self, clock_s: u32) -> Result<u32, IdentityError> {
        let path = self.path().join("boot");
        let unreadable = |reason: String| IdentityError::Unreadable { path: path.clone(), reason };
        let last = match files::read(&path, false)? {
            None => None,
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Some(text.trim().parse::<u32>().map_err(|e| unreadable(format!("no boot number: {e}")))?)
            }
        };
        let boot = match last {
            None => clock_s.saturating_add(1),
            Some(last) => {
                let next = last.checked_add(1).ok_or_else(|| FileError::Io {
                    what: "count on from",
                    path: path.clone(),
                    error: io::ErrorKind::InvalidData.into(),
                })?;
                clock_s.max(next)
            }
        };
        files::write(&path, format!("{boot}\n").as_bytes(), 0o600)?;
        Ok(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when the clock alone says which boot it is, or what is no number passes for one.
    #[test]
    fn no_boot_number_comes_twice_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(&dir.path().join("id")).unwrap();
        let boots: Vec<u32> =
            [100, 100, 90, 300].iter().map(|clock| directory.next_boot(*clock).unwrap()).collect();
        // 100 is the start in which it joined.
        assert_eq!(boots, [101, 102, 103, 300]);
        for bad in ["", "x", "4294967295", "99999999999"] {
            std::fs::write(directory.path().join("boot"), bad).unwrap();
            assert!(directory.next_boot(100).is_err(), "{bad}");
        }
    }
}
