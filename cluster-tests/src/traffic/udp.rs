//! UDP echo, and many flows at once to see which of them get an answer.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Crew, wildcard};
use crate::LabError;
use crate::sys::{Netns, pin};

/// How many flows are in flight at once: their datagrams fit into the echo's receive buffer.
const FLOWS_AT_ONCE: usize = 100;

/// Answers every datagram with itself while it lives.
#[derive(Debug)]
pub struct UdpEcho {
    _crew: Crew,
}

impl UdpEcho {
    /// Listens on `address` in a namespace.
    pub fn start(netns: &Netns, address: SocketAddr) -> Result<UdpEcho, LabError> {
        UdpEcho::start_with(netns, address, || Ok(()))
    }

    /// The same on one CPU.
    pub fn start_on_cpu(netns: &Netns, address: SocketAddr, cpu: usize) -> Result<UdpEcho, LabError> {
        UdpEcho::start_with(netns, address, move || pin(cpu).map_err(std::io::Error::other))
    }

    fn start_with(
        netns: &Netns,
        address: SocketAddr,
        prepare: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<UdpEcho, LabError> {
        let mut crew = Crew::default();
        let bind = move || {
            prepare()?;
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        };
        crew.hire(netns, bind, |socket: UdpSocket, stop| {
            let mut datagram = [0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    // The other side may be unreachable by now.
                    let _ = socket.send_to(&datagram[..length], from);
                }
            }
        })?;
        Ok(UdpEcho { _crew: crew })
    }
}

/// Sends from each of the source ports to `destination`, `tries` times to those that got no answer within
/// `wait`. Returns the ports that got one. Each port is one flow; the same port later is the same flow.
pub fn udp_flows(
    netns: &Netns,
    destination: SocketAddr,
    ports: impl IntoIterator<Item = u16>,
    tries: u32,
    wait: Duration,
) -> Result<BTreeSet<u16>, LabError> {
    let ports: Vec<u16> = ports.into_iter().collect();
    let answered = netns.run(|| {
        let mut answered = BTreeSet::new();
        for chunk in ports.chunks(FLOWS_AT_ONCE) {
            flows_at_once(destination, chunk, tries, wait, &mut answered)?;
        }
        Ok(answered)
    })?;
    answered.map_err(|error: std::io::Error| LabError::system("send from many UDP ports", error))
}

fn flows_at_once(
    destination: SocketAddr,
    ports: &[u16],
    tries: u32,
    wait: Duration,
    answered: &mut BTreeSet<u16>,
) -> std::io::Result<()> {
    let mut sockets = Vec::with_capacity(ports.len());
    for port in ports {
        let socket = UdpSocket::bind(wildcard(destination.ip(), *port))?;
        socket.set_nonblocking(true)?;
        sockets.push((*port, socket));
    }
    for _ in 0..tries {
        for (port, socket) in sockets.iter().filter(|(port, _)| !answered.contains(port)) {
            // An earlier ICMP error may be reported here; the datagram then counts as unanswered.
            let _ = socket.send_to(&port.to_be_bytes(), destination);
        }
        let deadline = std::time::Instant::now() + wait;
        loop {
            collect(&sockets, answered);
            if sockets.iter().all(|(port, _)| answered.contains(port)) {
                return Ok(());
            }
            if std::time::Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn collect(sockets: &[(u16, UdpSocket)], answered: &mut BTreeSet<u16>) {
    let mut datagram = [0; 16];
    for (port, socket) in sockets {
        while let Ok((length, _)) = socket.recv_from(&mut datagram) {
            if datagram[..length] == port.to_be_bytes() {
                answered.insert(*port);
            }
        }
    }
}
