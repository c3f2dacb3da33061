//! Numbered UDP datagrams: what arrives can be told from what was sent before and after a moment.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Crew, wildcard};
use crate::LabError;
use crate::sys::Netns;

/// A sender in one namespace and a receiver in another.
#[derive(Debug)]
pub struct Numbered {
    next: Arc<AtomicU64>,
    received: Arc<Mutex<Vec<u64>>>,
    // Last, so that the threads end before what they write to.
    _crew: Crew,
}

impl Numbered {
    /// Sends a datagram from `from` to `destination`, which is an address of `to`, every `interval`, always from
    /// the same port: one flow.
    pub fn start(
        from: &Netns,
        to: &Netns,
        destination: SocketAddr,
        interval: Duration,
    ) -> Result<Numbered, LabError> {
        let next = Arc::new(AtomicU64::new(0));
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut crew = Crew::default();
        let here = wildcard(destination.ip(), destination.port());
        let listen = move || {
            let socket = bind_wildcard(here)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        };
        let numbers = received.clone();
        crew.hire(to, listen, move |socket: UdpSocket, stop| {
            let mut datagram = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((8, _)) = socket.recv_from(&mut datagram)
                    && let Some(number) = datagram.first_chunk::<8>()
                {
                    lock(&numbers).push(u64::from_be_bytes(*number));
                }
            }
        })?;
        let counter = next.clone();
        let any = wildcard(destination.ip(), 0);
        crew.hire(
            from,
            move || UdpSocket::bind(any),
            move |socket: UdpSocket, stop| {
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    // The number is taken before the datagram leaves: whatever carries a number at or above
                    // `next()` was sent after that call.
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    // While a link is down there is no route; the next one may get through.
                    let _ = socket.send_to(&number.to_be_bytes(), destination);
                    // A sender that stood still goes on at its pace: a burst of what it missed would overflow
                    // what is meant to hold a flow's packets for a moment.
                    let now = Instant::now();
                    due = (due + interval).max(now);
                    std::thread::sleep(due - now);
                }
            },
        )?;
        Ok(Numbered { next, received, _crew: crew })
    }

    /// The number that the next datagram will carry.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// How many have arrived.
    pub fn arrived(&self) -> usize {
        lock(&self.received).len()
    }

    /// How many have arrived that carry `number` or a later one.
    pub fn arrived_since(&self, number: u64) -> usize {
        lock(&self.received).iter().filter(|received| **received >= number).count()
    }

    /// How many have arrived that carry a lower number.
    pub fn arrived_before(&self, number: u64) -> usize {
        lock(&self.received).iter().filter(|received| **received < number).count()
    }

    /// Waits until a datagram that is sent from now on arrives. Returns how long that took, `None` if none did.
    pub fn wait_arrival(&self, patience: Duration) -> Option<Duration> {
        let (start, from) = (Instant::now(), self.next());
        while start.elapsed() < patience {
            if self.arrived_since(from) > 0 {
                return Some(start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

/// Binds to a wildcard of one family only, so that both families can use the same port.
fn bind_wildcard(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn lock(numbers: &Mutex<Vec<u64>>) -> MutexGuard<'_, Vec<u64>> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}
