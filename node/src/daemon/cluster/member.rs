//! The real form of the traits: a member over QUIC, with its store on disk.

use super::agreement::{Agreement, Clusters, Forming, Report, Rotation};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, ClusterState, Command, JoinToken, NodeId, Outcome, Role};
use tidegate_sync_net::cluster::{
    Cluster, Enforcement, Found, Health, InForce, Join, NodeHandler, NodeReply, NodeRequest, OpenError,
    Options, ProposeError, ReadError, RecoverError, Standing,
};
use tidegate_sync_net::replicate::{Exchange, ExchangeConfig, Wiring};
use tokio::sync::watch;

/// How long joining is tried, over all addresses of the token.
const JOIN_MAX: Duration = Duration::from_secs(60);

impl Agreement for Cluster {
    fn id(&self) -> NodeId {
        Cluster::id(self)
    }

    fn name(&self) -> String {
        Cluster::name(self).to_owned()
    }

    fn role(&self) -> Role {
        Cluster::role(self)
    }

    fn cluster(&self) -> (ClusterId, String) {
        let (id, name) = Cluster::cluster(self);
        (id, name.to_owned())
    }

    fn propose<'a>(
        &'a self,
        command: Command,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>> {
        Box::pin(Cluster::propose(self, command, by, timeout))
    }

    fn read(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<ClusterState>, ReadError>> {
        Box::pin(Cluster::read(self, timeout))
    }

    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        Cluster::state(self)
    }

    fn policy(&self) -> watch::Receiver<Option<Arc<InForce>>> {
        Cluster::policy(self)
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        Cluster::standing(self)
    }

    fn health(&self) -> Health {
        Cluster::health(self)
    }

    fn enforced(&self, revision: u32, sha256: [u8; 32]) {
        Cluster::enforced(self, revision, sha256);
    }

    fn wait_enforced(&self, revision: u32, timeout: Duration) -> BoxFuture<'_, Vec<Enforcement>> {
        Box::pin(Cluster::wait_enforced(self, revision, timeout))
    }

    fn reports(&self, timeout: Duration) -> BoxFuture<'_, Vec<Report>> {
        Box::pin(Cluster::reports(self, timeout))
    }

    fn create_token<'a>(
        &'a self,
        role: Role,
        ttl: Duration,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProposeError>> {
        Box::pin(Cluster::create_token(self, role, ttl, by, timeout))
    }

    fn remove<'a>(
        &'a self,
        node: NodeId,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>> {
        Box::pin(Cluster::remove(self, node, by, timeout))
    }

    fn rotate_all<'a>(&'a self, by: &'a str, timeout: Duration) -> BoxFuture<'a, Vec<Rotation>> {
        Box::pin(Cluster::rotate_all(self, by, timeout))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.clone().shutdown())
    }

    fn answer_nodes(&self, handler: NodeHandler) {
        Cluster::answer_nodes(self, handler);
    }

    fn ask_node<'a>(
        &'a self,
        node: NodeId,
        request: &'a NodeRequest,
        within: Duration,
    ) -> BoxFuture<'a, Result<NodeReply, String>> {
        Box::pin(Cluster::ask_node(self, node, request, within))
    }

    fn replicate(&self, config: ExchangeConfig, wiring: Wiring) -> Result<Option<Exchange>, String> {
        Cluster::exchange(self, config, wiring).map(Some).map_err(|e| e.to_string())
    }
}

/// Clusters over QUIC.
pub(crate) struct QuicClusters {
    listen: Vec<SocketAddr>,
}

impl QuicClusters {
    /// Members that listen there; on their advertised addresses if there is none.
    pub(crate) fn new(listen: Vec<SocketAddr>) -> Self {
        QuicClusters { listen }
    }

    fn options(&self) -> Options {
        Options {
            listen: self.listen.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            ..Options::default()
        }
    }
}

impl Clusters for QuicClusters {
    fn found<'a>(
        &'a self,
        directory: &'a Path,
        name: String,
        forming: Forming,
        policy: Option<Arc<str>>,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>> {
        let Forming { node, addresses, by } = forming;
        let found = Found { name, node, addresses, policy, by };
        Box::pin(async move {
            let cluster = Cluster::found(directory, found, self.options()).await?;
            Ok(Arc::new(cluster) as Arc<dyn Agreement>)
        })
    }

    fn join<'a>(
        &'a self,
        directory: &'a Path,
        token: JoinToken,
        forming: Forming,
        role: Role,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>> {
        // Who asked is known to the node that made the token.
        let Forming { node, addresses, by: _ } = forming;
        let join = Join { token, node, addresses, role, timeout: JOIN_MAX };
        Box::pin(async move {
            let cluster = Cluster::join(directory, join, self.options()).await?;
            Ok(Arc::new(cluster) as Arc<dyn Agreement>)
        })
    }

    fn open<'a>(
        &'a self,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Agreement>>, OpenError>> {
        Box::pin(async move {
            if !Cluster::exists(directory) {
                return Ok(None);
            }
            let cluster = Cluster::open(directory, self.options()).await?;
            Ok(Some(Arc::new(cluster) as Arc<dyn Agreement>))
        })
    }

    fn recover(&self, directory: &Path, by: &str) -> Result<u32, RecoverError> {
        Cluster::recover(directory, by)
    }
}
