//! Names in certificates: `n7.<cluster id>.tidegate`.

use super::PkiError;
use rustls::pki_types::ServerName;
use tidegate_sync::cluster::{ClusterId, NodeId};

const SUFFIX: &str = "tidegate";

/// The name of a node in its certificate.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{node}.{cluster}.{SUFFIX}")
}

/// The name of a cluster's CA in its certificate.
pub(super) fn ca_name(cluster: ClusterId) -> String {
    format!("ca.{cluster}.{SUFFIX}")
}

/// Under which all names of a cluster lie.
pub(super) fn domain(cluster: ClusterId) -> String {
    format!("{cluster}.{SUFFIX}")
}

/// Whom to expect when dialling that node.
///
/// # Errors
/// None for any id: the name is always a valid one.
pub fn server_name(cluster: ClusterId, node: NodeId) -> Result<ServerName<'static>, PkiError> {
    ServerName::try_from(node_name(cluster, node))
        .map_err(|e| PkiError::Malformed { what: "the node's name", reason: e.to_string() })
}

/// Reads what [`node_name`] writes, and nothing else.
pub(super) fn parse_node(name: &str) -> Option<(ClusterId, NodeId)> {
    let (node, rest) = name.strip_prefix('n')?.split_once('.')?;
    let (cluster, suffix) = rest.split_once('.')?;
    let found = (ClusterId::parse(cluster)?, NodeId(node.parse().ok()?));
    (suffix == SUFFIX && node_name(found.0, found.1) == name).then_some(found)
}

/// Reads what [`ca_name`] writes, and nothing else.
pub(super) fn parse_ca(name: &str) -> Option<ClusterId> {
    let (cluster, suffix) = name.strip_prefix("ca.")?.split_once('.')?;
    let found = ClusterId::parse(cluster)?;
    (suffix == SUFFIX && ca_name(found) == name).then_some(found)
}
