//! The policy in force, and the revisions before it.

use super::cluster::{look, member};
use super::error::ApiError;
use crate::api::{PolicyHistory, PolicyReload, PolicyShow, PolicyText, RevisionShow, RuleShow};
use crate::daemon::cluster::report::{hex, name_of, rfc3339_ms};
use crate::daemon::effective;
use crate::daemon::node::Node;
use crate::daemon::policy::{check, compiles};
use axum::Json;
use axum::extract::{Query, State};
use std::sync::Arc;
use tidegate_dataplane::policy::{Action, Policy, RuleInfo};
use tidegate_sync::cluster::{ClusterState, Refusal, Revision, Source, Standing};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyQuery {
    #[serde(default)]
    effective: bool,
    #[serde(default)]
    revision: Option<u32>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextQuery {
    #[serde(default)]
    revision: Option<u32>,
}

const NOTHING: &str = "no policy is in force; everything is dropped";

pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Query(query): Query<PolicyQuery>,
) -> Result<Json<PolicyShow>, ApiError> {
    let which = match query.revision {
        // A witness enforces nothing: what it can show is what was agreed on.
        None if node.is_witness() => Some(agreed(&node).await?),
        which => which,
    };
    if let Some(number) = which {
        return show_revision(&node, number, query.effective).await.map(Json);
    }
    let Some(in_force) = node.policy.current() else { return Err(ApiError::degraded(NOTHING)) };
    let ids: Vec<_> = in_force.policy.rules().iter().map(|r| Some(r.id)).chain([None]).collect();
    let (hits, unanswered_workers) = node
        .workers
        .all(move |engine, _| ids.iter().map(|id| engine.rule_hits(*id)).collect::<Vec<u64>>())
        .await;
    let sum = |i: usize| Some(hits.iter().map(|(_, h)| h.get(i).copied().unwrap_or(0)).sum());
    Ok(Json(PolicyShow {
        revision: in_force.policy.revision(),
        sha256: hex(&in_force.sha256),
        source: in_force.source.clone(),
        loaded_at: Some(humantime::format_rfc3339_millis(in_force.loaded_at).to_string()),
        default_deny_hits: sum(in_force.policy.rules().len()),
        rules: rules(&in_force.policy, sum),
        effective: if query.effective { effective::settings(&in_force.file) } else { Vec::new() },
        unanswered_workers,
    }))
}

fn rules(policy: &Policy, hits: impl Fn(usize) -> Option<u64>) -> Vec<RuleShow> {
    policy.rules().iter().enumerate().map(|(i, rule)| show_rule(rule, hits(i))).collect()
}

fn show_rule(r: &RuleInfo, hits: Option<u64>) -> RuleShow {
    RuleShow {
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
        sync: r.sync,
        setup_ack: r.setup_ack.map(|ack| ack.name().to_owned()),
        enabled: r.enabled,
        hits,
    }
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Permit => "permit",
        Action::Deny => "deny",
        Action::Reject => "reject",
    }
}

/// The number of the revision in force in the cluster.
async fn agreed(node: &Node) -> Result<u32, ApiError> {
    let (state, _) = look(&*member(node)?).await;
    state.policy.in_force().map(|r| r.number).ok_or_else(|| ApiError::degraded("no policy was agreed on yet"))
}

/// A revision of the cluster by its number, and its text.
async fn revision(node: &Node, number: u32) -> Result<(Arc<ClusterState>, Arc<str>), ApiError> {
    let (state, _) = look(&*member(node)?).await;
    let text = state.policy.get(number).and_then(|r| r.text.clone());
    let text = text.ok_or_else(|| ApiError::not_found(Refusal::NoSuchRevision(number).to_string()))?;
    Ok((state, text))
}

async fn show_revision(node: &Node, number: u32, effective: bool) -> Result<PolicyShow, ApiError> {
    let (state, text) = revision(node, number).await?;
    let (findings, file) = check(&format!("revision {number}"), &text);
    let file = file.ok_or_else(|| {
        ApiError::usage(format!("revision {number} is no valid policy to this release")).with(findings)
    })?;
    let policy = compiles(&file).map_err(|e| ApiError::usage(format!("revision {number}: {e}")))?;
    let sha256 = state.policy.get(number).map_or(String::new(), |r| hex(&r.sha256));
    Ok(PolicyShow {
        revision: number,
        sha256,
        source: format!("cluster {}", state.name),
        loaded_at: None,
        default_deny_hits: None,
        rules: rules(&policy, |_| None),
        effective: if effective { effective::settings(&file) } else { Vec::new() },
        unanswered_workers: Vec::new(),
    })
}

pub(super) async fn text(
    State(node): State<Arc<Node>>,
    Query(query): Query<TextQuery>,
) -> Result<Json<PolicyText>, ApiError> {
    let which = match query.revision {
        None if node.is_witness() => Some(agreed(&node).await?),
        which => which,
    };
    if let Some(number) = which {
        let (state, text) = revision(&node, number).await?;
        let source = format!("cluster {}", state.name);
        return Ok(Json(PolicyText { revision: number, source, text: text.to_string() }));
    }
    let Some(in_force) = node.policy.current() else { return Err(ApiError::degraded(NOTHING)) };
    Ok(Json(PolicyText {
        revision: in_force.policy.revision(),
        source: in_force.source.clone(),
        text: in_force.policy.source_text().to_string(),
    }))
}

pub(super) async fn reload(State(node): State<Arc<Node>>) -> Result<Json<PolicyReload>, ApiError> {
    let (in_force, unanswered_workers) = node.reload().await?;
    Ok(Json(PolicyReload {
        revision: in_force.policy.revision(),
        source: in_force.source.clone(),
        warnings: in_force.warnings.clone(),
        unanswered_workers,
    }))
}

pub(super) async fn history(State(node): State<Arc<Node>>) -> Result<Json<PolicyHistory>, ApiError> {
    let (state, current) = look(&*member(&node)?).await;
    let in_force = state.policy.in_force().map(|r| r.number);
    let revisions = state.policy.all().map(|r| show_revision_of(&state, r, in_force)).collect();
    Ok(Json(PolicyHistory { current, revisions }))
}

fn show_revision_of(state: &ClusterState, r: &Revision, in_force: Option<u32>) -> RevisionShow {
    let (source, rollback_to) = match r.source {
        Source::Founding => ("init", None),
        Source::Apply => ("apply", None),
        Source::Rollback(to) => ("rollback", Some(to)),
    };
    RevisionShow {
        revision: r.number,
        in_force: in_force == Some(r.number),
        standing: match r.standing {
            Standing::Confirmed => "confirmed",
            Standing::Pending(_) => "pending",
            Standing::Expired => "expired",
            Standing::Replaced => "replaced",
        }
        .to_owned(),
        source: source.to_owned(),
        rollback_to,
        at: rfc3339_ms(r.at_unix_ms),
        by: r.by.clone(),
        via: name_of(state, r.via),
        sha256: hex(&r.sha256),
        bytes: r.bytes,
        text_kept: r.text.is_some(),
    }
}
