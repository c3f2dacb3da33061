//! What goes into the log.

use super::ids::{NodeId, RequestId, StoreId, TokenId};
use super::state::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// One log entry of ours: a command, who asked for it, and the id by which it is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The same proposal sent again has the same id and takes effect once.
    pub id: RequestId,
    /// Who asked: `uid 0 (root)`, or the cluster itself.
    pub by: String,
    /// The node that was asked.
    pub via: NodeId,
    /// When, by that node's clock: Unix time in milliseconds.
    pub at_unix_ms: u64,
    /// What is to be done.
    pub command: Command,
}

/// A change of the cluster's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A new single-use join token.
    CreateToken {
        /// Its public part.
        token: TokenId,
        /// SHA-256 of its secret part.
        secret_sha256: [u8; 32],
        /// What may join with it.
        role: Role,
        /// Until when: Unix time in milliseconds.
        expires_unix_ms: u64,
    },
    /// Takes a token back.
    RevokeToken {
        /// Its public part.
        token: TokenId,
    },
    /// Admits a node as a learner. Goes into the log as the context of the Raft membership change.
    Redeem {
        /// The token that it brought; its secret was checked by the proposer, and again here.
        token: TokenId,
        /// SHA-256 of the secret that it showed.
        secret_sha256: [u8; 32],
        /// SHA-256 of the public key of its certificate request: asked twice, answered alike.
        key_sha256: [u8; 32],
        /// The id it gets; must be the next free one.
        node: NodeId,
        /// Its name, unique in the cluster.
        name: String,
        /// Where peers reach it.
        addresses: Vec<SocketAddr>,
        /// Its Raft store.
        store: StoreId,
    },
    /// Removes a node for good. Goes into the log as the context of the Raft membership change.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// Who votes from now on. Goes into the log as the context of the Raft membership change.
    SetVoters {
        /// All voters.
        voters: BTreeSet<NodeId>,
    },
    /// Where a member is reached, and its new certificate's key.
    Advertise {
        /// Which.
        node: NodeId,
        /// Where peers reach it.
        addresses: Vec<SocketAddr>,
    },
    /// A member has a new certificate.
    Certify {
        /// Which member.
        node: NodeId,
        /// SHA-256 of the certificate's public key.
        key_sha256: [u8; 32],
        /// When the certificate ends: Unix time in seconds.
        not_after_unix_s: u64,
    },
    /// A new policy revision.
    ApplyPolicy {
        /// The revision that the operator saw in force; 0 for none.
        base: u32,
        /// The policy file.
        text: Arc<str>,
        /// Confirm until then, or fall back.
        lease: Option<Lease>,
    },
    /// Keeps the newest revision for good.
    ConfirmPolicy {
        /// Which revision is meant.
        revision: u32,
    },
    /// A new revision with the text of an old one.
    RollbackPolicy {
        /// The revision that the operator saw in force.
        base: u32,
        /// Whose text.
        to: u32,
        /// Confirm until then, or fall back.
        lease: Option<Lease>,
    },
    /// A lease ran out unconfirmed: proposed by the leader after its deadline.
    ExpirePolicy {
        /// Which revision.
        revision: u32,
    },
    /// Aggressive ageing begins or ends (used by coordinated ageing).
    SetAgeing {
        /// The epoch's number, one above the last.
        epoch: u64,
        /// Whether it is on.
        on: bool,
        /// Why.
        reason: String,
    },
}

/// A policy's time until it must be confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// How long, in milliseconds. No node waits longer, whatever its clock says.
    pub within_ms: u64,
    /// Until when, by the proposer's clock: Unix time in milliseconds.
    pub deadline_unix_ms: u64,
}
