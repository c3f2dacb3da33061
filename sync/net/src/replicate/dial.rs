//! This node's own connection for session records to a peer.

use super::greeting::{Greeting, GreetingError};
use super::keys::{Seal, Speaking};
use super::plane::{Peer, Plane, Side};
use crate::cluster::counters::count;
use crate::cluster::dial::HELLO;
use crate::cluster::tls::close_reason;
use crate::pki;
use crate::quic::endpoint::{CONNECT, Close};
use crate::quic::frame::{self, FrameError, Kind};
use crate::quic::hello::{Hello, HelloAnswer, HelloRefusal};
use quinn::{Connection, ConnectionError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::session::owner::Boot;
use tokio::time::timeout;

/// First and longest pause between rounds over a peer's addresses.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Refused(HelloRefusal),
    #[error("hello: {0}")]
    Hello(#[from] FrameError),
    #[error("greeting: {0}")]
    Greeting(#[from] GreetingError),
    #[error("hello: no answer within {} s", HELLO.as_secs())]
    HelloTimeout,
    #[error("{0}")]
    Wrong(&'static str),
}

/// Dials until it stands.
pub(super) async fn dial(plane: &Arc<Plane>, peer: &Arc<Peer>) -> Side {
    let mut pause = BACK_OFF.0;
    let mut moved = peer.addresses.subscribe();
    loop {
        let addresses = moved.borrow_and_update().clone();
        let mut errors = Vec::new();
        for address in addresses {
            match one(plane, peer, address).await {
                Ok(side) => {
                    let mut note = peer.note();
                    (note.address, note.last_error) = (Some(address), None);
                    return side;
                }
                Err(error) => errors.push(format!("{address}: {error}")),
            }
        }
        count(&peer.counters.dials_failed);
        failed(plane, peer, errors.join("; "));
        // Half to all of the pause, so that nodes that lost each other at once do not meet at once.
        let jitter = rand::random_range(0.5..1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(jitter)) => pause = (pause * 2).min(BACK_OFF.1),
            () = peer.hurry.notified() => pause = BACK_OFF.0,
            _ = moved.changed() => pause = BACK_OFF.0,
        }
    }
}

fn failed(plane: &Plane, peer: &Peer, error: String) {
    if let Some(held) = plane.shared.may_log(&format!("sync dial {} {error}", peer.id)) {
        tracing::warn!("node {} is not reached for session records: {error}{held}", peer.id);
    }
    peer.note().last_error = Some(error);
}

async fn one(plane: &Arc<Plane>, peer: &Peer, address: SocketAddr) -> Result<Side, DialError> {
    let shared = &plane.shared;
    let connect = |e: String| DialError::Connect(e);
    let endpoints = shared.endpoints.get().ok_or_else(|| connect("not started".to_owned()))?;
    let endpoint = endpoints.to(address).map_err(connect)?;
    let config = shared.tls.load().sync.clone();
    let name = pki::node_name(shared.cluster, peer.id);
    let connecting = endpoint.connect_with(config, address, &name).map_err(|e| connect(e.to_string()))?;
    let connection = match timeout(CONNECT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(connect(close_reason(&error))),
        Err(_) => return Err(connect(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    let met = timeout(HELLO, meet(plane, peer, &connection)).await.unwrap_or(Err(DialError::HelloTimeout));
    match met {
        Ok((process, greeting)) => Ok(Side { connection, greeting, process }),
        Err(error) => {
            connection.close(Close::Refused.code(), error.to_string().as_bytes());
            Err(error)
        }
    }
}

/// Hello and greeting, both ways; from then on heartbeats are sent by this connection's key.
async fn meet(
    plane: &Arc<Plane>,
    peer: &Peer,
    connection: &Connection,
) -> Result<([u8; 16], Greeting), DialError> {
    let shared = &plane.shared;
    let closed = |e: ConnectionError| DialError::Connect(close_reason(&e));
    let (mut send, mut receive) = connection.open_bi().await.map_err(closed)?;
    let said = async {
        frame::write_message(&mut send, Kind::Hello, &shared.hello().write(shared.versions)).await?;
        plane.greeting().write(&mut send).await?;
        let _ = send.finish();
        let body = frame::read_message(&mut receive, Kind::HelloAnswer).await?;
        Ok::<_, DialError>(HelloAnswer::read(&body)?)
    };
    let answer = match said.await {
        Ok(answer) => answer,
        // The certificate was refused: its reason is the connection's, not the stream's.
        Err(error) => return Err(connection.close_reason().map_or(error, closed)),
    };
    let hello = match answer {
        HelloAnswer::Refused(refusal) => return Err(DialError::Refused(refusal)),
        HelloAnswer::Accepted { version, hello, .. } => {
            if version < shared.versions.min || version > shared.versions.max {
                return Err(DialError::Wrong("it speaks a version that this build did not offer"));
            }
            hello
        }
    };
    check(plane, peer, &hello)?;
    let greeting = Greeting::read(&mut receive).await?;
    let seal = Seal::of(connection, shared.id, peer.id).map_err(DialError::Connect)?;
    let it = Boot { node: peer.node, boot: greeting.boot };
    let counters = peer.counters.clone();
    plane.keys.speak(Speaking::new(it, seal, &plane.sockets, &greeting.heartbeats, counters));
    Ok((hello.boot, greeting))
}

/// Whether the one who answered is the member that was dialled.
fn check(plane: &Plane, peer: &Peer, it: &Hello) -> Result<(), DialError> {
    let shared = &plane.shared;
    if (it.cluster, it.node) != (shared.cluster, peer.id) {
        return Err(DialError::Wrong("another node answered"));
    }
    if it.generation != shared.generation {
        return Err(DialError::Wrong("a member of another generation answered"));
    }
    match shared.known_members().get(&peer.id).is_some_and(|m| m.store == it.store) {
        true => Ok(()),
        false => Err(DialError::Wrong("a node with another store than the one that it joined with answered")),
    }
}
