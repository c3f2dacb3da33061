//! The cluster's verbs.

use super::asker::Asker;
use super::error::ApiError;
use crate::api::{
    ClusterStatus, FormerMember, History, HistoryEntry, InitRequest, JoinRequest, Joined, MemberStatus,
    Members, Nothing, RecoverRequest, Recovery, Removal, RemoveRequest, RevokeRequest, Rotated, RotatedNode,
    TokenCreated, TokenList, TokenRequest, TokenShow,
};
use crate::config::{CLUSTER_ADDRESSES_MAX, cluster_address};
use crate::daemon::cluster::report::{self, name_of, rfc3339_ms, rfc3339_s, unix_ms};
use crate::daemon::cluster::{Agreement, FormError, Forming};
use crate::daemon::node::Node;
use axum::extract::State;
use axum::{Extension, Json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{ClusterState, Command, JoinToken, Outcome, Role, Token, TokenId};

/// How long a change may take to be agreed on, elections included.
pub(super) const PROPOSE_MAX: Duration = Duration::from_secs(10);
/// How long a read waits for the newest state before it shows what this node knows.
const READ_MAX: Duration = Duration::from_secs(2);
/// How long members may take for a new certificate.
const ROTATE_MAX: Duration = Duration::from_secs(30);
/// How long a node that has joined is waited for until it enforces the cluster's policy, and between two looks.
const FIRST_POLICY_MAX: Duration = Duration::from_secs(5);
const FIRST_POLICY_LOOK: Duration = Duration::from_millis(10);
/// How long a join token may be good.
const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 24 * 3_600 * 1_000;
/// Longest name of a cluster.
const NAME_LEN_MAX: usize = 63;

type Answer<T> = Result<Json<T>, ApiError>;

/// The cluster, or what to do about it that there is none.
pub(super) fn member(node: &Node) -> Result<Arc<dyn Agreement>, ApiError> {
    Ok(node.seat.cluster().ok_or(FormError::NoMember)?)
}

/// The newest state, or what this node knows while there is no quorum; and which it is.
pub(super) async fn look(cluster: &dyn Agreement) -> (Arc<ClusterState>, bool) {
    match cluster.read(READ_MAX).await {
        Ok(state) => (state, true),
        Err(_) => (cluster.state().borrow().clone(), false),
    }
}

/// An outcome that is no refusal.
pub(super) fn done(outcome: Outcome) -> Result<Outcome, ApiError> {
    match outcome {
        Outcome::Refused(refusal) => Err(refusal.into()),
        outcome => Ok(outcome),
    }
}

pub(super) async fn status(State(node): State<Arc<Node>>) -> Answer<ClusterStatus> {
    let cluster = member(&node)?;
    Ok(Json(report::status(&*cluster, &node.seat).await))
}

fn name(what: &str, name: &str) -> Result<String, ApiError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.chars().all(ok) {
        return Err(ApiError::usage(format!(
            "\"{name}\" is no name of a {what}\n  help: use 1 to {NAME_LEN_MAX} letters, digits, - or _"
        )));
    }
    Ok(name.to_owned())
}

fn addresses(all: &[String]) -> Result<Vec<SocketAddr>, ApiError> {
    if all.is_empty() || all.len() > CLUSTER_ADDRESSES_MAX {
        return Err(ApiError::usage(format!(
            "a member has 1 to {CLUSTER_ADDRESSES_MAX} addresses, {} were given\n  help: --address with one that other nodes reach this one by",
            all.len()
        )));
    }
    let mut parsed = Vec::new();
    for text in all {
        let address = cluster_address(text).map_err(|why| ApiError::usage(format!("--address: {why}")))?;
        if parsed.contains(&address) {
            return Err(ApiError::usage(format!("--address {address} is given twice")));
        }
        parsed.push(address);
    }
    Ok(parsed)
}

fn forming(node: &Node, own: Option<&str>, all: &[String], Asker(by): Asker) -> Result<Forming, ApiError> {
    let own = own.map_or_else(|| Ok(node.config.name.clone()), |own| name("node", own))?;
    Ok(Forming { node: own, addresses: addresses(all)?, by })
}

/// Runs to its end also when the client goes away in the middle.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, FormError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::unreachable("the daemon ends")),
    }
}

fn joined(cluster: &dyn Agreement) -> Joined {
    let (id, name) = cluster.cluster();
    Joined {
        cluster: name,
        cluster_id: id.to_string(),
        node_id: cluster.id().0,
        node: cluster.name(),
        role: cluster.role().name().to_owned(),
        policy_revision: cluster.policy().borrow().as_ref().map(|p| p.revision),
    }
}

pub(super) async fn init(
    State(node): State<Arc<Node>>,
    Extension(asker): Extension<Asker>,
    Json(request): Json<InitRequest>,
) -> Answer<Joined> {
    let InitRequest { name: cluster, node: own, addresses } = request;
    let cluster = name("cluster", &cluster)?;
    let forming = forming(&node, own.as_deref(), &addresses, asker)?;
    let cluster = whole(async move { node.init(cluster, forming).await }).await?;
    Ok(Json(joined(&*cluster)))
}

pub(super) async fn join(
    State(node): State<Arc<Node>>,
    Extension(asker): Extension<Asker>,
    Json(request): Json<JoinRequest>,
) -> Answer<Joined> {
    let JoinRequest { token, node: own, addresses } = request;
    let forming = forming(&node, own.as_deref(), &addresses, asker)?;
    let member = node.clone();
    let cluster = whole(async move { member.join(&token, forming).await }).await?;
    // It has joined, whatever comes of this; but who is told so expects it to forward.
    let end = Instant::now() + FIRST_POLICY_MAX;
    while cluster.role() == Role::Node && node.seat.view().enforced.is_none() && Instant::now() < end {
        tokio::time::sleep(FIRST_POLICY_LOOK).await;
    }
    Ok(Json(joined(&*cluster)))
}

fn role(text: &str) -> Result<Role, ApiError> {
    [Role::Node, Role::Witness]
        .into_iter()
        .find(|role| role.name() == text)
        .ok_or_else(|| ApiError::usage(format!("--role {text}: it is `node` or `witness`")))
}

pub(super) async fn create_token(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(TokenRequest { ttl_ms, role: wanted }): Json<TokenRequest>,
) -> Answer<TokenCreated> {
    let cluster = member(&node)?;
    let wanted = role(&wanted)?;
    if !TTL_MS.contains(&ttl_ms) {
        return Err(ApiError::usage("--ttl is out of range\n  help: a duration from 1s to 7d, such as 10m"));
    }
    let expires_ms = unix_ms() + ttl_ms;
    let token = cluster.create_token(wanted, Duration::from_millis(ttl_ms), &by, PROPOSE_MAX).await?;
    Ok(Json(TokenCreated {
        id: token.token.to_string(),
        token: token.to_string(),
        role: wanted.name().to_owned(),
        expires_at: rfc3339_ms(expires_ms),
    }))
}

pub(super) async fn tokens(State(node): State<Arc<Node>>) -> Answer<TokenList> {
    let (state, current) = look(&*member(&node)?).await;
    let now_ms = unix_ms();
    let tokens = state.tokens.iter().map(|(id, token)| show_token(&state, *id, token, now_ms)).collect();
    Ok(Json(TokenList { current, tokens }))
}

fn show_token(state: &ClusterState, id: TokenId, token: &Token, now_ms: u64) -> TokenShow {
    let used_by = token.used.map(|(node, _)| node);
    TokenShow {
        id: id.to_string(),
        role: token.role.name().to_owned(),
        state: match used_by {
            Some(_) => "used",
            None if token.expires_unix_ms < now_ms => "expired",
            None => "open",
        }
        .to_owned(),
        expires_at: rfc3339_ms(token.expires_unix_ms),
        used_by_id: used_by.map(|node| node.0),
        used_by: used_by.map(|node| name_of(state, node)),
    }
}

pub(super) async fn revoke_token(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(RevokeRequest { id }): Json<RevokeRequest>,
) -> Answer<Nothing> {
    let cluster = member(&node)?;
    let token = TokenId::parse(&id).or_else(|| JoinToken::parse(&id).ok().map(|t| t.token));
    let token = token.ok_or_else(|| {
        ApiError::usage(format!("\"{id}\" is no token's id\n  help: see `tidegate cluster token list`"))
    })?;
    done(cluster.propose(Command::RevokeToken { token }, &by, PROPOSE_MAX).await?)?;
    Ok(Json(Nothing {}))
}

/// Members with what each says of itself.
async fn all(cluster: &dyn Agreement, node: &Node, state: &ClusterState) -> Vec<MemberStatus> {
    let reports = cluster.reports(READ_MAX).await;
    report::members(&cluster.health(), state, &node.seat.view(), reports)
}

pub(super) async fn members(State(node): State<Arc<Node>>) -> Answer<Members> {
    let cluster = member(&node)?;
    let (state, current) = look(&*cluster).await;
    Ok(Json(Members {
        cluster: state.name.clone(),
        generation: state.generation,
        current,
        members: all(&*cluster, &node, &state).await,
        removed: former(&state),
    }))
}

fn former(state: &ClusterState) -> Vec<FormerMember> {
    state.removed.iter().map(|(id, name)| FormerMember { node_id: id.0, node: name.clone() }).collect()
}

pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(RemoveRequest { node: which, preview }): Json<RemoveRequest>,
) -> Answer<Removal> {
    let cluster = member(&node)?;
    let state = cluster.read(PROPOSE_MAX).await?;
    let id = state.find(&which).ok_or_else(|| {
        ApiError::not_found(format!(
            "no member is called or numbered {which}\n  help: see `tidegate cluster members`"
        ))
    })?;
    let members = all(&*cluster, &node, &state).await;
    let member = members.into_iter().find(|m| m.node_id == id.0);
    let member = member.ok_or_else(|| ApiError::not_found(format!("{which} is no member any more")))?;
    if !preview {
        done(cluster.remove(id, &by, PROPOSE_MAX).await?)?;
    }
    Ok(Json(Removal { member, voters: state.voters().len() as u32 }))
}

pub(super) async fn rotate(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Rotated> {
    let cluster = member(&node)?;
    let nodes = cluster.rotate_all(&by, ROTATE_MAX).await.into_iter().map(|(id, node, result)| {
        let (expires, error) = match result {
            Ok(unix_s) => (Some(rfc3339_s(unix_s)), None),
            Err(why) => (None, Some(why)),
        };
        RotatedNode { node_id: id.0, node, certificate_expires_at: expires, error }
    });
    Ok(Json(Rotated { nodes: nodes.collect() }))
}

pub(super) async fn recover(
    State(node): State<Arc<Node>>,
    Extension(Asker(by)): Extension<Asker>,
    Json(RecoverRequest { preview }): Json<RecoverRequest>,
) -> Answer<Recovery> {
    let cluster = node.may_recover()?;
    let state = cluster.state().borrow().clone();
    let fenced: Vec<_> = state
        .members
        .iter()
        .filter(|(id, _)| **id != cluster.id())
        .map(|(id, m)| FormerMember { node_id: id.0, node: m.name.clone() })
        .collect();
    let own = cluster.name();
    let (cluster, generation) = match preview {
        true => (cluster, state.generation),
        false => whole(async move { node.recover(&by).await }).await?,
    };
    let policy_revision = cluster.policy().borrow().as_ref().map(|p| p.revision);
    Ok(Json(Recovery { generation, node: own, fenced, policy_revision }))
}

pub(super) async fn history(State(node): State<Arc<Node>>) -> Answer<History> {
    let (state, current) = look(&*member(&node)?).await;
    let entries = state.audit.iter().map(|e| HistoryEntry {
        index: e.index,
        at: rfc3339_ms(e.at_unix_ms),
        by: e.by.clone(),
        via: name_of(&state, e.via),
        what: e.what.clone(),
        outcome: e.outcome.clone(),
    });
    Ok(Json(History { current, entries: entries.collect() }))
}
