//! Which path answers what.

use super::error::ApiError;
use super::sessions;
use super::watch;
use crate::api::{
    Drop, Drops, PolicyReload, PolicyShow, PolicyText, PortList, Probe, RuleShow, Status, Version,
};
use crate::daemon::effective;
use crate::daemon::metrics::Metrics;
use crate::daemon::node::Node;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use tidegate_dataplane::drops::DropCounters;

/// Largest request body: a filter is a few hundred bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Everything, for the control socket.
pub fn control_router(node: Arc<Node>, metrics: Arc<Metrics>) -> Router {
    let verbs = Router::new()
        .route("/v1/version", get(async || Json(Version::current())))
        .route("/v1/status", get(status))
        .route("/v1/ports", get(ports))
        .route("/v1/drops", get(drops))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/session", get(sessions::show))
        .route("/v1/sessions/summary", get(sessions::summary))
        .route("/v1/sessions/watch", get(watch::watch))
        .route("/v1/sessions/clear", post(sessions::clear))
        .route("/v1/policy", get(policy))
        .route("/v1/policy/text", get(policy_text))
        .route("/v1/policy/reload", post(reload))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(node.clone());
    verbs.merge(metrics_router(node, metrics)).fallback(async || ApiError::not_found("no such path"))
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

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyQuery {
    #[serde(default)]
    effective: bool,
}

async fn policy(
    State(node): State<Arc<Node>>,
    Query(query): Query<PolicyQuery>,
) -> Result<Json<PolicyShow>, ApiError> {
    let Some(in_force) = node.policy.current() else {
        return Err(ApiError::degraded("no policy is in force; everything is dropped"));
    };
    let ids: Vec<_> = in_force.policy.rules().iter().map(|r| Some(r.id)).chain([None]).collect();
    let (hits, unanswered_workers) = node
        .workers
        .all(move |engine, _| ids.iter().map(|id| engine.rule_hits(*id)).collect::<Vec<u64>>())
        .await;
    let sum = |i: usize| hits.iter().map(|(_, h)| h.get(i).copied().unwrap_or(0)).sum();
    let rules = in_force.policy.rules().iter().enumerate().map(|(i, r)| RuleShow {
        from: r.from.to_string(),
        to: r.to.to_string(),
        name: r.name.to_string(),
        source: r.source.clone(),
        destination: r.destination.clone(),
        application: r.application.clone(),
        action: action_name(r.action).to_owned(),
        session_ttl: r.session_ttl.map(|t| t.to_string()),
        log: r.log,
        tcp_rst: r.tcp_rst,
        enabled: r.enabled,
        hits: sum(i),
    });
    let rules: Vec<RuleShow> = rules.collect();
    Ok(Json(PolicyShow {
        revision: in_force.policy.revision(),
        source: node.policy.path().display().to_string(),
        loaded_at: humantime::format_rfc3339_millis(in_force.loaded_at).to_string(),
        default_deny_hits: sum(rules.len()),
        rules,
        effective: if query.effective { effective::settings(&in_force.file) } else { Vec::new() },
        unanswered_workers,
    }))
}

async fn policy_text(State(node): State<Arc<Node>>) -> Result<Json<PolicyText>, ApiError> {
    let Some(in_force) = node.policy.current() else {
        return Err(ApiError::degraded("no policy is in force; everything is dropped"));
    };
    Ok(Json(PolicyText {
        revision: in_force.policy.revision(),
        source: node.policy.path().display().to_string(),
        text: in_force.policy.source_text().to_string(),
    }))
}

fn action_name(action: tidegate_dataplane::policy::Action) -> &'static str {
    use tidegate_dataplane::policy::Action;
    match action {
        Action::Permit => "permit",
        Action::Deny => "deny",
        Action::Reject => "reject",
    }
}

async fn reload(State(node): State<Arc<Node>>) -> Result<Json<PolicyReload>, ApiError> {
    let (in_force, unanswered_workers) = node.reload().await?;
    Ok(Json(PolicyReload {
        revision: in_force.policy.revision(),
        source: node.policy.path().display().to_string(),
        warnings: in_force.warnings.clone(),
        unanswered_workers,
    }))
}
