//! The thread of the heartbeats: says many times a second that this node is there, and hears the others.
//!
//! A thread of its own, with nothing else to do: neither bulk data nor Raft nor a busy runtime hold a heartbeat up.
//! Nothing is allocated for a heartbeat.

use super::counters::HeartCounters;
use super::keys::{Hearing, Keys, Speaking};
use super::plane::Plane;
use super::wiring::{COPIES, Heart};
use crate::cluster::counters::count;
use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_dataplane::session::owner::Boot;
use tidegate_sync::replication::heartbeat::{Cover, HEARTBEAT_BYTES_MAX, Heartbeat, Newest};

/// Packets that are read from one socket before the own heartbeats have their turn again: a flood must not hold them
/// up. What is too much stays in the socket's buffer, and the kernel drops the rest.
const READ_MAX: usize = 64;
/// Shortest and longest interval that is kept, whatever the policy says, in ms.
const INTERVAL_MS: (u32, u32) = (1, 60_000);
/// Farewells when the node stops in order: its sessions are taken over at once, without the wait for silence.
const FAREWELLS: usize = 3;

/// How the thread is told to end.
#[derive(Default)]
pub(super) struct Ending {
    pub(super) end: AtomicBool,
    /// In order: peers are told.
    pub(super) in_order: AtomicBool,
}

/// What came under one key.
#[derive(Default)]
struct Window {
    newest: Newest,
    /// The newest on any path.
    last: u64,
}

pub(super) struct Beating {
    plane: Arc<Plane>,
    heart: Box<dyn Heart>,
    sockets: Vec<UdpSocket>,
    ending: Arc<Ending>,
    keys: Arc<Keys>,
    windows: BTreeMap<u64, Window>,
    sequence: u64,
    message: Heartbeat,
}

impl Beating {
    pub(super) fn new(
        plane: Arc<Plane>,
        heart: Box<dyn Heart>,
        sockets: Vec<UdpSocket>,
        ending: Arc<Ending>,
    ) -> Self {
        let node = u16::try_from(plane.shared.id.0).unwrap_or(0);
        let message = Heartbeat {
            from: Boot { node, boot: plane.config.boot },
            in_sync: false,
            workers_ok: false,
            owned: 0,
            used: 0,
            capacity: 0,
            view: 0,
            heard: ArrayVec::new(),
        };
        let keys = plane.keys.now();
        Beating { plane, heart, sockets, ending, keys, windows: BTreeMap::new(), sequence: 0, message }
    }

    /// Runs until it is told to end, or the member stops.
    pub(super) fn run(mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        let mut polled: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let mut due = Instant::now();
        while !self.ends() {
            self.heart.tick(self.plane.now());
            let gap = self.gap();
            let now = Instant::now();
            if now >= due {
                self.say(&sockets);
                due = if now.duration_since(due) > gap { now + gap } else { due + gap };
            }
            wait(&mut polled, due.saturating_duration_since(Instant::now()).min(gap));
            // The process may have been stopped meanwhile: the heart learns that before it hears anybody.
            self.heart.tick(self.plane.now());
            self.refresh();
            for socket in &sockets {
                self.read(socket);
            }
        }
        if self.ending.in_order.load(Ordering::Acquire) {
            self.farewell(&sockets);
        }
    }

    fn ends(&self) -> bool {
        self.ending.end.load(Ordering::Acquire) || *self.plane.shared.stop.borrow()
    }

    /// From one heartbeat to the next.
    fn gap(&self) -> Duration {
        let interval_ms = self.heart.interval_ms().clamp(INTERVAL_MS.0, INTERVAL_MS.1);
        Duration::from_millis(u64::from(interval_ms)) / COPIES
    }

    /// Takes new keys; what came under old ones is forgotten with them.
    fn refresh(&mut self) {
        let keys = self.plane.keys.now();
        if !Arc::ptr_eq(&keys, &self.keys) {
            self.keys = keys;
            let keys = &self.keys;
            self.windows.retain(|name, _| keys.hearing.iter().any(|h| h.seal.name == *name));
        }
    }

    fn say(&mut self, sockets: &[UdpSocket]) {
        self.refresh();
        let from = self.message.from;
        self.heart.say(&mut self.message, self.plane.now());
        self.message.from = from;
        self.send(sockets);
    }

    fn send(&mut self, sockets: &[UdpSocket]) {
        self.sequence += 1;
        for peer in &self.keys.speaking {
            send_to(peer, &self.message, self.sequence, sockets);
        }
    }

    /// Peers need not wait for silence.
    fn farewell(&mut self, sockets: &[UdpSocket]) {
        self.heart.say(&mut self.message, self.plane.now());
        (self.message.workers_ok, self.message.in_sync) = (false, false);
        for _ in 0..FAREWELLS {
            self.send(sockets);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read(&mut self, socket: &UdpSocket) {
        let mut bytes = [0; HEARTBEAT_BYTES_MAX + 1];
        for _ in 0..READ_MAX {
            // Nothing there; or an error of a packet that was sent, which is that peer's trouble.
            let Ok((length, _)) = socket.recv_from(&mut bytes) else { return };
            self.take(&bytes[..length]);
        }
    }

    /// Judges a packet; only what is proven and new comes to the heart.
    fn take(&mut self, bytes: &[u8]) {
        let HeartCounters { malformed, unknown_key } = &self.plane.heart;
        let Ok((node, cover)) = Heartbeat::cover(bytes) else { return count(malformed) };
        let known = |h: &&Arc<Hearing>| h.it.node == node && h.seal.name == cover.key;
        let Some(hearing) = self.keys.hearing.iter().find(known) else { return count(unknown_key) };
        let counters = &hearing.counters;
        if !hearing.seal.is_right(bytes) {
            return count(&counters.beats_forged);
        }
        let window = self.windows.entry(cover.key).or_default();
        let Some(missing) = window.newest.admit(cover) else { return count(&counters.beats_old) };
        let now = self.plane.now();
        if let Some(path) = counters.paths.get(usize::from(cover.path)) {
            path.note(missing, now);
        }
        let heartbeat = match Heartbeat::read(bytes) {
            Ok(it) if it.from == hearing.it => it,
            _ => return count(&counters.beats_forged),
        };
        // The same by another path.
        if cover.sequence > window.last {
            window.last = cover.sequence;
            count(&counters.beats_received);
            self.heart.heard(&heartbeat, now);
        }
    }
}

fn send_to(peer: &Speaking, message: &Heartbeat, sequence: u64, sockets: &[UdpSocket]) {
    let mut bytes = [0; HEARTBEAT_BYTES_MAX];
    for (socket, to, path) in &peer.paths {
        let length = message.write(Cover { path: *path, key: peer.seal.name, sequence }, &mut bytes);
        peer.seal.seal(&mut bytes[..length]);
        let sent = sockets.get(*socket).map(|socket| socket.send_to(&bytes[..length], *to));
        match sent {
            Some(Ok(_)) => count(&peer.counters.beats_sent),
            // No route, a full queue: as if it was lost on its way.
            _ => count(&peer.counters.beats_failed),
        }
    }
}

/// Until something comes, or so long.
fn wait(polled: &mut [PollFd<'_>], at_most: Duration) {
    // At least a little, so that a thread that is late does not spin.
    let at_most = at_most.max(Duration::from_micros(100));
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    // An interruption is an early return.
    let _ = rustix::event::poll(polled, Some(&timeout));
}

/// A socket for heartbeats beside each listening address: at the next port, or where that is taken at a free one, which
/// peers are told.
pub(super) fn bind(listening: &[SocketAddr]) -> std::io::Result<Vec<UdpSocket>> {
    let one = |address: &SocketAddr| {
        let beside = address.port().checked_add(1).map(|port| SocketAddr::new(address.ip(), port));
        let socket = beside.map(UdpSocket::bind);
        let socket = match socket {
            Some(Ok(socket)) => socket,
            _ => {
                let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
                let port = socket.local_addr()?.port();
                tracing::warn!(
                    "the port after {address} is taken: heartbeats come to port {port}, which a packet filter between the nodes may not know"
                );
                socket
            }
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    listening.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_no_reason_not_to_start() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let below = SocketAddr::new(at.ip(), at.port() - 1);
        let sockets = bind(&[below]).unwrap();
        assert_ne!(sockets[0].local_addr().unwrap(), at);
        drop(taken);
        let sockets = bind(&[below]).unwrap();
        assert_eq!(sockets[0].local_addr().unwrap(), at);
    }
}
