//! `sync status`, `sync resync`.

use super::cluster::member;
use super::error::ApiError;
use crate::api::{ResyncBegun, ResyncRequest, SyncStatus};
use crate::daemon::node::Node;
use crate::daemon::replicate::report;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// `GET /v1/sync`.
pub(super) async fn status(State(node): State<Arc<Node>>) -> Result<Json<SyncStatus>, ApiError> {
    member(&node)?;
    let status = report::status(&node).await;
    status.map(Json).ok_or_else(|| ApiError::degraded("replication has just begun; ask again in a moment"))
}

/// `POST /v1/sync/resync`: this node sends its peers everything that it owns, and asks them for the same.
pub(super) async fn resync(
    State(node): State<Arc<Node>>,
    Json(request): Json<ResyncRequest>,
) -> Result<Json<ResyncBegun>, ApiError> {
    member(&node)?;
    let wanted = request.peer.as_deref().map(|text| node.vocabulary().node("peer", text)).transpose()?;
    if wanted == Some(node.id()) {
        return Err(ApiError::usage(
            "--peer names this node itself\n  help: name another one, or none for all",
        ));
    }
    let status = report::status(&node).await;
    let status =
        status.ok_or_else(|| ApiError::degraded("replication has just begun; ask again in a moment"))?;
    let mut begun = ResyncBegun::default();
    for peer in status.peers.iter().filter(|p| wanted.is_none_or(|w| w == p.node_id)) {
        node.replication.resync(peer.node_id);
        let list = if peer.connected { &mut begun.peers } else { &mut begun.unconnected };
        list.push(peer.node.clone());
    }
    tracing::info!(peers = ?begun.peers, "a resync was asked for by an operator");
    Ok(Json(begun))
}
