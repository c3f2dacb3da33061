//! Connections for session records that peers dialled.

use super::greeting::{Greeting, GreetingError};
use super::keys::{Hearing, Seal};
use super::plane::{Plane, Side};
use crate::cluster::counters::count;
use crate::cluster::serve::{HANDSHAKE, OLD_ALIVE, incompatible, judge, only_one};
use crate::cluster::shared::Shared;
use crate::quic::endpoint::{Close, limit_sync};
use crate::quic::frame::{self, FrameError, Kind};
use crate::quic::hello::{Code, Hello, HelloAnswer, HelloRefusal};
use quinn::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::session::owner::Boot;
use tidegate_sync::cluster::NodeId;
use tokio::time::timeout;

/// Why a peer is not let in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Hello(HelloRefusal),
    #[error("{0}")]
    Greeting(#[from] GreetingError),
    #[error("hello: {0}")]
    Frame(#[from] FrameError),
    #[error("no hello in time")]
    Late,
    #[error("{0}")]
    Other(String),
}

/// Takes a connection whose certificate is a member's; it goes to the task of that peer.
pub(crate) async fn serve(shared: &Arc<Shared>, id: NodeId, connection: Connection) {
    let Some(plane) = shared.exchange.load_full() else {
        connection.close(Close::Refused.code(), b"this node does not replicate (yet)");
        return;
    };
    limit_sync(&connection, 1);
    let let_in = timeout(HANDSHAKE + OLD_ALIVE, let_in(&plane, id, &connection));
    if let Err(why) = let_in.await.unwrap_or(Err(Refused::Late)) {
        count(&plane.connections_refused);
        if is_violation(&why) {
            count(&shared.counting.messages_refused);
            if let Some(peer) = plane.peer(id) {
                count(&peer.counters.refused);
            }
        }
        if let Some(held) = shared.may_log(&format!("sync hello {id} {why}")) {
            let from = connection.remote_address();
            tracing::warn!("node {id} at {from} was refused for session records: {why}{held}");
        }
        // The refusal is read before the connection goes.
        let _ = timeout(Duration::from_secs(1), connection.closed()).await;
        connection.close(Close::Refused.code(), why.to_string().as_bytes());
    }
}

fn is_violation(why: &Refused) -> bool {
    match why {
        Refused::Hello(_) | Refused::Late | Refused::Other(_) => false,
        Refused::Greeting(error) => error.is_violation(),
        Refused::Frame(error) => error.is_violation(),
    }
}

async fn let_in(plane: &Arc<Plane>, id: NodeId, connection: &Connection) -> Result<(), Refused> {
    let shared = &plane.shared;
    let other = |e: quinn::ConnectionError| Refused::Other(e.to_string());
    let (mut send, mut receive) = connection.accept_bi().await.map_err(other)?;
    let bytes = frame::read_message(&mut receive, Kind::Hello).await?;
    let judged = async {
        let (versions, rest) = Hello::versions(&bytes)?;
        let Some(version) = shared.versions.common(versions) else {
            return Err(Refused::Hello(incompatible(shared, versions)));
        };
        let hello = Hello::read(rest)?;
        judge(shared, id, &hello).map_err(Refused::Hello)?;
        // A copied directory is found here as in Raft; a process that took the place of one that is silent comes in.
        only_one(shared, id, &hello).await.map_err(Refused::Hello)?;
        let greeting = Greeting::read(&mut receive).await?;
        Ok((version, hello, greeting))
    };
    let (version, hello, greeting) = match judged.await {
        Ok(judged) => judged,
        Err(Refused::Hello(refusal)) => {
            let answer = HelloAnswer::Refused(refusal.clone()).write();
            let _ = frame::write_message(&mut send, Kind::HelloAnswer, &answer).await;
            let _ = send.finish();
            return Err(Refused::Hello(refusal));
        }
        Err(other) => return Err(other),
    };
    let Some(peer) = plane.peer(id) else {
        let text = format!("node {id} is no full member, as far as node {} knows", shared.id);
        return Err(Refused::Hello(HelloRefusal::new(Code::Unknown, text)));
    };
    limit_sync(connection, greeting.streams);
    // Before the answer: the first heartbeat may come right after it.
    let it = Boot { node: peer.node, boot: greeting.boot };
    let seal = Seal::of(connection, id, shared.id).map_err(Refused::Other)?;
    plane.keys.hear(Hearing { it, seal, counters: peer.counters.clone() });
    let accepted = HelloAnswer::Accepted { version, hello: shared.hello(), members: BTreeMap::new() };
    frame::write_message(&mut send, Kind::HelloAnswer, &accepted.write()).await?;
    plane.greeting().write(&mut send).await?;
    let _ = send.finish();
    let side = Side { connection: connection.clone(), greeting, process: hello.boot };
    peer.hurry.notify_one();
    let full = |_| Refused::Other("too many connections at once".to_owned());
    peer.arrivals.try_send(side).map_err(full)
}
