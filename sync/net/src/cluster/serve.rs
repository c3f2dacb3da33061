//! Connections that others dialled: the handshake's end, the hello, their messages and questions.
//!
//! Everything that comes in is hostile. Who breaks the protocol loses the connection; what merely comes
//! too late or too much is dropped and counted.

use super::counters::count;
use super::dial::fence;
use super::peers::Inbound;
use super::shared::Shared;
use super::thread::Input;
use super::{Standing, admit, answer, relay, tls};
use crate::pki::Accepted;
use crate::quic::endpoint::Close;
use crate::quic::frame::{self, FrameError, Kind};
use crate::quic::hello::{Code, Hello, HelloAnswer, HelloRefusal, Versions, printable};
use crate::quic::rpc;
use crate::replicate;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::NodeId;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Handshakes at the same time; more are refused at once.
const HANDSHAKES: usize = 64;
/// How long a handshake may take, and the first message after it.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a new process of a node waits for signs of life of the old one: above the keep-alive interval.
pub(crate) const OLD_ALIVE: Duration = Duration::from_millis(1_500);
/// Questions of one peer at the same time; more wait in their streams.
const QUESTIONS: usize = 32;

/// Takes connections from one listening address until the member stops.
pub(crate) async fn listen(shared: Arc<Shared>, endpoint: Endpoint) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    while let Some(incoming) = endpoint.accept().await {
        // The address is proven by a retry first: nobody makes this node work for a forged one.
        if !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            count(&shared.counting.handshakes_refused);
            incoming.refuse();
            continue;
        };
        let task = shared.clone();
        shared.spawn(async move {
            let from = incoming.remote_address();
            let connection = match timeout(HANDSHAKE, shake_hands(incoming)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(why)) => return refused_handshake(&task, from, &why),
                Err(_) => return refused_handshake(&task, from, "the handshake was not finished in time"),
            };
            drop(permit);
            connected(&task, connection).await;
        });
    }
}

async fn shake_hands(incoming: Incoming) -> Result<Connection, String> {
    let connecting = incoming.accept().map_err(|e| tls::close_reason(&e))?;
    connecting.await.map_err(|e| tls::close_reason(&e))
}

fn refused_handshake(shared: &Shared, from: SocketAddr, why: &str) {
    count(&shared.counting.handshakes_refused);
    if let Some(held) = shared.may_log(&format!("handshake {why}")) {
        tracing::warn!("a connection from {from} was refused: {}{held}", printable(why, 400));
    }
}

async fn connected(shared: &Arc<Shared>, connection: Connection) {
    let from = connection.remote_address();
    match tls::accepted(&connection) {
        Ok(Accepted::Joining) => admit::serve(shared, &connection).await,
        Ok(Accepted::Member(id)) => member(shared, id, connection).await,
        Ok(Accepted::Sync(id)) => replicate::serve(shared, id, connection).await,
        Err(why) => {
            connection.close(Close::Refused.code(), why.as_bytes());
            refused_handshake(shared, from, &why);
        }
    }
}

async fn member(shared: &Arc<Shared>, id: NodeId, connection: Connection) {
    match timeout(HANDSHAKE, connection.accept_bi()).await {
        Ok(Ok((mut send, mut receive))) => {
            if !matches!(
                timeout(HANDSHAKE + OLD_ALIVE, greet(shared, id, &connection, &mut send, &mut receive)).await,
                Ok(true)
            ) {
                // The refusal is read before the connection goes.
                let _ = timeout(Duration::from_secs(1), connection.closed()).await;
                connection.close(Close::Refused.code(), b"refused");
                return;
            }
        }
        _ => return connection.close(Close::Refused.code(), b"no hello"),
    }
    let why = tokio::select! {
        why = questions(shared, id, &connection) => why,
        why = messages(shared, id, &connection) => why,
    };
    if why.is_violation() {
        count(&shared.counting.messages_refused);
        connection.close(Close::Violation.code(), why.to_string().as_bytes());
        if let Some(held) = shared.may_log(&format!("violation {id}")) {
            tracing::warn!("node {id} broke the protocol, its connection was closed: {why}{held}");
        }
    }
    shared.peers.left(id, &connection);
}

/// Reads a hello and answers it; `true`: the peer may go on.
async fn greet(
    shared: &Arc<Shared>,
    id: NodeId,
    connection: &Connection,
    send: &mut SendStream,
    receive: &mut RecvStream,
) -> bool {
    let result = async {
        let bytes = frame::read_message(receive, Kind::Hello).await?;
        let (versions, rest) = Hello::versions(&bytes)?;
        let Some(version) = shared.versions.common(versions) else {
            return Ok(Err(incompatible(shared, versions)));
        };
        let hello = Hello::read(rest)?;
        if let Err(refusal) = judge(shared, id, &hello) {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = only_one(shared, id, &hello).await {
            return Ok(Err(refusal));
        }
        Ok::<_, FrameError>(Ok((version, hello)))
    };
    let (answer, boot) = match result.await {
        Ok(Ok((version, hello))) => {
            let (me, members) = (shared.hello(), shared.state().members.clone());
            (HelloAnswer::Accepted { version, hello: me, members }, Some(hello.boot))
        }
        Ok(Err(refusal)) => (HelloAnswer::Refused(refusal), None),
        Err(error) if error.is_violation() => {
            (HelloAnswer::Refused(HelloRefusal::new(Code::Identity, error.to_string())), None)
        }
        Err(_) => return false,
    };
    if let HelloAnswer::Refused(refusal) = &answer {
        count(&shared.counting.hellos_refused);
        if let Some(held) = shared.may_log(&format!("hello {id} {:?}", refusal.code)) {
            let from = connection.remote_address();
            tracing::warn!("node {id} at {from} was refused: {refusal}{held}");
        }
    }
    if let Some(boot) = boot {
        // Before the answer: what the peer sends right after it is a member's.
        shared.peers.arrived(id, Inbound { connection: connection.clone(), boot });
        // It may have been removed since it was judged.
        if shared.state.borrow().removed.contains_key(&id) {
            shared.peers.left(id, connection);
            connection.close(Close::Removed.code(), b"the node was removed from the cluster");
            return false;
        }
    }
    let written = frame::write_message(send, Kind::HelloAnswer, &answer.write()).await.is_ok();
    let _ = send.finish();
    written && boot.is_some()
}

pub(crate) fn incompatible(shared: &Shared, it: Versions) -> HelloRefusal {
    let own = shared.versions;
    let older = if it.max < own.min { "it is too old" } else { "it is too new" };
    let build = &shared.options.build;
    HelloRefusal::new(
        Code::Version,
        format!(
            "no common protocol version: node {} (build {build}) speaks {own}, its peer {it}; {older} for it: upgrade the older of the two",
            shared.id
        ),
    )
}

/// Whether a peer that the certificate shows as `id` may come in with that hello.
pub(crate) fn judge(shared: &Arc<Shared>, id: NodeId, hello: &Hello) -> Result<(), HelloRefusal> {
    let no = |code, text: String| Err(HelloRefusal::new(code, text));
    if (hello.cluster, hello.node) != (shared.cluster, id) {
        return no(
            Code::Identity,
            format!(
                "the hello names node {} of cluster {}, the certificate node {id} of cluster {}",
                hello.node, hello.cluster, shared.cluster
            ),
        );
    }
    let state = shared.state();
    if hello.generation > shared.generation && shared.is_full_member(id) {
        fence(shared, hello.generation);
    }
    match shared.standing() {
        Standing::Member | Standing::StoreFailed { .. } => {}
        _ => return no(Code::Out, format!("node {} takes no part in the cluster any more", shared.id)),
    }
    if hello.generation != shared.generation {
        let mut refusal = HelloRefusal::new(
            Code::Fenced,
            format!(
                "node {id} belongs to generation {} of the cluster, which was recovered as generation {} without it: it is fenced",
                hello.generation, shared.generation
            ),
        );
        refusal.number = u64::from(shared.generation);
        return match hello.generation < shared.generation {
            true => Err(refusal),
            false => no(Code::Identity, format!("generation {} is not known here", hello.generation)),
        };
    }
    if let Some(name) = state.removed.get(&id) {
        return no(
            Code::Removed,
            format!("node {id} ({name}) was removed from the cluster; an id never returns"),
        );
    }
    let members = shared.known_members();
    let Some(member) = members.get(&id) else {
        return no(Code::Unknown, format!("node {id} is not a member, as far as node {} knows", shared.id));
    };
    if member.store != hello.store {
        return no(
            Code::Store,
            format!(
                "node {id} ({}) comes with another Raft store than the one that it joined with (wiped or replaced): remove it (`tidegate cluster remove {}`), and join again with an empty directory",
                member.name, member.name
            ),
        );
    }
    Ok(())
}

/// Two processes with one identity (a copied directory) would vote twice. A restarted one is let in as soon
/// as the old one is silent.
pub(crate) async fn only_one(shared: &Arc<Shared>, id: NodeId, hello: &Hello) -> Result<(), HelloRefusal> {
    let Some(old) = shared.peers.inbound_of(id).filter(|old| old.boot != hello.boot) else { return Ok(()) };
    let until = Instant::now() + OLD_ALIVE;
    let heard = |old: &Inbound| old.connection.stats().udp_rx.datagrams;
    // What was on its way when the old process died.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let before = heard(&old);
    while Instant::now() < until {
        let alive = heard(&old) > before;
        if old.connection.close_reason().is_some() {
            return Ok(());
        }
        if alive {
            let at = old.connection.remote_address();
            return Err(HelloRefusal::new(
                Code::Duplicate,
                format!(
                    "another process at {at} is node {id} and alive: two nodes run with one identity (a copied directory); stop one, and let it join as a node of its own"
                ),
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A peer's questions, each answered by a task of its own.
async fn questions(shared: &Arc<Shared>, id: NodeId, connection: &Connection) -> FrameError {
    let places = Arc::new(Semaphore::new(QUESTIONS));
    let relayed = Arc::new(Semaphore::new(relay::RELAYED));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return FrameError::Short };
        let (mut send, mut receive) = match connection.accept_bi().await {
            Ok(streams) => streams,
            Err(error) => return quinn::ReadError::from(error).into(),
        };
        let (task, connection, relayed) = (shared.clone(), connection.clone(), relayed.clone());
        shared.spawn(async move {
            let result = async {
                match frame::read_header(&mut receive).await? {
                    (Kind::Request, length) => {
                        let request = rpc::read_request(&mut receive, length).await?;
                        let answer = answer::answer(&task, id, request).await;
                        rpc::write_answer(&mut send, &answer).await
                    }
                    (Kind::Ask, length) => {
                        relay::serve(&task, id, length, &mut send, &mut receive, &relayed).await
                    }
                    (got, _) => Err(FrameError::Unexpected { got, wanted: Kind::Request }),
                }
            };
            if let Err(error) = result.await
                && error.is_violation()
            {
                count(&task.counting.messages_refused);
                connection.close(Close::Violation.code(), error.to_string().as_bytes());
            }
            drop(place);
        });
    }
}

/// A peer's Raft messages.
async fn messages(shared: &Arc<Shared>, id: NodeId, connection: &Connection) -> FrameError {
    // One long message at a time: it takes memory as it comes.
    let long = Arc::new(Semaphore::new(1));
    loop {
        let stream = match connection.accept_uni().await {
            Ok(stream) => stream,
            Err(error) => return quinn::ReadError::from(error).into(),
        };
        let (task, connection, long) = (shared.clone(), connection.clone(), long.clone());
        shared.spawn(async move {
            if let Err(error) = read_stream(&task, id, stream, &long).await
                && error.is_violation()
            {
                count(&task.counting.messages_refused);
                if let Some(held) = task.may_log(&format!("violation {id}")) {
                    tracing::warn!("node {id} broke the protocol, its connection was closed: {error}{held}");
                }
                connection.close(Close::Violation.code(), error.to_string().as_bytes());
            }
        });
    }
}

async fn read_stream(
    shared: &Arc<Shared>,
    from: NodeId,
    mut stream: RecvStream,
    long: &Semaphore,
) -> Result<(), FrameError> {
    match frame::read_header(&mut stream).await? {
        (Kind::Raft, _) => {
            while let Some(message) = frame::read_raft(&mut stream).await? {
                shared.input(Input::Step { from, message });
            }
            Ok(())
        }
        (Kind::Bulk, length) => {
            let _one = long.acquire().await;
            let message = frame::read_body(&mut stream, length).await?;
            shared.input(Input::Step { from, message });
            Ok(())
        }
        (got, _) => Err(FrameError::Unexpected { got, wanted: Kind::Raft }),
    }
}
