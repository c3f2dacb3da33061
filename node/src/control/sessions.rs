//! List, show, summary, clear: the table is walked in slices between batches, so that a million
//! sessions neither stall traffic nor sit in memory.

use super::error::ApiError;
use super::query;
use crate::api::{ClearReply, ClearRequest, ListEnd, ListLine, Session, SessionQuery, SessionSummary};
use crate::control::view::{PROTOCOLS, protocol_name};
use crate::daemon::node::Node;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;
use tidegate_dataplane::engine::{SessionFilter, SessionView};
use tidegate_dataplane::session::{EndReason, State as SessionState};
use tokio::sync::mpsc;

/// Slots that a worker walks for one listing command: well under a millisecond.
const LIST_SLICE: u32 = 1_024;
/// Slots that a worker walks when it only looks at hot lines.
const COUNT_SLICE: u32 = 8_192;
/// Chunks that wait for a slow reader; then the walk waits too, and no traffic with it.
const CHUNKS: usize = 4;

/// `GET /v1/sessions`: one JSON object a line, and `end` as the last.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let filter = query::filter(&query, &node.policy.names())?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(CHUNKS);
    tokio::spawn(async move {
        let end = stream(&node, filter, query.limit.unwrap_or(u64::MAX), &sender).await;
        if let Some(end) = end {
            // A reader that went away needs no end.
            let _ = sender.send(Ok(line(&ListLine::End(end)))).await;
        }
    });
    let body =
        Body::from_stream(futures::stream::unfold(receiver, async |mut r| r.recv().await.map(|c| (c, r))));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Sends all matching sessions; `None` when the reader went away.
async fn stream(
    node: &Node,
    filter: SessionFilter,
    limit: u64,
    sender: &mpsc::Sender<Result<Bytes, Infallible>>,
) -> Option<ListEnd> {
    let names = node.names();
    let filter = Arc::new(filter);
    let mut end = ListEnd::default();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            if end.listed >= limit {
                return Some(end);
            }
            let Some((views, next)) = slice(node, worker, at, LIST_SLICE, &filter).await else {
                end.unanswered_workers.push(worker);
                break;
            };
            cursor = next;
            let wall = SystemTime::now();
            let room = usize::try_from(limit - end.listed).unwrap_or(usize::MAX);
            let mut chunk = Vec::with_capacity(views.len().min(room) * 768);
            for view in views.iter().take(room) {
                let session = names.session(view, worker, wall);
                chunk.extend_from_slice(&line(&ListLine::Session(Box::new(session))));
                end.listed += 1;
            }
            if !chunk.is_empty() && sender.send(Ok(chunk.into())).await.is_err() {
                return None;
            }
        }
    }
    Some(end)
}

/// The matching sessions of one slice of one worker's table, and where to go on.
async fn slice(
    node: &Node,
    worker: u16,
    at: u32,
    slots: u32,
    filter: &Arc<SessionFilter>,
) -> Option<(Vec<SessionView>, Option<u32>)> {
    let filter = filter.clone();
    let walk = move |engine: &mut tidegate_dataplane::engine::Engine, now| {
        let mut views = Vec::new();
        let next = engine.list(at, slots, &filter, now, &mut views);
        (views, next)
    };
    node.workers.call(worker, walk).await.ok()
}

fn line(line: &ListLine) -> Bytes {
    // These types hold no map with other keys than strings: they always serialize.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// The first session that matches, and the workers that did not answer on the way.
async fn first(node: &Node, filter: SessionFilter) -> (Option<Session>, Vec<u16>) {
    let filter = Arc::new(filter);
    let mut silent = Vec::new();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            match slice(node, worker, at, COUNT_SLICE, &filter).await {
                Some((views, next)) => {
                    if let Some(view) = views.first() {
                        return (Some(node.names().session(view, worker, SystemTime::now())), silent);
                    }
                    cursor = next;
                }
                None => {
                    silent.push(worker);
                    break;
                }
            }
        }
    }
    (None, silent)
}

/// `GET /v1/session?id=`.
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<Session>, ApiError> {
    let Some(id) = query.id.clone() else { return Err(ApiError::usage("which session? give an id")) };
    let filter = query::filter(&query, &node.policy.names())?;
    match first(&node, filter).await {
        (Some(session), _) => Ok(Json(session)),
        (None, silent) if silent.is_empty() => {
            Err(ApiError::not_found(format!("there is no session {id}; it may have ended")))
        }
        (None, silent) => Err(ApiError::degraded(format!(
            "session {id} was not found, but workers {silent:?} did not answer"
        ))),
    }
}

/// `GET /v1/sessions/summary`.
pub(super) async fn summary(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<SessionSummary>, ApiError> {
    let filter = query::filter(&query, &node.policy.names())?;
    let (numbers, mut silent) = node.numbers().await;
    let mut s = SessionSummary::default();
    for (_, n) in &numbers {
        s.maximum += n.summary.maximum;
        s.in_use += n.summary.in_use;
        s.created += n.summary.created;
        s.failed += n.summary.failed;
        for reason in EndReason::ALL {
            *s.ended.entry(reason.name().to_owned()).or_default() += n.counters.ended[reason as usize];
        }
    }
    let mut total = 0;
    for (state, count) in count(&node, &filter, &mut silent).await {
        total += count;
        s.by_state.insert(state.name().to_owned(), count);
    }
    s.matching = (!query.is_unfiltered()).then_some(total);
    s.by_protocol = by_protocol(&node, &filter, total, &mut silent).await;
    silent.sort_unstable();
    silent.dedup();
    s.unanswered_workers = silent;
    Ok(Json(s))
}

/// One walk for each protocol that has a name; what remains is `other`.
async fn by_protocol(
    node: &Node,
    filter: &SessionFilter,
    total: u64,
    silent: &mut Vec<u16>,
) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    if let Some(number) = filter.protocol {
        found.insert(protocol_name(number), total);
    } else {
        for (name, number) in PROTOCOLS {
            let one = SessionFilter { protocol: Some(number), ..filter.clone() };
            let sum = count(node, &one, silent).await.iter().map(|(_, n)| n).sum();
            found.insert(name.to_owned(), sum);
        }
        let named: u64 = found.values().sum();
        found.insert("other".to_owned(), total.saturating_sub(named));
    }
    found.retain(|_, n| *n > 0);
    found
}

/// Matching sessions by state, those that have any.
async fn count(node: &Node, filter: &SessionFilter, silent: &mut Vec<u16>) -> Vec<(SessionState, u64)> {
    let mut sum = [0; SessionState::ALL.len()];
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let filter = filter.clone();
            let walk = move |engine: &mut tidegate_dataplane::engine::Engine, now| {
                let mut by_state = [0; SessionState::ALL.len()];
                let next = engine.count(at, COUNT_SLICE, &filter, now, &mut by_state);
                (by_state, next)
            };
            match node.workers.call(worker, walk).await {
                Ok((by_state, next)) => {
                    sum.iter_mut().zip(by_state).for_each(|(s, n)| *s += n);
                    cursor = next;
                }
                Err(_) => {
                    silent.push(worker);
                    break;
                }
            }
        }
    }
    SessionState::ALL.into_iter().zip(sum).filter(|(_, n)| *n > 0).collect()
}

/// `POST /v1/sessions/clear` (J10).
pub(super) async fn clear(
    State(node): State<Arc<Node>>,
    Json(request): Json<ClearRequest>,
) -> Result<Json<ClearReply>, ApiError> {
    let names = node.policy.names();
    let filter = query::filter(&request.query, &names)?;
    if request.preview {
        return preview(&node, filter, request.own_connection.as_ref()).await.map(Json);
    }
    let mut reply = ClearReply::default();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let filter = filter.clone();
            let walk = move |engine: &mut tidegate_dataplane::engine::Engine, now| {
                engine.clear(at, LIST_SLICE, &filter, now)
            };
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
    tracing::info!(cleared = reply.cleared, query = ?request.query, "sessions cleared by an operator");
    Ok(Json(reply))
}

async fn preview(
    node: &Node,
    filter: SessionFilter,
    own: Option<&[String; 4]>,
) -> Result<ClearReply, ApiError> {
    let mut silent = Vec::new();
    let cleared = count(node, &filter, &mut silent).await.iter().map(|(_, n)| n).sum();
    let own_connection = match own {
        Some(own) => own_session(node, &filter, own).await?,
        None => None,
    };
    Ok(ClearReply { cleared, own_connection: own_connection.map(Box::new), unanswered_workers: silent })
}

/// The operator's SSH connection, if the filter means it: the session with exactly its tuple that
/// also matches the filter.
async fn own_session(
    node: &Node,
    filter: &SessionFilter,
    [client, client_port, server, server_port]: &[String; 4],
) -> Result<Option<Session>, ApiError> {
    let own = SessionQuery {
        protocol: Some("tcp".to_owned()),
        source_prefix: Some(client.clone()),
        source_port: Some(client_port.clone()),
        destination_prefix: Some(server.clone()),
        destination_port: Some(server_port.clone()),
        ..SessionQuery::default()
    };
    let own = query::filter(&own, &node.policy.names())?;
    let (Some(session), _) = first(node, own).await else { return Ok(None) };
    let Ok(id) = session.id.parse() else { return Ok(None) };
    if filter.id.is_some_and(|wanted| wanted != id) {
        return Ok(None);
    }
    let meant = SessionFilter { id: Some(id), ..filter.clone() };
    Ok(first(node, meant).await.0)
}
