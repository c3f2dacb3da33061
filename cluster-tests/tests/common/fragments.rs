//! Large datagrams from real stacks, and fragments that only a test would send.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader};

use super::raw::{QUIET, RawEnd, SOON};
use super::{PATIENCE, TestLab};

pub const ETHERNET: usize = 14;

/// A socket of the lab's client, from that port to an echo.
pub fn asking(lab: &TestLab, server: SocketAddr, source_port: u16) -> UdpSocket {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = lab.client().run(|| UdpSocket::bind((any, source_port))).unwrap().unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram to an echo and wants it back as it was.
pub fn echoed(socket: &UdpSocket, length: usize) -> Result<(), String> {
    let datagram: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
    let error = |error: std::io::Error| format!("{length} bytes: {error}, {socket:?}");
    socket.send(&datagram).map_err(error)?;
    let mut buffer = vec![0; 65_536];
    let received = socket.recv(&mut buffer).map_err(error)?;
    if buffer[..received] == datagram {
        Ok(())
    } else {
        Err(format!("{length} bytes: others came, {socket:?}"))
    }
}

/// The sum of a metric's samples with these labels.
pub fn sum(lab: &TestLab, name: &str, labels: &[(&str, &str)]) -> u64 {
    lab.metrics().unwrap().sum(name, labels).unwrap_or_else(|| panic!("no metric {name}")) as u64
}

/// A raw fragment: its place, and what it carries.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub id: u32,
    pub offset: u32,
    pub more: bool,
    pub protocol: IpNumber,
    pub payload: &'a [u8],
}

pub fn part(id: u32, offset: u32, more: bool, payload: &[u8]) -> Part<'_> {
    Part { id, offset, more, protocol: IpNumber::UDP, payload }
}

pub fn frame_of(end: &RawEnd, from: IpAddr, to: IpAddr, part: &Part<'_>) -> Vec<u8> {
    let mut frame = [&end.gateway[..], &end.wire.mac()[..]].concat();
    let offset = IpFragOffset::try_new((part.offset / 8) as u16).unwrap();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let length = part.payload.len() as u16;
            let mut header = Ipv4Header::new(length, 64, part.protocol, from.octets(), to.octets()).unwrap();
            header.identification = part.id as u16;
            header.dont_fragment = false;
            header.fragment_offset = offset;
            header.more_fragments = part.more;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut frame).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((8 + part.payload.len() as u16).to_be_bytes());
            frame.extend([IpNumber::IPV6_FRAGMENTATION_HEADER.0, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            Ipv6FragmentHeader::new(part.protocol, offset, part.more, part.id).write(&mut frame).unwrap();
        }
        _ => panic!("{from} and {to} are of two families"),
    }
    frame.extend(part.payload);
    frame
}

/// Offset, whether more follow, and payload of the fragments of datagram `id` that arrive: those that are
/// expected, and whatever comes in a while after them.
pub fn arrived(end: &RawEnd, id: u32, expected: usize) -> Vec<(u32, bool, Vec<u8>)> {
    let mut all = Vec::new();
    let patience = |arrived: usize| if arrived < expected { SOON } else { QUIET };
    while let Some(frame) = end.wire.receive(patience(all.len())).unwrap() {
        let ip = &frame[ETHERNET..];
        let found = match (frame[12], ip) {
            (0x08, [0x45, ..]) => {
                let field = u16::from_be_bytes([ip[6], ip[7]]);
                let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                let id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
                (id, u32::from(field & 0x1fff) * 8, field & 0x2000 != 0, ip[20..length].to_vec())
            }
            (0x86, ip) if ip[6] == 44 => {
                let field = u16::from_be_bytes([ip[42], ip[43]]);
                let id = u32::from_be_bytes([ip[44], ip[45], ip[46], ip[47]]);
                (id, u32::from(field & 0xfff8), field & 1 != 0, ip[48..].to_vec())
            }
            _ => continue,
        };
        if found.0 == id {
            all.push((found.1, found.2, found.3));
        }
    }
    all
}

/// A UDP datagram from port 4000 to `port`; without a checksum, which only IPv4 allows, for nobody checks one
/// in fragments.
pub fn datagram(port: u16, length: usize) -> Vec<u8> {
    let mut udp =
        [4_000u16.to_be_bytes(), port.to_be_bytes(), (8 + length as u16).to_be_bytes(), [0x12, 0x34]]
            .concat();
    udp.extend((0..length).map(|n| n as u8));
    udp
}
