//! `GET /v1/sessions/watch`: what happens to sessions, one JSON object a line, until the reader goes away.
//!
//! Each node tells of the sessions that it owns at that moment. Another node's lines are passed on as they come;
//! a reader that is too slow for them loses some, and hears how many.

use super::error::ApiError;
use super::members::{self, Lines, Member, NoAnswer, SOON, Targets};
use super::query;
use super::sessions::{Sender, line, lines};
use crate::api::{SessionQuery, WatchLine};
use crate::client::with_query;
use crate::daemon::flowlog::{Clock, Heard, Watch, watch_line};
use crate::daemon::node::Node;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::BytesMut;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes of one chunk, about: what waits is sent together.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes of another node's lines that wait for the reader.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How soon a node that was lost is asked again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn watch(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let filter = query::unordered(&query, &node.vocabulary())?;
    let everywhere = !query.local && members::is_clustered(&node);
    let targets = match everywhere {
        true => members::targets(&node, &query)?,
        false => Targets { here: true, others: Vec::new() },
    };
    let own = match targets.here {
        true => Some(node.hub.watch(filter).await.ok_or_else(too_many)?),
        false => None,
    };
    let path = with_query("/v1/sessions/watch", &super::everywhere::passed_on(&query));
    let path = path.map_err(|e| ApiError::usage(e.message))?;
    Ok(lines(move |sender| together(node, own, targets.others, path, everywhere, sender)))
}

/// The same as another member asks it.
pub(super) async fn watch_own(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let filter = query::unordered(&query, &node.vocabulary())?;
    let watch = node.hub.watch(filter).await.ok_or_else(too_many)?;
    Ok(lines(move |sender| together(node, Some(watch), Vec::new(), String::new(), true, sender)))
}

fn too_many() -> ApiError {
    ApiError::degraded("too many watch already; end one of them first")
}

/// This node's events and those of the others, until the reader goes away.
async fn together(
    node: Arc<Node>,
    mut own: Option<Watch>,
    others: Vec<Member>,
    path: String,
    owned: bool,
    sender: Sender,
) {
    // Everybody is asked before the first line says that everything is told from here on.
    let opened = join_all(others.iter().map(|member| open(&node, member, &path))).await;
    let mut nodes: Vec<String> = own.iter().map(|_| node.name()).collect();
    let mut unanswered_nodes = Vec::new();
    for (member, lines) in others.iter().zip(&opened) {
        match lines {
            Ok(_) => nodes.push(member.name.clone()),
            Err(why) => unanswered_nodes.push(member.unanswered(why.clone())),
        }
    }
    let unanswered_workers = own.as_mut().map(|w| std::mem::take(&mut w.unanswered_workers));
    let first = WatchLine::Watching {
        node: node.name(),
        nodes,
        unanswered_workers: unanswered_workers.unwrap_or_default(),
        unanswered_nodes,
    };
    if sender.send(Ok(line(&first))).await.is_err() {
        return;
    }
    // Ends with this function: so do the other nodes' answers.
    let mut passing = JoinSet::new();
    for (member, lines) in others.into_iter().zip(opened) {
        let (node, path, sender) = (node.clone(), path.clone(), sender.clone());
        passing.spawn(async move { pass_on(&node, &member, &path, lines.ok(), &sender).await });
    }
    match own {
        Some(watch) => tell(&node, watch, owned, &sender).await,
        None => sender.closed().await,
    }
}

/// Asks another node; its first line has been read.
async fn open(node: &Node, member: &Member, path: &str) -> Result<Lines, String> {
    let reply = member.ask(node, path.to_owned(), None, SOON).await.map_err(|e| match e {
        NoAnswer::Silent(why) => why,
        NoAnswer::NotFound => "it does not know the question; is it of another version?".to_owned(),
    })?;
    let mut lines = Lines::there(reply);
    let first = tokio::time::timeout(SOON, lines.next()).await.map_err(|_| "it told nothing in time")??;
    match first {
        Some(_) => Ok(lines),
        None => Err("its answer was cut off".to_owned()),
    }
}

/// Passes another node's lines on; asks it again when it is lost.
async fn pass_on(node: &Node, member: &Member, path: &str, lines: Option<Lines>, sender: &Sender) {
    let mut lines = lines;
    loop {
        if let Some(lines) = &mut lines {
            let why = pass_lines(lines, sender).await;
            let lost = WatchLine::Lost(member.unanswered(why));
            if sender.send(Ok(line(&lost))).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
        lines = open(node, member, path).await.ok();
        let found = WatchLine::Found { node: member.name.clone() };
        if lines.is_some() && sender.send(Ok(line(&found))).await.is_err() {
            return;
        }
    }
}

/// Until the other node is lost: why. What the reader does not take in time waits, bounded, and is left out beyond
/// that: the way to the other node stays free.
async fn pass_lines(lines: &mut Lines, sender: &Sender) -> String {
    let mut waiting = BytesMut::new();
    let mut left_out = 0;
    loop {
        let next = tokio::select! {
            next = lines.next() => next,
            place = sender.reserve(), if !waiting.is_empty() => {
                let Ok(place) = place else { return "nobody watches".to_owned() };
                place.send(Ok(waiting.split().freeze()));
                continue;
            }
        };
        let why = match next {
            Ok(Some(next)) if waiting.len() + next.len() > WAITING_BYTES_MAX => {
                left_out += 1;
                drop(next);
                continue;
            }
            Ok(Some(next)) => {
                if left_out > 0 {
                    waiting.extend_from_slice(&line(&WatchLine::LeftOut {
                        count: std::mem::take(&mut left_out),
                    }));
                }
                waiting.extend_from_slice(&next);
                continue;
            }
            Ok(None) => "its answer was cut off".to_owned(),
            Err(why) => why,
        };
        if !waiting.is_empty() {
            // A reader that went away needs no more.
            let _ = sender.send(Ok(waiting.freeze())).await;
        }
        return why;
    }
}

/// This node's events.
async fn tell(node: &Node, mut watch: Watch, owned: bool, sender: &Sender) {
    let clock = Clock { start: node.started };
    loop {
        // A reader that goes away while nothing happens is noticed too.
        let heard = tokio::select! {
            heard = watch.next() => heard,
            () = sender.closed() => return,
        };
        let Some(mut heard) = heard else { return };
        let names = node.names();
        let mut chunk = Vec::new();
        loop {
            let next = match heard {
                // The node that owns a session tells of it.
                Heard::Event(event) if owned && names.view.as_ref().is_some_and(|v| !v.is_mine(event.id)) => {
                    None
                }
                Heard::Event(event) => Some(watch_line(&event, &names, clock)),
                Heard::LeftOut(count) => Some(WatchLine::LeftOut { count }),
            };
            if let Some(next) = next {
                chunk.extend_from_slice(&line(&next));
            }
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
            match watch.try_next() {
                Some(more) => heard = more,
                None => break,
            }
        }
        if !chunk.is_empty() && sender.send(Ok(chunk.into())).await.is_err() {
            return;
        }
    }
}
