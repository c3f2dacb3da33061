//! One member of a cluster: the handle through which the node asks, changes and watches what is agreed.

mod admit;
mod answer;
mod ask;
pub(crate) mod counters;
pub(crate) mod dial;
mod error;
mod form;
mod handle;
mod health;
mod join;
mod lease;
mod options;
mod peers;
mod propose;
mod recover;
mod relay;
mod renew;
pub(crate) mod serve;
pub(crate) mod shared;
mod standing;
mod start;
mod thread;
pub(crate) mod tls;

pub use crate::quic::Versions;
pub use error::{OpenError, ProposeError, ReadError, RecoverError, RotateError, Standing};
pub use health::{Counters, Enforcement, Health, NodeReport, PeerHealth};
pub use options::Options;
pub use relay::{NodeAnswer, NodeHandler, NodeReply, NodeRequest};
pub use tidegate_sync::raft::RaftRole;

use crate::replicate::{Exchange, ExchangeConfig, ExchangeError, Wiring};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, ClusterState, Command, JoinToken, NodeId, Outcome, Role, TokenId};
use tokio::sync::watch;

/// A member. Cheap to clone; all clones are the same member. When the last one is dropped without
/// [`Cluster::shutdown`], it stops as a killed process would.
#[derive(Clone)]
pub struct Cluster {
    handle: Arc<handle::Handle>,
}

/// What a node needs to found a cluster.
#[derive(Clone, Debug)]
pub struct Found {
    /// The cluster's name.
    pub name: String,
    /// The first node's name.
    pub node: String,
    /// Where peers will reach it; port 0 takes a free one.
    pub addresses: Vec<SocketAddr>,
    /// The policy that it has: revision 1.
    pub policy: Option<Arc<str>>,
    /// Who founds it: `uid 0 (root)`.
    pub by: String,
}

/// What a node needs to join a cluster.
#[derive(Clone, Debug)]
pub struct Join {
    /// The token.
    pub token: JoinToken,
    /// The node's name.
    pub node: String,
    /// Where peers will reach it; port 0 takes a free one.
    pub addresses: Vec<SocketAddr>,
    /// What it is configured as; the token must be for that.
    pub role: Role,
    /// How long it is tried; 60 s are plenty.
    pub timeout: Duration,
}

/// The policy that this node is to enforce now: the newest revision, or the last confirmed one when the
/// newest one's time ran out (also when no quorum says so).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InForce {
    /// Its number.
    pub revision: u32,
    /// Its text.
    pub text: Arc<str>,
    /// SHA-256 of the text.
    pub sha256: [u8; 32],
    /// Whether it is a fallback from a newer revision whose lease ran out by this node's clock.
    pub fell_back_from: Option<u32>,
    /// Milliseconds until it must be confirmed, when it was published.
    pub confirm_within_ms: Option<u64>,
}

impl Cluster {
    /// Whether that directory holds a member's identity.
    pub fn exists(directory: &Path) -> bool {
        form::exists(directory)
    }

    /// Founds a cluster: CA, first certificate, identity, a store with the first state; and runs it.
    ///
    /// # Errors
    /// The directory holds an identity already or cannot be written, or the addresses cannot be bound.
    pub async fn found(directory: &Path, found: Found, options: Options) -> Result<Cluster, OpenError> {
        form::found(directory, found, options).await
    }

    /// Joins a cluster by a token: the CA's fingerprint is checked before the secret is shown. Tried again
    /// over all addresses and over changes of the leader; the same directory asks again with the same key,
    /// so an answer that was lost costs nothing.
    ///
    /// # Errors
    /// The token is expired, used, foreign; the name is taken; nobody answered in time.
    pub async fn join(directory: &Path, join: Join, options: Options) -> Result<Cluster, OpenError> {
        form::join(directory, &join, options).await
    }

    /// Runs the member whose identity the directory holds.
    ///
    /// # Errors
    /// The identity, its keys' modes, its certificates or its store are not right; each says what to do.
    pub async fn open(directory: &Path, options: Options) -> Result<Cluster, OpenError> {
        form::open(directory, options).await
    }

    /// Starts a new generation of the cluster with this stopped member alone, from its copy of the state.
    /// All others are fenced when they meet it. Returns the new generation.
    ///
    /// # Errors
    /// It is a witness, no member any more, or its store cannot be read.
    pub fn recover(directory: &Path, by: &str) -> Result<u32, RecoverError> {
        recover::recover(directory, by)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.handle.shared.id
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.handle.shared.name
    }

    /// What this node does.
    pub fn role(&self) -> Role {
        self.handle.shared.role
    }

    /// The cluster and its name.
    pub fn cluster(&self) -> (ClusterId, &str) {
        (self.handle.shared.cluster, &self.handle.shared.cluster_name)
    }

    /// Where peers reach this node (with real ports).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.handle.shared.addresses
    }

    /// Proposes a change, at whatever node leads, and waits until it is applied. Sent again under one id
    /// over changes of the leader; takes effect at most once.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`] only when no leader can have taken it, otherwise
    /// [`ProposeError::OutcomeUnknown`].
    pub async fn propose(
        &self,
        command: Command,
        by: &str,
        timeout: Duration,
    ) -> Result<Outcome, ProposeError> {
        propose::propose(&self.handle.shared, command, by, timeout).await
    }

    /// The state as it is now in the whole cluster: nothing that was acknowledged before the call is
    /// missing in it.
    ///
    /// # Errors
    /// No quorum.
    pub async fn read(&self, timeout: Duration) -> Result<Arc<ClusterState>, ReadError> {
        propose::read(&self.handle.shared, timeout).await
    }

    /// This node's own copy of the state, as it applies it. May be old without a quorum. A node that has
    /// joined but got nothing yet shows the cluster without members.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.handle.shared.state.subscribe()
    }

    /// The policy that this node is to enforce; `None`: deny everything (no policy yet, removed, fenced).
    pub fn policy(&self) -> watch::Receiver<Option<Arc<InForce>>> {
        self.handle.shared.in_force.subscribe()
    }

    /// What this node is to the cluster, as it changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.handle.shared.standing.subscribe()
    }

    /// One look at this member and its peers.
    pub fn health(&self) -> Health {
        self.handle.shared.health()
    }

    /// The node's word that all its engines enforce this revision, live sessions judged again.
    pub fn enforced(&self, revision: u32, sha256: [u8; 32]) {
        self.handle.shared.enforced.send_replace(Some((revision, sha256)));
    }

    /// Asks all full members (this one too), at the same time, until each says that it enforces `revision`
    /// or a newer one. Witnesses are left out. Sorted by node.
    pub async fn wait_enforced(&self, revision: u32, timeout: Duration) -> Vec<Enforcement> {
        ask::wait_enforced(&self.handle.shared, revision, timeout).await
    }

    /// What each member says of itself, this one too. Sorted by node.
    pub async fn reports(&self, timeout: Duration) -> Vec<(NodeId, String, Result<NodeReport, String>)> {
        ask::reports(&self.handle.shared, timeout).await
    }

    /// A new join token, committed before it is returned.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub async fn create_token(
        &self,
        role: Role,
        ttl: Duration,
        by: &str,
        timeout: Duration,
    ) -> Result<JoinToken, ProposeError> {
        let secret: [u8; 16] = rand::random();
        let (token, at) = (TokenId(rand::random()), shared::unix_ms());
        let shared = &self.handle.shared;
        let mut made = JoinToken { ca_sha256: shared.ca_sha256, token, secret, role, addresses: Vec::new() };
        let expires_unix_ms = at.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let secret_sha256 = made.secret_sha256();
        let command = Command::CreateToken { token, secret_sha256, role, expires_unix_ms };
        if let Outcome::Refused(refusal) = self.propose(command, by, timeout).await? {
            return Err(ProposeError::Invalid(refusal.to_string()));
        }
        made.addresses = shared.join_addresses();
        Ok(made)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub async fn revoke_token(
        &self,
        token: TokenId,
        by: &str,
        timeout: Duration,
    ) -> Result<Outcome, ProposeError> {
        self.propose(Command::RevokeToken { token }, by, timeout).await
    }

    /// Removes a member for good; its connections are closed at once.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub async fn remove(&self, node: NodeId, by: &str, timeout: Duration) -> Result<Outcome, ProposeError> {
        self.propose(Command::Remove { node }, by, timeout).await
    }

    /// A new key and certificate for this node, without losing a connection. Returns its end, Unix time
    /// in seconds.
    ///
    /// # Errors
    /// No member with the CA key signed it, or it could not be kept.
    pub async fn rotate(&self, by: &str, timeout: Duration) -> Result<u64, RotateError> {
        renew::renew(&self.handle.shared, by, timeout).await
    }

    /// The same for all members, at the same time. Sorted by node.
    pub async fn rotate_all(
        &self,
        by: &str,
        timeout: Duration,
    ) -> Vec<(NodeId, String, Result<u64, String>)> {
        ask::rotate_all(&self.handle.shared, by, timeout).await
    }

    /// From now on this answers other members' daemons; only the first call counts.
    pub fn answer_nodes(&self, handler: NodeHandler) {
        let _ = self.handle.shared.handler.set(handler);
    }

    /// Asks another member's daemon. Its answer must begin `within` that time, and then takes as long as it does;
    /// a connection that breaks ends it.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn ask_node(
        &self,
        node: NodeId,
        request: &NodeRequest,
        within: Duration,
    ) -> Result<NodeReply, String> {
        relay::ask(&self.handle.shared, node, request, within).await
    }

    /// Starts to exchange sessions and heartbeats with all other full members; within a tokio runtime, and from a thread
    /// that is not niced: the thread of the heartbeats takes over its priority. Once at a time.
    ///
    /// # Errors
    /// This is a witness, it runs already, or there is no socket for heartbeats.
    pub fn exchange(&self, config: ExchangeConfig, wiring: Wiring) -> Result<Exchange, ExchangeError> {
        Exchange::start(&self.handle.shared, config, wiring)
    }

    /// Hands the lead over if it has it, and closes: nothing runs any more when this returns, and the
    /// store is released.
    pub async fn shutdown(self) {
        self.handle.shutdown().await;
    }
}
