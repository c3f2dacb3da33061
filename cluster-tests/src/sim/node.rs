//! One simulated node: its disk, its clock, its replica.

use super::check::Finding;
use super::counts::Counts;
use super::disk::Disk;
use super::rng::Rng;
use std::collections::BTreeMap;
use tidegate_sync::cluster::{ClusterState, NodeId, RequestId, StoreId};
use tidegate_sync::raft::{CompactAfter, Replica, ReplicaConfig, found};
use tidegate_sync_net::store::RaftStore;

/// One node.
pub(super) struct Node {
    pub(super) id: NodeId,
    disk: Disk,
    /// None while it is down.
    pub(super) replica: Option<Replica<RaftStore>>,
    /// Counts its starts.
    pub(super) run: u64,
    /// Microseconds of virtual time between its ticks: its clock is fast or slow.
    pub(super) tick: u64,
    /// Its wall clock is off by this many milliseconds, beyond an hour.
    pub(super) ahead_ms: u64,
    /// The power fails after the next write, before what it allowed to send is sent.
    pub(super) doomed: bool,
    /// Whom it promised an answer.
    pub(super) askers: BTreeMap<RequestId, (NodeId, u64)>,
    /// Operations that wait for its reads.
    pub(super) reads: BTreeMap<u64, u64>,
    pub(super) snapshot_seen: u64,
    /// Whether the last message that it got was a snapshot.
    pub(super) offered_snapshot: bool,
    pub(super) joint_seen: bool,
    compact_after: u64,
    seed: u64,
}

impl Node {
    /// A node with an empty store, or one that holds the state of a new cluster.
    pub(super) fn new(
        id: NodeId,
        store: StoreId,
        state: Option<&ClusterState>,
        compact_after: u64,
        rng: &mut Rng,
    ) -> Result<Self, Finding> {
        let disk = Disk::default();
        let mut created =
            RaftStore::create(disk.open(), store).map_err(|e| format!("create a store: {e}"))?;
        if let Some(state) = state {
            found(&mut created, state, 1).map_err(|e| format!("found a cluster: {e}"))?;
        }
        created.close().map_err(|e| format!("close a store: {e}"))?;
        let mut node = Node {
            id,
            disk,
            replica: None,
            run: 0,
            tick: rng.range(42_000, 58_000),
            ahead_ms: rng.range(0, 4_000),
            doomed: false,
            askers: BTreeMap::new(),
            reads: BTreeMap::new(),
            snapshot_seen: 0,
            offered_snapshot: false,
            joint_seen: false,
            compact_after,
            seed: rng.next(),
        };
        node.start()?;
        Ok(node)
    }

    /// Starts it from its disk.
    pub(super) fn start(&mut self) -> Result<(), Finding> {
        self.run += 1;
        let store = RaftStore::open(self.disk.open());
        let store = store.map_err(|e| format!("node {} does not start after a crash: {e}", self.id))?;
        let mut config = ReplicaConfig::new(self.id, self.seed.wrapping_add(self.run));
        config.compact_after = CompactAfter { entries: self.compact_after, bytes: 1 << 20 };
        let replica = Replica::open(config, store);
        let replica = replica.map_err(|e| format!("node {} does not start after a crash: {e}", self.id))?;
        self.snapshot_seen = replica.status().snapshot;
        self.replica = Some(replica);
        Ok(())
    }

    /// The power fails. Nothing of what was in memory is left.
    pub(super) fn crash(&mut self, rng: &mut Rng, counts: &mut Counts) {
        let losses = self.disk.crash(rng.next());
        counts.crashes += 1;
        counts.writes_lost += losses.lost;
        counts.writes_torn += losses.torn;
        if let Some(replica) = self.replica.take() {
            replica.into_store().abandon();
        }
        self.doomed = false;
        self.askers.clear();
        self.reads.clear();
        self.joint_seen = false;
    }

    /// The power fails in the middle of what it writes next.
    pub(super) fn fail_while_writing(&self, writes: u64) {
        self.disk.fail_after(writes);
    }

    /// Whether it has failed so.
    pub(super) fn power_failed(&self) -> bool {
        self.disk.has_failed()
    }

    /// What it holds, while it runs.
    pub(super) fn state(&self) -> Option<&ClusterState> {
        self.replica.as_ref()?.state().map(|s| &**s)
    }
}
