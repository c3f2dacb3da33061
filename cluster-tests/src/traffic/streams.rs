//! Many TCP connections that talk at a slow pace for as long as they are held, and check every byte that comes back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::Crew;
use crate::LabError;
use crate::sys::Netns;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// What a connection says at a time: more than one segment now and then.
const BLOCK_BYTES: u64 = 1_000;
/// A connection from which that much has not come back yet waits.
const UNANSWERED_MAX: u64 = 16_000;
/// How often the threads look whether they are to end.
const TURN: Duration = Duration::from_millis(50);

/// The connections, from a client to an echo server. Dropping it ends them.
#[derive(Debug)]
pub struct Streams {
    seen: Arc<Mutex<Vec<Seen>>>,
    locals: Vec<SocketAddr>,
    _crew: Crew,
}

/// What one connection has seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Bytes sent.
    said: u64,
    /// Bytes that came back as they were sent.
    checked: u64,
    broken: Option<String>,
    /// The longest time between two answers.
    silence: Duration,
}

struct Stream {
    socket: TcpStream,
    number: usize,
    said: u64,
    checked: u64,
    due: Instant,
    heard: Instant,
    silence: Duration,
}

impl Streams {
    /// Opens `count` connections to `address`, where an echo server is started too. Each says a block every `pace`.
    pub fn open(
        client: &Netns,
        server: &Netns,
        address: SocketAddr,
        count: usize,
        pace: Duration,
    ) -> Result<Streams, LabError> {
        let mut crew = Crew::default();
        crew.hire(
            server,
            move || listen(address),
            |listener: TcpListener, stop| repeat_all(&listener, stop),
        )?;
        let connected =
            client.run(|| (0..count).map(|_| connect(address)).collect::<io::Result<Vec<_>>>())?;
        let sockets = connected.map_err(|error| LabError::system(format!("connect to {address}"), error))?;
        let locals = sockets.iter().map(TcpStream::local_addr).collect::<io::Result<Vec<_>>>();
        let locals = locals.map_err(|error| LabError::system("ask for a local address", error))?;
        let seen = Arc::new(Mutex::new(vec![Seen::default(); count]));
        let (shared, start) = (seen.clone(), Instant::now());
        crew.hire(
            client,
            || Ok(()),
            move |(), stop| {
                let begin = |(number, socket)| {
                    // Not all at the same moment.
                    let due = start + pace.mul_f64(number as f64 / count as f64);
                    Stream { socket, number, said: 0, checked: 0, due, heard: start, silence: Duration::ZERO }
                };
                talk(sockets.into_iter().enumerate().map(begin).collect(), pace, &shared, stop);
            },
        )?;
        Ok(Streams { seen, locals, _crew: crew })
    }

    /// The client's end of each.
    pub fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// What broke, in words: resets, ends, and bytes that are not what was sent.
    pub fn broken(&self) -> Vec<String> {
        let seen = lock(&self.seen);
        let words =
            |(number, one): (usize, &Seen)| Some(format!("stream {number}: {}", one.broken.as_ref()?));
        seen.iter().enumerate().filter_map(words).collect()
    }

    /// Bytes that came back right, over all.
    pub fn checked(&self) -> u64 {
        lock(&self.seen).iter().map(|one| one.checked).sum()
    }

    /// The longest time that one of them has waited between two answers.
    pub fn longest_silence(&self) -> Duration {
        lock(&self.seen).iter().map(|one| one.silence).max().unwrap_or_default()
    }

    /// Waits until something that each connection says from now on has come back. An error if one broke, or stands
    /// still for so long.
    pub fn go_on(&self, patience: Duration) -> Result<(), LabError> {
        let (start, from) = (Instant::now(), lock(&self.seen).clone());
        loop {
            let broken = self.broken();
            if !broken.is_empty() {
                let first = broken.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
                return Err(LabError::Check(format!("{} of {} broke: {first}", broken.len(), from.len())));
            }
            let now = lock(&self.seen).clone();
            let standing: Vec<_> =
                (0..from.len()).filter(|number| now[*number].checked <= from[*number].said).collect();
            if standing.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= patience {
                let first: Vec<_> = standing.iter().take(5).map(|number| self.locals[*number]).collect();
                return Err(LabError::Check(format!(
                    "{} of {} stand still for {patience:?}, such as {first:?}",
                    standing.len(),
                    from.len()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Byte number `at` of a connection: no two places look alike.
fn byte(number: usize, at: u64) -> u8 {
    let z = (at ^ (number as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z >> 56) as u8
}

fn talk(mut streams: Vec<Stream>, pace: Duration, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let mut ready: Vec<_> =
            streams.iter().map(|stream| PollFd::new(stream.socket.as_fd(), PollFlags::POLLIN)).collect();
        let next = streams.iter().map(|stream| stream.due).min();
        let wait = next.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        let wait = PollTimeout::try_from(wait.min(TURN)).unwrap_or(PollTimeout::ZERO);
        // What it says is looked at for each.
        let _ = poll(&mut ready, wait);
        let is_ready: Vec<_> = ready.iter().map(|one| one.any().unwrap_or(true)).collect();
        let mut has_heard = is_ready.into_iter();
        streams.retain_mut(|stream| {
            let turned = stream.turn(has_heard.next().unwrap_or(true), pace, &mut buffer);
            let mut seen = lock(seen);
            let mine = &mut seen[stream.number];
            (mine.said, mine.checked, mine.silence) = (stream.said, stream.checked, stream.silence);
            mine.broken = turned.err().map(|error| format!("after {} bytes: {error}", stream.checked));
            mine.broken.is_none()
        });
        if streams.is_empty() {
            return;
        }
    }
}

impl Stream {
    fn turn(&mut self, has_heard: bool, pace: Duration, buffer: &mut [u8]) -> io::Result<()> {
        if has_heard {
            self.hear(buffer)?;
        }
        let now = Instant::now();
        if now < self.due {
            return Ok(());
        }
        self.due = (self.due + pace).max(now);
        if self.said - self.checked > UNANSWERED_MAX {
            return Ok(());
        }
        let block: Vec<_> = (self.said..self.said + BLOCK_BYTES).map(|at| byte(self.number, at)).collect();
        match self.socket.write(&block) {
            Ok(length) => self.said += length as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let length = match self.socket.read(buffer) {
            Ok(0) => return Err(io::Error::other("it was ended")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        self.silence = self.silence.max(now - self.heard);
        self.heard = now;
        for heard in &buffer[..length] {
            if *heard != byte(self.number, self.checked) || self.checked >= self.said {
                return Err(io::Error::other(format!("byte {} is not what was sent", self.checked)));
            }
            self.checked += 1;
        }
        Ok(())
    }
}

/// An echo server for many, in one thread.
fn repeat_all(listener: &TcpListener, stop: &AtomicBool) {
    let mut peers: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let wanted = |rest: &Vec<u8>| if rest.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        let mut ready: Vec<_> =
            peers.iter().map(|(peer, rest)| PollFd::new(peer.as_fd(), wanted(rest))).collect();
        ready.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut ready, PollTimeout::from(50u8));
        let mut is_ready = ready.iter().map(|one| one.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
        peers.retain_mut(|(peer, rest)| {
            !is_ready.next().unwrap_or(false) || repeat(peer, rest, &mut buffer).is_ok()
        });
        while let Ok((peer, _)) = listener.accept() {
            if peer.set_nonblocking(true).and_then(|()| peer.set_nodelay(true)).is_ok() {
                peers.push((peer, Vec::new()));
            }
        }
    }
}

fn repeat(peer: &mut TcpStream, rest: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<()> {
    let would_block = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => Ok(0),
        _ => Err(error),
    };
    if rest.is_empty() {
        match peer.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => rest.extend_from_slice(&buffer[..length]),
            Err(error) => return would_block(error).map(drop),
        }
    }
    let written = peer.write(rest).or_else(would_block)?;
    rest.drain(..written);
    Ok(())
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a byte that was lost, doubled or taken from another connection would not be seen.
    #[test]
    fn no_two_places_look_alike() {
        let block = |number, from: u64| (from..from + 64).map(|at| byte(number, at)).collect::<Vec<_>>();
        let mut all: Vec<_> = (0..200).flat_map(|number| (0..50).map(move |at| block(number, at))).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
