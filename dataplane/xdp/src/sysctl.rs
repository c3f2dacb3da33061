//! The first wall of fail closed: the kernel itself forwards nothing, whatever becomes of this process.
//!
//! Forwarding is off for all, default and every data port, IPv4 and IPv6; router advertisements,
//! redirects and source routes are refused there, so that nothing on the wire changes the routes that
//! are mirrored. Checked at start and again by the caller every few seconds: what was changed by hand
//! is put right and reported; what cannot be is reported as an error to shout about.
//!
//! Works on /proc/sys/net, which shows the network namespace of this process.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A setting that had to be put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Its name as sysctl has it (`net.ipv4.ip_forward`).
    pub name: String,
    /// What it was.
    pub was: String,
    /// What it is now.
    pub now: &'static str,
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {}, set to {}", self.name, self.was, self.now)
    }
}

/// A setting that is wrong and could not be put right: the kernel may forward past this node.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} is {is} and must be {wanted}, but cannot be set ({source}); set it by hand: `sysctl -w {name}={wanted}`"
)]
pub struct Unfixable {
    /// Its name.
    pub name: String,
    /// What it is ("?" if it cannot be read).
    pub is: String,
    /// What it has to be.
    pub wanted: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Settings checked.
    pub checked: usize,
    /// Put right.
    pub fixed: Vec<Fixed>,
    /// Wrong still.
    pub unfixable: Vec<Unfixable>,
}

impl Report {
    /// Whether the wall stands.
    pub fn holds(&self) -> bool {
        self.unfixable.is_empty()
    }
}

/// For all interfaces together, and for those to come. The order matters: writing `ip_forward` or
/// `conf/all/forwarding` resets others, so they come first.
const GLOBAL: &[(&str, &str)] = &[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")];

/// For `all`, `default` and each port.
const EACH: &[(&str, &str, &str)] = &[
    ("ipv4", "forwarding", "0"),
    ("ipv4", "mc_forwarding", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "secure_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_source_route", "0"),
    ("ipv6", "forwarding", "0"),
    ("ipv6", "mc_forwarding", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "accept_source_route", "0"),
];

/// Settings that the kernel keeps to itself: their value counts, but only others can change it.
const READ_ONLY: &[&str] = &["mc_forwarding"];

/// Checks and puts right the settings of this network namespace for the given ports. A setting that
/// does not exist (no IPv6, a port that is just gone) is no fault.
pub fn enforce<'a>(ports: impl IntoIterator<Item = &'a str>) -> Report {
    enforce_in(Path::new("/proc/sys/net"), ports)
}

/// The same below another directory.
pub fn enforce_in<'a>(root: &Path, ports: impl IntoIterator<Item = &'a str>) -> Report {
    let mut report = Report::default();
    for (name, wanted) in GLOBAL {
        enforce_one(root, Path::new(name), wanted, &mut report);
    }
    for place in ["all", "default"].into_iter().chain(ports) {
        // An interface's name is one path component, or it is none.
        if place.is_empty() || place.contains('/') || place == ".." {
            continue;
        }
        for (family, name, wanted) in EACH {
            let path: PathBuf = [family, "conf", place, name].iter().collect();
            enforce_one(root, &path, wanted, &mut report);
        }
    }
    report
}

fn enforce_one(root: &Path, path: &Path, wanted: &'static str, report: &mut Report) {
    let file = root.join(path);
    let is = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(_) => "?".into(),
    };
    report.checked += 1;
    if is == wanted {
        return;
    }
    let name = format!(
        "net.{}",
        path.to_string_lossy().replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/")
    );
    let read_only = path.file_name().is_some_and(|n| READ_ONLY.iter().any(|r| n == *r));
    let written = if read_only {
        Err(io::Error::other("a multicast routing daemon holds it; end that"))
    } else {
        std::fs::write(&file, wanted)
    };
    let after = std::fs::read_to_string(&file).map(|t| t.trim() == wanted);
    match written.and(after) {
        Ok(true) => report.fixed.push(Fixed { name, was: is, now: wanted }),
        Ok(false) => {
            let source = io::Error::other("the kernel kept its value");
            report.unfixable.push(Unfixable { name, is, wanted, source });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => report.unfixable.push(Unfixable { name, is, wanted, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, value: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("tidegate-sysctl-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for place in ["all", "default", "eth0.5"] {
            for (family, key, _) in EACH {
                let dir = root.join(family).join("conf").join(place);
                std::fs::create_dir_all(&dir).unwrap();
                let value = if READ_ONLY.contains(key) { "0" } else { value };
                std::fs::write(dir.join(key), format!("{value}\n")).unwrap();
            }
        }
        std::fs::write(root.join("ipv4/ip_forward"), format!("{value}\n")).unwrap();
        root
    }

    // Red when a setting of all, default or a port is left as it is, or a fix is not reported.
    #[test]
    fn everything_wrong_is_put_right_and_reported() {
        let root = tree("fix", "1");
        let report = enforce_in(&root, ["eth0.5", "gone"]);
        assert!(report.holds());
        assert_eq!(report.fixed.len(), 1 + 3 * 9);
        assert!(report.fixed.iter().any(|f| f.name == "net.ipv4.conf.eth0/5.forwarding"));
        assert_eq!(std::fs::read_to_string(root.join("ipv6/conf/eth0.5/accept_ra")).unwrap(), "0");
        let again = enforce_in(&root, ["eth0.5"]);
        assert!(again.holds() && again.fixed.is_empty() && again.checked == report.checked);
        std::fs::remove_dir_all(root).unwrap();
    }

    // Red when a setting that cannot be changed passes for right.
    #[test]
    fn what_cannot_be_put_right_is_said() {
        let root = tree("stuck", "0");
        std::fs::write(root.join("ipv4/conf/all/mc_forwarding"), "1\n").unwrap();
        let report = enforce_in(&root, ["eth0.5", "../../etc"]);
        assert!(!report.holds());
        assert!(report.unfixable[0].to_string().contains("net.ipv4.conf.all.mc_forwarding"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
