//! Raw ends: two hosts of a lab that only a test speaks for. Their addresses belong to no stack, so nothing
//! answers but the test, and every packet that arrives is seen as it is on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use tidegate_lab::sys::Netns;
use tidegate_lab::traffic::Wire;

use super::{PATIENCE, TestLab, now};

/// How long a test waits for a packet that should come.
pub const SOON: Duration = PATIENCE;
/// How long a test waits for a packet that should not come: a later one must follow to show that the way is open.
pub const QUIET: Duration = Duration::from_millis(300);

/// One raw end.
pub struct RawEnd {
    pub wire: Wire,
    /// The node's MAC on this side.
    pub gateway: [u8; 6],
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// The raw ends of a lab.
pub struct RawPair {
    pub client: RawEnd,
    pub server: RawEnd,
}

/// A TCP segment to send; everything else is made right.
#[derive(Clone, Debug, Default)]
pub struct Segment<'a> {
    /// Letters of `SARFPUEC`: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR.
    pub flags: &'a str,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: &'a [TcpOptionElement],
    pub payload: &'a [u8],
}

/// A TCP segment that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    /// As in [`Segment::flags`], in that order.
    pub flags: String,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub payload: Vec<u8>,
    /// Whether the checksums of IP and TCP are right.
    pub checksums_right: bool,
}

/// Opens raw ends at host 200 of both sides.
pub fn raw_pair(lab: &TestLab) -> RawPair {
    let node = Netns::new(lab.plan().nodes[0].netns.clone());
    let end = |port: &str, netns: Netns, ifname: &str| {
        let link = lab.plan().link(port).expect("a port of every lab");
        let wire = Wire::open(&netns, ifname).unwrap();
        let v4 = Ipv4Addr::new(10, 81, link.subnet as u8, 200);
        let v6: Ipv6Addr = format!("fd81:{}::200", link.subnet).parse().unwrap();
        let mac = mac_text(wire.mac());
        for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
            node.ip(&format!("neigh replace {address} lladdr {mac} dev {port} nud permanent")).unwrap();
        }
        let gateway = parse_mac(&Netns::run(&node, || mac_of(port)).unwrap());
        RawEnd { wire, gateway, v4, v6 }
    };
    let plan = lab.plan();
    let pair = RawPair {
        client: end("outside", lab.client(), &plan.client.ifname),
        server: end("inside", lab.server(), &plan.server.ifname),
    };
    pair.wait_until_open();
    pair
}

fn mac_of(port: &str) -> String {
    // sysfs shows the devices of the namespace that mounted it; `ip` those of its caller.
    let output = std::process::Command::new("ip").args(["-o", "link", "show", port]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let after = text.split("link/ether ").nth(1).expect("an Ethernet device");
    after.split_whitespace().next().unwrap().to_owned()
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn parse_mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// The same, with no session left of the packets that showed that the way is open.
pub fn raw_pair_without_sessions(lab: &TestLab) -> RawPair {
    let pair = raw_pair(lab);
    lab.json(&["--yes", "session", "clear", "--all"]).unwrap();
    pair
}

impl RawPair {
    /// The node learns of the new neighbours by itself, a moment later. Returns when all that was sent for this has
    /// arrived or is lost: what came later would make a session again that a test has cleared.
    fn wait_until_open(&self) {
        let start = now();
        for (from, to) in
            [(&self.client.v4.into(), self.server.v4.into()), (&self.client.v6.into(), self.server.v6.into())]
        {
            loop {
                self.client.udp((*from, 4999), (to, 4999), b"open?");
                if self.server.udp_arrival(4999, Duration::from_millis(200)).is_some() {
                    break;
                }
                assert!(start.elapsed() < SOON, "the way to {to} does not open");
            }
            self.client.udp((*from, 4999), (to, 4999), b"open");
            while self.server.udp_arrival(4999, SOON).expect("the way stays open") != b"open" {}
        }
    }
}

impl RawEnd {
    /// Starts a frame to the node.
    pub fn packet(&self, from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.wire.mac(), self.gateway);
        match (from, to) {
            (IpAddr::V4(a), IpAddr::V4(b)) => ethernet.ipv4(a.octets(), b.octets(), 64),
            (IpAddr::V6(a), IpAddr::V6(b)) => ethernet.ipv6(a.octets(), b.octets(), 64),
            _ => panic!("{from} and {to} are of two families"),
        }
    }

    /// Sends a UDP datagram.
    pub fn udp(&self, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) {
        let mut frame = Vec::new();
        self.packet(from.0, to.0).udp(from.1, to.1).write(&mut frame, payload).unwrap();
        self.wire.send(&frame).unwrap();
    }

    /// Sends a TCP segment.
    pub fn tcp(&self, from: (IpAddr, u16), to: (IpAddr, u16), s: &Segment<'_>) {
        let mut header = etherparse::TcpHeader::new(from.1, to.1, s.seq, s.window);
        header.acknowledgment_number = s.ack;
        header.set_options(s.options).unwrap();
        for flag in s.flags.chars() {
            match flag {
                'S' => header.syn = true,
                'A' => header.ack = true,
                'R' => header.rst = true,
                'F' => header.fin = true,
                'P' => header.psh = true,
                'U' => header.urg = true,
                'E' => header.ece = true,
                'C' => header.cwr = true,
                other => panic!("no such flag: {other}"),
            }
        }
        let mut frame = Vec::new();
        self.packet(from.0, to.0).tcp_header(header).write(&mut frame, s.payload).unwrap();
        self.wire.send(&frame).unwrap();
    }

    /// The next UDP payload to that port.
    pub fn udp_arrival(&self, port: u16, patience: Duration) -> Option<Vec<u8>> {
        self.arrival(patience, |packet| match &packet.transport {
            Some(TransportSlice::Udp(udp)) if udp.destination_port() == port => Some(udp.payload().to_vec()),
            _ => None,
        })
    }

    /// The next TCP segment to that port.
    pub fn tcp_arrival(&self, port: u16, patience: Duration) -> Option<Arrived> {
        self.arrival(patience, |packet| arrived(packet).filter(|s| s.destination_port == port))
    }

    /// The first frame for which `wanted` gives something; all before it are forgotten.
    pub fn arrival<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&SlicedPacket<'_>) -> Option<T>,
    ) -> Option<T> {
        let end = now() + patience;
        loop {
            let left = end.saturating_duration_since(now());
            let frame = self.wire.receive(left).unwrap()?;
            if let Ok(packet) = SlicedPacket::from_ethernet(&frame)
                && let Some(found) = wanted(&packet)
            {
                return Some(found);
            }
        }
    }
}

fn arrived(packet: &SlicedPacket<'_>) -> Option<Arrived> {
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let (source, destination, ip_right, expected) = match packet.net.as_ref()? {
        NetSlice::Ipv4(v4) => {
            let h = v4.header();
            let right = h.to_header().calc_header_checksum() == h.header_checksum();
            let expected = tcp.to_header().calc_checksum_ipv4_raw(h.source(), h.destination(), tcp.payload());
            (IpAddr::V4(h.source_addr()), IpAddr::V4(h.destination_addr()), right, expected)
        }
        NetSlice::Ipv6(v6) => {
            let h = v6.header();
            let expected = tcp.to_header().calc_checksum_ipv6_raw(h.source(), h.destination(), tcp.payload());
            (IpAddr::V6(h.source_addr()), IpAddr::V6(h.destination_addr()), true, expected)
        }
        NetSlice::Arp(_) => return None,
    };
    let set = [
        (tcp.syn(), 'S'),
        (tcp.ack(), 'A'),
        (tcp.rst(), 'R'),
        (tcp.fin(), 'F'),
        (tcp.psh(), 'P'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'C'),
    ];
    let mss = tcp.options_iterator().filter_map(Result::ok).find_map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    });
    Some(Arrived {
        source,
        destination,
        source_port: tcp.source_port(),
        destination_port: tcp.destination_port(),
        flags: set.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect(),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        window: tcp.window_size(),
        mss,
        payload: tcp.payload().to_vec(),
        checksums_right: ip_right && expected.is_ok_and(|sum| sum == tcp.checksum()),
    })
}

impl RawPair {
    /// Empties both ends of what has arrived so far.
    pub fn forget(&self) {
        for end in [&self.client, &self.server] {
            while end.wire.receive(Duration::ZERO).unwrap().is_some() {}
        }
    }
}

/// The IPv4 addresses of client and server as [`IpAddr`].
pub fn v4(pair: &RawPair) -> (IpAddr, IpAddr) {
    (pair.client.v4.into(), pair.server.v4.into())
}

/// The same over IPv6.
pub fn v6(pair: &RawPair) -> (IpAddr, IpAddr) {
    (pair.client.v6.into(), pair.server.v6.into())
}
