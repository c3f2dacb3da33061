//! What a CPU was busy with while something ran: user, system and interrupts together, whoever caused them.
//!
//! The cost of a packet filter in the kernel belongs to no process, so both sides are judged alike: each node has a
//! CPU of its own, and what counts is how busy that CPU was.

use std::path::Path;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::LabError;
use crate::sys::read_file;

/// USER_HZ: what /proc/stat counts in, on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// An observation of one CPU that is under way.
pub(super) struct Watch {
    cpu: usize,
    since: Instant,
    away: u64,
}

impl Watch {
    /// Begins.
    pub(super) fn begin(cpu: usize) -> Result<Watch, LabError> {
        Ok(Watch { cpu, away: away_ticks(cpu)?, since: Instant::now() })
    }

    /// Seconds that the CPU was busy since the beginning. Idle time is exact where busy time is sampled, so the busy
    /// time is what is left of the clock's.
    pub(super) fn busy_s(&self) -> Result<f64, LabError> {
        let (away, elapsed) = (away_ticks(self.cpu)?, self.since.elapsed());
        Ok(elapsed.as_secs_f64() - away.saturating_sub(self.away) as f64 / TICKS_PER_S)
    }
}

/// Ticks in which a CPU did nothing, or was not ours.
fn away_ticks(cpu: usize) -> Result<u64, LabError> {
    let stat = read_file(Path::new("/proc/stat"))?;
    away_of(&stat, cpu).ok_or_else(|| LabError::Check(format!("/proc/stat knows no CPU {cpu}")))
}

fn away_of(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split_ascii_whitespace().next() == Some(name.as_str()))?;
    let field = |number: usize| line.split_ascii_whitespace().nth(number)?.parse::<u64>().ok();
    // User, nice, system, idle, iowait, irq, softirq, steal.
    Some(field(4)? + field(5)? + field(8)?)
}

/// Moves a process, with all threads that it has, to one CPU.
pub(super) fn pin_process(pid: i32, cpu: usize) -> Result<(), LabError> {
    let fail = |errno| LabError::system(format!("move process {pid} to CPU {cpu}"), errno);
    let mut set = CpuSet::new();
    set.set(cpu).map_err(fail)?;
    let tasks = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&tasks).map_err(|source| LabError::File {
        action: "list",
        path: tasks.into(),
        source,
    })?;
    for entry in entries.flatten() {
        let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A thread may end meanwhile; the process itself would have said so above.
        match thread.map(|thread| sched_setaffinity(Pid::from_raw(thread), &set)) {
            None | Some(Ok(()) | Err(nix::errno::Errno::ESRCH)) => {}
            Some(Err(errno)) => return Err(fail(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when CPU 1 is read from the line of CPU 10, or stolen time is charged to a node.
    #[test]
    fn idle_waiting_and_stolen_time_are_away() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\ncpu1 71 10 22 500 30 7 18 4 0 0\n";
        assert_eq!(away_of(stat, 1), Some(534));
        assert_eq!(away_of(stat, 2), None);
    }
}
