//! The Raft thread: owns the replica and its store, and is the only one that waits for the disk.

use super::shared::{Shared, unix_ms};
use super::{Standing, counters::count};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;
use tidegate_sync::cluster::{ClusterState, Command, NodeId, Proposal, RequestId};
use tidegate_sync::raft::{
    Output, ProposeError, RaftRole, RaftStatus, ReadId, Replica, StepError, Store, StoreError,
};
use tokio::sync::oneshot;

/// Inputs that wait for the thread.
pub(crate) const QUEUE: usize = 4_096;
/// Inputs that one turn takes: then come ticks, and the disk.
const TURN: usize = 256;
/// Reads that wait for the leader's word; more are refused, and asked again.
const READS: usize = 1_024;

/// What the thread is given.
pub(crate) enum Input {
    /// A peer's message.
    Step { from: NodeId, message: Bytes },
    /// A proposal; the reply says whether it is in the log. Its answer comes with the state.
    Propose { proposal: Box<Proposal>, reply: oneshot::Sender<Result<(), ProposeError>> },
    /// A linearizable read; dropped when it must be asked again.
    Read { reply: oneshot::Sender<Arc<ClusterState>> },
    /// Hand the lead over, if this node has it.
    Transfer,
    /// A peer's connection is gone, with all that was on its way.
    Unreachable(NodeId),
}

/// Nobody believes in a lead or a quorum after the thread has ended; and when it ended by a panic, it says
/// so: a member that is silently deaf would be worse.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = "the Raft thread ended by a fault in it (see the log); this node forwards on under the last agreed policy but takes no part in decisions: restart the daemon, and report the fault";
            self.0.store_failed(message.to_owned());
        }
        self.0.no_part();
    }
}

/// The thread's own.
pub(crate) struct RaftThread<S: Store> {
    replica: Replica<S>,
    shared: Arc<Shared>,
    input: Receiver<Input>,
    reads: BTreeMap<ReadId, oneshot::Sender<Arc<ClusterState>>>,
    next_read: u64,
    /// Set by a message that shows that the store is not what it was.
    lost: Option<StoreError>,
    /// What the cluster itself proposed last, and when.
    tidied: Option<(RequestId, Instant)>,
    next_tick: Instant,
}

impl<S: Store + Send + 'static> RaftThread<S> {
    /// Runs until the member stops. The store is released when the thread has ended.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn spawn(
        replica: Replica<S>,
        shared: Arc<Shared>,
        input: Receiver<Input>,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let next_tick = Instant::now() + shared.options.tick;
        let (reads, tidied) = (BTreeMap::new(), None);
        let thread =
            RaftThread { replica, shared, input, reads, next_read: 0, lost: None, tidied, next_tick };
        std::thread::Builder::new().name("tidegate-raft".to_owned()).spawn(move || thread.run())
    }

    fn run(mut self) {
        let _end = End(self.shared.clone());
        self.publish_status();
        while !self.shared.halt.load(Ordering::Acquire) {
            if !self.take_inputs() {
                break;
            }
            self.tick();
            let driven = self.lost.take().map_or_else(|| self.drive(), Err);
            if let Err(error) = driven {
                self.failed(&error);
                break;
            }
        }
        // Reads and calls that wait learn it from their dropped replies.
    }

    /// Waits for inputs until the next tick; `false`: nobody can give any more.
    fn take_inputs(&mut self) -> bool {
        let wait = self.next_tick.saturating_duration_since(Instant::now());
        let mut next = match self.input.recv_timeout(wait) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        for _ in 0..TURN {
            let Some(input) = next.take() else { break };
            self.take(input);
            next = self.input.try_recv().ok();
        }
        if let Some(input) = next {
            self.take(input);
        }
        true
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Step { from, message } => {
                if let Err(error) = self.replica.step(&message, from) {
                    count(&self.shared.counting.messages_refused);
                    if let StepError::Lost { counted, last } = error {
                        // It may have voted, and acknowledged what is gone: it must not do so again.
                        self.lost = Some(StoreError::Corrupt(format!(
                            "it ends at entry {last}, but had acknowledged entries up to {counted} (says the leader, node {from}): an older copy of it was put in place"
                        )));
                    }
                    if let Some(held) = self.shared.may_log(&format!("step from {from}")) {
                        tracing::warn!("a Raft message of node {from} was refused: {error}{held}");
                    }
                }
            }
            Input::Propose { proposal, reply } => {
                let _ = reply.send(self.replica.propose(&proposal));
            }
            Input::Read { reply } => {
                self.reads.retain(|_, reply| !reply.is_closed());
                self.next_read += 1;
                let id = ReadId(self.next_read);
                if self.reads.len() < READS && self.replica.read_index(id).is_ok() {
                    self.reads.insert(id, reply);
                }
            }
            Input::Transfer => {
                if let Some(to) = self.replica.successor() {
                    self.replica.transfer_leader(to);
                }
            }
            Input::Unreachable(peer) => {
                self.replica.report_unreachable(peer);
                self.replica.report_snapshot_lost(peer);
            }
        }
    }

    /// As many ticks as are due, but after a long wait for the disk or the processor not all of them: what
    /// peers sent meanwhile is still to be read.
    fn tick(&mut self) {
        let (now, tick) = (Instant::now(), self.shared.options.tick);
        for _ in 0..2 {
            if now < self.next_tick {
                return;
            }
            self.next_tick += tick;
            self.replica.tick();
            self.tidy(now);
        }
        if self.next_tick < now {
            self.next_tick = now + tick;
        }
    }

    /// What the cluster itself wants: proposed by its leader, one after the other.
    fn tidy(&mut self, now: Instant) {
        if let Some((id, since)) = self.tidied {
            let answered = self.replica.state().is_some_and(|s| s.answer(&id).is_some());
            if !answered && now.duration_since(since) < self.shared.options.tick * 40 {
                return;
            }
            self.tidied = None;
        }
        let at_unix_ms = unix_ms();
        let Some(command) = self.replica.tidy(at_unix_ms) else { return };
        self.propose_own(command, at_unix_ms, now);
    }

    fn propose_own(&mut self, command: Command, at_unix_ms: u64, now: Instant) {
        let id = RequestId(rand::random());
        let (by, via) = ("the cluster".to_owned(), self.replica.id());
        let proposal = Proposal { id, by, via, at_unix_ms, command };
        if self.replica.propose(&proposal).is_ok() {
            self.tidied = Some((id, now));
        }
    }

    /// Everything that is due: the disk, messages, answers.
    fn drive(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let mut lost = Vec::new();
        let mut send = |to: NodeId, message: Vec<u8>| {
            if let Err(long) = shared.peers.send(to, message, &shared.counting) {
                lost.push((to, long));
            }
        };
        let output = self.replica.drive_early(&mut send)?;
        let Output { messages, answers: _, reads, state_changed, role_changed } = output;
        for (to, message) in messages {
            send(to, message);
        }
        if state_changed && let Some(state) = self.replica.state() {
            // The handshakes' view first; and before the reads: a reader never sees an older state than
            // it was promised.
            self.shared.follow_membership(state);
            self.shared.state.send_replace(state.clone());
            if state.removed.contains_key(&self.shared.id) {
                self.shared.is_out(Standing::Removed { told_by: None });
            }
        }
        for (id, _index) in reads {
            if let (Some(reply), Some(state)) = (self.reads.remove(&id), self.replica.state()) {
                let _ = reply.send(state.clone());
            }
        }
        if role_changed {
            self.reads.clear();
        }
        for (to, long) in lost {
            self.replica.report_unreachable(to);
            if long {
                self.replica.report_snapshot_lost(to);
            }
        }
        self.publish_status();
        Ok(())
    }

    fn publish_status(&mut self) {
        let status = self.replica.status();
        self.shared.status.send_if_modified(|last| {
            if *last == status {
                return false;
            }
            self.note_role(last, &status);
            *last = status;
            true
        });
    }

    fn note_role(&self, last: &RaftStatus, now: &RaftStatus) {
        if now.term != last.term {
            count(&self.shared.counting.elections);
        }
        if (last.leader, last.role) == (now.leader, now.role) || now.role == RaftRole::Candidate {
            return;
        }
        match now.leader {
            Some(leader) if leader == now.id => {
                tracing::info!("this node leads the cluster, term {}", now.term)
            }
            Some(leader) => tracing::info!("node {leader} leads the cluster, term {}", now.term),
            None if last.leader.is_some() => tracing::warn!("the cluster has no leader, term {}", now.term),
            None => {}
        }
    }

    /// Nothing that depended on the failed write has left. Forwarding goes on; deciding does not.
    fn failed(&mut self, error: &StoreError) {
        let remedy = crate::store::remedy(error);
        let message = format!(
            "{error}; this node forwards on under the last agreed policy but takes no part in decisions: {remedy}"
        );
        self.shared.store_failed(message);
    }
}
