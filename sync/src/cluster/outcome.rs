//! What became of a proposal.

use super::ids::{NodeId, TokenId};
use serde::{Deserialize, Serialize};

/// The answer to a proposal that was applied. The same on every node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// The node is a member now (or was already, by the same key).
    Admitted {
        /// Its id.
        node: NodeId,
    },
    /// The policy revision that is the newest now.
    Revision {
        /// Its number.
        number: u32,
        /// Whether the text was in force already, and nothing changed.
        unchanged: bool,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a proposal changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such token, or it was revoked.
    #[error(
        "the join token is not known to this cluster: create a new one with `tidegate cluster token create`"
    )]
    UnknownToken,
    /// The secret is not the token's.
    #[error(
        "the join token's secret is wrong: copy the token whole, or create a new one with `tidegate cluster token create`"
    )]
    WrongSecret,
    /// Too late.
    #[error("the join token has expired: create a new one with `tidegate cluster token create`")]
    TokenExpired,
    /// Somebody else used it.
    #[error(
        "the join token was used already, by node {by} ({name}): create a new one with `tidegate cluster token create`"
    )]
    TokenUsed {
        /// Who.
        by: NodeId,
        /// Its name.
        name: String,
    },
    /// A token with this id is there already.
    #[error("a join token {0} exists already")]
    TokenExists(TokenId),
    /// Another member has that name.
    #[error("node {by} is called {name} already: choose another name, or remove that node first")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        by: NodeId,
    },
    /// The id is not the next free one: another node joined in between.
    #[error("another node joined at the same moment; try again")]
    IdMoved {
        /// The id that is next.
        next: NodeId,
    },
    /// No such member.
    #[error("no member is called or numbered {0}: see `tidegate cluster members`")]
    UnknownNode(String),
    /// The last member that can vote cannot go.
    #[error("node {0} is the last that may vote; a cluster ends by stopping it, not by removing it")]
    LastVoter(NodeId),
    /// A voter set that names strangers, or nobody.
    #[error("only members can vote, and at least one must")]
    BadVoters,
    /// Another change came first.
    #[error(
        "the policy's revision moved from {base} to {now} meanwhile: look at `tidegate policy diff`, then apply again"
    )]
    RevisionMoved {
        /// What the operator saw.
        base: u32,
        /// What is in force.
        now: u32,
    },
    /// No such revision, or its text is no longer kept.
    #[error("there is no text of revision {0}: see `tidegate policy history`")]
    NoSuchRevision(u32),
    /// Nothing waits for a confirmation.
    #[error("revision {0} does not wait for a confirmation")]
    NotPending(u32),
    /// It was too late.
    #[error("revision {0} was not confirmed in time and has been rolled back: apply it again")]
    LeaseExpired(u32),
    /// The epoch is not the next.
    #[error("ageing epoch {given} does not follow {now}")]
    EpochMoved {
        /// The one proposed.
        given: u64,
        /// The one in force.
        now: u64,
    },
    /// The policy is too long.
    #[error("the policy has {bytes} bytes; at most {limit} can be agreed on")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Witnesses alone forward nothing and can admit nobody: the CA key is on full members only.
    #[error("node {0} is the last that forwards and can admit others; let another node join first")]
    LastNode(NodeId),
}
