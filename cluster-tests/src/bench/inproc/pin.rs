//! The measuring thread on one CPU.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread on one CPU until dropped.
pub(in crate::bench) struct Pinned {
    before: Option<CpuSet>,
    placement: String,
}

impl Pinned {
    /// Pins to the last CPU that the thread may use: interrupts and other programs favour the first.
    pub(in crate::bench) fn to_last_cpu() -> Self {
        let this = Pid::from_raw(0);
        let pinned = sched_getaffinity(this).ok().and_then(|before| {
            let cpu = (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu).unwrap_or(false))?;
            let mut one = CpuSet::new();
            one.set(cpu).ok()?;
            sched_setaffinity(this, &one).ok()?;
            Some((before, cpu))
        });
        match pinned {
            Some((before, cpu)) => {
                Pinned { before: Some(before), placement: format!("one thread, pinned to CPU {cpu}") }
            }
            None => Pinned { before: None, placement: "one thread, not pinned".into() },
        }
    }

    /// For a row.
    pub(in crate::bench) fn placement(&self) -> &str {
        &self.placement
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}
