//! `GET /v1/sessions/watch`: what happens to sessions, one JSON object a line, until the reader goes away.

use super::error::ApiError;
use super::query;
use super::sessions::{line, lines};
use crate::api::{SessionQuery, WatchLine};
use crate::daemon::flowlog::{Clock, Heard, watch_line};
use crate::daemon::node::Node;
use axum::extract::{Query, State};
use axum::response::Response;
use std::sync::Arc;

/// Bytes of one chunk, about: what waits is sent together.
const CHUNK_BYTES: usize = 32 * 1024;

pub(super) async fn watch(
    State(node): State<Arc<Node>>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let filter = query::unordered(&query, &node.vocabulary())?;
    let Some(mut watch) = node.hub.watch(filter).await else {
        return Err(ApiError::degraded("too many watch already; end one of them first"));
    };
    Ok(lines(move |sender| async move {
        let clock = Clock { start: node.started };
        let first = WatchLine::Watching {
            node: node.name(),
            unanswered_workers: std::mem::take(&mut watch.unanswered_workers),
        };
        if sender.send(Ok(line(&first))).await.is_err() {
            return;
        }
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
                    Heard::Event(event) => watch_line(&event, &names, clock),
                    Heard::LeftOut(count) => WatchLine::LeftOut { count },
                };
                chunk.extend_from_slice(&line(&next));
                if chunk.len() >= CHUNK_BYTES {
                    break;
                }
                match watch.try_next() {
                    Some(more) => heard = more,
                    None => break,
                }
            }
            if sender.send(Ok(chunk.into())).await.is_err() {
                return;
            }
        }
    }))
}
