//! One member's Raft state machine.

use super::entry;
use super::guard::{self, StepError};
use super::mirror::Mirror;
use super::snapshot;
use super::store::{Store, StoreError};
use crate::cluster::{ClusterState, Command, NodeId, Outcome, Proposal, RequestId};
use raft::eraftpb::ConfChangeV2;
use raft::{GetEntriesContext, ProgressState, RawNode, SnapshotStatus, StateRole};
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

/// Bytes of entries in one message; a longer entry travels alone.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages with entries on their way to one peer.
const INFLIGHT: usize = 64;
/// Bytes of proposals that are not committed yet.
const UNCOMMITTED_BYTES: u64 = 32 << 20;
/// Election timeouts after which a snapshot that was not acknowledged counts as lost.
const SNAPSHOT_TIMEOUTS: u64 = 10;

/// When the log is replaced by a snapshot: at whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactAfter {
    /// Applied entries since the last snapshot.
    pub entries: u64,
    /// Bytes of them; at least as many as the last snapshot has.
    pub bytes: u64,
}

/// How a replica works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaConfig {
    /// Whose it is.
    pub id: NodeId,
    /// Drawn anew at each start: the election timeouts follow from it, and it tells the reads of one run
    /// from those of the run before.
    pub seed: u64,
    /// Shortest election timeout in ticks; the longest is one less than twice as long.
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// When to compact the log.
    pub compact_after: CompactAfter,
}

impl ReplicaConfig {
    /// Elections after 10 to 19 ticks, a heartbeat every 2, a snapshot every 4,096 entries or 16 MiB.
    pub fn new(id: NodeId, seed: u64) -> Self {
        let compact_after = CompactAfter { entries: 4_096, bytes: 16 << 20 };
        ReplicaConfig { id, seed, election_ticks: 10, heartbeat_ticks: 2, compact_after }
    }
}

/// One linearizable read; unique within a replica's life. A read asked again gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// What came of driving.
#[derive(Default, Debug)]
pub struct Output {
    /// To send, in this order for each peer. May be lost; a snapshot is one of them, and long.
    pub messages: Vec<(NodeId, Vec<u8>)>,
    /// Proposals that were applied, of whomever, and those proposed here that had been answered before.
    /// One that comes with a peer's snapshot is not among them: see [`ClusterState::answer`].
    pub answers: Vec<(RequestId, Outcome)>,
    /// Reads that may be answered now from [`Replica::state`], with the index that they had to wait for.
    pub reads: Vec<(ReadId, u64)>,
    /// [`Replica::state`] is another one.
    pub state_changed: bool,
    /// Role, leader or term are others. Reads and proposals on their way may be lost.
    pub role_changed: bool,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it holds cannot have been written by a replica.
    #[error(
        "the Raft store is not consistent: {0}; remove this node from the cluster and join again with an empty directory"
    )]
    Inconsistent(String),
    /// The configuration makes no sense.
    #[error("bad Raft configuration: {0}")]
    Config(String),
}

/// Why nothing was proposed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader can.
    #[error("this node does not lead the cluster")]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<NodeId>,
    },
    /// Not now: a membership change or a leader transfer is on its way, too much is uncommitted, or the
    /// leader is too new.
    #[error("the cluster is busy with another change; try again")]
    Busy,
    /// It does not fit into an entry.
    #[error("the proposal has {bytes} bytes; at most {limit} fit into the log")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store failed before.
    #[error("this node has stopped taking part: {0}")]
    Stopped(StoreError),
}

/// The newest snapshot in the store.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Compacted {
    pub(super) index: u64,
    /// Length of its data in bytes.
    pub(super) length: u64,
    /// Bytes of entries that were applied since.
    pub(super) since: u64,
}

/// One member's Raft state machine. After a [`StoreError`] it does nothing any more: drop it, and open
/// the store anew.
pub struct Replica<S: Store> {
    pub(super) node: RawNode<Mirror>,
    pub(super) store: S,
    pub(super) config: ReplicaConfig,
    pub(super) failed: Option<StoreError>,
    pub(super) compacted: Compacted,
    /// Answers and reads that wait for the next `drive`.
    pub(super) answers: Vec<(RequestId, Outcome)>,
    pub(super) reads: Vec<(ReadId, u64)>,
    pub(super) ticks: u64,
    /// Peers that a snapshot is on its way to, and since which tick.
    snapshots: BTreeMap<u64, u64>,
    /// Role, leader and term at the end of the last `drive`.
    pub(super) seen: (StateRole, u64, u64),
    pub(super) lease: Option<super::tidy::LeaseSeen>,
    /// Tick of the first write since which nothing was synced.
    pub(super) unsynced: Option<u64>,
    /// Of a planted fault: what is written one `drive` too late.
    pub(super) late: Vec<super::drive::Late>,
}

impl<S: Store> Replica<S> {
    /// Opens a store: an empty one waits for a leader's snapshot.
    ///
    /// # Errors
    /// The store cannot be read, or holds what raft-rs would panic on.
    pub fn open(config: ReplicaConfig, store: S) -> Result<Self, OpenError> {
        let mirror = Mirror::load(&store, config.id)?;
        let compacted = Compacted { index: mirror.base(), length: mirror.snapshot_length, since: 0 };
        let raft = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied: mirror.base(),
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            ..raft::Config::default()
        };
        raft.validate().map_err(|e| OpenError::Config(e.to_string()))?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&raft, mirror, &logger).map_err(|e| OpenError::Inconsistent(e.to_string()))?;
        let seen = (node.raft.state, node.raft.leader_id, node.raft.term);
        Ok(Replica {
            node,
            store,
            config,
            failed: None,
            compacted,
            answers: Vec::new(),
            reads: Vec::new(),
            ticks: 0,
            snapshots: BTreeMap::new(),
            seen,
            lease: None,
            unsynced: None,
            late: Vec::new(),
        })
    }

    /// Whose it is.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// What is agreed, as far as it is applied here; none before the first snapshot came.
    pub fn state(&self) -> Option<&Arc<ClusterState>> {
        self.node.store().state.as_ref()
    }

    /// The store. Nobody else may write it.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Gives the store back.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Time passed: one tick.
    pub fn tick(&mut self) {
        self.ticks += 1;
        let raft = &mut self.node.raft;
        // raft-rs takes it for granted that who becomes a candidate has written its log.
        if self.failed.is_some() || (raft.state != StateRole::Leader && self.has_unwritten()) {
            return;
        }
        let timeout = self.election_timeout();
        self.node.raft.set_randomized_election_timeout(timeout);
        self.node.tick();
        self.give_up_snapshots();
        self.leave_joint();
    }

    /// The same for the same seed and term: raft-rs would draw from the thread's generator. It reads the
    /// timeout in `tick` only.
    fn election_timeout(&self) -> usize {
        let ticks = u64::from(self.config.election_ticks);
        let mut hasher = SipHasher13::new_with_keys(self.config.seed, self.config.id.0);
        hasher.write_u64(self.node.raft.term);
        (ticks + hasher.finish() % ticks) as usize
    }

    pub(super) fn has_unwritten(&self) -> bool {
        let log = &self.node.raft.raft_log;
        !log.unstable_entries().is_empty() || log.unstable_snapshot().is_some()
    }

    pub(super) fn joint(&self) -> bool {
        !self.node.raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
    }

    /// A leader that took over during a joint change ends it; raft-rs does so in most cases by itself.
    fn leave_joint(&mut self) {
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader && self.joint() && !raft.has_pending_conf() {
            // Dropped during a leader transfer: then the next tick tries again.
            let _ = self.node.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }

    /// A lost snapshot would stop replication to its peer for ever.
    fn give_up_snapshots(&mut self) {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let under_way = |id: u64| raft.prs().get(id).is_some_and(|p| p.state == ProgressState::Snapshot);
        self.snapshots.retain(|id, _| leads && under_way(*id));
        if !leads {
            return;
        }
        let patience = SNAPSHOT_TIMEOUTS * u64::from(self.config.election_ticks);
        let mut lost = Vec::new();
        for (id, _) in raft.prs().iter().filter(|(id, _)| under_way(**id)) {
            let since = *self.snapshots.entry(*id).or_insert(self.ticks);
            if self.ticks - since >= patience {
                lost.push(*id);
            }
        }
        lost.sort_unstable();
        for id in lost {
            self.snapshots.remove(&id);
            self.node.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// A peer's message, as [`Output::messages`] of its replica; `from` is who the connection belongs to.
    ///
    /// # Errors
    /// It is not one that a peer in its right mind would send to this node now; nothing was changed.
    pub fn step(&mut self, message: &[u8], from: NodeId) -> Result<(), StepError> {
        if let Some(error) = &self.failed {
            return Err(StepError::Stopped(error.clone()));
        }
        let message = guard::check(self, message, from)?;
        // What raft-rs refuses beyond that (an answer of a peer that is gone) concerns nobody.
        let _ = self.node.step(message);
        Ok(())
    }

    /// Puts a proposal into the log, or answers it at the next `drive` if it was applied before. Applied
    /// does not follow: a leader that loses its place loses what is not committed. A leader does not
    /// remove itself: it hands over the lead and is busy, and the next one can be asked.
    ///
    /// # Errors
    /// It is not in the log.
    pub fn propose(&mut self, proposal: &Proposal) -> Result<(), ProposeError> {
        if let Some(error) = &self.failed {
            return Err(ProposeError::Stopped(error.clone()));
        }
        if let Some(known) = self.state().and_then(|s| s.answer(&proposal.id)) {
            let known = known.clone();
            self.answers.push((proposal.id, known));
            return Ok(());
        }
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if proposal.command == (Command::Remove { node: self.config.id })
            && let Some(to) = self.successor()
        {
            // Who leads knows what is committed. One that is told nothing more would need the vote of a
            // node that is gone.
            self.transfer_leader(to);
            return Err(ProposeError::Busy);
        }
        let data = crate::codec::encode(proposal);
        if data.len() > entry::LONGEST {
            return Err(ProposeError::TooLong { bytes: data.len(), limit: entry::LONGEST });
        }
        let proposed = match entry::is_membership(&proposal.command) {
            false => self.node.propose(Vec::new(), data),
            // raft-rs would put an empty entry in its place, and nobody would be answered.
            true if raft.has_pending_conf() || self.joint() => return Err(ProposeError::Busy),
            true => self.node.propose_conf_change(data, entry::change_marker()),
        };
        proposed.map_err(|_| ProposeError::Busy)
    }

    /// Asks for a linearizable read; it comes back in [`Output::reads`], unless the leader changes or a
    /// message is lost: ask again then.
    ///
    /// # Errors
    /// There is no leader to ask, or it is too new.
    pub fn read_index(&mut self, id: ReadId) -> Result<(), ProposeError> {
        if let Some(error) = &self.failed {
            return Err(ProposeError::Stopped(error.clone()));
        }
        let raft = &self.node.raft;
        if self.leader().is_none() || self.state().is_none() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        if raft.state == StateRole::Leader && !raft.commit_to_current_term() {
            return Err(ProposeError::Busy);
        }
        self.node.read_index(entry::read_context(self.config.id, self.config.seed, id));
        Ok(())
    }

    /// Hands the lead to that voter. It may come to nothing; the role tells.
    pub fn transfer_leader(&mut self, to: NodeId) {
        if self.failed.is_none() && self.node.raft.state == StateRole::Leader {
            self.node.transfer_leader(to.0);
        }
    }

    /// That peer cannot be reached: the leader sends less until it answers again.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        if self.failed.is_none() {
            self.node.report_unreachable(peer.0);
        }
    }

    /// A snapshot could not be sent: it is tried again after the peer's next answer. Without this it
    /// counts as lost after ten election timeouts.
    pub fn report_snapshot_lost(&mut self, peer: NodeId) {
        if self.failed.is_none() {
            self.node.report_snapshot(peer.0, SnapshotStatus::Failure);
        }
    }
}

/// Everything of a store, as the replica needs it.
pub(super) fn read_all<S: Store>(
    store: &S,
) -> Result<(raft::RaftState, raft::eraftpb::Snapshot, Vec<raft::eraftpb::Entry>), OpenError> {
    // A store says what is wrong with it inside raft-rs' error.
    let read = |e: raft::Error| match &e {
        raft::Error::Store(raft::StorageError::Other(inner)) => match inner.downcast_ref::<StoreError>() {
            Some(ours) => OpenError::Store(ours.clone()),
            None => OpenError::Store(StoreError::Io(e.to_string())),
        },
        _ => OpenError::Store(StoreError::Io(e.to_string())),
    };
    let (first, last) = (store.first_index().map_err(read)?, store.last_index().map_err(read)?);
    let entries = match first <= last {
        true => store.entries(first, last + 1, None, GetEntriesContext::empty(false)).map_err(read)?,
        false => Vec::new(),
    };
    if entries.len() as u64 != (last + 1).saturating_sub(first) {
        return Err(OpenError::Inconsistent(format!("entries from {first} to {last} are not all there")));
    }
    let snapshot = store.snapshot(0, 0).map_err(read)?;
    if snapshot.get_metadata().index + 1 != first {
        let index = snapshot.get_metadata().index;
        return Err(OpenError::Inconsistent(format!("the log begins at {first}, the snapshot is {index}")));
    }
    Ok((store.initial_state().map_err(read)?, snapshot, entries))
}

pub(super) fn inconsistent(error: &snapshot::SnapshotError) -> OpenError {
    OpenError::Inconsistent(error.to_string())
}
