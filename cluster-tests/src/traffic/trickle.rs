//! Flows that are hardly alive: a datagram now and then, from the server's side, where policy lets nothing new in. They
//! arrive for as long as their session lives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Crew, wildcard};
use crate::LabError;
use crate::sys::Netns;

/// How long the flows may take to be opened.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

/// One flow: from a port of the client to one of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrickleFlow {
    /// The client's port.
    pub client_port: u16,
    /// The server's port, which several flows may share.
    pub server_port: u16,
    /// Time between two datagrams.
    pub every: Duration,
    /// Time until the first.
    pub phase: Duration,
}

/// The flows; dropping it ends them.
#[derive(Debug)]
pub struct Trickle {
    flows: Vec<TrickleFlow>,
    counts: Arc<Vec<Counts>>,
    crew: Crew,
}

/// Of one flow. Datagrams are numbered from 1.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    last: AtomicU64,
    arrived: AtomicU64,
}

impl Trickle {
    /// Opens the flows from the client and returns when each was answered. From then on only the server sends.
    pub fn open(
        client: &Netns,
        server: &Netns,
        to: IpAddr,
        flows: Vec<TrickleFlow>,
    ) -> Result<Trickle, LabError> {
        let counts: Arc<Vec<Counts>> = Arc::new(flows.iter().map(|_| Counts::default()).collect());
        allow_sockets(flows.len() as u64 + 500)?;
        let mut crew = Crew::default();
        let mut ports: Vec<_> = flows.iter().map(|flow| flow.server_port).collect();
        ports.sort_unstable();
        ports.dedup();
        let bind = |netns: &Netns, ports: Vec<u16>| -> Result<Vec<UdpSocket>, LabError> {
            let made =
                netns.run(|| ports.iter().map(|port| bound(to, *port)).collect::<io::Result<Vec<_>>>())?;
            made.map_err(|error| LabError::system(format!("bind in {}", netns.name()), error))
        };
        let servers = bind(server, ports.clone())?;
        let clients = bind(client, flows.iter().map(|flow| flow.client_port).collect())?;
        let from = open_all(&clients, &servers, &ports, to, &flows)?;
        let (mine, plan) = (counts.clone(), flows.clone());
        let sender = move |(), stop: &AtomicBool| {
            let socket_of = |flow: &TrickleFlow| ports.binary_search(&flow.server_port).unwrap_or_default();
            let begin =
                |(number, flow): (usize, &TrickleFlow)| Reverse((Instant::now() + flow.phase, number));
            let mut due: BinaryHeap<_> = plan.iter().enumerate().map(begin).collect();
            while !stop.load(Ordering::Relaxed) {
                let Some(Reverse((at, number))) = due.peek().copied() else { return };
                let wait = at.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    std::thread::sleep(wait.min(Duration::from_millis(50)));
                    continue;
                }
                due.pop();
                let flow = &plan[number];
                due.push(Reverse((at + flow.every, number)));
                let count = mine[number].sent.fetch_add(1, Ordering::SeqCst) + 1;
                let peer = SocketAddr::new(from, flow.client_port);
                // One that finds no way is missed by its receiver.
                let _ = servers[socket_of(flow)].send_to(&count.to_be_bytes(), peer);
            }
        };
        crew.hire(server, || Ok(()), sender)?;
        let theirs = counts.clone();
        crew.hire(client, || Ok(()), move |(), stop| receive_all(&clients, &theirs, stop))?;
        Ok(Trickle { flows, counts, crew })
    }

    /// What the flows are.
    pub fn flows(&self) -> &[TrickleFlow] {
        &self.flows
    }

    /// Datagrams that were sent and have not arrived, over all flows, but for the newest of each.
    pub fn missing(&self) -> u64 {
        let of = |one: &Counts| {
            let arrived = one.arrived.load(Ordering::SeqCst);
            one.last.load(Ordering::SeqCst).saturating_sub(arrived)
        };
        self.counts.iter().map(of).sum()
    }

    /// How many were sent on the flow that has sent the fewest.
    pub fn sent_least(&self) -> u64 {
        self.counts.iter().map(|one| one.sent.load(Ordering::SeqCst)).min().unwrap_or_default()
    }

    /// Waits until a datagram of each flow arrives that is sent from now on. Returns the flows of which none does.
    pub fn dead(&self, patience: Duration) -> Vec<TrickleFlow> {
        let from: Vec<_> = self.counts.iter().map(|one| one.sent.load(Ordering::SeqCst)).collect();
        let start = Instant::now();
        loop {
            let is_dead = |number: &usize| self.counts[*number].last.load(Ordering::SeqCst) <= from[*number];
            let dead: Vec<_> = (0..from.len()).filter(is_dead).map(|number| self.flows[number]).collect();
            if dead.is_empty() || start.elapsed() >= patience {
                return dead;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the sending. From now on the sessions are idle.
    pub fn end(self) -> Vec<TrickleFlow> {
        drop(self.crew);
        self.flows
    }
}

/// Lets this process have so many files open, where it may.
fn allow_sockets(count: u64) -> Result<(), LabError> {
    let limit = Resource::RLIMIT_NOFILE;
    let (soft, hard) =
        getrlimit(limit).map_err(|errno| LabError::system("ask for the limit of files", errno))?;
    if soft >= count {
        return Ok(());
    }
    setrlimit(limit, count.min(hard), hard)
        .map_err(|errno| LabError::system("raise the limit of files", errno))
}

fn bound(like: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(wildcard(like, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Lets the client open each flow, and the server answer once. Returns the client's address.
fn open_all(
    clients: &[UdpSocket],
    servers: &[UdpSocket],
    ports: &[u16],
    to: IpAddr,
    flows: &[TrickleFlow],
) -> Result<IpAddr, LabError> {
    let start = Instant::now();
    let mut open: Vec<_> = (0..flows.len()).collect();
    let mut from = None;
    let mut buffer = [0; 64];
    while !open.is_empty() {
        for number in &open {
            // One that gets lost is sent again.
            let _ = clients[*number].send_to(b"open", SocketAddr::new(to, flows[*number].server_port));
        }
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(5));
            for (server, _) in servers.iter().zip(ports) {
                while let Ok((length, peer)) = server.recv_from(&mut buffer) {
                    from = Some(peer.ip());
                    let _ = server.send_to(&buffer[..length], peer);
                }
            }
            open.retain(|number| clients[*number].recv(&mut buffer).is_err());
            if open.is_empty() {
                break;
            }
        }
        if start.elapsed() > OPEN_PATIENCE {
            return Err(LabError::Check(format!(
                "{} of {} flows were not answered",
                open.len(),
                flows.len()
            )));
        }
    }
    // Answers to what was sent twice.
    std::thread::sleep(Duration::from_millis(100));
    for client in clients {
        while client.recv(&mut buffer).is_ok() {}
    }
    from.ok_or_else(|| LabError::Check("there are no flows".to_owned()))
}

fn receive_all(clients: &[UdpSocket], counts: &[Counts], stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let mut ready: Vec<_> =
            clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut ready, PollTimeout::from(50u8));
        for (client, count) in clients.iter().zip(counts) {
            while let Ok(length) = client.recv(&mut buffer) {
                if length == 8
                    && let Some(number) = buffer.first_chunk::<8>()
                {
                    count.last.fetch_max(u64::from_be_bytes(*number), Ordering::SeqCst);
                    count.arrived.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}
