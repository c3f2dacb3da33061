//! The engine, seen as a worker sees it: frames in, verdicts and frames out.
//!
//! Packets are written here byte by byte, independent of the parser and the builders under test.

mod ageing;
mod cost;
mod forwarding;
mod fragments;
mod hold;
mod icmp;
mod park;
mod replica;
mod selective;
mod sessions;
mod tcp;
mod telling;

use super::*;
use crate::addr::{Addr, Mac, proto};
use crate::fragment::FragmentNote;
use crate::names::Names;
use crate::packet::tcp_flags::{ACK, FIN, RST, SYN};
use crate::policy;
use crate::route::{NextHop, PortId, PortInfo, Route, SnapshotBuilder};
use crate::session::State;
use arrayvec::ArrayVec;
use std::net::IpAddr;

pub(super) const OUT: PortId = PortId(0);
pub(super) const IN: PortId = PortId(1);
pub(super) const CLIENT: &str = "10.1.0.2";
pub(super) const SERVER: &str = "10.2.0.2";
const CLIENT_MAC: Mac = Mac([2, 0xc, 0, 0, 0, 1]);
const SERVER_MAC: Mac = Mac([2, 0x5, 0, 0, 0, 1]);

pub(super) const POLICY: &str = r#"
[[zone]]
name = "outside"
[[zone]]
name = "inside"
[[rule]]
name = "no-discard"
from = "outside"
to = "inside"
source = ["any"]
destination = ["any"]
application = ["discard"]
action = "deny"
[[rule]]
name = "no-telnet"
from = "outside"
to = "inside"
source = ["any"]
destination = ["any"]
application = ["telnet"]
action = "reject"
[[rule]]
name = "out"
from = "outside"
to = "inside"
source = ["any"]
destination = ["any"]
application = ["any"]
action = "permit"
[[application]]
name = "discard"
protocol = "tcp"
destination_port = 9
"#;

pub(super) struct TestFrame {
    port: PortId,
    pub(super) bytes: Vec<u8>,
    pub(super) note: Option<FragmentNote>,
}

impl Frame for TestFrame {
    fn port(&self) -> PortId {
        self.port
    }
    fn data(&self) -> &[u8] {
        &self.bytes
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn note(&self) -> Option<FragmentNote> {
        self.note
    }
    fn set_note(&mut self, note: FragmentNote) {
        self.note = Some(note);
    }
}

pub(super) fn ip(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

pub(super) fn port_mac(p: PortId) -> Mac {
    Mac([2, 0xf, 0, 0, 0, p.0])
}

pub(super) struct Lab {
    pub(super) engine: Engine,
    pub(super) names: Names,
    pub(super) now: Now,
    revision: u32,
    generation: u32,
}

pub(super) struct Routes {
    pub(super) neighbours: bool,
    pub(super) inside_mtu: u32,
    pub(super) server_mac: Mac,
    pub(super) server_port: PortId,
}

impl Default for Routes {
    fn default() -> Self {
        Routes { neighbours: true, inside_mtu: 1500, server_mac: SERVER_MAC, server_port: IN }
    }
}

impl Lab {
    pub(super) fn new(policy_text: &str, capacity: u32) -> Lab {
        Lab::with(policy_text, capacity, 1)
    }

    /// The engine of one of several nodes.
    pub(super) fn of_node(node_id: u16, policy_text: &str) -> Lab {
        Lab::with(policy_text, 1000, node_id)
    }

    fn with(policy_text: &str, capacity: u32, node_id: u16) -> Lab {
        let config = EngineConfig {
            shard: 0,
            shards: 1,
            capacity,
            hash_key: [1, 2],
            node_id,
            boot: 7,
            icmp_errors_per_s: 100,
            fragments: FragmentConfig { datagrams: 64, timeout_ms: 1_000 },
        };
        let engine = Engine::new(config, Arc::new(Snapshot::empty())).unwrap();
        let mut lab =
            Lab { engine, names: Names::default(), now: Now(1_000_000), revision: 0, generation: 0 };
        lab.policy(policy_text);
        lab.routes(Routes::default());
        lab
    }

    pub(super) fn policy(&mut self, text: &str) {
        self.revision += 1;
        let report = policy::check(text, "test.toml");
        let file = report.file.unwrap_or_else(|| panic!("{:?}", report.errors));
        let compiled = policy::compile(&file, self.revision, &mut self.names).unwrap();
        self.engine.set_policy(Arc::new(compiled));
    }

    pub(super) fn routes(&mut self, r: Routes) {
        self.generation += 1;
        let mut b = SnapshotBuilder::new(self.generation);
        for (id, name, zone, v4, mtu) in [
            (OUT, "outside", "outside", "10.1.0.1", 1500),
            (IN, "inside", "inside", "10.2.0.1", r.inside_mtu),
        ] {
            b.port(PortInfo {
                id,
                name: name.into(),
                mac: port_mac(id),
                mtu,
                up: true,
                zone: self.names.find_zone(zone),
                ipv4: Some(ip(v4)),
                ipv6: None,
                partial_checksums: false,
            });
            b.local(ip(v4));
        }
        let on_link =
            |port| Route::Via(vec![NextHop { port: Some(port), gateway: None, weight: 1, mtu: None }]);
        b.route("10.1.0.0/24".parse().unwrap(), on_link(OUT));
        b.route("10.2.0.0/24".parse().unwrap(), on_link(r.server_port));
        if r.neighbours {
            b.neighbour(OUT, ip(CLIENT), CLIENT_MAC);
            b.neighbour(r.server_port, ip(SERVER), r.server_mac);
        }
        self.engine.set_routes(Arc::new(b.build()));
    }

    /// Sends one frame through; the verdict and the frame as it leaves.
    pub(super) fn pass(&mut self, port: PortId, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut frames = [TestFrame { port, bytes, note: None }];
        let mut verdicts = ArrayVec::new();
        self.engine.outbox().clear();
        self.engine.process(&mut frames, &mut verdicts, self.now);
        let [frame] = frames;
        (verdicts[0], frame.bytes)
    }

    pub(super) fn verdict(&mut self, port: PortId, bytes: Vec<u8>) -> Verdict {
        self.pass(port, bytes).0
    }

    /// Lets time pass, with the sweep running as a worker would run it.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        let end = self.now.0 + ms;
        while self.now.0 < end {
            self.now = Now((self.now.0 + 10).min(end));
            self.engine.sweep(self.now);
        }
    }

    pub(super) fn sessions(&self) -> Vec<SessionView> {
        let mut out = Vec::new();
        let mut cursor = Some(0);
        while let Some(c) = cursor {
            cursor = self.engine.list(c, 7, &SessionFilter::default(), self.now, &mut out);
        }
        out
    }

    pub(super) fn only(&self) -> SessionView {
        let all = self.sessions();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }

    /// A TCP connection up to the end of its handshake, client port `sport`.
    pub(super) fn connect(&mut self, sport: u16, dport: u16) {
        let to_server = Verdict::Transmit(IN);
        assert_eq!(self.verdict(OUT, tcp(true, sport, dport, SYN, 1000, 0, 0)), to_server);
        assert_eq!(
            self.verdict(IN, tcp(false, sport, dport, SYN | ACK, 5000, 1001, 0)),
            Verdict::Transmit(OUT)
        );
        assert_eq!(self.verdict(OUT, tcp(true, sport, dport, ACK, 1001, 5001, 0)), to_server);
    }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(super) fn sum16(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum()
}

/// An Ethernet frame from `src` to `dst` with that payload, checksum at `csum_at` of the payload.
pub(super) fn ipv4(
    src: &str,
    dst: &str,
    ttl: u8,
    protocol: u8,
    csum_at: Option<usize>,
    payload: &[u8],
) -> Vec<u8> {
    let from_client = src.starts_with("10.1.");
    let (dst_mac, src_mac) =
        if from_client { (port_mac(OUT), CLIENT_MAC) } else { (port_mac(IN), SERVER_MAC) };
    let total = 20 + payload.len() as u16;
    let mut h = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, ttl, protocol, 0, 0];
    h.extend(ip(src).to_v4().unwrap());
    h.extend(ip(dst).to_v4().unwrap());
    let c = fold(sum16(&h));
    h[10..12].copy_from_slice(&c.to_be_bytes());
    let mut body = payload.to_vec();
    if let Some(at) = csum_at {
        body[at..at + 2].fill(0);
        let pseudo = if protocol == proto::ICMP {
            0
        } else {
            sum16(&h[12..20]) + u32::from(protocol) + body.len() as u32
        };
        let c = fold(pseudo + sum16(&body));
        body[at..at + 2].copy_from_slice(&c.to_be_bytes());
    }
    let mut frame = Vec::new();
    frame.extend(dst_mac.0);
    frame.extend(src_mac.0);
    frame.extend([8, 0]);
    frame.extend(h);
    frame.extend(body);
    frame
}

fn ends(up: bool) -> (&'static str, &'static str) {
    if up { (CLIENT, SERVER) } else { (SERVER, CLIENT) }
}

/// A UDP datagram of the flow (client `cport`, server `sport`); `up` is client to server.
pub(super) fn udp(up: bool, cport: u16, sport: u16, len: usize) -> Vec<u8> {
    let (src, dst) = ends(up);
    let (a, b) = if up { (cport, sport) } else { (sport, cport) };
    let mut p = Vec::new();
    p.extend(a.to_be_bytes());
    p.extend(b.to_be_bytes());
    p.extend((8 + len as u16).to_be_bytes());
    p.extend([0, 0]);
    p.extend(std::iter::repeat_n(0x5a, len));
    ipv4(src, dst, 64, proto::UDP, Some(6), &p)
}

/// A TCP segment of the flow (client `cport`, server `sport`).
pub(super) fn tcp(up: bool, cport: u16, sport: u16, flags: u8, seq: u32, ack: u32, len: usize) -> Vec<u8> {
    let (src, dst) = ends(up);
    let (a, b) = if up { (cport, sport) } else { (sport, cport) };
    let mut p = Vec::new();
    p.extend(a.to_be_bytes());
    p.extend(b.to_be_bytes());
    p.extend(seq.to_be_bytes());
    p.extend(ack.to_be_bytes());
    p.extend([0x50, flags]);
    p.extend(60_000u16.to_be_bytes());
    p.extend([0, 0, 0, 0]);
    p.extend(std::iter::repeat_n(0x33, len));
    ipv4(src, dst, 64, proto::TCP, Some(16), &p)
}

/// An ICMP echo request or reply.
pub(super) fn echo(from: &str, to: &str, reply: bool, id: u16) -> Vec<u8> {
    let mut p = vec![if reply { 0 } else { 8 }, 0, 0, 0];
    p.extend(id.to_be_bytes());
    p.extend([0, 1]);
    ipv4(from, to, 64, proto::ICMP, Some(2), &p)
}

/// An ICMP error about a frame.
pub(super) fn icmp_error(from: &str, to: &str, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let mut p = vec![kind, code, 0, 0, 0, 0, 0, 0];
    p.extend(&about[14..(14 + 28).min(about.len())]);
    ipv4(from, to, 64, proto::ICMP, Some(2), &p)
}

pub(super) fn dropped(v: Verdict) -> DropReason {
    match v {
        Verdict::Drop(r) => r,
        other => panic!("not dropped: {other:?}"),
    }
}
