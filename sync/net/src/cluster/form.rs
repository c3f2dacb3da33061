//! Founding, joining, and opening what was founded or joined before.
//!
//! The identity file is written last: a directory without one is no member yet, and what was left there by
//! an attempt that broke off is used again (the key of a join request) or replaced.

use super::join::{self, Admitted, JoinRequest};
use super::shared::unix_ms;
use super::start::{self, Start};
use super::{Cluster, Found, Join, OpenError, Options, admit};
use crate::identity::{Directory, Identity, files};
use crate::pki::{Ca, CaCertificate, Credentials, Csr, NodeCertificate, NodeKey};
use crate::store::RaftStore;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidegate_sync::cluster::{ClusterId, ClusterState, Founding, Member, NodeId, Role, StoreId};

/// Holds the members that a joined node was told, until its log tells.
const MEMBERS: &str = "members.json";

pub(crate) fn exists(path: &Path) -> bool {
    Directory::open(path).is_ok_and(|d| d.is_some_and(|d| !matches!(d.identity(), Ok(None))))
}

fn text(error: impl std::fmt::Display) -> OpenError {
    OpenError::Identity(error.to_string())
}

/// A directory to form a member in.
fn fresh(path: &Path) -> Result<Directory, OpenError> {
    let directory = Directory::create(path).map_err(text)?;
    match directory.identity() {
        Ok(Some(identity)) => Err(OpenError::Member {
            path: path.to_owned(),
            cluster: identity.cluster_name,
            node: identity.node_name,
        }),
        Ok(None) => Ok(directory),
        Err(error) => Err(text(error)),
    }
}

pub(crate) fn load(path: &Path) -> Result<(Directory, Identity), OpenError> {
    let none = || OpenError::NoMember(path.to_owned());
    let directory = Directory::open(path).map_err(text)?.ok_or_else(none)?;
    let identity = directory.identity().map_err(text)?.ok_or_else(none)?;
    directory.check_ca_key().map_err(text)?;
    Ok((directory, identity))
}

pub(crate) fn open_store(directory: &Directory, identity: &Identity) -> Result<RaftStore, OpenError> {
    let path = directory.store_path();
    if !path.exists() {
        return Err(OpenError::WipedStore(directory.path().to_owned()));
    }
    let store = RaftStore::open_file(&path).map_err(|e| OpenError::Store(e.to_string()))?;
    match store.id() == identity.store {
        true => Ok(store),
        false => Err(OpenError::WipedStore(directory.path().to_owned())),
    }
}

fn new_store(directory: &Directory, id: StoreId) -> Result<RaftStore, OpenError> {
    let path = directory.store_path();
    if path.exists() {
        // Of an attempt that broke off: there is no identity, so nobody counts on it.
        std::fs::remove_file(&path).map_err(text)?;
    }
    RaftStore::create_file(&path, id).map_err(|e| OpenError::Store(e.to_string()))
}

pub(crate) async fn found(path: &Path, found: Found, options: Options) -> Result<Cluster, OpenError> {
    admit::check_name(&found.name).map_err(OpenError::Invalid)?;
    admit::check_name(&found.node).map_err(OpenError::Invalid)?;
    let directory = fresh(path)?;
    let mut addresses = found.addresses;
    let sockets = start::bind(&mut addresses, &options.listen)?;
    admit::check_addresses(&addresses).map_err(OpenError::Invalid)?;
    let (cluster, node) = (ClusterId(rand::random()), NodeId(1));
    let ca = Ca::create(cluster, &found.name, unix_ms() / 1_000).map_err(text)?;
    let key = NodeKey::generate().map_err(text)?;
    let csr = key.csr(&found.node).and_then(|csr| Csr::from_der(&csr)).map_err(text)?;
    let life_s = options.certificate_life.as_secs();
    let certificate = ca.issue(&csr, node, &found.node, unix_ms() / 1_000, life_s).map_err(text)?;
    directory.write_ca(ca.certificate(), Some(&ca.key_pem())).map_err(text)?;
    directory.write_certificate(&certificate, &key).map_err(text)?;
    let mut store = new_store(&directory, StoreId(rand::random()))?;
    let state = ClusterState::founded(Founding {
        cluster,
        name: found.name.clone(),
        node: found.node.clone(),
        addresses: addresses.clone(),
        store: store.id(),
        key_sha256: key.sha256(),
        not_after_unix_s: certificate.not_after_unix_s(),
        by: crate::quic::hello::printable(&found.by, super::propose::BY_LONGEST),
        at_unix_ms: unix_ms(),
        policy: found.policy,
    });
    let failed = |e: tidegate_sync::raft::StoreError| OpenError::Store(e.to_string());
    tidegate_sync::raft::found(&mut store, &state, 1).map_err(failed)?;
    let identity = Identity {
        cluster,
        cluster_name: found.name,
        node,
        node_name: found.node,
        role: Role::Node,
        addresses,
        generation: state.generation,
        store: store.id(),
    };
    directory.write_identity(&identity).map_err(text)?;
    tracing::info!("founded cluster {} as its first node {}", identity.cluster_name, identity.node_name);
    start::start(Start { directory, identity, store, seed: Arc::new(state), sockets, options })
}

pub(crate) async fn join(path: &Path, join: &Join, options: Options) -> Result<Cluster, OpenError> {
    admit::check_name(&join.node).map_err(OpenError::Invalid)?;
    if join.token.role != join.role {
        let (token, node) = (join.token.role.name(), join.role.name());
        return Err(OpenError::Invalid(format!(
            "the join token is for a {token}, and this node is configured as a {node}"
        )));
    }
    let directory = fresh(path)?;
    let mut addresses = join.addresses.clone();
    let sockets = start::bind(&mut addresses, &options.listen)?;
    admit::check_addresses(&addresses).map_err(OpenError::Invalid)?;
    // Those of an attempt that broke off, if there was one: the answer may merely have been lost.
    let pending = directory.begin_join(join.token.token).map_err(text)?;
    let csr = pending.key.csr(&join.node).map_err(text)?;
    let request = JoinRequest {
        token: join.token.token,
        secret: join.token.secret,
        csr,
        name: join.node.clone(),
        addresses,
        store: pending.store,
        role: join.role,
    };
    let (ca, admitted) = join::ask(join, &request).await?;
    keep_admitted(&directory, ca, pending.key, &admitted)?;
    let store = new_store(&directory, pending.store)?;
    keep_members(&directory, &admitted.members)?;
    let identity = Identity {
        cluster: admitted.cluster,
        cluster_name: admitted.cluster_name,
        node: admitted.node,
        node_name: join.node.clone(),
        role: join.role,
        addresses: request.addresses,
        generation: admitted.generation,
        store: store.id(),
    };
    directory.write_identity(&identity).map_err(text)?;
    directory.end_join().map_err(text)?;
    tracing::info!("joined cluster {} as node {}", identity.cluster_name, identity.node);
    let seed = seed(&identity, admitted.members);
    start::start(Start { directory, identity, store, seed, sockets, options })
}

/// What the member gave must fit together: it was the cluster of the token, but a member may err.
fn keep_admitted(
    directory: &Directory,
    ca: CaCertificate,
    key: NodeKey,
    admitted: &Admitted,
) -> Result<(), OpenError> {
    let certificate = NodeCertificate::from_der(&admitted.certificate).map_err(text)?;
    let named = (certificate.cluster(), certificate.node(), ca.cluster());
    if named != (admitted.cluster, admitted.node, admitted.cluster) {
        return Err(text("the certificate that the cluster issued names another node or cluster"));
    }
    directory.write_ca(&ca, admitted.ca_key.as_deref()).map_err(text)?;
    let Credentials { certificate, key, .. } = Credentials::new(certificate, key, ca).map_err(text)?;
    directory.write_certificate(&certificate, &key).map_err(text)
}

pub(crate) async fn open(path: &Path, options: Options) -> Result<Cluster, OpenError> {
    let (directory, mut identity) = load(path)?;
    let store = open_store(&directory, &identity)?;
    let sockets = start::bind(&mut identity.addresses, &options.listen)?;
    let seed = seed(&identity, read_members(&directory));
    start::start(Start { directory, identity, store, seed, sockets, options })
}

/// What a node knows before its log tells: the members, and nothing that was agreed on.
fn seed(identity: &Identity, members: BTreeMap<NodeId, Member>) -> Arc<ClusterState> {
    let mut state = ClusterState::founded(Founding {
        cluster: identity.cluster,
        name: identity.cluster_name.clone(),
        node: identity.node_name.clone(),
        addresses: Vec::new(),
        store: identity.store,
        key_sha256: [0; 32],
        not_after_unix_s: 0,
        by: String::new(),
        at_unix_ms: 0,
        policy: None,
    });
    state.generation = identity.generation;
    state.members = members;
    state.audit.clear();
    Arc::new(state)
}

fn keep_members(directory: &Directory, members: &BTreeMap<NodeId, Member>) -> Result<(), OpenError> {
    let bytes = serde_json::to_vec_pretty(members).map_err(text)?;
    files::write(&directory.path().join(MEMBERS), &bytes, 0o600).map_err(text)
}

/// None are as good as damaged ones: the log tells, if there is one.
fn read_members(directory: &Directory) -> BTreeMap<NodeId, Member> {
    let bytes = files::read(&directory.path().join(MEMBERS), false).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
