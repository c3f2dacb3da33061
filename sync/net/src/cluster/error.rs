//! Why a call of the cluster handle failed.

use std::path::PathBuf;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, NodeId, Refusal, RequestId, TokenError};

/// Why a cluster could not be founded, joined or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is an identity already.
    #[error(
        "{} holds the identity of a member already: this node is {node} of cluster {cluster}; to start anew, remove it there and move the directory away", path.display()
    )]
    Member {
        /// The directory.
        path: PathBuf,
        /// The cluster's name.
        cluster: String,
        /// The node's name.
        node: String,
    },
    /// There is no identity.
    #[error(
        "{} holds no identity: run `tidegate cluster init` or `tidegate cluster join` first", .0.display()
    )]
    NoMember(PathBuf),
    /// The identity, a key or a certificate cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The Raft store cannot be opened or is damaged.
    #[error("{0}")]
    Store(String),
    /// The Raft store is not the one that this member joined with.
    #[error(
        "the Raft store in {} is not the one that this node joined with (wiped or replaced): remove the node (`tidegate cluster remove`), move the directory away, and join again", .0.display()
    )]
    WipedStore(PathBuf),
    /// No socket on that address.
    #[error("cannot listen on {address}: {message}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// What the system said.
        message: String,
    },
    /// A name or address that a member cannot have.
    #[error("{0}")]
    Invalid(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The cluster refused the node.
    #[error("{0}")]
    Refused(Refusal),
    /// The member that was asked refused before anything was committed.
    #[error("{address} refused: {message}")]
    JoinRefused {
        /// Which member.
        address: std::net::SocketAddr,
        /// Why.
        message: String,
    },
    /// Nobody let the node in; each address with what became of it.
    #[error("could not join within {} s:{}", .within.as_secs(), lines(.tried))]
    Join {
        /// How long it was tried.
        within: Duration,
        /// Addresses, and the last error of each.
        tried: Vec<(std::net::SocketAddr, String)>,
    },
}

fn lines(tried: &[(std::net::SocketAddr, String)]) -> String {
    tried.iter().map(|(address, why)| format!("\n  {address}: {why}")).collect()
}

/// Why a proposal was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// No leader took it; it will not take effect.
    #[error("no quorum: {0}; nothing was changed, and forwarding goes on under the last agreed policy")]
    NoQuorum(String),
    /// It may or may not take effect.
    #[error(
        "the outcome is unknown: the proposal ({id}) was sent but not answered within {} s; look whether it took effect before you try again", .within.as_secs()
    )]
    OutcomeUnknown {
        /// Its id; the answer is kept under it.
        id: RequestId,
        /// How long an answer was waited for.
        within: Duration,
    },
    /// The leader cannot take it as it is.
    #[error("{0}")]
    Invalid(String),
    /// This node takes no part any more.
    #[error("{0}")]
    Standing(Standing),
}

/// Why a read was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed that the copy is the newest.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// This node takes no part any more.
    #[error("{0}")]
    Standing(Standing),
}

/// Why a certificate was not renewed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RotateError {
    /// No full member signed it.
    #[error("no member with the CA key signed the request: {0}")]
    NotSigned(String),
    /// It could not be kept.
    #[error("{0}")]
    Identity(String),
    /// It is in use here, but the cluster did not take note of it.
    #[error("the new certificate is in use, but not on record: {0}")]
    NotRecorded(ProposeError),
}

/// What this node is to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member.
    Member,
    /// It was removed for good.
    Removed {
        /// Who said so; `None`: its own copy of the log.
        told_by: Option<NodeId>,
    },
    /// The cluster was recovered without it.
    Fenced {
        /// The generation that it belongs to.
        own: u32,
        /// The cluster's generation now.
        now: u32,
    },
    /// Its store failed; it forwards on, but takes no part in decisions.
    StoreFailed {
        /// What failed, and what to do.
        message: String,
    },
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Member => f.write_str("member"),
            Standing::Removed { .. } => f.write_str(
                "this node was removed from the cluster: move its directory away, and join again with a new token",
            ),
            Standing::Fenced { own, now } => write!(
                f,
                "this node is fenced: the cluster was recovered as generation {now} without it (it belongs to generation {own}): move its directory away, and join again with a new token"
            ),
            Standing::StoreFailed { message } => write!(f, "this node's Raft store failed: {message}"),
        }
    }
}

/// Why a recovery was refused.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A witness cannot carry a cluster.
    #[error("a witness has no CA key and cannot carry a cluster on: recover on a full node")]
    Witness,
    /// This node is no member.
    #[error("this node is no member of the generation that it knows")]
    NotMember,
    /// The directory or the store cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cluster is another one.
    #[error("cluster {0} was expected")]
    Cluster(ClusterId),
}
