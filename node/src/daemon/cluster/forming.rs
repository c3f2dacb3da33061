//! `cluster init`, `join` and `recover`: how the node comes to its seat.

use super::{Agreement, Forming};
use crate::daemon::node::Node;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{JoinToken, Role, TokenError};
use tidegate_sync_net::cluster::{OpenError, RecoverError};

/// How long the addresses of the stopped member may stay in use, and the pause between two looks.
const REOPEN_MAX: Duration = Duration::from_secs(10);
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// Why the node did not become a member, or its cluster was not recovered.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// It is one.
    #[error(
        "this node is a member of cluster {cluster} already, as node {node}\n  help: to leave it, remove this node there (`tidegate cluster remove {node}`), stop the daemon and move {directory} away"
    )]
    Member {
        /// The cluster.
        cluster: String,
        /// Its name there.
        node: String,
        /// Where its identity is.
        directory: String,
    },
    /// It is none.
    #[error(
        "this node is in no cluster\n  help: `tidegate cluster init` founds one, `tidegate cluster join TOKEN` joins one"
    )]
    NoMember,
    /// A witness cannot be the first.
    #[error(
        "a witness cannot found a cluster: it holds no policy and no CA key\n  help: run `tidegate cluster init` on a node that forwards, then join this one"
    )]
    WitnessFounds,
    /// The token is for another role.
    #[error(
        "the join token is for a {token}, and this daemon is configured as a {own}\n  help: create one with `tidegate cluster token create --role {own}`, or change `role` under [node]"
    )]
    Role {
        /// The token's.
        token: &'static str,
        /// The configuration's.
        own: &'static str,
    },
    /// The text is no token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// It did not work.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// Changes can still be agreed on.
    #[error(
        "the cluster has a quorum, and a recovery would throw {0} out\n  help: remove single nodes with `tidegate cluster remove`; recover only when the others are lost"
    )]
    HasQuorum(String),
    /// The recovery did not work.
    #[error("{0}")]
    Recover(#[from] RecoverError),
}

impl Node {
    /// Founds a cluster with this node alone; the policy in force becomes its revision 1.
    pub async fn init(&self, name: String, forming: Forming) -> Result<Arc<dyn Agreement>, FormError> {
        // The policy must not change between the look at it and the founding.
        let _one_at_a_time = self.reloading.lock().await;
        self.must_be_none()?;
        if self.config.role == Role::Witness {
            return Err(FormError::WitnessFounds);
        }
        let policy = self.policy.current().map(|p| p.policy.source_text().clone());
        let directory = &self.config.cluster.directory;
        let cluster = self.clusters.found(directory, name, forming, policy).await?;
        self.seat.take(Some(cluster.clone()));
        Ok(cluster)
    }

    /// Joins the cluster that the token is of.
    pub async fn join(&self, token: &str, forming: Forming) -> Result<Arc<dyn Agreement>, FormError> {
        let _one_at_a_time = self.reloading.lock().await;
        self.must_be_none()?;
        let token = JoinToken::parse(token)?;
        let own = self.config.role;
        if token.role != own {
            return Err(FormError::Role { token: token.role.name(), own: own.name() });
        }
        let cluster = self.clusters.join(&self.config.cluster.directory, token, forming, own).await?;
        self.seat.take(Some(cluster.clone()));
        Ok(cluster)
    }

    /// Whether a recovery makes sense: this member hears no leader with a quorum.
    pub fn may_recover(&self) -> Result<Arc<dyn Agreement>, FormError> {
        let cluster = self.seat.cluster().ok_or(FormError::NoMember)?;
        let health = cluster.health();
        if health.role == Role::Witness {
            return Err(FormError::Recover(RecoverError::Witness));
        }
        if health.quorum {
            let others: Vec<_> = health.peers.iter().map(|p| p.name.clone()).collect();
            let others = if others.is_empty() { "nobody".to_owned() } else { others.join(", ") };
            return Err(FormError::HasQuorum(others));
        }
        Ok(cluster)
    }

    /// Starts a new generation of the cluster with this node alone. Forwarding goes on meanwhile.
    pub async fn recover(&self, by: &str) -> Result<(Arc<dyn Agreement>, u32), FormError> {
        let _one_at_a_time = self.reloading.lock().await;
        let old = self.may_recover()?;
        old.shutdown().await;
        let (clusters, directory) = (self.clusters.clone(), self.config.cluster.directory.clone());
        let asker = by.to_owned();
        let at = directory.clone();
        let recovered = tokio::task::spawn_blocking(move || clusters.recover(&at, &asker)).await;
        let recovered = recovered.unwrap_or_else(|e| Err(OpenError::Store(e.to_string()).into()));
        // Also after a failure: the member that was stopped runs again, as it was. Until then the node keeps its
        // seat, and its engines what they enforce.
        let cluster = self.open_again().await?;
        self.seat.take(Some(cluster.clone()));
        Ok((cluster, recovered?))
    }

    async fn open_again(&self) -> Result<Arc<dyn Agreement>, FormError> {
        let end = Instant::now() + REOPEN_MAX;
        loop {
            match self.clusters.open(&self.config.cluster.directory).await {
                Err(OpenError::Listen { .. }) if Instant::now() < end => {
                    tokio::time::sleep(REOPEN_PAUSE).await
                }
                opened => return opened?.ok_or(FormError::NoMember),
            }
        }
    }

    fn must_be_none(&self) -> Result<(), FormError> {
        match self.seat.cluster() {
            None => Ok(()),
            Some(cluster) => Err(FormError::Member {
                cluster: cluster.cluster().1,
                node: cluster.name(),
                directory: self.config.cluster.directory.display().to_string(),
            }),
        }
    }
}
