//! One member of a lab: its namespace, its daemon, and its command line.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;

use super::plan::NodePlan;
use super::{Daemon, Lab};
use crate::LabError;
use crate::sys::{Netns, Output, ProcessId, Stop, find_binary, read_file, run_in, write_file};

/// A node or the witness. Several threads may use members of one lab at once: one kills daemons, another asks them.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    plan: &'a NodePlan,
    seat: &'a Seat,
}

/// Where a member's daemon sits while it runs.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Option<Daemon>>);

impl Seat {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get_mut(&mut self) -> &mut Option<Daemon> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lab {
    /// A node by its number from 1, or the witness by [`WITNESS`](super::WITNESS).
    ///
    /// # Panics
    /// When the lab has no such member.
    pub fn at(&self, number: u32) -> Member<'_> {
        let found = self.members().find(|member| member.number() == number);
        found.unwrap_or_else(|| panic!("lab {} has no member {number}", self.plan().name))
    }

    /// All members: the nodes, then the witness.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.plan().members().zip(self.seats()).map(|(plan, seat)| Member { plan, seat })
    }
}

impl<'a> Member<'a> {
    /// Nodes count from 1; the witness is [`WITNESS`](super::WITNESS).
    pub fn number(&self) -> u32 {
        self.plan.number
    }

    /// `node1` or `witness`.
    pub fn name(&self) -> &'a str {
        &self.plan.name
    }

    /// What it is made of.
    pub fn plan(&self) -> &'a NodePlan {
        self.plan
    }

    /// Its namespace.
    pub fn netns(&self) -> Netns {
        Netns::new(&self.plan.netns)
    }

    /// The process id of its daemon, when one was started and not ended by us.
    pub fn pid(&self) -> Option<i32> {
        self.process().map(|process| process.pid)
    }

    /// Whether no daemon runs: none was started, or it has ended, by itself too.
    pub fn has_ended(&self) -> bool {
        !self.process().is_some_and(|process| process.is_alive())
    }

    fn process(&self) -> Option<ProcessId> {
        self.seat.lock().as_ref().map(Daemon::process)
    }

    /// Starts its daemon, without waiting until it is ready.
    pub fn spawn(&self) -> Result<(), LabError> {
        self.spawn_build(find_binary("tidegate", "TIDEGATE_BIN")?)
    }

    /// The same with another build of it.
    pub fn spawn_build(&self, binary: PathBuf) -> Result<(), LabError> {
        *self.seat.lock() = Some(Daemon::start(self.plan, binary)?);
        Ok(())
    }

    /// Waits until its daemon does all its work.
    pub fn wait_ready(&self, stop: &Stop) -> Result<(), LabError> {
        self.with(|daemon| daemon.wait_ready(stop))
    }

    /// Waits until its daemon answers; it may still wait for a cluster to join.
    pub fn wait_alive(&self, stop: &Stop) -> Result<(), LabError> {
        self.with(|daemon| daemon.wait_alive(stop))
    }

    /// Starts its daemon, again after it was killed or ended, and waits until it is ready.
    pub fn start(&self, stop: &Stop) -> Result<(), LabError> {
        self.spawn()?;
        self.wait_ready(stop)
    }

    /// Kills its daemon with SIGKILL and returns once it was reaped. Fine if it has ended by itself.
    pub fn kill(&self) -> Result<(), LabError> {
        self.with(Daemon::kill)?;
        *self.seat.lock() = None;
        Ok(())
    }

    /// Ends its daemon in order. Returns its exit code, `None` when it had to be killed.
    pub fn terminate(&self) -> Result<Option<i32>, LabError> {
        let code = self.with(Daemon::terminate)?;
        *self.seat.lock() = None;
        Ok(code)
    }

    /// Freezes its daemon with SIGSTOP.
    pub fn freeze(&self) -> Result<(), LabError> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets its frozen daemon go on.
    pub fn thaw(&self) -> Result<(), LabError> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.process().ok_or_else(|| self.nobody())?.signal(signal);
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Daemon) -> Result<T, LabError>) -> Result<T, LabError> {
        work(self.seat.lock().as_mut().ok_or_else(|| self.nobody())?)
    }

    fn nobody(&self) -> LabError {
        LabError::Check(format!("no daemon runs at {}", self.name()))
    }

    /// Runs a `tidegate` verb against it; any exit code is an answer.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<Output, LabError> {
        let binary = find_binary("tidegate", "TIDEGATE_BIN")?.display().to_string();
        let control = self.plan.control.display().to_string();
        let mut all = vec!["--control", control.as_str()];
        all.extend(arguments);
        run_in(Some(&self.netns()), &binary, &all)
    }

    /// Writes a file for verbs that take one, and returns its path. Another one of that name is replaced.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.plan.dir.join(name);
        write_file(&path, text).map(|()| path)
    }

    /// All that its daemon has logged.
    pub fn log(&self) -> Result<String, LabError> {
        read_file(Path::new(&self.plan.log))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        super::daemon::log_tail(self.plan)
    }
}
