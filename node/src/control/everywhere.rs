//! Verbs about the sessions of all nodes: each answers for what it owns, and the answers are put together here,
//! line by line where they are long.

use super::clear;
use super::error::ApiError;
use super::members::{Lines, Member, NoAnswer, SOON, Targets, targets};
use super::sessions::{self, Asked, CHUNKS, Scope, Sender, line, lines};
use super::sort::Order;
use super::whose::{belief, whose};
use crate::api::{
    ClearReply, ClearRequest, ListEnd, ListLine, NodeSummary, Session, SessionQuery, SessionSummary,
    UnansweredNode,
};
use crate::client::with_query;
use crate::daemon::node::Node;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_dataplane::session::record::SessionId;
use tokio::sync::mpsc;

/// Lines are sent on together up to so many bytes.
const CHUNK: usize = 64 << 10;
/// How a line begins that is a session's.
const SESSION: &[u8] = b"{\"session\"";

/// The same query as another node gets it.
pub(super) fn passed_on(query: &SessionQuery) -> SessionQuery {
    SessionQuery { node: None, owner: None, local: false, ..query.clone() }
}

fn path(path: &str, query: &SessionQuery) -> Result<String, ApiError> {
    with_query(path, &passed_on(query)).map_err(|e| ApiError::usage(e.message))
}

/// The same by this node's view: all who are asked answer by one.
fn by_one_view(node: &Node, query: SessionQuery) -> SessionQuery {
    SessionQuery { view: belief(node), ..query }
}

/// `session list`.
pub(super) fn list(node: Arc<Node>, query: SessionQuery, asked: Asked) -> Result<Response, ApiError> {
    let targets = targets(&node, &query)?;
    let query = by_one_view(&node, query);
    let asked = asked.by(whose(&node, &query, Scope::Owned));
    Ok(lines(move |sender| async move {
        let end = match asked.order {
            None => one_by_one(&node, &query, asked, targets, &sender).await,
            Some(order) => merged(&node, &query, asked, order, targets, &sender).await,
        };
        if let Some(end) = end {
            // A reader that went away needs no end.
            let _ = sender.send(Ok(line(&ListLine::End(end)))).await;
        }
    }))
}

/// This node's part, and that of each other node that can be asked; those that cannot are noted.
async fn open(
    node: &Arc<Node>,
    member: Option<&Member>,
    query: &SessionQuery,
    asked: &Asked,
) -> Result<Lines, String> {
    let Some(member) = member else {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::spawn(sessions::send_own(node.clone(), asked.clone(), sender));
        return Ok(Lines::here(receiver));
    };
    let query = SessionQuery { limit: Some(asked.limit).filter(|l| *l < u64::MAX), ..query.clone() };
    let path = path("/v1/sessions", &query).map_err(|e| e.to_string())?;
    match member.ask(node, path, None, SOON).await {
        Ok(reply) => Ok(Lines::there(reply)),
        Err(NoAnswer::Silent(why)) => Err(why),
        Err(NoAnswer::NotFound) => Err("it does not know the question; is it of another version?".to_owned()),
    }
}

fn sources(targets: &Targets) -> impl Iterator<Item = Option<&Member>> {
    targets.here.then_some(None).into_iter().chain(targets.others.iter().map(Some))
}

/// Takes another node's, or this one's, end of its part into the whole's.
fn absorb(end: &mut ListEnd, member: Option<&Member>, part: ListEnd) {
    if let Some(matched) = part.matched {
        *end.matched.get_or_insert(0) += matched;
    }
    match member {
        None => end.unanswered_workers.extend(part.unanswered_workers),
        Some(member) if !part.unanswered_workers.is_empty() => {
            end.unanswered_nodes.push(member.unanswered(workers(&part.unanswered_workers)));
        }
        Some(_) => {}
    }
}

fn workers(silent: &[u16]) -> String {
    let list: Vec<String> = silent.iter().map(u16::to_string).collect();
    format!("worker {} there did not answer", list.join(", "))
}

/// One node after the other, as they come. `None`: the reader went away.
async fn one_by_one(
    node: &Arc<Node>,
    query: &SessionQuery,
    asked: Asked,
    targets: Targets,
    sender: &Sender,
) -> Option<ListEnd> {
    let mut end = ListEnd::default();
    for member in sources(&targets) {
        let left = Asked { limit: asked.limit - end.listed, ..asked.clone() };
        if left.limit == 0 {
            break;
        }
        let part = match open(node, member, query, &left).await {
            Ok(mut lines) => pass_on(&mut lines, &mut end.listed, sender).await?,
            Err(why) => Err(why),
        };
        match (part, member) {
            (Ok(part), _) => absorb(&mut end, member, part),
            (Err(why), Some(member)) => end.unanswered_nodes.push(member.unanswered(why)),
            (Err(why), None) => end.unanswered_nodes.push(unanswered_here(node, why)),
        }
    }
    Some(end)
}

fn unanswered_here(node: &Node, why: String) -> UnansweredNode {
    UnansweredNode { node: node.name(), node_id: node.id(), why }
}

/// Sends sessions on until the part's end; `None`: the reader went away.
async fn pass_on(lines: &mut Lines, listed: &mut u64, sender: &Sender) -> Option<Result<ListEnd, String>> {
    let mut chunk = BytesMut::new();
    loop {
        let next = lines.next().await;
        let ended = match next {
            Ok(Some(line)) if line.starts_with(SESSION) => {
                chunk.extend_from_slice(&line);
                *listed += 1;
                None
            }
            Ok(Some(line)) => Some(match serde_json::from_slice(&line) {
                Ok(ListLine::End(end)) => Ok(end),
                _ => Err("its answer is not understood".to_owned()),
            }),
            Ok(None) => Some(Err("its answer was cut off before its end".to_owned())),
            Err(why) => Some(Err(why)),
        };
        if (chunk.len() >= CHUNK || ended.is_some()) && !chunk.is_empty() {
            sender.send(Ok(chunk.split().freeze())).await.ok()?;
        }
        if let Some(ended) = ended {
            return Some(ended);
        }
    }
}

/// One node's sorted part, and its first session that was not taken yet.
struct Part<'a> {
    member: Option<&'a Member>,
    lines: Lines,
    head: Option<((u128, SessionId), Bytes)>,
}

impl Part<'_> {
    /// Looks at the next session; at the end, or when there is none, `end` hears of it.
    async fn advance(&mut self, order: Order, node: &Node, end: &mut ListEnd) {
        let next = async {
            let line = self.lines.next().await?.ok_or("its answer was cut off before its end")?;
            let read: ListLine = serde_json::from_slice(&line).map_err(|e| format!("not understood: {e}"))?;
            Ok::<_, String>((read, line))
        };
        self.head = match next.await {
            Ok((ListLine::Session(session), line)) => Some((order.key_of(&session), line)),
            Ok((ListLine::End(part), _)) => {
                absorb(end, self.member, part);
                None
            }
            Err(why) => {
                let silent =
                    self.member.map_or_else(|| unanswered_here(node, why.clone()), |m| m.unanswered(&*why));
                end.unanswered_nodes.push(silent);
                None
            }
        };
    }
}

/// The first `limit` of all nodes' sessions in that order.
async fn merged(
    node: &Arc<Node>,
    query: &SessionQuery,
    asked: Asked,
    order: Order,
    targets: Targets,
    sender: &Sender,
) -> Option<ListEnd> {
    let mut end = ListEnd::default();
    let asked = &asked;
    let opened =
        sources(&targets).map(|member| async move { (member, open(node, member, query, asked).await) });
    let mut parts = Vec::new();
    for (member, lines) in join_all(opened).await {
        match (lines, member) {
            (Ok(lines), member) => {
                let mut part = Part { member, lines, head: None };
                part.advance(order, node, &mut end).await;
                parts.push(part);
            }
            (Err(why), Some(member)) => end.unanswered_nodes.push(member.unanswered(why)),
            (Err(why), None) => end.unanswered_nodes.push(unanswered_here(node, why)),
        }
    }
    let mut chunk = BytesMut::new();
    loop {
        let heads = parts.iter().enumerate().filter_map(|(i, p)| Some((p.head.as_ref()?.0, i)));
        let Some((_, first)) = heads.min() else { break };
        let part = &mut parts[first];
        let taken = part.head.take();
        // Those beyond the limit are read too: each node's end says how many matched there.
        if let Some((_, line)) = taken.filter(|_| end.listed < asked.limit) {
            chunk.extend_from_slice(&line);
            end.listed += 1;
        }
        part.advance(order, node, &mut end).await;
        if chunk.len() >= CHUNK {
            sender.send(Ok(chunk.split().freeze())).await.ok()?;
        }
    }
    if !chunk.is_empty() {
        sender.send(Ok(chunk.freeze())).await.ok()?;
    }
    Some(end)
}

/// `session show`: its owner's word; that of another node that holds it while the owner is silent.
pub(super) async fn show(node: &Arc<Node>, query: &SessionQuery, id: &str) -> Result<Session, ApiError> {
    let Targets { here, others } = targets(node, query)?;
    let own = if here { sessions::find(node, query).await? } else { (None, Vec::new()) };
    if let Some(session) = own.0.clone().filter(|s| s.owner == node.name()) {
        return Ok(session);
    }
    let path = path("/v1/session", query)?;
    let asked = others.iter().map(|m| m.value::<Session>(node, path.clone(), None));
    let mut found: Vec<Session> = own.0.into_iter().collect();
    let mut silent = Vec::new();
    for (member, answer) in others.iter().zip(join_all(asked).await) {
        match answer {
            // A node that owns it has the last word.
            Ok(session) if session.owner == member.name => return Ok(session),
            Ok(session) => found.push(session),
            Err(NoAnswer::NotFound) => {}
            Err(NoAnswer::Silent(why)) => silent.push(format!("{}: {why}", member.name)),
        }
    }
    silent.extend((!own.1.is_empty()).then(|| workers(&own.1)));
    match (found.into_iter().next(), silent.is_empty()) {
        (Some(session), _) => Ok(session),
        (None, true) => Err(ApiError::not_found(format!("there is no session {id}; it may have ended"))),
        (None, false) => Err(ApiError::degraded(format!(
            "session {id} was not found, but some did not answer\n  {}",
            silent.join("\n  ")
        ))),
    }
}

/// `session summary`.
pub(super) async fn summary(node: &Arc<Node>, query: &SessionQuery) -> Result<SessionSummary, ApiError> {
    let Targets { here, others } = targets(node, query)?;
    let query = &by_one_view(node, query.clone());
    let path = path("/v1/sessions/summary", query)?;
    let mut parts = Vec::new();
    if here {
        parts.push(sessions::summary_here(node, query, Scope::Owned).await?);
    }
    let mut silent = Vec::new();
    let asked = others.iter().map(|m| m.value::<SessionSummary>(node, path.clone(), None));
    for (member, answer) in others.iter().zip(join_all(asked).await) {
        match answer {
            Ok(part) => {
                silent.extend(there(member, &part.unanswered_workers));
                parts.push(SessionSummary { unanswered_workers: Vec::new(), ..part });
            }
            Err(NoAnswer::Silent(why)) => silent.push(member.unanswered(why)),
            Err(NoAnswer::NotFound) => silent.push(member.unanswered("it does not know the question")),
        }
    }
    let mut sum = parts.into_iter().reduce(add).unwrap_or_default();
    sum.nodes.sort_by_key(|n: &NodeSummary| n.node_id);
    sum.unanswered_nodes = silent;
    Ok(sum)
}

/// Another node's silent workers, as that node's silence.
fn there(member: &Member, silent: &[u16]) -> Option<UnansweredNode> {
    (!silent.is_empty()).then(|| member.unanswered(workers(silent)))
}

fn add(mut a: SessionSummary, b: SessionSummary) -> SessionSummary {
    let map = |a: &mut BTreeMap<String, u64>, b: BTreeMap<String, u64>| {
        b.into_iter().for_each(|(k, n)| *a.entry(k).or_default() += n);
    };
    a.maximum = a.maximum.min(b.maximum);
    for (sum, part) in [
        (&mut a.unicast, b.unicast),
        (&mut a.multicast, b.multicast),
        (&mut a.valid, b.valid),
        (&mut a.pending, b.pending),
        (&mut a.invalidated, b.invalidated),
        (&mut a.in_drop, b.in_drop),
        (&mut a.never, b.never),
        (&mut a.never_capped, b.never_capped),
        (&mut a.in_use, b.in_use),
        (&mut a.copies, b.copies),
        (&mut a.created, b.created),
        (&mut a.failed, b.failed),
    ] {
        *sum += part;
    }
    a.matching = a.matching.map(|n| n + b.matching.unwrap_or(0));
    map(&mut a.by_protocol, b.by_protocol);
    map(&mut a.by_state, b.by_state);
    map(&mut a.ended, b.ended);
    a.nodes.extend(b.nodes);
    a.unanswered_workers.extend(b.unanswered_workers);
    a
}

/// `session clear`, and what it would clear.
pub(super) async fn clear(node: &Arc<Node>, request: &ClearRequest) -> Result<ClearReply, ApiError> {
    let Targets { here, others } = targets(node, &request.query)?;
    let passed = ClearRequest { query: passed_on(&request.query), ..request.clone() };
    let body = serde_json::to_vec(&passed).map_err(|e| ApiError::usage(e.to_string()))?;
    let asked = others
        .iter()
        .map(|m| m.value::<ClearReply>(node, "/v1/sessions/clear".to_owned(), Some(body.clone())));
    let own = async {
        match here {
            true => clear::clear_here(node, request).await,
            false => Ok(ClearReply::default()),
        }
    };
    let (own, answers) = tokio::join!(own, join_all(asked));
    let mut reply = own?;
    for (member, answer) in others.iter().zip(answers) {
        match answer {
            Ok(part) => {
                reply.cleared += part.cleared;
                reply.nodes.extend(part.nodes);
                reply.own_connection = reply.own_connection.take().or(part.own_connection);
                reply.unanswered_nodes.extend(there(member, &part.unanswered_workers));
            }
            Err(NoAnswer::Silent(why)) => reply.unanswered_nodes.push(member.unanswered(why)),
            Err(NoAnswer::NotFound) => {
                reply.unanswered_nodes.push(member.unanswered("it does not know the question"));
            }
        }
    }
    reply.nodes.sort_by_key(|n| n.node_id);
    Ok(reply)
}
