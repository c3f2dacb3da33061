//! From daemon to daemon: asking other members, and answering them.
//!
//! A member asks with the API's own paths. What it gets is about the sessions that the asked node owns, so the
//! answers of all members add up.

use super::error::ApiError;
use super::{clear, sessions, verify, watch};
use crate::api::{ErrorBody, SessionQuery, UnansweredNode};
use crate::daemon::node::Node;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, header};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidegate_sync::cluster::{NodeId, Role};
use tidegate_sync_net::cluster::{NodeAnswer, NodeHandler, NodeReply, NodeRequest};
use tokio::sync::mpsc;
use tower::ServiceExt;

/// How long a member may take to begin its answer to a question that costs it nothing.
pub(super) const SOON: Duration = Duration::from_secs(3);
/// How long it may take for one that makes it walk its table.
pub(super) const WALK_MAX: Duration = Duration::from_secs(20);
/// The same for a node that is not there, as far as this one knows.
const GONE: Duration = Duration::from_millis(200);
/// Longest answer that is read whole.
const ANSWER_MAX: usize = 64 << 20;
/// Longest line of a streamed answer.
const LINE_MAX: usize = 1 << 20;

/// Another full member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: u16,
    pub(super) name: String,
    is_there: bool,
}

/// Why a member has no answer.
pub(super) enum NoAnswer {
    /// It says that there is no such thing.
    NotFound,
    /// It did not answer, or not with anything of use.
    Silent(String),
}

impl Member {
    pub(super) fn unanswered(&self, why: impl Into<String>) -> UnansweredNode {
        UnansweredNode { node: self.name.clone(), node_id: self.id, why: why.into() }
    }

    /// Asks it; the answer is one of success.
    pub(super) async fn ask(
        &self,
        node: &Node,
        path: String,
        body: Option<Vec<u8>>,
        within: Duration,
    ) -> Result<NodeReply, NoAnswer> {
        let Some(cluster) = node.seat.cluster() else {
            return Err(NoAnswer::Silent("this node is in no cluster any more".to_owned()));
        };
        let request = NodeRequest { path, body, by: format!("an operator at {}", node.name()) };
        let within = if self.is_there { within } else { GONE };
        let reply = cluster.ask_node(NodeId(self.id.into()), &request, within).await;
        let reply = reply.map_err(NoAnswer::Silent)?;
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        let status = reply.status;
        let text = reply.all(LINE_MAX).await.map_err(NoAnswer::Silent)?;
        let text = match serde_json::from_slice::<ErrorBody>(&text) {
            Ok(error) => error.message,
            Err(_) => String::from_utf8_lossy(&text).into_owned(),
        };
        Err(if status == 404 { NoAnswer::NotFound } else { NoAnswer::Silent(text) })
    }

    /// Asks it for a value.
    pub(super) async fn value<T: DeserializeOwned>(
        &self,
        node: &Node,
        path: String,
        body: Option<Vec<u8>>,
    ) -> Result<T, NoAnswer> {
        let read = async {
            let reply = self.ask(node, path, body, WALK_MAX).await?;
            let bytes = reply.all(ANSWER_MAX).await.map_err(NoAnswer::Silent)?;
            serde_json::from_slice(&bytes)
                .map_err(|e| NoAnswer::Silent(format!("its answer is not understood: {e}")))
        };
        let late = || NoAnswer::Silent(format!("no answer within {} s", WALK_MAX.as_secs()));
        tokio::time::timeout(WALK_MAX, read).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Whom a query is about: whether this node, and which others.
pub(super) struct Targets {
    pub(super) here: bool,
    pub(super) others: Vec<Member>,
}

/// All full members, or the one that `--node` or `--owner` names.
pub(super) fn targets(node: &Node, query: &SessionQuery) -> Result<Targets, ApiError> {
    let known = node.vocabulary();
    let mut wanted: Option<u16> = None;
    for (flag, text) in [("node", &query.node), ("owner", &query.owner)] {
        let Some(text) = text else { continue };
        let id = known.node(flag, text)?;
        if wanted.is_some_and(|other| other != id) {
            return Err(ApiError::usage(
                "--node and --owner name two nodes: a node answers for the sessions that it owns\n  help: leave one of them out",
            ));
        }
        wanted = Some(id);
    }
    let is_wanted = |id: u16| wanted.is_none_or(|w| w == id);
    let others = others(node).into_iter().filter(|m| is_wanted(m.id)).collect();
    Ok(Targets { here: is_wanted(node.id()), others })
}

/// Whether there are others whose sessions count too.
pub(super) fn is_clustered(node: &Node) -> bool {
    node.seat.cluster().is_some_and(|c| c.state().borrow().members.contains_key(&c.id()))
}

/// All other full members.
pub(super) fn others(node: &Node) -> Vec<Member> {
    let Some(cluster) = node.seat.cluster() else { return Vec::new() };
    let state = cluster.state().borrow().clone();
    let view = node.replication.view();
    let full = state.members.iter().filter(|(id, m)| m.role == Role::Node && **id != cluster.id());
    full.filter_map(|(id, m)| {
        let id = u16::try_from(id.0).ok()?;
        let is_there = view.as_ref().is_none_or(|v| v.alive().iter().any(|b| b.node == id));
        Some(Member { id, name: m.name.clone(), is_there })
    })
    .collect()
}

/// A streamed answer's lines, from here or from another node.
pub(super) struct Lines {
    from: From,
    buffer: BytesMut,
}

enum From {
    Here(mpsc::Receiver<Result<Bytes, Infallible>>),
    There(NodeReply),
}

impl Lines {
    pub(super) fn here(receiver: mpsc::Receiver<Result<Bytes, Infallible>>) -> Lines {
        Lines { from: From::Here(receiver), buffer: BytesMut::new() }
    }

    pub(super) fn there(reply: NodeReply) -> Lines {
        Lines { from: From::There(reply), buffer: BytesMut::new() }
    }

    /// The next line with its newline; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Ok(Some(self.buffer.split_to(end + 1).freeze()));
            }
            if self.buffer.len() > LINE_MAX {
                return Err("it sent a line without end".to_owned());
            }
            let part = match &mut self.from {
                From::Here(receiver) => receiver.recv().await.map(|Ok(bytes)| bytes),
                From::There(reply) => reply.next().await?,
            };
            match part {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err("its answer ends in the middle of a line".to_owned()),
            }
        }
    }
}

/// Answers other members for this node. Holds the node no longer than an answer takes.
pub(crate) fn handler(node: &Arc<Node>) -> NodeHandler {
    let node = Arc::downgrade(node);
    Arc::new(move |_, request| answer(node.clone(), request).boxed())
}

async fn answer(node: Weak<Node>, request: NodeRequest) -> NodeAnswer {
    let plain = |status: u16, text: &'static str| NodeAnswer {
        status,
        body: futures::stream::once(async move { Ok(text.into()) }).boxed(),
    };
    let Some(node) = node.upgrade() else { return plain(503, "the node ends") };
    let method = if request.body.is_some() { Method::POST } else { Method::GET };
    let built = Request::builder()
        .method(method)
        .uri(request.path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(request.body.unwrap_or_default()));
    let Ok(built) = built else { return plain(400, "not a request") };
    let Ok(response) = router(node).oneshot(built).await;
    let status = response.status().as_u16();
    let body = response.into_body().into_data_stream();
    NodeAnswer { status, body: body.map(|part| part.map_err(|e| e.to_string())).boxed() }
}

/// What members may ask: only about what this node owns, and nothing that is asked further.
fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/sessions", get(sessions::list_own))
        .route("/v1/session", get(sessions::show_here))
        .route("/v1/sessions/summary", get(sessions::summary_own))
        .route("/v1/sessions/clear", post(clear::clear_own))
        .route("/v1/sessions/watch", get(watch::watch_own))
        .route("/v1/verify/digests", get(verify::digests))
        .route("/v1/verify/bucket", get(verify::bucket))
        .fallback(async || ApiError::not_found("no such path for members"))
        .with_state(node)
}
