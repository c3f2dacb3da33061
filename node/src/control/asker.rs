//! Who asks: the user at the other end of the control socket, for the audit history.

use std::path::Path;

/// `uid 0 (root)`, or `uid 1000` for a user without a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker(pub String);

impl Asker {
    /// The user with that number, by its name in `/etc/passwd`.
    pub(super) fn user(uid: u32) -> Self {
        Asker::named(uid, Path::new("/etc/passwd"))
    }

    fn named(uid: u32, passwd: &Path) -> Self {
        let text = std::fs::read_to_string(passwd).unwrap_or_default();
        let name = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        });
        match name {
            Some(name) => Asker(format!("uid {uid} ({name})")),
            None => Asker(format!("uid {uid}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_by_the_third_field() {
        // Take the group's number for the user's, and the second line says "staff".
        let file = std::env::temp_dir().join(format!("tidegate-passwd-{}", std::process::id()));
        std::fs::write(&file, "root:x:0:0:root:/root:/bin/sh\nstaff:x:7:1000::/:\nann:x:1000:7::/:\n")
            .unwrap();
        assert_eq!(Asker::named(0, &file).0, "uid 0 (root)");
        assert_eq!(Asker::named(1000, &file).0, "uid 1000 (ann)");
        assert_eq!(Asker::named(5, &file).0, "uid 5");
        std::fs::remove_file(file).unwrap();
    }
}
