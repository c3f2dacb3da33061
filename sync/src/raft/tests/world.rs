//! A few replicas, and the messages between them.

use crate::cluster::*;
use crate::raft::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const N1: NodeId = NodeId(1);
pub(super) const N2: NodeId = NodeId(2);
pub(super) const N3: NodeId = NodeId(3);
pub(super) const N4: NodeId = NodeId(4);

pub(super) fn founded() -> ClusterState {
    ClusterState::founded(Founding {
        cluster: ClusterId([7; 16]),
        name: "edge".to_owned(),
        node: "n1".to_owned(),
        addresses: vec![],
        store: StoreId([1; 16]),
        key_sha256: [1; 32],
        not_after_unix_s: 0,
        by: "root".to_owned(),
        at_unix_ms: 1_000,
        policy: None,
    })
}

/// Replicas by id, the messages on their way, and what became of proposals and reads.
pub(super) struct World {
    pub(super) nodes: BTreeMap<NodeId, Replica<MemoryStore>>,
    pub(super) wire: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    /// Nodes that nobody reaches.
    pub(super) cut: BTreeSet<NodeId>,
    /// A node that gets no message of this many bytes or more.
    pub(super) lose: Option<(NodeId, usize)>,
    pub(super) answers: BTreeMap<(NodeId, RequestId), Outcome>,
    pub(super) reads: BTreeMap<(NodeId, ReadId), u64>,
    pub(super) compact_after: u64,
    pub(super) now: u64,
    pub(super) proposals: u64,
    /// Whether leaders do what `tidy` says.
    pub(super) tidy: bool,
}

impl World {
    /// One founder.
    pub(super) fn new() -> Self {
        let mut world = World {
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            lose: None,
            answers: BTreeMap::new(),
            reads: BTreeMap::new(),
            compact_after: 1_000,
            now: 2_000,
            proposals: 0,
            tidy: true,
        };
        let mut store = MemoryStore::new();
        found(&mut store, &founded(), 1).unwrap();
        world.open(N1, store);
        world
    }

    /// A founder and as many that joined, all settled.
    pub(super) fn of(members: u64) -> Self {
        let mut world = World::new();
        world.ticks(40);
        for id in 2..=members {
            let role = if id == 3 { Role::Witness } else { Role::Node };
            assert_eq!(world.join(NodeId(id), role), Outcome::Admitted { node: NodeId(id) });
        }
        world.ticks(100);
        world
    }

    pub(super) fn config(&self, id: NodeId) -> ReplicaConfig {
        let compact_after = CompactAfter { entries: self.compact_after, bytes: 1 << 30 };
        ReplicaConfig { compact_after, ..ReplicaConfig::new(id, 5 + self.proposals) }
    }

    pub(super) fn open(&mut self, id: NodeId, store: MemoryStore) {
        self.nodes.insert(id, Replica::open(self.config(id), store).unwrap());
    }

    pub(super) fn drive(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let out = node.drive().unwrap();
        self.wire.extend(out.messages.into_iter().map(|(to, message)| (id, to, message)));
        self.answers.extend(out.answers.into_iter().map(|(request, outcome)| ((id, request), outcome)));
        self.reads.extend(out.reads.into_iter().map(|(read, index)| ((id, read), index)));
    }

    pub(super) fn deliver(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.drive(id);
        }
        while let Some((from, to, message)) = self.wire.pop_front() {
            let long = self.lose.is_some_and(|(node, bytes)| node == to && message.len() >= bytes);
            if long || self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&to) {
                let _ = node.step(&message, from);
                self.drive(to);
            }
        }
    }

    pub(super) fn ticks(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                let now = self.now;
                let Some(node) = self.nodes.get_mut(&id) else { continue };
                node.tick();
                if self.tidy
                    && let Some(command) = node.tidy(now)
                {
                    self.propose(id, command);
                }
            }
            self.deliver();
            self.now += 50;
        }
    }

    pub(super) fn proposal(&mut self, via: NodeId, command: Command) -> Proposal {
        self.proposals += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.proposals.to_le_bytes());
        Proposal { id: RequestId(id), by: "root".to_owned(), via, at_unix_ms: self.now, command }
    }

    pub(super) fn propose(&mut self, to: NodeId, command: Command) -> RequestId {
        let proposal = self.proposal(to, command);
        self.nodes.get_mut(&to).unwrap().propose(&proposal).unwrap();
        proposal.id
    }

    /// Proposes at the leader and lets it happen.
    pub(super) fn agree(&mut self, command: Command) -> Outcome {
        let leader = self.leader();
        let id = self.propose(leader, command);
        self.deliver();
        self.answers[&(leader, id)].clone()
    }

    pub(super) fn policy(&mut self, base: u32, text: &str) -> Outcome {
        self.agree(Command::ApplyPolicy { base, text: text.into(), lease: None })
    }

    pub(super) fn token(&mut self, id: NodeId, role: Role) {
        let (token, secret_sha256) = (TokenId([id.0 as u8; 8]), [9; 32]);
        let done = self.agree(Command::CreateToken { token, secret_sha256, role, expires_unix_ms: u64::MAX });
        assert_eq!(done, Outcome::Done);
    }

    pub(super) fn redeem(&self, id: NodeId) -> Command {
        Command::Redeem {
            token: TokenId([id.0 as u8; 8]),
            secret_sha256: [9; 32],
            key_sha256: [id.0 as u8; 32],
            node: id,
            name: format!("n{id}"),
            addresses: vec![],
            store: StoreId([id.0 as u8; 16]),
        }
    }

    pub(super) fn join(&mut self, id: NodeId, role: Role) -> Outcome {
        self.token(id, role);
        self.open(id, MemoryStore::new());
        let redeem = self.redeem(id);
        let outcome = self.agree(redeem);
        self.ticks(10);
        outcome
    }

    pub(super) fn leaders(&self) -> Vec<NodeId> {
        let leads = |n: &&Replica<MemoryStore>| n.role() == RaftRole::Leader;
        self.nodes.values().filter(|n| !self.cut.contains(&n.id())).filter(leads).map(Replica::id).collect()
    }

    pub(super) fn leader(&self) -> NodeId {
        assert_eq!(self.leaders().len(), 1, "one leads");
        self.leaders()[0]
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        let store = self.nodes.remove(&id).unwrap().into_store().crash();
        self.proposals += 1;
        self.open(id, store);
    }

    pub(super) fn state(&self, id: NodeId) -> &ClusterState {
        self.nodes[&id].state().unwrap()
    }

    /// All nodes that are not cut off hold the same.
    pub(super) fn assert_equal(&self) {
        let leader = self.state(self.leader());
        for node in self.nodes.values().filter(|n| !self.cut.contains(&n.id())) {
            let state = node.state().unwrap();
            assert_eq!(state.applied, leader.applied, "node {}", node.id());
            assert_eq!(state.digest(), leader.digest(), "node {}", node.id());
            let status = node.status();
            let voters: Vec<_> = state.voters().into_iter().collect();
            assert!(status.joint || status.voters == voters, "{status:?}");
        }
    }
}
