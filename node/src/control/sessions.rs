//! List, show, summary: the table is walked in slices between batches, so that a million
//! sessions neither stall traffic nor sit in memory.

use super::error::ApiError;
use super::sort::{self, Order, Top};
use super::whose::whose;
use super::{everywhere, members, query};
use crate::api::{ListEnd, ListLine, NodeSummary, Session, SessionQuery, SessionSummary};
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
use std::time::{Duration, Instant, SystemTime};
use tidegate_dataplane::engine::{Engine, SessionFilter, SessionView, Tally, Whose};
use tidegate_dataplane::session::{EndReason, State as SessionState};
use tokio::sync::mpsc;

/// Slots that a worker walks for one listing command, and sessions that it looks at: some tens of
/// microseconds, so that no packet waits long.
const LIST_SLICE: (u32, usize) = (2_048, 256);
/// Slots that a worker walks when it mostly looks at hot lines.
const COUNT_SLICE: u32 = 2_048;
/// Chunks that wait for a slow reader; then the walk waits too, and no traffic with it.
pub(super) const CHUNKS: usize = 4;

/// Packets in a second beyond which a worker counts as busy.
const BUSY_PER_S: f64 = 5_000.0;
/// Between two slices of a busy worker a listing rests so many times as long as one took: neither it nor its
/// reader takes more than a fifth of a CPU from traffic.
const REST: u32 = 4;

pub(super) type Sender = mpsc::Sender<Result<Bytes, Infallible>>;

/// Which sessions of its table a node answers for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Those that it owns: what all nodes answer adds up.
    Owned,
    /// All, copies of other nodes' sessions too.
    Table,
}

/// A listing that was asked for and makes sense.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) filter: SessionFilter,
    /// Of a table's sessions those of this owner.
    pub(super) owner: Option<u16>,
    pub(super) order: Option<Order>,
    pub(super) limit: u64,
}

impl Asked {
    fn read(node: &Node, query: &SessionQuery, scope: Scope) -> Result<Asked, ApiError> {
        let known = node.vocabulary();
        let mut filter = query::filter(query, &known)?;
        filter.whose = whose(node, query, scope);
        let owner = query.owner.as_deref().map(|o| known.node("owner", o)).transpose()?;
        let order = query.sort.as_deref().map(Order::parse).transpose()?;
        let limit = match order {
            Some(_) => sort::limit(query.limit)?,
            None => query.limit.unwrap_or(u64::MAX),
        };
        Ok(Asked { filter, owner: owner.filter(|_| scope == Scope::Table), order, limit })
    }

    /// The same of those sessions.
    pub(super) fn by(self, whose: Whose) -> Asked {
        Asked { filter: SessionFilter { whose, ..self.filter }, ..self }
    }
}

/// Whether this node's table alone is meant; `--node` can only name this node then.
pub(super) fn only_here(node: &Node, query: &SessionQuery) -> Result<bool, ApiError> {
    if query.local
        && let Some(text) = &query.node
        && node.vocabulary().node("node", text)? != node.id()
    {
        return Err(ApiError::usage(
            "--local is about the table of the node that is asked, and --node names another one\n  help: leave one of them out",
        ));
    }
    Ok(query.local || !members::is_clustered(node))
}

/// What a filter means for a verb that takes all that are meant, in no order.
pub(super) fn meant(node: &Node, query: &SessionQuery, scope: Scope) -> Result<SessionFilter, ApiError> {
    if scope == Scope::Table && query.owner.is_some() && members::is_clustered(node) {
        return Err(ApiError::usage("--owner with --local goes with `session list` only"));
    }
    let filter = query::unordered(query, &node.vocabulary())?;
    Ok(SessionFilter { whose: whose(node, query, scope), ..filter })
}

/// The same for another member, which has read the query already: what this node has no word for matches nothing
/// here.
pub(super) fn meant_by_member(node: &Node, query: &SessionQuery) -> SessionFilter {
    let nothing = || SessionFilter { rules: Some(Vec::new()), ..SessionFilter::default() };
    meant(node, query, Scope::Owned).unwrap_or_else(|_| nothing())
}

/// `GET /v1/sessions`: one JSON object a line, and `end` as the last.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    if only_here(&node, &query)? {
        let asked = Asked::read(&node, &query, Scope::Table)?;
        return Ok(lines(move |sender| send_own(node, asked, sender)));
    }
    let asked = Asked::read(&node, &query, Scope::Owned)?;
    everywhere::list(node, query, asked)
}

/// The same as another member asks it.
pub(super) async fn list_own(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let asked = match Asked::read(&node, &query, Scope::Owned) {
        Ok(asked) => asked,
        Err(_) => Asked {
            filter: meant_by_member(&node, &SessionQuery { limit: None, sort: None, ..query.clone() }),
            owner: None,
            order: query.sort.as_deref().map(Order::parse).transpose()?,
            limit: 0,
        },
    };
    Ok(lines(move |sender| send_own(node, asked, sender)))
}

/// This node's part of a listing, with its end.
pub(super) async fn send_own(node: Arc<Node>, asked: Asked, sender: Sender) {
    let end = match asked.order {
        Some(order) => sorted(&node, asked, order, &sender).await,
        None => stream(&node, asked, &sender).await,
    };
    if let Some(end) = end {
        // A reader that went away needs no end.
        let _ = sender.send(Ok(line(&ListLine::End(end)))).await;
    }
}

/// A streamed answer: what `make` sends, line by line.
pub(super) fn lines<F: Future<Output = ()> + Send + 'static>(make: impl FnOnce(Sender) -> F) -> Response {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::spawn(make(sender));
    let body =
        Body::from_stream(futures::stream::unfold(receiver, async |mut r| r.recv().await.map(|c| (c, r))));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Sends all matching sessions as they come; `None` when the reader went away.
async fn stream(node: &Node, asked: Asked, sender: &Sender) -> Option<ListEnd> {
    let names = node.names();
    let Asked { filter, owner, limit, .. } = asked;
    let filter = Arc::new(filter);
    let mut end = ListEnd::default();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        let mut pace = Pace::start();
        while let Some(at) = cursor {
            if end.listed >= limit {
                return Some(end);
            }
            let began = Instant::now();
            let Some((mut views, next, forwarded)) = slice(node, worker, at, &filter).await else {
                end.unanswered_workers.push(worker);
                break;
            };
            cursor = next;
            views.retain(|view| is_owned_by(view, owner));
            let wall = SystemTime::now();
            let room = usize::try_from(limit - end.listed).unwrap_or(usize::MAX);
            let mut chunk = Vec::with_capacity(views.len().min(room) * 1024);
            for view in views.iter().take(room) {
                let session = names.session(view, worker, wall);
                chunk.extend_from_slice(&line(&ListLine::Session(Box::new(session))));
                end.listed += 1;
            }
            let rest = pace.rest(began, forwarded);
            if !chunk.is_empty() && sender.send(Ok(chunk.into())).await.is_err() {
                return None;
            }
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
    }
    Some(end)
}

fn is_owned_by(view: &SessionView, owner: Option<u16>) -> bool {
    owner.is_none_or(|wanted| view.owner.is_none_or(|boot| boot.node == wanted))
}

/// Walks all of the table, then sends the first `limit` sessions in that order.
async fn sorted(node: &Node, asked: Asked, order: Order, sender: &Sender) -> Option<ListEnd> {
    let Asked { filter, owner, limit, .. } = asked;
    let filter = Arc::new(filter);
    let mut end = ListEnd::default();
    let mut top = Top::new(order, usize::try_from(limit).unwrap_or(usize::MAX));
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        let mut pace = Pace::start();
        while let Some(at) = cursor {
            if sender.is_closed() {
                return None;
            }
            let began = Instant::now();
            let Some((views, next, forwarded)) = slice(node, worker, at, &filter).await else {
                end.unanswered_workers.push(worker);
                break;
            };
            cursor = next;
            let meant = views.into_iter().filter(|view| is_owned_by(view, owner));
            meant.for_each(|view| top.push(view, worker));
            let rest = pace.rest(began, forwarded);
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
    }
    end.matched = Some(top.seen);
    let (names, wall) = (node.names(), SystemTime::now());
    for (view, worker) in top.into_sorted() {
        let session = line(&ListLine::Session(Box::new(names.session(&view, worker, wall))));
        sender.send(Ok(session)).await.ok()?;
        end.listed += 1;
    }
    Some(end)
}

/// Lets traffic go first.
struct Pace {
    since: Instant,
    forwarded: Option<u64>,
}

impl Pace {
    fn start() -> Pace {
        Pace { since: Instant::now(), forwarded: None }
    }

    /// How long to rest after a slice that began at `began`, by what the worker has forwarded until then.
    fn rest(&mut self, began: Instant, forwarded: u64) -> Duration {
        let took = began.elapsed();
        let passed = std::mem::replace(&mut self.since, began).elapsed().saturating_sub(took);
        let before = self.forwarded.replace(forwarded).unwrap_or(forwarded);
        let packets = forwarded.saturating_sub(before) as f64;
        if packets > BUSY_PER_S * passed.as_secs_f64() { took * REST } else { Duration::ZERO }
    }
}

/// The matching sessions of one slice of one worker's table, where to go on, and what it has forwarded.
async fn slice(
    node: &Node,
    worker: u16,
    at: u32,
    filter: &Arc<SessionFilter>,
) -> Option<(Vec<SessionView>, Option<u32>, u64)> {
    let filter = filter.clone();
    let walk = move |engine: &mut Engine, now| {
        let (slots, sessions) = LIST_SLICE;
        let mut views = Vec::new();
        let next = engine.list_some(at, slots, sessions, &filter, now, &mut views);
        (views, next, engine.counters().forwarded_packets)
    };
    node.workers.call(worker, walk).await.ok()
}

pub(super) fn line(line: &impl serde::Serialize) -> Bytes {
    // These types hold no map with other keys than strings: they always serialize.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// The first session that matches, and the workers that did not answer on the way.
pub(super) async fn first(node: &Node, filter: SessionFilter) -> (Option<Session>, Vec<u16>) {
    let filter = Arc::new(filter);
    let mut silent = Vec::new();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            match slice(node, worker, at, &filter).await {
                Some((views, next, _)) => {
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

/// This node's copy of the session that a query names, and workers that did not answer.
pub(super) async fn find(node: &Node, query: &SessionQuery) -> Result<(Option<Session>, Vec<u16>), ApiError> {
    let query = SessionQuery { node: None, owner: None, ..query.clone() };
    Ok(first(node, query::unordered(&query, &node.vocabulary())?).await)
}

fn which(query: &SessionQuery) -> Result<String, ApiError> {
    query.id.clone().ok_or_else(|| ApiError::usage("which session? give an id"))
}

/// `GET /v1/session?id=`.
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<Session>, ApiError> {
    let id = which(&query)?;
    if only_here(&node, &query)? {
        return show_here(State(node), Query(query)).await;
    }
    everywhere::show(&node, &query, &id).await.map(Json)
}

/// The same from this node's table alone.
pub(super) async fn show_here(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<Session>, ApiError> {
    let id = which(&query)?;
    match find(&node, &query).await? {
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
    if only_here(&node, &query)? {
        return summary_here(&node, &query, Scope::Table).await.map(Json);
    }
    everywhere::summary(&node, &query).await.map(Json)
}

/// The same as another member asks it.
pub(super) async fn summary_own(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Json<SessionSummary> {
    let filter = meant_by_member(&node, &query);
    Json(count(&node, &query, filter).await)
}

/// This node's part of a summary.
pub(super) async fn summary_here(
    node: &Node,
    query: &SessionQuery,
    scope: Scope,
) -> Result<SessionSummary, ApiError> {
    let filter = meant(node, query, scope)?;
    Ok(count(node, query, filter).await)
}

async fn count(node: &Node, query: &SessionQuery, filter: SessionFilter) -> SessionSummary {
    let (numbers, mut silent) = node.numbers().await;
    let mut s = SessionSummary::default();
    for (_, n) in &numbers {
        s.maximum += n.summary.maximum;
        s.in_use += n.summary.in_use;
        s.created += n.summary.created;
        s.failed += n.summary.failed;
        s.never += n.counters.never_sessions;
        s.never_capped += n.counters.never_capped;
        for reason in EndReason::ALL {
            *s.ended.entry(reason.name().to_owned()).or_default() += n.counters.ended[reason as usize];
        }
    }
    let table = s.in_use;
    if filter.whose != Whose::Anybodys {
        let all = SessionFilter { whose: filter.whose.clone(), ..SessionFilter::default() };
        let owned = match filter == all {
            true => None,
            false => Some(tally(node, &all, &mut silent).await),
        };
        let sum = tally(node, &filter, &mut silent).await;
        let owned = owned.as_ref().unwrap_or(&sum);
        s.in_use = (owned.live() + owned.invalidated).min(table);
        s.copies = table - s.in_use;
        put(&mut s, &sum);
    } else {
        let sum = tally(node, &filter, &mut silent).await;
        put(&mut s, &sum);
    }
    s.matching = (!query.is_unfiltered()).then_some(s.unicast);
    s.nodes = vec![NodeSummary {
        node: node.name(),
        node_id: node.id(),
        maximum: s.maximum,
        in_use: table,
        copies: s.copies,
        unicast: s.unicast,
        multicast: s.multicast,
        valid: s.valid,
        pending: s.pending,
        invalidated: s.invalidated,
        in_drop: s.in_drop,
        failed: s.failed,
        created: s.created,
    }];
    silent.sort_unstable();
    silent.dedup();
    s.unanswered_workers = silent;
    s
}

fn put(s: &mut SessionSummary, sum: &Tally) {
    (s.valid, s.pending, s.invalidated, s.in_drop) = (sum.valid, sum.pending, sum.invalidated, sum.in_drop);
    s.unicast = sum.live();
    let states = SessionState::ALL.into_iter().zip(sum.by_state).filter(|(_, n)| *n > 0);
    s.by_state = states.map(|(state, n)| (state.name().to_owned(), n)).collect();
    s.by_protocol = by_protocol(sum);
}

/// Live sessions of each protocol that has a name; what remains is `other`.
fn by_protocol(sum: &Tally) -> BTreeMap<String, u64> {
    let count = |number: u8| sum.by_protocol[usize::from(number)];
    let mut found: BTreeMap<String, u64> =
        PROTOCOLS.iter().map(|(_, number)| (protocol_name(*number), count(*number))).collect();
    let named: u64 = found.values().sum();
    found.insert("other".to_owned(), sum.live().saturating_sub(named));
    found.retain(|_, n| *n > 0);
    found
}

/// Matching sessions, counted.
pub(super) async fn tally(node: &Node, filter: &SessionFilter, silent: &mut Vec<u16>) -> Tally {
    let filter = Arc::new(filter.clone());
    let mut sum = Tally::default();
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let filter = filter.clone();
            let walk = move |engine: &mut Engine, now| {
                let mut part = Tally::default();
                let next = engine.tally(at, COUNT_SLICE, &filter, now, &mut part);
                (part, next)
            };
            match node.workers.call(worker, walk).await {
                Ok((part, next)) => {
                    sum.add(&part);
                    cursor = next;
                }
                Err(_) => {
                    silent.push(worker);
                    break;
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_rests_only_while_its_worker_forwards_much() {
        // Rest always and an idle node lists slowly; never, and a busy one forwards less.
        let second = Duration::from_secs(1);
        for (packets, rests) in [(0, false), (1_000, false), (100_000, true)] {
            let now = Instant::now();
            let mut pace = Pace { since: now - second - second, forwarded: Some(7) };
            let rest = pace.rest(now - second, 7 + packets);
            assert_eq!(rest >= second * REST, rests, "{packets} packets: {rest:?}");
        }
    }
}
