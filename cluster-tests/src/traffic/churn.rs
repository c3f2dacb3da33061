//! Many short TCP connections: opened, used, closed in order, by real kernel stacks at both ends.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Crew, wildcard};
use crate::LabError;
use crate::sys::{Netns, Stop};

/// Servers that answer on one port at a time.
const SERVERS_PER_PORT: usize = 4;
/// Longer than three SYN retransmissions: what takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the client says and the server repeats.
const MESSAGE: [u8; 64] = [0x5a; 64];

/// How many connections, and from where to where.
#[derive(Debug, Clone)]
pub struct Churn {
    /// Connections in all.
    pub connections: u64,
    /// Connections at a time.
    pub concurrency: usize,
    /// Client addresses, used in turn.
    pub sources: Vec<IpAddr>,
    /// Server address.
    pub server: IpAddr,
    /// Server ports, used in turn.
    pub ports: Vec<u16>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChurnReport {
    /// Connections that were opened, used, and closed in order from both sides.
    pub completed: u64,
    /// Those that were not.
    pub failed: u64,
    /// What went wrong with the first few.
    pub errors: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// TCP segments that either side sent again.
    pub retransmissions: u64,
    /// SYNs that the client sent again.
    pub syn_retransmissions: u64,
    /// Connections that the client saw reset, half made ones too.
    pub resets: u64,
}

/// Opens and closes connections from `client` to a server that runs in `server` meanwhile.
pub fn churn(client: &Netns, server: &Netns, plan: &Churn, stop: &Stop) -> Result<ChurnReport, LabError> {
    churn_at(client, server, plan, &Pace::new(Duration::ZERO), stop)
}

/// The same, no more than so many connections a second.
pub fn paced_churn(
    client: &Netns,
    server: &Netns,
    plan: &Churn,
    per_second: u32,
    stop: &Stop,
) -> Result<ChurnReport, LabError> {
    let each = Duration::from_secs(1) / per_second.max(1);
    churn_at(client, server, plan, &Pace::new(each), stop)
}

/// When connections may begin: one that was held up does not hurry those behind it.
#[derive(Debug)]
struct Pace {
    next: Mutex<Instant>,
    each: Duration,
}

impl Pace {
    fn new(each: Duration) -> Pace {
        Pace { next: Mutex::new(Instant::now()), each }
    }

    fn wait(&self) {
        let now = Instant::now();
        let due = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let due = now.max(*next);
            *next = due + self.each;
            due
        };
        std::thread::sleep(due - now);
    }
}

/// What a host's TCP has counted.
#[derive(Debug, Clone, Copy, Default)]
struct TcpCounts {
    retransmissions: u64,
    syn_retransmissions: u64,
    resets: u64,
}

impl TcpCounts {
    fn of(netns: &Netns) -> Result<TcpCounts, LabError> {
        let (snmp, netstat) = (netns.proc_net("snmp")?, netns.proc_net("netstat")?);
        let missing = |name: &str| LabError::Check(format!("no {name} in {}", netns.name()));
        let tcp = |name: &str| snmp_value(&snmp, "Tcp:", name).ok_or_else(|| missing(name));
        let extended = |name: &str| snmp_value(&netstat, "TcpExt:", name).ok_or_else(|| missing(name));
        Ok(TcpCounts {
            retransmissions: tcp("RetransSegs")?,
            syn_retransmissions: extended("TCPSynRetrans")?,
            resets: tcp("EstabResets")? + tcp("AttemptFails")?,
        })
    }
}

fn churn_at(
    client: &Netns,
    server: &Netns,
    plan: &Churn,
    pace: &Pace,
    stop: &Stop,
) -> Result<ChurnReport, LabError> {
    let mut crew = Crew::default();
    for port in &plan.ports {
        serve(&mut crew, server, wildcard(plan.server, *port))?;
    }
    let before = [TcpCounts::of(client)?, TcpCounts::of(server)?];
    let (started, completed) = (AtomicU64::new(0), AtomicU64::new(0));
    let errors = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.concurrency)
            .map(|_| {
                scope.spawn(|| {
                    client.enter()?;
                    while let Some(index) = take(&started, plan.connections)
                        && !stop.is_set()
                    {
                        pace.wait();
                        match one_connection(plan, index) {
                            Ok(()) => drop(completed.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => note(&errors, index, &error),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    stop.check()?;
    let after = [TcpCounts::of(client)?, TcpCounts::of(server)?];
    let retransmissions = |counts: [TcpCounts; 2]| counts[0].retransmissions + counts[1].retransmissions;
    let errors: Vec<String> = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    let completed = completed.into_inner();
    Ok(ChurnReport {
        completed,
        failed: plan.connections - completed,
        errors: errors.into_iter().take(10).collect(),
        seconds: start.elapsed().as_secs_f64(),
        retransmissions: retransmissions(after) - retransmissions(before),
        syn_retransmissions: after[0].syn_retransmissions - before[0].syn_retransmissions,
        resets: after[0].resets - before[0].resets,
    })
}

/// A value of /proc/net/snmp: a line of names, and below it a line of values.
pub fn snmp_value(snmp: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with(prefix));
    let (names, values) = (lines.next()?, lines.next()?);
    let position = names.split_ascii_whitespace().position(|field| field == name)?;
    values.split_ascii_whitespace().nth(position)?.parse().ok()
}

fn take(started: &AtomicU64, connections: u64) -> Option<u64> {
    let index = started.fetch_add(1, Ordering::Relaxed);
    (index < connections).then_some(index)
}

fn note(errors: &Mutex<Vec<String>>, index: u64, error: &io::Error) {
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    if errors.len() < 10 {
        errors.push(format!("connection {index}: {error}"));
    }
}

fn one_connection(plan: &Churn, index: u64) -> io::Result<()> {
    let pick = |count: usize| (index % count as u64) as usize;
    let source = plan.sources[pick(plan.sources.len())];
    let port = plan.ports[pick(plan.ports.len() * plan.sources.len()) / plan.sources.len()];
    let server = SocketAddr::new(plan.server, port);
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    // The port is chosen when connecting, by the whole tuple, not by the source address alone.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&MESSAGE)?;
    let mut answer = [0; MESSAGE.len()];
    stream.read_exact(&mut answer)?;
    if answer != MESSAGE {
        return Err(io::Error::other("the answer is not what was sent"));
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(io::Error::other("data after the end")),
    }
}

fn serve(crew: &mut Crew, netns: &Netns, address: SocketAddr) -> Result<(), LabError> {
    let (hand_out, listeners) = std::sync::mpsc::channel();
    let listen = move || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok(TcpListener::from(socket))
    };
    let first =
        netns.run(listen)?.map_err(|error| LabError::system(format!("listen on {address}"), error))?;
    first.set_nonblocking(true).map_err(|error| LabError::system("set a listener non-blocking", error))?;
    for _ in 0..SERVERS_PER_PORT {
        let copy = first.try_clone().map_err(|error| LabError::system("share a listener", error))?;
        // The receiver lives until this function ends.
        let _ = hand_out.send(copy);
    }
    for listener in listeners.try_iter() {
        crew.hire(
            netns,
            move || Ok(listener),
            |listener: TcpListener, stop| {
                while !stop.load(Ordering::Relaxed) {
                    answer_next(&listener);
                }
            },
        )?;
    }
    Ok(())
}

fn answer_next(listener: &TcpListener) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let Ok((mut stream, _)) = listener.accept() else {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // Woken by a connection, or after 100 ms to look at the flag.
        let _ = poll(&mut waiting, PollTimeout::from(100u8));
        return;
    };
    // A failed answer is seen by the client, which counts it.
    let _ = repeat(&mut stream);
}

fn repeat(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snmp_values_stand_below_their_names() {
        let snmp = "Ip: Forwarding ForwDatagrams\nIp: 2 17\nTcp: RtoAlgorithm RetransSegs\nTcp: 1 42\n";
        assert_eq!(snmp_value(snmp, "Tcp:", "RetransSegs"), Some(42));
        assert_eq!(snmp_value(snmp, "Ip:", "ForwDatagrams"), Some(17));
        assert_eq!(snmp_value(snmp, "Udp:", "InDatagrams"), None);
    }

    /// Red when sources and ports go in step: then eight of each make eight pairs instead of sixty-four.
    #[test]
    fn every_source_meets_every_port() {
        let (sources, ports) = (8u64, 8u64);
        let pairs: std::collections::BTreeSet<_> =
            (0..64u64).map(|index| (index % sources, index % (ports * sources) / sources)).collect();
        assert_eq!(pairs.len(), 64);
    }
}
