//! The cluster as an operator sees it from this node.

use super::agreement::Report;
use super::{Agreement, Seat, View};
use crate::api::{ClusterPolicy, ClusterStatus, MemberStatus, PendingPolicy};
use data_encoding::HEXLOWER;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_sync::cluster::{ClusterState, Member, NodeId, Role};
use tidegate_sync_net::cluster::{Health, NodeReport, Standing};

/// How long members may take to say what they enforce.
const REPORTS_MAX: Duration = Duration::from_secs(1);
/// A certificate that ends within this time without a renewal is a matter for the operator.
const EXPIRY_WARNING_S: i64 = 14 * 24 * 3_600;

/// Unix time now, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A moment in Unix milliseconds as RFC 3339, UTC.
pub(crate) fn rfc3339_ms(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// A moment in Unix seconds as RFC 3339, UTC; later than the year 9999 as that year's end.
pub(crate) fn rfc3339_s(unix_s: u64) -> String {
    const LAST_S: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S))).to_string()
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// What a node is called, also after it was removed.
pub(crate) fn name_of(state: &ClusterState, node: NodeId) -> String {
    let member = state.members.get(&node).map(|m| &m.name).or_else(|| state.removed.get(&node));
    member.map_or_else(|| format!("node {node}"), Clone::clone)
}

/// The cluster's part of `status`, with what the members say of themselves.
pub(crate) async fn status(cluster: &dyn Agreement, seat: &Seat) -> ClusterStatus {
    let reports = cluster.reports(REPORTS_MAX).await;
    status_with(cluster, &seat.view(), reports)
}

/// The same without asking anybody.
pub(crate) fn status_with(cluster: &dyn Agreement, view: &View, reports: Vec<Report>) -> ClusterStatus {
    let health = cluster.health();
    let state = cluster.state().borrow().clone();
    let (standing, standing_note) = standing(&health.standing);
    let now_s = (unix_ms() / 1_000) as i64;
    let expiry_s = health.certificate_not_after_unix_s;
    ClusterStatus {
        cluster: health.cluster_name.clone(),
        cluster_id: health.cluster.to_string(),
        generation: health.generation,
        node_id: health.node.0,
        node: health.node_name.clone(),
        role: health.role.name().to_owned(),
        standing: standing.to_owned(),
        standing_note,
        raft_role: health.raft.name().to_owned(),
        term: health.term,
        leader_id: health.leader.map(|l| l.0),
        leader: health.leader.map(|l| name_of(&state, l)),
        quorum: health.quorum,
        changes_refused: changes_refused(&health, &state),
        commit_index: health.commit,
        applied_index: health.applied,
        certificate_expires_at: rfc3339_s(expiry_s),
        certificate_remaining_s: i64::try_from(expiry_s).unwrap_or(i64::MAX).saturating_sub(now_s),
        certificate_renewal_error: health.renewal_error.clone(),
        policy: policy(cluster, view, &state),
        members: members(&health, &state, view, reports),
    }
}

fn standing(standing: &Standing) -> (&'static str, Option<String>) {
    let word = match standing {
        Standing::Member => return ("member", None),
        Standing::Removed { .. } => "removed",
        Standing::Fenced { .. } => "fenced",
        Standing::StoreFailed { .. } => "store_failed",
    };
    (word, Some(standing.to_string()))
}

fn changes_refused(health: &Health, state: &ClusterState) -> Option<String> {
    if health.standing != Standing::Member {
        return Some(health.standing.to_string());
    }
    if health.quorum {
        return None;
    }
    let voters = state.voters();
    let reached =
        |id: &&NodeId| **id == health.node || health.peers.iter().any(|p| p.id == **id && p.connected);
    let lost: Vec<_> = voters.iter().filter(|id| !reached(id)).map(|id| name_of(state, *id)).collect();
    let needed = voters.len() / 2 + 1;
    let mut why = format!(
        "no quorum: this node reaches {} of {} voters, {needed} are needed",
        voters.len() - lost.len(),
        voters.len()
    );
    if !lost.is_empty() {
        why.push_str(&format!(" (not reached: {})", lost.join(", ")));
    }
    Some(why)
}

fn policy(cluster: &dyn Agreement, view: &View, state: &ClusterState) -> ClusterPolicy {
    let effective = cluster.policy().borrow().clone();
    let pending = state.policy.pending().filter(|(r, _)| {
        // A node whose clock says that the time is over has fallen back already.
        effective.as_ref().is_some_and(|e| e.revision == r.number)
    });
    // A witness follows nothing; it knows what was agreed on all the same.
    let known = || effective.as_ref().map(|e| (e.revision, e.sha256));
    let agreed = if cluster.role() == Role::Witness { known() } else { view.agreed };
    ClusterPolicy {
        agreed_revision: agreed.map(|(revision, _)| revision),
        agreed_sha256: agreed.map(|(_, sha256)| hex(&sha256)),
        enforced_revision: view.enforced.map(|(revision, _)| revision),
        enforced_sha256: view.enforced.map(|(_, sha256)| hex(&sha256)),
        pending: pending.map(|(revision, lease)| PendingPolicy {
            revision: revision.number,
            remaining_s: lease.deadline_unix_ms.saturating_sub(unix_ms()).min(lease.within_ms) as f64 / 1e3,
            fallback_revision: state.policy.fallback().map(|r| r.number),
        }),
        fell_back_from: effective.as_ref().and_then(|e| e.fell_back_from),
        error: view.error.clone(),
    }
}

/// All members as this node sees them.
pub(crate) fn members(
    health: &Health,
    state: &ClusterState,
    view: &View,
    reports: Vec<Report>,
) -> Vec<MemberStatus> {
    let mut said: BTreeMap<NodeId, Result<NodeReport, String>> =
        reports.into_iter().map(|(id, _, report)| (id, report)).collect();
    state.members.iter().map(|(id, m)| member(*id, m, health, view, said.remove(id))).collect()
}

fn member(
    id: NodeId,
    m: &Member,
    health: &Health,
    view: &View,
    report: Option<Result<NodeReport, String>>,
) -> MemberStatus {
    let this_node = id == health.node;
    let peer = health.peers.iter().find(|p| p.id == id);
    let connected = this_node || peer.is_some_and(|p| p.connected);
    let (report, silence) = match report {
        Some(Ok(report)) => (Some(report), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let enforced = match this_node {
        true => view.enforced,
        false => report.as_ref().and_then(|r| r.enforced),
    };
    let expiry_s = match (&report, this_node) {
        (_, true) => health.certificate_not_after_unix_s,
        (Some(report), _) => report.certificate_not_after_unix_s,
        (None, _) => m.not_after_unix_s,
    };
    let last_error = peer.and_then(|p| p.last_error.clone());
    let problem = match connected {
        true if this_node => None,
        true => silence,
        false => last_error.or_else(|| Some("not reached yet".to_owned())),
    };
    MemberStatus {
        node_id: id.0,
        node: m.name.clone(),
        role: m.role.name().to_owned(),
        votes: m.voter,
        leads: health.leader == Some(id),
        this_node,
        connected,
        problem,
        addresses: m.addresses.iter().map(ToString::to_string).collect(),
        address: peer.filter(|_| connected).and_then(|p| p.address).map(|a| a.to_string()),
        rtt_ms: peer.filter(|_| connected).and_then(|p| p.rtt_ms),
        version: match this_node {
            true => Some(env!("CARGO_PKG_VERSION").to_owned()),
            false => report.map(|r| r.build).or_else(|| peer.and_then(|p| p.build.clone())),
        },
        enforced_revision: enforced.map(|(revision, _)| revision),
        enforced_sha256: enforced.map(|(_, sha256)| hex(&sha256)),
        certificate_expires_at: (expiry_s > 0).then(|| rfc3339_s(expiry_s)),
        joined_at: rfc3339_ms(m.joined_unix_ms),
    }
}

/// What of the cluster should work and does not.
pub(crate) fn degraded(s: &ClusterStatus) -> Vec<String> {
    let mut why = Vec::new();
    match &s.standing_note {
        Some(note) => why.push(note.clone()),
        None => why.extend(s.changes_refused.iter().map(|reason| {
            format!("{reason}; forwarding goes on under the last agreed policy, changes are refused")
        })),
    }
    let lost = s.members.iter().filter(|m| !m.connected);
    why.extend(lost.map(|m| {
        format!("{} {} is not connected: {}", m.role, m.node, m.problem.as_deref().unwrap_or("unknown"))
    }));
    why.extend(not_enforced(s));
    if s.certificate_remaining_s < EXPIRY_WARNING_S {
        why.push(format!(
            "this node's certificate {} at {}{}; see `tidegate cluster rotate`, or `reissue` when it has",
            if s.certificate_remaining_s < 0 { "expired" } else { "expires" },
            s.certificate_expires_at,
            s.certificate_renewal_error.as_ref().map_or(String::new(), |e| format!(" ({e})")),
        ));
    } else if let Some(error) = &s.certificate_renewal_error {
        why.push(format!("this node's certificate could not be renewed: {error}"));
    }
    why
}

/// Why a full member does not enforce what was agreed.
pub(crate) fn not_enforced(s: &ClusterStatus) -> Option<String> {
    let p = &s.policy;
    if s.role == Role::Witness.name() {
        return None;
    }
    match (p.agreed_revision, &p.error) {
        (_, Some(error)) => Some(error.clone()),
        (None, _) if s.standing == "member" => {
            Some("no policy was agreed on yet: everything is denied; see `tidegate policy apply`".to_owned())
        }
        (None, _) => Some("the policy is withdrawn: everything is denied".to_owned()),
        (Some(agreed), _)
            if p.enforced_revision != p.agreed_revision || p.enforced_sha256 != p.agreed_sha256 =>
        {
            Some(format!("the workers have not all taken policy revision {agreed} yet"))
        }
        _ => None,
    }
}
