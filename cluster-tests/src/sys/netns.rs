//! A network namespace: made, entered, removed.
//!
//! A thread can enter one by itself (`setns` is for one thread), so that the lab's own traffic needs no
//! helper process: a socket stays in the namespace that it was made in.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::run;
use crate::LabError;

/// A network namespace by its name under /run/netns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of that name, which need not exist yet.
    pub fn new(name: impl Into<String>) -> Netns {
        Netns { name: name.into() }
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Makes it.
    pub fn create(&self) -> Result<(), LabError> {
        run("ip", &["netns", "add", &self.name]).map(drop)
    }

    /// Removes its name; the namespace goes with the last process inside.
    pub fn delete(&self) -> Result<(), LabError> {
        run("ip", &["netns", "del", &self.name]).map(drop)
    }

    /// Processes that run inside, by process id.
    pub fn processes(&self) -> Vec<i32> {
        let listing = run("ip", &["netns", "pids", &self.name]).unwrap_or_default();
        listing.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// A command that will run `program` inside. `ip` becomes the program (exec), so its process id is the program's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip -n NAME ...`, insisting on success.
    pub fn ip(&self, arguments: &str) -> Result<String, LabError> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments.split_whitespace());
        run("ip", &all)
    }

    /// Moves the calling thread inside, for good. For threads that the caller made for this.
    pub fn enter(&self) -> Result<(), LabError> {
        let path = self.path();
        let file = File::open(&path).map_err(|source| LabError::File { action: "open", path, source })?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| LabError::system(format!("enter network namespace {}", self.name), errno))
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for its result.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Reads a sysctl such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str) -> Result<String, LabError> {
        let path = PathBuf::from("/proc/sys").join(key);
        let value = self.run(|| super::read_file(&path))??;
        Ok(value.trim().to_owned())
    }

    /// Writes a sysctl.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = PathBuf::from("/proc/sys").join(key);
        self.run(|| super::write_file(&path, value))?
    }

    /// Reads a file of /proc/net as the namespace shows it, such as `snmp`.
    pub fn proc_net(&self, file: &str) -> Result<String, LabError> {
        let path = PathBuf::from("/proc/thread-self/net").join(file);
        self.run(|| super::read_file(&path))?
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}
