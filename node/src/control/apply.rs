//! Changes of the cluster's policy: checked here, agreed on by the cluster, and reported once the members
//! enforce them.

use super::asker::Asker;
use super::cluster::{PROPOSE_MAX, done, look, member};
use super::error::ApiError;
use crate::api::{ApplyRequest, ConfirmRequest, NodeEnforcement, PolicyApplied, RollbackRequest};
use crate::daemon::cluster::Agreement;
use crate::daemon::cluster::report::{hex, unix_ms};
use crate::daemon::node::Node;
use crate::daemon::policy::{check, compiles, sha256};
use crate::diagnostic::{Diagnostic, Severity};
use axum::extract::State;
use axum::{Extension, Json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{ClusterState, Command, Lease, Outcome, Refusal};

/// How long members may take to enforce a revision before they are named as late.
const ENFORCE_MAX: Duration = Duration::from_secs(10);
/// The first look at what they enforce, in which one that is gone costs all of its time.
const ENFORCE_LOOK: Duration = Duration::from_millis(250);
/// How long this node's copy of the state may be behind an answer of the leader.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// How long a policy may wait for its confirmation.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=24 * 3_600 * 1_000;

type Answer = Result<Json<PolicyApplied>, ApiError>;

fn lease(within_ms: Option<u64>) -> Result<Option<Lease>, ApiError> {
    match within_ms {
        Some(ms) if !LEASE_MS.contains(&ms) => Err(ApiError::usage(
            "--confirm-within is out of range\n  help: a duration from 1s to 24h, such as 5m",
        )),
        Some(ms) => Ok(Some(Lease { within_ms: ms, deadline_unix_ms: unix_ms() + ms })),
        None => Ok(None),
    }
}

/// The warnings about a policy that can be put in force; otherwise all findings.
async fn checked(name: &str, text: &Arc<str>) -> Result<Vec<Diagnostic>, ApiError> {
    let (name, text) = (name.to_owned(), text.clone());
    let work = tokio::task::spawn_blocking(move || {
        let (findings, file) = check(&name, &text);
        let Some(file) = file else {
            let errors = findings.iter().filter(|d| d.severity == Severity::Error).count();
            let message = format!("{name}: {errors} errors; nothing was changed");
            return Err(ApiError::usage(message).with(findings));
        };
        match compiles(&file) {
            Ok(_) => Ok(findings),
            Err(e) => Err(ApiError::usage(format!("{name}: {e}; nothing was changed"))),
        }
    });
    work.await.unwrap_or_else(|_| Err(ApiError::unreachable("the daemon ends")))
}

/// The revision to start from: as the cluster has it, which must be the one that the operator saw if one
/// was named.
fn base(state: &ClusterState, seen: Option<u32>) -> Result<u32, ApiError> {
    let now = state.policy.in_force().map_or(0, |r| r.number);
    match seen {
        Some(base) if base != now => Err(Refusal::RevisionMoved { base, now }.into()),
        _ => Ok(now),
    }
}

pub(super) async fn apply(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(request): Json<ApplyRequest>,
) -> Answer {
    let ApplyRequest { file, text, base: seen, dry_run, confirm_within_ms } = request;
    let cluster = member(&node)?;
    let text: Arc<str> = text.into();
    let warnings = checked(&file, &text).await?;
    let lease = lease(confirm_within_ms)?;
    if dry_run {
        let (state, _) = look(&*cluster).await;
        base(&state, seen)?;
        return Ok(Json(preview(&state, &file, &text, warnings)));
    }
    let state = cluster.read(PROPOSE_MAX).await?;
    let base = base(&state, seen)?;
    let command = Command::ApplyPolicy { base, text, lease };
    let outcome = done(cluster.propose(command, &by, PROPOSE_MAX).await?)?;
    settled(&*cluster, outcome, warnings).await
}

fn preview(state: &ClusterState, file: &str, text: &str, warnings: Vec<Diagnostic>) -> PolicyApplied {
    let now = state.policy.in_force();
    let (number, before) = now.map_or((0, ""), |r| (r.number, r.text.as_deref().unwrap_or_default()));
    let diff = similar::TextDiff::from_lines(before, text)
        .unified_diff()
        .header(&format!("revision {number} in force"), file)
        .to_string();
    PolicyApplied {
        revision: number,
        sha256: hex(&sha256(text)),
        unchanged: now.is_some_and(|r| r.sha256 == sha256(text)),
        dry_run: true,
        diff: Some(diff),
        warnings,
        ..PolicyApplied::default()
    }
}

pub(super) async fn rollback(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(request): Json<RollbackRequest>,
) -> Answer {
    let RollbackRequest { revision, base: seen, confirm_within_ms } = request;
    let cluster = member(&node)?;
    let lease = lease(confirm_within_ms)?;
    let state = cluster.read(PROPOSE_MAX).await?;
    let base = base(&state, seen)?;
    let text = state.policy.get(revision).and_then(|r| r.text.clone());
    let text = text.ok_or_else(|| ApiError::not_found(Refusal::NoSuchRevision(revision).to_string()))?;
    // An old text may be none to this release.
    let warnings = checked(&format!("revision {revision}"), &text).await?;
    let command = Command::RollbackPolicy { base, to: revision, lease };
    let outcome = done(cluster.propose(command, &by, PROPOSE_MAX).await?)?;
    settled(&*cluster, outcome, warnings).await
}

pub(super) async fn confirm(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(ConfirmRequest { revision }): Json<ConfirmRequest>,
) -> Answer {
    let cluster = member(&node)?;
    let revision = match revision {
        Some(revision) => revision,
        None => {
            let state = cluster.read(PROPOSE_MAX).await?;
            let pending = state.policy.pending().map(|(r, _)| r.number);
            pending.ok_or_else(|| {
                ApiError::conflict(
                    "no revision waits for a confirmation\n  help: see `tidegate policy history`; one that was not confirmed in time has to be applied again",
                )
            })?
        }
    };
    let outcome = done(cluster.propose(Command::ConfirmPolicy { revision }, &by, PROPOSE_MAX).await?)?;
    settled(&*cluster, outcome, Vec::new()).await
}

/// What is in force now, once the members enforce it or were waited for long enough.
async fn settled(cluster: &dyn Agreement, outcome: Outcome, warnings: Vec<Diagnostic>) -> Answer {
    let Outcome::Revision { number, unchanged } = outcome else {
        return Err(ApiError::conflict(format!("the cluster answered {outcome:?}")));
    };
    let nodes = enforcement(cluster, number).await;
    // This node's own copy may be a moment behind the answer.
    let mut states = cluster.state();
    let here = states.wait_for(|s| s.policy.get(number).is_some());
    drop(tokio::time::timeout(CATCH_UP_MAX, here).await);
    let state = cluster.state().borrow().clone();
    let pending = state.policy.pending().filter(|(r, _)| r.number == number);
    Ok(Json(PolicyApplied {
        revision: number,
        sha256: state.policy.get(number).map_or(String::new(), |r| hex(&r.sha256)),
        unchanged,
        dry_run: false,
        confirm_within_s: pending
            .map(|(_, l)| l.deadline_unix_ms.saturating_sub(unix_ms()).min(l.within_ms) as f64 / 1e3),
        diff: None,
        warnings,
        nodes,
    }))
}

/// What each full member enforces, once those that are connected enforce the revision or were waited for long
/// enough. One that is not connected is not waited for: it may be gone for good.
async fn enforcement(cluster: &dyn Agreement, revision: u32) -> Vec<NodeEnforcement> {
    let end = Instant::now() + ENFORCE_MAX;
    let mut within = ENFORCE_LOOK;
    loop {
        let members = cluster.wait_enforced(revision, within).await;
        let health = cluster.health();
        let connected =
            |id| id == health.node || health.peers.iter().any(|peer| peer.id == id && peer.connected);
        let late = members.iter().any(|m| m.result.is_err() && connected(m.node));
        if late && Instant::now() < end {
            // A first look ends soon for the sake of members that are gone; the next ones need not hurry.
            within = (within * 2).min(end.saturating_duration_since(Instant::now()));
            continue;
        }
        let shown = members.into_iter().map(|m| NodeEnforcement {
            node_id: m.node.0,
            node: m.name,
            enforced: m.result.is_ok(),
            connected: connected(m.node),
            problem: m.result.err(),
        });
        return shown.collect();
    }
}
