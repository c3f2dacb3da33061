//! Labs that are to go, whole or half made.

use std::path::{Path, PathBuf};

use super::daemon;
use super::plan::Plan;
use crate::LabError;
use crate::sys::{Netns, require_root};

/// Removes a lab by name, whole or half made; none at all is fine too. Returns what it removed, in words.
pub fn down(name: &str) -> Result<Vec<String>, LabError> {
    require_root()?;
    remove(&Plan::largest(name, &base_dir())?)
}

/// The largest lab of a name that is up.
pub(super) fn existing(name: &str) -> Result<Plan, LabError> {
    let plan = Plan::largest(name, &base_dir())?;
    if plan.dir.exists() { Ok(plan) } else { Err(LabError::NoLab { name: name.to_owned() }) }
}

/// The names of all labs that are up, whole or half made.
pub fn list() -> Vec<String> {
    let entries = std::fs::read_dir(base_dir()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

pub(super) fn remove(plan: &Plan) -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    if super::link::end_recorded(plan) {
        removed.push("relay of the sync link".to_owned());
    }
    let running: Vec<_> = plan.members().filter(|member| member.process.exists()).collect();
    daemon::stop_recorded(&running);
    removed.extend(running.iter().map(|member| format!("daemon of {}", member.name)));
    for netns in plan.netns_names().into_iter().map(Netns::new).filter(Netns::exists) {
        let left = netns.processes();
        if !left.is_empty() {
            // They are not ours to kill; the namespace lives on, without a name, until they end.
            eprintln!("tidegate-lab: still running in {}: process {left:?}", netns.name());
        }
        // An interface would live on with them: take the links away from under them.
        remove_links(&netns);
        netns.delete()?;
        removed.push(format!("namespace {}", netns.name()));
    }
    if plan.dir.exists() {
        std::fs::remove_dir_all(&plan.dir).map_err(|source| LabError::File {
            action: "remove",
            path: plan.dir.clone(),
            source,
        })?;
        removed.push(format!("{}", plan.dir.display()));
    }
    Ok(removed)
}

/// Deletes what a lab makes in a namespace. Deleting one end of a pair deleted the other: most are gone already.
fn remove_links(netns: &Netns) {
    for kind in ["veth", "bridge"] {
        let listing = netns.ip(&format!("-o link show type {kind}")).unwrap_or_default();
        for ifname in listing.lines().filter_map(ifname_of) {
            let _ = netns.ip(&format!("link del {ifname}"));
        }
    }
}

/// `7: node1@if2: <...` is about `node1`.
fn ifname_of(line: &str) -> Option<&str> {
    let name = line.split_ascii_whitespace().nth(1)?.trim_end_matches(':');
    Some(name.split_once('@').map_or(name, |(name, _)| name))
}

/// Makes the lab's directory, which claims its name.
pub(super) fn claim(plan: &Plan) -> Result<(), LabError> {
    let base = plan.dir.parent().unwrap_or(Path::new("/"));
    make_dir(base)?;
    if plan.netns_names().iter().any(|name| Netns::new(name).exists()) {
        return Err(LabError::Exists { name: plan.name.clone() });
    }
    std::fs::create_dir(&plan.dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => LabError::Exists { name: plan.name.clone() },
        _ => LabError::File { action: "make", path: plan.dir.clone(), source },
    })
}

pub(super) fn make_dir(path: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(path).map_err(|source| LabError::File {
        action: "make",
        path: path.into(),
        source,
    })
}

/// Where labs keep their files: /run, or /tmp where there is no writable /run.
pub(super) fn base_dir() -> PathBuf {
    let run = Path::new("/run");
    let writable = nix::unistd::access(run, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable { run.join("tidegate-lab") } else { Path::new("/tmp").join("tidegate-lab") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_with_or_without_its_peer() {
        assert_eq!(ifname_of("7: node1@if2: <BROADCAST> mtu 1500"), Some("node1"));
        assert_eq!(ifname_of("2: br0: <BROADCAST> mtu 1500"), Some("br0"));
        assert_eq!(ifname_of(""), None);
    }
}
