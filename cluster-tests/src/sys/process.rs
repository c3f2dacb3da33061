//! A process that is really ours: a process id alone may have been given to somebody else since.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::LabError;

/// A process by id and start time, which together are never reused within a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
        let (state, start_ticks) = parse_stat(&stat)?;
        (state != 'Z').then_some(ProcessId { pid, start_ticks })
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        ProcessId::of(self.pid) == Some(*self)
    }

    /// Sends a signal if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end between check and signal; then there is nothing left to do.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Asks it to end, and kills it when it has not within `patience`. Returns whether it ended by itself.
    pub fn stop(&self, patience: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        if self.wait_gone(patience) {
            return true;
        }
        self.signal(Signal::SIGKILL);
        self.wait_gone(Duration::from_secs(5));
        false
    }

    fn wait_gone(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// Pins the calling thread to a CPU.
pub fn pin(cpu: usize) -> Result<(), LabError> {
    let fail = |errno| LabError::system(format!("run on CPU {cpu}"), errno);
    let mut set = CpuSet::new();
    set.set(cpu).map_err(fail)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(fail)
}

/// State and start time from a line of /proc/PID/stat. The program's name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_name_holds() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4242 1000 10 18446744073709551615";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
    }

    /// Red when identity is the process id alone: then a later process would be signalled for an earlier one.
    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }
}
