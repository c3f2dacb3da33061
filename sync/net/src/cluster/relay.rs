//! Requests from daemon to daemon: a question of any kind whose answer streams, as long as it likes.
//!
//! Each takes a bidirectional stream on the connection that the asker dialled: the request in one message, then a
//! status, then bytes until the end. An answer that is not finished in order is broken, never short. Its
//! streams yield to everything else on the connection, and a reader that is slow holds up only its own.

use super::shared::Shared;
use crate::quic::frame::{self, FrameError, Kind};
use crate::quic::hello::printable;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{NodeId, Role};
use tidegate_sync::codec;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Requests of one peer that are answered at the same time; a further one is told that the node is busy. A reader
/// that stands still holds up to a stream's window, and together they stay below the connection's.
pub(super) const RELAYED: usize = 8;
/// Longest request.
const REQUEST_LONGEST: usize = 128 << 10;
/// Bytes of an answer that are read at once.
const CHUNK: usize = 64 << 10;
/// Beside Raft's streams, whose priority is 0.
const PRIORITY: i32 = -1;
/// How long a request may take to come in.
const REQUEST: Duration = Duration::from_secs(5);
/// An answer that its maker broke off.
const BROKEN: VarInt = VarInt::from_u32(1);

/// A request from one member's daemon to another's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRequest {
    /// What it wants.
    pub path: String,
    /// What goes with it; `None`: it only reads.
    pub body: Option<Vec<u8>>,
    /// Who asks there: `uid 0 (root)`.
    pub by: String,
}

/// What a daemon answers: a number that the two daemons understand, and a body as it is made.
pub struct NodeAnswer {
    /// As in HTTP.
    pub status: u16,
    /// The body; an error in it breaks the answer off.
    pub body: BoxStream<'static, Result<Bytes, String>>,
}

/// Answers other members' daemons.
pub type NodeHandler = Arc<dyn Fn(NodeId, NodeRequest) -> BoxFuture<'static, NodeAnswer> + Send + Sync>;

/// An answer that comes in. Dropped before its end, the other side stops making it.
pub struct NodeReply {
    /// As in HTTP.
    pub status: u16,
    receive: RecvStream,
}

impl NodeReply {
    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// It was broken off, or the connection was.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self.receive.read_chunk(CHUNK, true).await {
            Ok(chunk) => Ok(chunk.map(|c| c.bytes)),
            Err(quinn::ReadError::Reset(_)) => Err("it broke its answer off".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// All of a body that is at most so long.
    ///
    /// # Errors
    /// As [`NodeReply::next`], or it is longer.
    pub async fn all(mut self, longest: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        while let Some(part) = self.next().await? {
            if body.len() + part.len() > longest {
                return Err("its answer is too long".to_owned());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

/// Asks a member; the status must come `within` that time.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    node: NodeId,
    request: &NodeRequest,
    within: Duration,
) -> Result<NodeReply, String> {
    let exchange = async {
        let connection = shared.peers.connected(node, within).await?;
        open(&connection, request).await.map_err(|e| e.to_string())
    };
    match timeout(within, exchange).await {
        Ok(reply) => reply,
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    }
}

async fn open(connection: &Connection, request: &NodeRequest) -> Result<NodeReply, FrameError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(quinn::ReadError::from)?;
    frame::write_message(&mut send, Kind::Ask, &codec::encode(request)).await?;
    let _ = send.finish();
    let head = frame::read_message(&mut receive, Kind::Reply).await?;
    let status = codec::decode::<u16, 16>(&head)?;
    Ok(NodeReply { status, receive })
}

/// Answers a request whose envelope was read; `Err`: the peer broke the protocol or is gone.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    from: NodeId,
    length: usize,
    send: &mut SendStream,
    receive: &mut RecvStream,
    places: &Arc<Semaphore>,
) -> Result<(), FrameError> {
    let Ok(body) = timeout(REQUEST, frame::read_body(receive, length)).await else { return Ok(()) };
    let mut request = codec::decode::<NodeRequest, REQUEST_LONGEST>(&body?)?;
    request.by = format!("{} (asked at node {from})", printable(&request.by, 200));
    let _ = send.set_priority(PRIORITY);
    let handler = shared.handler.get().cloned();
    let place = places.clone().try_acquire_owned();
    let full = shared.state.borrow().members.get(&from).is_some_and(|m| m.role == Role::Node);
    let answer = match (handler, &place) {
        _ if !full => refusal(403, "only a full member may ask that"),
        (None, _) => refusal(503, "this node is about to start"),
        (_, Err(_)) => refusal(503, "this node answers too many requests of that node already"),
        (Some(handler), Ok(_)) => handler(from, request).await,
    };
    let NodeAnswer { status, mut body } = answer;
    frame::write_message(send, Kind::Reply, &codec::encode(&status)).await?;
    loop {
        // Also while nothing is to be written it is noticed that the asker has gone.
        let part = tokio::select! {
            part = body.next() => part,
            _ = send.stopped() => return Ok(()),
        };
        match part {
            Some(Ok(part)) => send.write_all(&part).await?,
            Some(Err(why)) => {
                tracing::debug!(%from, why, "an answer was broken off");
                let _ = send.reset(BROKEN);
                return Ok(());
            }
            None => {
                let _ = send.finish();
                return Ok(());
            }
        }
    }
}

fn refusal(status: u16, why: &'static str) -> NodeAnswer {
    NodeAnswer { status, body: futures::stream::once(async move { Ok(why.into()) }).boxed() }
}
