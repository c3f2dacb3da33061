//! The replicated state.

use super::ids::{ClusterId, NodeId, RequestId, StoreId, TokenId};
use super::outcome::Outcome;
use super::policy::PolicyLog;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a member does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Forwards and votes.
    Node,
    /// Only votes: it has no dataplane and no CA key.
    Witness,
}

impl Role {
    /// `node` or `witness`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Witness => "witness",
        }
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Unique in the cluster.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Where peers reach it, in the order in which they try.
    pub addresses: Vec<SocketAddr>,
    /// The store that it joined with.
    pub store: StoreId,
    /// SHA-256 of the public key of its newest certificate.
    pub key_sha256: [u8; 32],
    /// End of its newest certificate, Unix time in seconds; 0: not told yet.
    pub not_after_unix_s: u64,
    /// When it joined: Unix time in milliseconds.
    pub joined_unix_ms: u64,
    /// Whether it votes; the others are learners.
    pub voter: bool,
}

/// A join token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// What may join with it.
    pub role: Role,
    /// Until when: Unix time in milliseconds.
    pub expires_unix_ms: u64,
    /// Who used it: node, and SHA-256 of its first key.
    pub used: Option<(NodeId, [u8; 32])>,
}

/// The ageing epoch in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ageing {
    /// Its number.
    pub epoch: u64,
    /// Whether sessions age aggressively.
    pub on: bool,
    /// Why.
    pub reason: String,
}

/// One line of the audit history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Log index.
    pub index: u64,
    /// When, by the clock of the node that was asked: Unix time in milliseconds.
    pub at_unix_ms: u64,
    /// Who asked.
    pub by: String,
    /// The node that was asked.
    pub via: NodeId,
    /// What was asked, in a few words without secrets.
    pub what: String,
    /// What became of it.
    pub outcome: String,
}

/// How a cluster begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founding {
    /// Drawn at random.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: String,
    /// The first member; always a full node.
    pub node: String,
    /// Where it is reached.
    pub addresses: Vec<SocketAddr>,
    /// Its store.
    pub store: StoreId,
    /// SHA-256 of its public key.
    pub key_sha256: [u8; 32],
    /// End of its certificate, Unix time in seconds.
    pub not_after_unix_s: u64,
    /// Who founded it.
    pub by: String,
    /// When: Unix time in milliseconds.
    pub at_unix_ms: u64,
    /// The policy that the first member had, if any: revision 1.
    pub policy: Option<Arc<str>>,
}

/// Everything that is agreed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterState {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// 1, and one more for each forced recovery: members of an older one are fenced.
    pub generation: u32,
    /// Members by id.
    pub members: BTreeMap<NodeId, Member>,
    /// Ids of former members, with their names: they never return.
    pub removed: BTreeMap<NodeId, String>,
    /// The id that the next node gets.
    pub next_node: NodeId,
    /// Join tokens that may still matter.
    pub tokens: BTreeMap<TokenId, Token>,
    /// Policy revisions.
    pub policy: PolicyLog,
    /// The ageing epoch.
    pub ageing: Ageing,
    /// The newest entries of the audit history, oldest first.
    pub audit: VecDeque<AuditEntry>,
    /// Index of the last entry that was applied.
    pub applied: u64,
    /// Answers to the newest proposals, so that one sent twice takes effect once.
    pub(super) answered: BTreeMap<RequestId, Outcome>,
    /// Their order.
    pub(super) answered_order: VecDeque<RequestId>,
}

impl ClusterState {
    /// Entries that the audit history keeps.
    pub const AUDIT: usize = 4_096;
    /// Answers that are kept.
    pub const ANSWERS: usize = 2_048;

    /// A cluster of one, before any entry.
    pub fn founded(founding: Founding) -> Self {
        let first = Member {
            name: founding.node,
            role: Role::Node,
            addresses: founding.addresses,
            store: founding.store,
            key_sha256: founding.key_sha256,
            not_after_unix_s: founding.not_after_unix_s,
            joined_unix_ms: founding.at_unix_ms,
            voter: true,
        };
        let mut state = ClusterState {
            cluster: founding.cluster,
            name: founding.name,
            generation: 1,
            members: BTreeMap::from([(NodeId(1), first)]),
            removed: BTreeMap::new(),
            next_node: NodeId(2),
            tokens: BTreeMap::new(),
            policy: PolicyLog::default(),
            ageing: Ageing::default(),
            audit: VecDeque::new(),
            applied: 0,
            answered: BTreeMap::new(),
            answered_order: VecDeque::new(),
        };
        if let Some(text) = founding.policy {
            state.policy.found(text, &founding.by, founding.at_unix_ms);
        }
        let what = format!("found cluster {}", state.name);
        state.note(AuditEntry {
            index: 0,
            at_unix_ms: founding.at_unix_ms,
            by: founding.by,
            via: NodeId(1),
            what,
            outcome: "done".to_owned(),
        });
        state
    }

    /// The same state as a new generation whose only member is `survivor`: what `cluster recover` makes
    /// of a node's copy. The others' ids never return.
    pub fn recovered(mut self, survivor: NodeId, by: String, at_unix_ms: u64) -> Option<Self> {
        self.members.get_mut(&survivor)?.voter = true;
        let others: Vec<_> = self.members.keys().copied().filter(|id| *id != survivor).collect();
        for id in others {
            if let Some(member) = self.members.remove(&id) {
                self.removed.insert(id, member.name);
            }
        }
        self.generation += 1;
        let what = format!("recover as generation {} with node {survivor} alone", self.generation);
        let outcome = "done".to_owned();
        let index = self.applied;
        self.note(AuditEntry { index, at_unix_ms, by, via: survivor, what, outcome });
        Some(self)
    }

    /// All voters.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.members.iter().filter(|(_, m)| m.voter).map(|(id, _)| *id).collect()
    }

    /// Who is to vote: with fewer than three members one alone, a full node if there is one, else everybody.
    ///
    /// Two voters would be worse than one: then the death of either ends all changes.
    pub fn voters_wanted(&self) -> BTreeSet<NodeId> {
        if self.members.len() >= 3 {
            return self.members.keys().copied().collect();
        }
        let full = |id: &&NodeId| self.members.get(id).is_some_and(|m| m.role == Role::Node);
        let voters = self.voters();
        let any = voters.iter().find(full).or_else(|| self.members.keys().find(full));
        any.or_else(|| voters.first()).copied().into_iter().collect()
    }

    /// The member of that name, or of that number.
    pub fn find(&self, name_or_id: &str) -> Option<NodeId> {
        let named = self.members.iter().find(|(_, m)| m.name == name_or_id).map(|(id, _)| *id);
        named.or_else(|| name_or_id.parse().ok().map(NodeId).filter(|id| self.members.contains_key(id)))
    }

    /// The answer to that proposal, if it was applied not too long ago.
    pub fn answer(&self, id: &RequestId) -> Option<&Outcome> {
        self.answered.get(id)
    }

    /// SHA-256 over the whole state: equal on all nodes at an equal index.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(crate::codec::encode(self)).into()
    }

    pub(super) fn note(&mut self, entry: AuditEntry) {
        if self.audit.len() == Self::AUDIT {
            self.audit.pop_front();
        }
        self.audit.push_back(entry);
    }

    pub(super) fn remember(&mut self, id: RequestId, outcome: Outcome) {
        if self.answered.insert(id, outcome).is_none() {
            self.answered_order.push_back(id);
        }
        if self.answered_order.len() > Self::ANSWERS
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
        }
    }
}
