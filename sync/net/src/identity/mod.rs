//! A node's identity on disk: who it is, its certificate and keys, and where its Raft store is.
//!
//! One directory, its owner's alone. Every file is replaced whole; what must change together lies in one
//! file (`node.pem` holds certificate and key). `identity.json` is written last: with it the node is a
//! member, without it nothing else there counts.

mod boot;
mod directory;
pub mod files;
#[cfg(test)]
mod tests;

pub use directory::{Directory, PendingJoin, reissue};

use crate::pki::PkiError;
use crate::store;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_sync::cluster::{ClusterId, NodeId, Role, StoreId};

/// Where it is unless configured otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/tidegate";

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// What it does.
    pub role: Role,
    /// Where peers reach it.
    pub addresses: Vec<SocketAddr>,
    /// The cluster's generation, as far as the node knows.
    pub generation: u32,
    /// Its store: one that was put in its place is noticed.
    pub store: StoreId,
}

/// Why the identity cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// A key or a certificate.
    #[error("{}: {error}", .path.display())]
    Pki {
        /// In which file.
        path: PathBuf,
        /// Why.
        error: PkiError,
    },
    /// What should be there is not.
    #[error("{} is missing: put it back, or let this node be removed and join again", .0.display())]
    Missing(PathBuf),
    /// It says something else than was written.
    #[error("{}: {reason}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Files of two nodes or two clusters are mixed.
    #[error("{} belongs to {found}, but identity.json says {wanted}: put back the files that belong together", .path.display())]
    Mixed {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The store: another process has it open.
    #[error(transparent)]
    Store(#[from] store::OpenError),
}

/// `identity.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: String,
    cluster_name: String,
    node: u64,
    node_name: String,
    role: String,
    addresses: Vec<SocketAddr>,
    generation: u32,
    store: String,
}

const FORMAT: u32 = 1;

impl From<&Identity> for IdentityFile {
    fn from(it: &Identity) -> Self {
        IdentityFile {
            format: FORMAT,
            cluster: it.cluster.to_string(),
            cluster_name: it.cluster_name.clone(),
            node: it.node.0,
            node_name: it.node_name.clone(),
            role: it.role.name().to_owned(),
            addresses: it.addresses.clone(),
            generation: it.generation,
            store: it.store.to_string(),
        }
    }
}

impl IdentityFile {
    fn read(self) -> Result<Identity, String> {
        if self.format != FORMAT {
            return Err(format!(
                "it is of format {}, this version reads {FORMAT}: use the newer version",
                self.format
            ));
        }
        let role = [Role::Node, Role::Witness].into_iter().find(|role| role.name() == self.role);
        Ok(Identity {
            cluster: ClusterId::parse(&self.cluster).ok_or("`cluster` is no cluster id")?,
            cluster_name: self.cluster_name,
            node: NodeId(self.node),
            node_name: self.node_name,
            role: role.ok_or("`role` is neither node nor witness")?,
            addresses: self.addresses,
            generation: self.generation,
            store: StoreId::parse(&self.store).ok_or("`store` is no store id")?,
        })
    }
}
