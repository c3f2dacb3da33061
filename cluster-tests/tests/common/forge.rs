//! Forged packets on every node while honest connections run: segments of no session, outside the window, and from the
//! wrong zone. Whoever made them watches both ends, and tells which arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use tidegate_lab::sys::Netns;
use tidegate_lab::traffic::{Streams, Wire};

use super::{TestLab, ip, pause};

/// What every forged payload holds, and no honest one.
const MARK: &[u8] = b"forged: ";
/// What it holds when the node that it goes through knows no window, and may let it pass.
const PROBE: &[u8] = b"probe: ";
/// Client ports that only forged segments have.
const OWN_PORTS: std::ops::Range<u16> = 61_000..61_100;
/// How far outside its window a segment lies: no window reaches so far, in either direction.
const FAR: u32 = 0x4000_0000;

/// Sends until it is dropped.
pub struct Forger {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    client: IpAddr,
    server: SocketAddr,
    honest: BTreeSet<u16>,
    /// Newest sequence and acknowledgement of the client, by its port, as the server sees them.
    newest: Mutex<BTreeMap<u16, (u32, u32)>>,
    sent: AtomicU64,
    /// Forged segments outside the window that arrived through nodes that know none.
    probes: AtomicU64,
    arrived: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A side that forged segments are sent from.
struct Side {
    wire: Wire,
    /// For each node, by its number: its MAC there.
    nodes: Vec<(u32, [u8; 6])>,
}

/// Which nodes see both directions of the honest connections, and have for a while: only there a window is known.
pub type Carriers = Arc<Mutex<BTreeSet<u32>>>;

impl Forger {
    /// Begins to forge segments of connections that run to `server`, through all nodes. Of those outside the window
    /// that go through a node that does not carry both directions, arrivals are counted apart: it knows no window and
    /// may let them pass. They mislead it no less.
    pub fn start(lab: &TestLab, streams: &Streams, server: SocketAddr, carriers: &Carriers) -> Forger {
        let shared = Arc::new(Shared {
            client: ip(&lab.plan().client.ipv4),
            server,
            honest: streams.locals().iter().map(SocketAddr::port).collect(),
            newest: Mutex::new(BTreeMap::new()),
            sent: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            arrived: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let side = |netns: &Netns, ifname: &str, port: &'static str| Side {
            wire: Wire::open(netns, ifname).unwrap(),
            nodes: lab.plan().nodes.iter().map(|node| (node.number, mac_of(&node.netns, port))).collect(),
        };
        let plan = lab.plan();
        let outside = side(&lab.client(), &plan.client.ifname, "outside");
        let inside = side(&lab.server(), &plan.server.ifname, "inside");
        let ends = [
            ("the client", Wire::open(&lab.client(), &plan.client.ifname).unwrap()),
            ("the server", Wire::open(&lab.server(), &plan.server.ifname).unwrap()),
        ];
        let mut threads = Vec::new();
        for (name, wire) in ends {
            let shared = shared.clone();
            threads.push(std::thread::spawn(move || shared.watch(name, &wire)));
        }
        let (sender, carriers) = (shared.clone(), carriers.clone());
        threads.push(std::thread::spawn(move || sender.forge(&outside, &inside, &carriers)));
        Forger { shared, threads }
    }

    /// How many forged segments were sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// How many arrived outside the window, through nodes that did not carry both directions.
    pub fn probes(&self) -> u64 {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// What arrived that should not.
    pub fn arrived(&self) -> Vec<String> {
        lock(&self.shared.arrived).clone()
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self, at: &str, wire: &Wire) {
        wire.widen(8 << 20).unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(Some(frame)) = wire.receive(Duration::from_millis(100)) else { continue };
            let Ok(packet) = SlicedPacket::from_ethernet(&frame) else { continue };
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else { continue };
            let (from, to) = (tcp.source_port(), tcp.destination_port());
            let client_port = if from == self.server.port() { to } else { from };
            if let Some(what) = tcp.payload().strip_prefix(MARK) {
                lock(&self.arrived).push(format!("{}, at {at}", String::from_utf8_lossy(what)));
            } else if tcp.payload().starts_with(PROBE) {
                self.probes.fetch_add(1, Ordering::SeqCst);
            } else if self.honest.contains(&client_port) && tcp.rst() {
                lock(&self.arrived).push(format!("a reset that nobody forged, {from} to {to}, at {at}"));
            } else if self.honest.contains(&from) && to == self.server.port() {
                let end = tcp.sequence_number().wrapping_add(tcp.payload().len() as u32);
                lock(&self.newest).insert(from, (end, tcp.acknowledgment_number()));
            }
        }
    }

    fn forge(&self, outside: &Side, inside: &Side, carriers: &Carriers) {
        let (out, home) = ((self.client, self.server.ip()), (self.server.ip(), self.client));
        let service = self.server.port();
        for round in 0usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let own = OWN_PORTS.start + (round % OWN_PORTS.len()) as u16;
            let victim = {
                let newest = lock(&self.newest);
                newest.iter().nth(round % newest.len().max(1)).map(|(port, at)| (*port, *at))
            };
            for node in 0..outside.nodes.len() {
                let send = |side: &Side, tuple, header, what: &str| {
                    self.send(side, node, tuple, header, (MARK, what));
                };
                send(outside, out, segment(own, service, 9, 77, "A"), "an ACK of no session");
                send(outside, out, segment(own, service, 9, 77, "SA"), "a SYN-ACK of no session");
                let Some((port, (seq, acked))) = victim else { continue };
                // Right in every number, but from the other side's zone.
                let there = |seq, flags| segment(port, service, seq, acked, flags);
                let back = |acked, flags| segment(service, port, acked, seq, flags);
                send(inside, out, there(seq, "A"), "data from the wrong zone");
                send(inside, out, there(seq, "R"), "a RST from the wrong zone");
                send(outside, home, back(acked, "A"), "an answer from the wrong zone");
                send(outside, home, back(acked, "R"), "a RST in answer from the wrong zone");
                let knows = lock(carriers).contains(&outside.nodes[node].0);
                let mark = if knows { MARK } else { PROBE };
                let send = |side: &Side, tuple, header, what: &str| {
                    self.send(side, node, tuple, header, (mark, what));
                };
                let there = |flags| segment(port, service, seq.wrapping_add(FAR), acked, flags);
                let back = |flags| segment(service, port, acked.wrapping_add(FAR), seq, flags);
                send(outside, out, there("A"), "data outside the window");
                send(outside, out, there("R"), "a RST outside the window");
                send(inside, home, back("A"), "an answer outside the window");
                send(inside, home, back("R"), "a RST in answer outside the window");
            }
            pause(Duration::from_millis(10));
        }
    }

    fn send(
        &self,
        side: &Side,
        node: usize,
        (from, to): (IpAddr, IpAddr),
        header: TcpHeader,
        (mark, what): (&[u8], &str),
    ) {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { return };
        let (number, mac) = side.nodes[node];
        let payload = [mark, what.as_bytes(), b", through node", number.to_string().as_bytes()].concat();
        let ethernet = PacketBuilder::ethernet2(side.wire.mac(), mac);
        let mut frame = Vec::new();
        ethernet.ipv4(from.octets(), to.octets(), 64).tcp_header(header).write(&mut frame, &payload).unwrap();
        if side.wire.send(&frame).is_ok() {
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn segment(from: u16, to: u16, seq: u32, ack: u32, flags: &str) -> TcpHeader {
    let mut header = TcpHeader::new(from, to, seq, 1_000);
    header.acknowledgment_number = ack;
    header.ack = flags.contains('A');
    header.syn = flags.contains('S');
    header.rst = flags.contains('R');
    header
}

fn mac_of(netns: &str, port: &str) -> [u8; 6] {
    let text = Netns::new(netns).ip(&format!("-o link show {port}")).unwrap();
    let after = text.split("link/ether ").nth(1).expect("an Ethernet device");
    let mac = after.split_whitespace().next().unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
