//! Which path answers what.

use super::error::ApiError;
use super::{apply, clear, cluster, policy, sessions, sync, verify, watch};
use crate::api::{Drop, Drops, PortList, Probe, Status, Version};
use crate::daemon::metrics::Metrics;
use crate::daemon::node::Node;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use tidegate_dataplane::drops::DropCounters;
use tidegate_sync::cluster::PolicyLog;

/// Largest request body: a filter is a few hundred bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body with a policy: its text may double in JSON.
const POLICY_BYTES_MAX: usize = 2 * PolicyLog::LONGEST + BODY_BYTES_MAX;

/// Everything, for the control socket.
pub fn control_router(node: Arc<Node>, metrics: Arc<Metrics>) -> Router {
    let dataplane = Router::new()
        .route("/v1/ports", get(ports))
        .route("/v1/drops", get(drops))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/session", get(sessions::show))
        .route("/v1/sessions/summary", get(sessions::summary))
        .route("/v1/sessions/watch", get(watch::watch))
        .route("/v1/sessions/clear", post(clear::clear))
        .route("/v1/sessions/verify", get(verify::verify))
        .route("/v1/sync", get(sync::status))
        .route("/v1/sync/resync", post(sync::resync))
        .route_layer(from_fn_with_state(node.clone(), needs_a_dataplane));
    #[cfg(feature = "corrupt")]
    let dataplane = dataplane.route("/v1/test/corrupt", post(verify::corrupt));
    let verbs = Router::new()
        .route("/v1/version", get(async || Json(Version::current())))
        .route("/v1/status", get(status))
        .route("/v1/policy", get(policy::show))
        .route("/v1/policy/text", get(policy::text))
        .route("/v1/policy/reload", post(policy::reload))
        .route("/v1/policy/history", get(policy::history))
        .route("/v1/policy/apply", post(apply::apply).layer(DefaultBodyLimit::max(POLICY_BYTES_MAX)))
        .route("/v1/policy/confirm", post(apply::confirm))
        .route("/v1/policy/rollback", post(apply::rollback))
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/cluster/members", get(cluster::members))
        .route("/v1/cluster/history", get(cluster::history))
        .route("/v1/cluster/tokens", get(cluster::tokens).post(cluster::create_token))
        .route("/v1/cluster/tokens/revoke", post(cluster::revoke_token))
        .route("/v1/cluster/init", post(cluster::init))
        .route("/v1/cluster/join", post(cluster::join))
        .route("/v1/cluster/remove", post(cluster::remove))
        .route("/v1/cluster/rotate", post(cluster::rotate))
        .route("/v1/cluster/recover", post(cluster::recover))
        .merge(dataplane)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(node.clone());
    verbs.merge(metrics_router(node, metrics)).fallback(async || ApiError::not_found("no such path"))
}

/// A witness has no sessions to show: an empty answer would look like a quiet firewall.
async fn needs_a_dataplane(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    if node.is_witness() {
        return ApiError::conflict(
            "this node is a witness: it votes, and has no ports and no sessions\n  help: ask a node that forwards (see `tidegate cluster members`)",
        )
        .into_response();
    }
    next.run(request).await
}

/// What the metrics listener answers: nothing that changes anything, nothing about single flows.
pub fn metrics_router(node: Arc<Node>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(async |State(node): State<Arc<Node>>| probe(node.livez())))
        .route("/readyz", get(async |State(node): State<Arc<Node>>| probe(node.readyz())))
        .with_state(node.clone())
        .route(
            "/metrics",
            get(async move || {
                let text = metrics.render(&node).await;
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
            }),
        )
}

fn probe(probe: Probe) -> Response {
    let status = if probe.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(probe)).into_response()
}

async fn status(State(node): State<Arc<Node>>) -> Json<Status> {
    Json(node.status().await)
}

async fn ports(State(node): State<Arc<Node>>) -> Json<PortList> {
    Json(node.port_list(&node.dataplane_numbers().await))
}

async fn drops(State(node): State<Arc<Node>>) -> Json<Drops> {
    let (numbers, unanswered_workers) = node.numbers().await;
    let mut sum = DropCounters::default();
    numbers.iter().for_each(|(_, n)| sum.add(&n.counters.drops));
    let reasons = sum
        .iter()
        .map(|(reason, packets)| Drop {
            reason: reason.name().to_owned(),
            packets,
            description: reason.describe().trim().to_owned(),
        })
        .collect();
    Json(Drops { total: sum.total(), reasons, unanswered_workers })
}
