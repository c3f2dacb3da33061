//! To one syslog server: UDP (RFC 5426), or TCP with octet counting (RFC 6587 section 3.4.1).
//!
//! Messages wait in a bounded queue. A server that is slow or gone fills it, and then records are left
//! out and counted; nothing else waits for it.

use super::bound::RateBound;
use super::logs::LogNumbers;
use super::syslog::{Encoder, Kind};
use crate::api::FlowRecord;
use crate::config::{SyslogConfig, Transport};
use rustix::net::RecvFlags;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages that wait for a server: below a megabyte.
const QUEUE: usize = 1_024;
/// How long a connection may take to be set up, and a message to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    left_out: AtomicU64,
    failed: AtomicU64,
}

/// One server.
pub(super) struct Target {
    name: String,
    encoder: Encoder,
    bound: RateBound,
    queue: mpsc::Sender<String>,
    counts: Arc<Counts>,
}

impl Target {
    /// Starts the task that sends.
    pub(super) fn start(config: &SyslogConfig, encoder: Encoder, tasks: &mut JoinSet<()>) -> Target {
        let (queue, messages) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let server = config.server;
        match config.transport {
            Transport::Udp => tasks.spawn(udp(server, messages, counts.clone())),
            Transport::Tcp => tasks.spawn(tcp(server, messages, counts.clone())),
        };
        let name = format!("{}:{server}", config.transport.name());
        Target { name, encoder, bound: RateBound::new(config.rate_per_s), queue, counts }
    }

    pub(super) fn numbers(&self) -> LogNumbers {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        LogNumbers {
            target: self.name.clone(),
            sent: read(&self.counts.sent),
            left_out: read(&self.counts.left_out),
            failed: read(&self.counts.failed),
        }
    }

    /// Records that were left out before they came here.
    pub(super) fn left_out(&self, count: u64) {
        self.bound.add_left_out(count);
        self.counts.left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether it may have one more record; if so, how many were left out since the last one.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let admitted = self.bound.admit(now);
        if admitted.is_none() {
            self.counts.left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Queues an admitted record.
    pub(super) fn send(&self, kind: Kind, record: &FlowRecord, left_out: u64) {
        if self.queue.try_send(self.encoder.record(kind, record, left_out)).is_err() {
            // What it would have told is still to be told; it is itself the newest that is left out.
            self.bound.add_left_out(left_out);
            self.left_out(1);
        }
    }

    /// Says how many were left out, where a second of it is over.
    pub(super) fn owed(&self, now: Instant) {
        if self.queue.capacity() == 0 {
            return;
        }
        if let Some(count) = self.bound.owed(now)
            && self.queue.try_send(self.encoder.left_out(count)).is_err()
        {
            self.bound.add_left_out(count);
        }
    }
}

async fn udp(server: SocketAddr, mut messages: mpsc::Receiver<String>, counts: Arc<Counts>) {
    let mut socket = None;
    while let Some(message) = messages.recv().await {
        if socket.is_none() {
            socket = connect_udp(server).await.ok();
        }
        let sent = match &socket {
            // A datagram that was refused earlier is reported with a later one: that one goes again.
            Some(socket) => match socket.send(message.as_bytes()).await {
                Err(_) => socket.send(message.as_bytes()).await.is_ok(),
                Ok(_) => true,
            },
            None => false,
        };
        if !sent {
            socket = None;
        }
        counts.done(sent);
    }
}

async fn connect_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Keeps a connection while it lasts. A message that was not taken whole goes again by the next one, so
/// a server may see it twice, but none in pieces.
async fn tcp(server: SocketAddr, mut messages: mpsc::Receiver<String>, counts: Arc<Counts>) {
    let mut stream: Option<TcpStream> = None;
    while let Some(message) = messages.recv().await {
        let frame = format!("{} {message}", message.len());
        loop {
            let mut open = match stream.take().filter(is_open) {
                Some(open) => open,
                None => connect_tcp(server).await,
            };
            match within(open.write_all(frame.as_bytes())).await {
                Ok(()) => {
                    stream = Some(open);
                    break;
                }
                Err(error) => tracing::warn!(%server, %error, "the connection to the syslog server broke"),
            }
        }
        counts.done(true);
    }
}

/// Whether the server has not closed its side. Servers say nothing; what one says is passed over. Asks
/// the kernel, and not what was heard of it so far.
fn is_open(stream: &TcpStream) -> bool {
    let mut said = [0; 256];
    loop {
        match rustix::net::recv(stream, &mut said[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok(_) => {}
            Err(e) => return e == rustix::io::Errno::AGAIN,
        }
    }
}

/// Tries until there is a connection, less and less often.
async fn connect_tcp(server: SocketAddr) -> TcpStream {
    let (mut pause, longest) = BACK_OFF;
    let mut told = false;
    loop {
        match within(TcpStream::connect(server)).await {
            Ok(stream) => {
                tracing::info!(%server, "connected to the syslog server");
                return stream;
            }
            Err(error) if !told => {
                tracing::warn!(%server, %error, "cannot reach the syslog server; trying again");
                told = true;
            }
            Err(error) => tracing::debug!(%server, %error, "the syslog server is still not reached"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Counts {
    fn done(&self, sent: bool) {
        let count = if sent { &self.sent } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
