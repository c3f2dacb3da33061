//! Clear: the sessions that an operator means end, worker by worker, in slices between batches; or they are only
//! counted, so that they can be confirmed first.

use super::error::ApiError;
use super::sessions::{Scope, first, meant, meant_by_member, only_here, tally};
use super::{everywhere, query};
use crate::api::{ClearReply, ClearRequest, NodeCleared, Session, SessionQuery};
use crate::daemon::node::Node;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use tidegate_dataplane::engine::{Engine, SessionFilter};

/// Slots in which a worker ends sessions with one command. The engine's list of events has room for it.
const CLEAR_SLICE: u32 = 1_024;

/// `POST /v1/sessions/clear` (J10).
pub(super) async fn clear(
    State(node): State<Arc<Node>>,
    Json(request): Json<ClearRequest>,
) -> Result<Json<ClearReply>, ApiError> {
    if request.query.local {
        return Err(ApiError::usage(
            "--local goes with reading only: only a session's owner ends it\n  help: --node clears what one node owns",
        ));
    }
    if only_here(&node, &request.query)? {
        return clear_here(&node, &request).await.map(Json);
    }
    everywhere::clear(&node, &request).await.map(Json)
}

/// The same as another member asks it.
pub(super) async fn clear_own(
    State(node): State<Arc<Node>>,
    Json(request): Json<ClearRequest>,
) -> Json<ClearReply> {
    let filter = meant_by_member(&node, &request.query);
    Json(clear_meant(&node, &request, filter).await)
}

/// This node's part.
pub(super) async fn clear_here(node: &Node, request: &ClearRequest) -> Result<ClearReply, ApiError> {
    let filter = meant(node, &request.query, Scope::Owned)?;
    Ok(clear_meant(node, request, filter).await)
}

async fn clear_meant(node: &Node, request: &ClearRequest, filter: SessionFilter) -> ClearReply {
    if request.preview {
        return preview(node, filter, request.own_connection.as_ref()).await;
    }
    let filter = Arc::new(filter);
    let mut reply = ClearReply::default();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let filter = filter.clone();
            let walk = move |engine: &mut Engine, now| engine.clear(at, CLEAR_SLICE, &filter, now);
            match node.workers.call(worker, walk).await {
                Ok((next, cleared)) => {
                    reply.cleared += u64::from(cleared);
                    cursor = next;
                }
                Err(_) => {
                    reply.unanswered_workers.push(worker);
                    break;
                }
            }
        }
    }
    reply.nodes = per_node(node, reply.cleared);
    tracing::info!(cleared = reply.cleared, query = ?request.query, "sessions cleared by an operator");
    reply
}

async fn preview(node: &Node, filter: SessionFilter, own: Option<&[String; 4]>) -> ClearReply {
    let mut silent = Vec::new();
    let cleared = tally(node, &filter, &mut silent).await.live();
    let own_connection = match own {
        Some(own) => own_session(node, &filter, own).await,
        None => None,
    };
    ClearReply {
        cleared,
        nodes: per_node(node, cleared),
        own_connection: own_connection.map(Box::new),
        unanswered_workers: silent,
        unanswered_nodes: Vec::new(),
    }
}

fn per_node(node: &Node, cleared: u64) -> Vec<NodeCleared> {
    vec![NodeCleared { node: node.name(), node_id: node.id(), cleared }]
}

/// The operator's SSH connection, if the filter means it: the session with exactly its tuple that
/// also matches the filter.
async fn own_session(
    node: &Node,
    filter: &SessionFilter,
    [client, client_port, server, server_port]: &[String; 4],
) -> Option<Session> {
    let own = SessionQuery {
        protocol: Some("tcp".to_owned()),
        source_prefix: Some(client.clone()),
        source_port: Some(client_port.clone()),
        destination_prefix: Some(server.clone()),
        destination_port: Some(server_port.clone()),
        ..SessionQuery::default()
    };
    // An address with an interface (fe80::1%eth0) is link-local: it never passes through.
    let Ok(own) = query::filter(&own, &node.vocabulary()) else { return None };
    let (Some(session), _) = first(node, own).await else { return None };
    let Ok(id) = session.id.parse() else { return None };
    if filter.id.is_some_and(|wanted| wanted != id) {
        return None;
    }
    let meant = SessionFilter { id: Some(id), ..filter.clone() };
    first(node, meant).await.0
}
