//! What the node needs of a cluster, as traits, so that it can be tested without one; and their real form.

use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, ClusterState, Command, JoinToken, NodeId, Outcome, Role};
use tidegate_sync_net::cluster::{
    Enforcement, Health, InForce, NodeHandler, NodeReply, NodeReport, NodeRequest, OpenError, ProposeError,
    ReadError, RecoverError, Standing,
};
use tidegate_sync_net::replicate::{Exchange, ExchangeConfig, Wiring};
use tokio::sync::watch;

/// A member's answer to `reports`: number, name, and what it says of itself.
pub type Report = (NodeId, String, Result<NodeReport, String>);
/// A member's answer to `rotate`: number, name, and the end of its new certificate in Unix seconds.
pub type Rotation = (NodeId, String, Result<u64, String>);

/// A member's handle on its cluster. See [`tidegate_sync_net::cluster::Cluster`] for what each does.
#[allow(missing_docs, reason = "each is the method of the same name")]
pub trait Agreement: Send + Sync + 'static {
    fn id(&self) -> NodeId;
    fn name(&self) -> String;
    fn role(&self) -> Role;
    fn cluster(&self) -> (ClusterId, String);
    fn propose<'a>(
        &'a self,
        command: Command,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>>;
    fn read(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<ClusterState>, ReadError>>;
    fn state(&self) -> watch::Receiver<Arc<ClusterState>>;
    fn policy(&self) -> watch::Receiver<Option<Arc<InForce>>>;
    fn standing(&self) -> watch::Receiver<Standing>;
    fn health(&self) -> Health;
    fn enforced(&self, revision: u32, sha256: [u8; 32]);
    fn wait_enforced(&self, revision: u32, timeout: Duration) -> BoxFuture<'_, Vec<Enforcement>>;
    fn reports(&self, timeout: Duration) -> BoxFuture<'_, Vec<Report>>;
    fn create_token<'a>(
        &'a self,
        role: Role,
        ttl: Duration,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProposeError>>;
    fn remove<'a>(
        &'a self,
        node: NodeId,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>>;
    fn rotate_all<'a>(&'a self, by: &'a str, timeout: Duration) -> BoxFuture<'a, Vec<Rotation>>;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
    fn answer_nodes(&self, handler: NodeHandler);
    fn ask_node<'a>(
        &'a self,
        node: NodeId,
        request: &'a NodeRequest,
        within: Duration,
    ) -> BoxFuture<'a, Result<NodeReply, String>>;
    /// `None`: there is nothing to replicate with.
    fn replicate(&self, config: ExchangeConfig, wiring: Wiring) -> Result<Option<Exchange>, String>;
}

/// What a cluster is founded or joined with.
#[derive(Clone, Debug)]
pub struct Forming {
    /// This node's name.
    pub node: String,
    /// Where other nodes reach it.
    pub addresses: Vec<SocketAddr>,
    /// Who asked.
    pub by: String,
}

/// Makes a node a member.
pub trait Clusters: Send + Sync + 'static {
    /// Founds a cluster.
    fn found<'a>(
        &'a self,
        directory: &'a Path,
        name: String,
        forming: Forming,
        policy: Option<Arc<str>>,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>>;
    /// Joins one.
    fn join<'a>(
        &'a self,
        directory: &'a Path,
        token: JoinToken,
        forming: Forming,
        role: Role,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>>;
    /// Runs the member that the directory holds; `None`: it holds none.
    fn open<'a>(
        &'a self,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Agreement>>, OpenError>>;
    /// Starts a new generation with this stopped member alone.
    fn recover(&self, directory: &Path, by: &str) -> Result<u32, RecoverError>;
}
