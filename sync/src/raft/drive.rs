//! The turns of the wheel: write, then send, then apply.

use super::entry::{self, Kind};
use super::replica::{Compacted, Output, Replica};
use super::snapshot::state_of;
use super::store::{Batch, Store, StoreError};
use crate::cluster::{ClusterState, NodeId, Proposal};
use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, HardState, Message, Snapshot};
use raft::{ReadState, StateRole};
use std::sync::Arc;
use tidegate_dataplane::planted::{Fault, is_planted};

impl<S: Store> Replica<S> {
    /// Does all that is to do: writes, applies, compacts. To be called after every `tick`, `step`,
    /// `propose` and the like, or after a few of them.
    ///
    /// # Errors
    /// The store failed. Nothing that depended on the write leaves, and the replica has stopped.
    pub fn drive(&mut self) -> Result<Output, StoreError> {
        let mut early = Vec::new();
        let mut out = self.drive_early(&mut |to, message| early.push((to, message)))?;
        early.append(&mut out.messages);
        out.messages = early;
        Ok(out)
    }

    /// [`Replica::drive`] that hands over what need not wait for the write before it writes: a leader's
    /// entries travel to its followers while they are synced here.
    ///
    /// # Errors
    /// As for `drive`. What was handed over early may be sent all the same.
    pub fn drive_early(&mut self, early: &mut dyn FnMut(NodeId, Vec<u8>)) -> Result<Output, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut out = Output { answers: std::mem::take(&mut self.answers), ..Output::default() };
        if let Err(error) = self.write_late().and_then(|()| self.turns(early, &mut out)) {
            self.failed = Some(error.clone());
            return Err(error);
        }
        let applied = self.state().map_or(0, |s| s.applied);
        self.reads.sort_unstable();
        let ready = |(_, index): &mut (_, u64)| *index <= applied;
        out.reads = self.reads.extract_if(.., ready).collect();
        let raft = &self.node.raft;
        let now = (raft.state, raft.leader_id, raft.term);
        out.role_changed = now != self.seen;
        self.seen = now;
        Ok(out)
    }

    fn turns(&mut self, early: &mut dyn FnMut(NodeId, Vec<u8>), out: &mut Output) -> Result<(), StoreError> {
        while self.node.has_ready() {
            let applied = self.turn(early, out)?;
            // The leader's may append an entry: the end of a joint change.
            self.node.advance_apply_to(applied);
            self.step_down_if_gone();
        }
        self.compact_if_long()?;
        let patience = u64::from(self.config.election_ticks);
        if self.unsynced.is_some_and(|tick| self.ticks >= tick + patience) {
            self.unsynced = None;
            self.store.flush()?;
        }
        Ok(())
    }

    /// Nothing, but for the planted fault.
    fn write_late(&mut self) -> Result<(), StoreError> {
        for late in std::mem::take(&mut self.late) {
            let (snapshot, hard_state) = (late.snapshot.as_ref(), late.hard_state.as_ref());
            let (entries, must_sync) = (&late.entries[..], late.must_sync);
            self.store.persist(&Batch { snapshot, entries, hard_state, must_sync })?;
        }
        Ok(())
    }

    /// One `Ready` in the order that raft-rs prescribes. Returns the index up to which it is applied.
    fn turn(&mut self, early: &mut dyn FnMut(NodeId, Vec<u8>), out: &mut Output) -> Result<u64, StoreError> {
        let mut ready = self.node.ready();
        for message in ready.take_messages() {
            match out.messages.is_empty() {
                true => early(NodeId(message.to), message.encode_to_vec()),
                // In order: after what waited for the turn before.
                false => send(vec![message], out),
            }
        }
        let snapshot = Some(ready.snapshot()).filter(|s| !s.is_empty());
        let batch = Batch {
            snapshot,
            entries: ready.entries(),
            hard_state: ready.hs(),
            must_sync: ready.must_sync(),
        };
        if batch.snapshot.is_some() || batch.hard_state.is_some() || !batch.entries.is_empty() {
            persist(&mut self.store, &mut self.late, &batch)?;
            self.node.mut_store().take(&batch);
            self.unsynced = if batch.must_sync { None } else { self.unsynced.or(Some(self.ticks)) };
        }
        if let Some(snapshot) = snapshot {
            let snapshot = snapshot.clone();
            self.install(&snapshot)?;
            out.state_changed = true;
        }
        if is_planted(Fault::MembershipAtAppend) {
            self.change_membership_early(&ready.entries().clone());
        }
        send(ready.take_persisted_messages(), out);
        self.take_reads(ready.take_read_states());
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance_append(ready);
        send(light.take_messages(), out);
        if light.commit_index().is_some() {
            // raft-rs can do without; a node that starts alone cannot.
            let hard_state = self.node.raft.hard_state();
            let batch = Batch { hard_state: Some(&hard_state), ..Batch::default() };
            persist(&mut self.store, &mut self.late, &batch)?;
            self.unsynced = self.unsynced.or(Some(self.ticks));
        }
        committed.append(&mut light.take_committed_entries());
        if committed.iter().any(|e| e.entry_type == EntryType::EntryConfChangeV2 as i32) {
            // Forgotten, this node would look for the votes of nodes that are gone since.
            let hard_state = self.node.raft.hard_state();
            let batch = Batch { hard_state: Some(&hard_state), must_sync: true, ..Batch::default() };
            persist(&mut self.store, &mut self.late, &batch)?;
            self.unsynced = None;
        }
        if !committed.is_empty() {
            self.apply(&committed, out)?;
        }
        Ok(self.state().map_or(0, |s| s.applied))
    }

    fn take_reads(&mut self, states: Vec<ReadState>) {
        for ReadState { index, request_ctx } in states {
            if let Some((node, run, read)) = entry::parse_context(&request_ctx)
                && (node, run) == (self.config.id, self.config.seed)
            {
                self.reads.push((read, index));
            }
        }
    }

    /// Takes the state of a leader's snapshot, which is durable by now.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        // It was checked when it came.
        let state = state_of(snapshot).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let meta = snapshot.get_metadata();
        self.compacted = Compacted { index: meta.index, length: snapshot.data.len() as u64, since: 0 };
        let mirror = self.node.mut_store();
        mirror.state = Some(Arc::new(state));
        mirror.membership = Some(meta.get_conf_state().clone());
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry], out: &mut Output) -> Result<(), StoreError> {
        self.node.mut_store().membership = None;
        for entry in entries {
            self.compacted.since += entry.encoded_len() as u64;
            // Entries were checked when they came, or when the store was opened.
            let kind = entry::read(entry)
                .ok_or_else(|| StoreError::Corrupt(format!("entry {} is none of ours", entry.index)))?;
            match kind {
                Kind::Empty => self.state_mut()?.pass(entry.index),
                Kind::Ordinary(proposal) => {
                    let outcome = self.state_mut()?.apply(entry.index, &proposal);
                    out.answers.push((proposal.id, outcome));
                }
                Kind::Membership(proposal) => self.apply_membership(entry.index, &proposal, out)?,
                Kind::LeaveJoint => {
                    self.state_mut()?.pass(entry.index);
                    if self.joint() {
                        self.reconfigure(&ConfChangeV2::default(), entry.index)?;
                    }
                }
            }
        }
        let membership = self.node.raft.prs().conf().to_conf_state();
        self.node.mut_store().membership = Some(membership);
        out.state_changed = true;
        Ok(())
    }

    /// Raft's configuration follows the state: it changes by what the proposal changed there.
    fn apply_membership(
        &mut self,
        index: u64,
        proposal: &Proposal,
        out: &mut Output,
    ) -> Result<(), StoreError> {
        if self.joint() {
            // The leader proposes none meanwhile. Every node passes it over alike.
            self.state_mut()?.pass(index);
            return Ok(());
        }
        let state = self.state_mut()?;
        let before = entry::votes(state);
        let outcome = state.apply(index, proposal);
        let change = entry::difference(&before, &entry::votes(state));
        out.answers.push((proposal.id, outcome));
        match change {
            Some(change) if !is_planted(Fault::MembershipAtAppend) => self.reconfigure(&change, index),
            _ => Ok(()),
        }
    }

    fn reconfigure(&mut self, change: &ConfChangeV2, index: u64) -> Result<(), StoreError> {
        let changed = self.node.apply_conf_change(change);
        changed.map(drop).map_err(|e| StoreError::Corrupt(format!("entry {index} cannot be applied: {e}")))
    }

    /// The planted fault: what a proposal would change is in force once it is written.
    fn change_membership_early(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Some(Kind::Membership(proposal)) = entry::read(entry) else { continue };
            let Some(state) = self.state() else { continue };
            let mut then = ClusterState::clone(state);
            let before = entry::votes(&then);
            then.apply(entry.index, &proposal);
            if let Some(change) = entry::difference(&before, &entry::votes(&then)) {
                let _ = self.node.apply_conf_change(&change);
            }
        }
    }

    fn state_mut(&mut self) -> Result<&mut ClusterState, StoreError> {
        let state = self.node.mut_store().state.as_mut();
        let state = state.ok_or_else(|| StoreError::Corrupt("entries before any snapshot".to_owned()))?;
        Ok(Arc::make_mut(state))
    }

    /// raft-rs leaves a leader that is no voter any more in its place, and panics there.
    fn step_down_if_gone(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Follower && !raft.prs().conf().voters().contains(raft.id) {
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
    }

    fn compact_if_long(&mut self) -> Result<(), StoreError> {
        let applied = self.state().map_or(0, |s| s.applied);
        let after = self.config.compact_after;
        let long = applied - self.compacted.index >= after.entries
            || self.compacted.since >= after.bytes.max(self.compacted.length);
        if applied == self.compacted.index || !long {
            return Ok(());
        }
        let Some(snapshot) = self.node.store().snapshot_now() else { return Ok(()) };
        self.write_late()?;
        self.unsynced = None;
        self.store.compact(&snapshot)?;
        self.compacted = Compacted { index: applied, length: snapshot.data.len() as u64, since: 0 };
        // Peers that are a little behind still get entries.
        self.node.mut_store().forget(applied.saturating_sub(after.entries / 4));
        Ok(())
    }
}

/// A batch that is written too late.
#[derive(Debug)]
pub(super) struct Late {
    snapshot: Option<Snapshot>,
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    must_sync: bool,
}

/// Writes; with the planted fault the write comes after what says that it is done.
fn persist<S: Store>(store: &mut S, late: &mut Vec<Late>, batch: &Batch<'_>) -> Result<(), StoreError> {
    if is_planted(Fault::AckBeforeFsync) {
        late.push(Late {
            snapshot: batch.snapshot.cloned(),
            entries: batch.entries.to_vec(),
            hard_state: batch.hard_state.cloned(),
            must_sync: batch.must_sync,
        });
        return Ok(());
    }
    store.persist(batch)
}

fn send(messages: Vec<Message>, out: &mut Output) {
    out.messages.extend(messages.into_iter().map(|m| (NodeId(m.to), m.encode_to_vec())));
}
