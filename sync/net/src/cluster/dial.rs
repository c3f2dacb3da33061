//! This node's own connection to another member: dialled, kept, dialled again.

use super::peers::{Peer, PeerQueues};
use super::shared::Shared;
use super::thread::Input;
use super::{Standing, tls};
use crate::pki;
use crate::quic::endpoint::{CONNECT, Close};
use crate::quic::frame::{self, FrameError, Kind};
use crate::quic::hello::{BUILD_LONGEST, Code, HelloAnswer, HelloRefusal, printable};
use quinn::{Connection, ConnectionError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// First and longest pause between rounds over a peer's addresses.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// How long a hello may take: the other side may look for a while whether an older process of this node
/// is still alive.
pub(crate) const HELLO: Duration = Duration::from_secs(6);
/// Bytes of short messages that go into one write.
const WRITE: usize = 256 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Refused(HelloRefusal),
    #[error("hello: {0}")]
    Hello(#[from] FrameError),
    #[error("hello: no answer within {} s", HELLO.as_secs())]
    HelloTimeout,
    #[error("{0}")]
    Wrong(String),
}

/// Keeps a connection to a peer until it is no member any more, or this node is out.
pub(crate) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, mut queues: PeerQueues) {
    tokio::select! {
        () = peer.gone() => {}
        () = keep_on(&shared, &peer, &mut queues) => {}
    }
    if let Some(connection) = peer.connection.send_replace(None) {
        connection.close(Close::Shutdown.code(), b"");
    }
}

async fn keep_on(shared: &Arc<Shared>, peer: &Arc<Peer>, queues: &mut PeerQueues) {
    let mut pause = BACK_OFF.0;
    while shared.takes_part() {
        let addresses = peer.addresses.borrow().clone();
        let mut errors = Vec::new();
        for address in addresses {
            match dial(shared, peer, address).await {
                Ok(connection) => {
                    pause = BACK_OFF.0;
                    errors.clear();
                    let end = session(shared, peer, queues, connection).await;
                    ended(shared, peer, address, &end);
                    break;
                }
                Err(error) => {
                    learn(shared, peer, &error);
                    errors.push(format!("{address}: {error}"));
                }
            }
        }
        if !errors.is_empty() {
            failed(shared, peer, errors.join("; "));
        }
        // Half to all of the pause, so that nodes that lost each other at once do not meet at once.
        let jitter = rand::random_range(0.5..1.0);
        let mut moved = peer.addresses.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(jitter)) => pause = (pause * 2).min(BACK_OFF.1),
            _ = moved.changed() => pause = BACK_OFF.0,
        }
    }
}

fn failed(shared: &Shared, peer: &Peer, error: String) {
    let new = peer.note().last_error.as_ref() != Some(&error);
    // The same again is told at the gate's rate, something new at once.
    let held = shared.may_log(&format!("dial {} {error}", peer.id));
    if let Some(held) = held.or_else(|| new.then(String::new)) {
        tracing::warn!("node {} is not reached: {error}{held}", peer.id);
    }
    peer.note().last_error = Some(error);
}

fn ended(shared: &Arc<Shared>, peer: &Peer, address: SocketAddr, end: &ConnectionError) {
    if Close::Removed.is(end) && shared.is_full_member(peer.id) {
        shared.is_out(Standing::Removed { told_by: Some(peer.id) });
    }
    let why = tls::close_reason(end);
    if shared.takes_part()
        && !Close::Replaced.is(end)
        && let Some(held) = shared.may_log(&format!("connection {}", peer.id))
    {
        tracing::warn!("the connection to node {} at {address} ended: {why}{held}", peer.id);
    }
    peer.note().last_error = Some(format!("{address}: {why}"));
}

/// What a refusal means for this node.
fn learn(shared: &Arc<Shared>, peer: &Peer, error: &DialError) {
    let DialError::Refused(refusal) = error else { return };
    if !shared.is_full_member(peer.id) {
        return;
    }
    match refusal.code {
        Code::Removed => shared.is_out(Standing::Removed { told_by: Some(peer.id) }),
        Code::Fenced => fence(shared, u32::try_from(refusal.number).unwrap_or(u32::MAX)),
        _ => {}
    }
}

/// The cluster went on as generation `now`, without this node.
pub(crate) fn fence(shared: &Arc<Shared>, now: u32) {
    if now > shared.generation {
        shared.is_out(Standing::Fenced { own: shared.generation, now });
    }
}

async fn dial(shared: &Arc<Shared>, peer: &Peer, address: SocketAddr) -> Result<Connection, DialError> {
    let connect = |e: String| DialError::Connect(e);
    let endpoints = shared.endpoints.get().ok_or_else(|| connect("not started".to_owned()))?;
    let endpoint = endpoints.to(address).map_err(connect)?;
    let config = shared.tls.load().client.clone();
    let name = pki::node_name(shared.cluster, peer.id);
    let connecting = endpoint.connect_with(config, address, &name).map_err(|e| connect(e.to_string()))?;
    let connection = match timeout(CONNECT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(connect(tls::close_reason(&error))),
        Err(_) => return Err(connect(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    match timeout(HELLO, say_hello(shared, peer, &connection)).await {
        Ok(Ok(())) => {
            peer.note().address = Some(address);
            Ok(connection)
        }
        Ok(Err(error)) => {
            connection.close(Close::Refused.code(), error.to_string().as_bytes());
            Err(error)
        }
        Err(_) => {
            connection.close(Close::Refused.code(), b"no hello");
            Err(DialError::HelloTimeout)
        }
    }
}

async fn say_hello(shared: &Arc<Shared>, peer: &Peer, connection: &Connection) -> Result<(), DialError> {
    let closed = |e: ConnectionError| DialError::Connect(tls::close_reason(&e));
    let (mut send, mut receive) = connection.open_bi().await.map_err(closed)?;
    let hello = shared.hello().write(shared.versions);
    let answer = async {
        frame::write_message(&mut send, Kind::Hello, &hello).await?;
        let _ = send.finish();
        let body = frame::read_message(&mut receive, Kind::HelloAnswer).await?;
        HelloAnswer::read(&body)
    };
    let answer = match answer.await {
        Ok(answer) => answer,
        // The certificate was refused: its reason is the connection's, not the stream's.
        Err(FrameError::Read(_) | FrameError::Write(_)) => {
            return Err(match connection.close_reason() {
                Some(reason) => closed(reason),
                None => DialError::Hello(FrameError::Short),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let told;
    let (version, it) = match answer {
        HelloAnswer::Refused(refusal) => return Err(DialError::Refused(refusal)),
        HelloAnswer::Accepted { version, hello, members } => {
            told = members;
            (version, hello)
        }
    };
    let wrong = |what: &str| Err(DialError::Wrong(format!("node {} answered as {what}", peer.id)));
    if version < shared.versions.min || version > shared.versions.max {
        return wrong("a speaker of a version that this build did not offer");
    }
    if (it.cluster, it.node) != (shared.cluster, peer.id) {
        return wrong("another node");
    }
    if it.generation > shared.generation {
        if shared.is_full_member(peer.id) {
            fence(shared, it.generation);
        }
        return wrong("a member of a newer generation");
    }
    if it.generation < shared.generation {
        return wrong("a member of an older generation: it is fenced");
    }
    if shared.known_members().get(&peer.id).is_some_and(|m| m.store != it.store) {
        return wrong(
            "a node with another store than the one that it joined with: remove it, and join again",
        );
    }
    peer.note().build = Some(printable(&it.build, BUILD_LONGEST));
    peer.note().boot = Some(it.boot);
    shared.told_members(peer.id, told);
    Ok(())
}

/// Sends this node's traffic until the connection ends.
async fn session(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    queues: &mut PeerQueues,
    connection: Connection,
) -> ConnectionError {
    // What was queued for the last connection is old.
    while queues.queue.try_recv().is_ok() {}
    while queues.bulk.try_recv().is_ok() {}
    peer.connection.send_replace(Some(connection.clone()));
    peer.note().last_error = None;
    tracing::info!("connected to node {} at {}", peer.id, connection.remote_address());
    let end = tokio::select! {
        end = connection.closed() => end,
        end = send(&connection, queues) => end,
    };
    peer.connection.send_replace(None);
    connection.close(Close::Done.code(), b"");
    shared.input(Input::Unreachable(peer.id));
    end
}

/// Writes what comes out of the queues: short messages on one stream, many a write; long ones each on a
/// stream of its own, one at a time.
async fn send(connection: &Connection, queues: &mut PeerQueues) -> ConnectionError {
    let PeerQueues { queue, bulk } = queues;
    if let Err(error) = tokio::try_join!(write_short(connection, queue), write_bulk(connection, bulk)) {
        tracing::debug!("sending ended: {error}");
    }
    // A stream that cannot be written while the connection stands was refused by the peer.
    connection.close(Close::Violation.code(), b"a stream was refused");
    connection.closed().await
}

async fn write_short(
    connection: &Connection,
    queue: &mut tokio::sync::mpsc::Receiver<Vec<u8>>,
) -> Result<(), FrameError> {
    let mut stream = connection.open_uni().await.map_err(quinn::ReadError::from)?;
    // Before all long ones, also when they come in between.
    let _ = stream.set_priority(1);
    stream.write_all(&frame::header(Kind::Raft, 0)).await?;
    let mut batch = Vec::new();
    while let Some(message) = queue.recv().await {
        frame::put_raft(&mut batch, &message);
        while batch.len() < WRITE
            && let Ok(message) = queue.try_recv()
        {
            frame::put_raft(&mut batch, &message);
        }
        stream.write_all(&batch).await?;
        batch.clear();
    }
    Ok(())
}

async fn write_bulk(
    connection: &Connection,
    bulk: &mut tokio::sync::mpsc::Receiver<Vec<u8>>,
) -> Result<(), FrameError> {
    while let Some(message) = bulk.recv().await {
        let mut stream = connection.open_uni().await.map_err(quinn::ReadError::from)?;
        stream.write_all(&frame::header(Kind::Bulk, message.len())).await?;
        stream.write_all(&message).await?;
        let _ = stream.finish();
    }
    Ok(())
}
