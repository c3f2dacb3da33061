//! Accepts connections and answers them, within limits: a client that hangs costs one connection.

use super::asker::Asker;
use super::error::ApiError;
use axum::response::IntoResponse;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at a time; the next waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its request's head.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long running requests may take once the daemon ends.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Where requests come from.
pub enum Listener {
    /// The control socket: root and the daemon's own user only.
    Control(UnixListener),
    /// The metrics address.
    Metrics(TcpListener),
}

/// Serves until `stop` is true, then lets running requests end, for a moment.
pub async fn serve(listener: Listener, router: Router, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &router) => match accepted {
                Ok((stream, router)) => {
                    connections.spawn(connection(stream, router, stop.clone(), permit));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait instead of spinning.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    let drain = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drain).await.is_err() {
        tracing::debug!("requests were still running at the end");
    }
}

/// Waits for the end. That the sender is gone is an end too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|s| *s).await);
}

type Stream = Box<dyn Io>;
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn accept(listener: &Listener, router: &Router) -> std::io::Result<(Stream, Router)> {
    match listener {
        Listener::Control(unix) => {
            let (stream, _) = unix.accept().await?;
            let router = match may(&stream) {
                Some(uid) => router.clone().layer(Extension(Asker::user(uid))),
                None => refusal(),
            };
            Ok((Box::new(stream), router))
        }
        Listener::Metrics(tcp) => {
            let (stream, _) = tcp.accept().await?;
            Ok((Box::new(stream), router.clone()))
        }
    }
}

/// The peer's user, if it is root or the daemon's own. The file's mode says the same; this holds also
/// when somebody changes the mode, or passes the socket on.
fn may(stream: &UnixStream) -> Option<u32> {
    let own = rustix::process::geteuid().as_raw();
    let uid = stream.peer_cred().ok()?.uid();
    (uid == 0 || uid == own).then_some(uid)
}

fn refusal() -> Router {
    Router::new().fallback(async || {
        ApiError::forbidden("only root and the daemon's own user may use the control socket").into_response()
    })
}

async fn connection(
    stream: Stream,
    router: Router,
    mut stop: watch::Receiver<bool>,
    _permit: tokio::sync::OwnedSemaphorePermit,
) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        // Clients that go away in the middle (`| head`) are everyday.
        tracing::debug!(%error, "a connection ended early");
    }
}
