//! A second, plain way to write packets, which shares no code with the parser or the builders that
//! the tests judge.

use crate::addr::proto;
use std::net::IpAddr;

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
}

pub(crate) fn ends(src: &str, dst: &str) -> Ends {
    Ends { src: src.parse().unwrap(), dst: dst.parse().unwrap() }
}

pub(crate) fn v4() -> Ends {
    ends("192.0.2.1", "198.51.100.2")
}

pub(crate) fn v6() -> Ends {
    ends("2001:db8:1::1", "2001:db8:2::2")
}

impl Ends {
    pub(crate) fn back(self) -> Ends {
        Ends { src: self.dst, dst: self.src }
    }
}

/// What stands in the checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Right,
    /// Only the pseudo-header's sum.
    Partial,
    Wrong,
    Is(u16),
}

/// RFC 1071, one word after the other.
pub(crate) fn ones_sum(bytes: &[u8]) -> u16 {
    let mut total: u64 =
        bytes.chunks(2).map(|p| u64::from(p[0]) * 256 + u64::from(*p.get(1).unwrap_or(&0))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn pseudo(ends: Ends, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = octets(ends.src);
    bytes.extend(octets(ends.dst));
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Writes the checksum of an upper-layer packet with a pseudo-header.
pub(crate) fn seal(ends: Ends, protocol: u8, mut l4: Vec<u8>, field: usize, sum: Sum) -> Vec<u8> {
    l4[field..field + 2].fill(0);
    let pseudo = pseudo(ends, protocol, l4.len());
    let right = !ones_sum(&[pseudo.clone(), l4.clone()].concat());
    let right = if protocol == proto::UDP && right == 0 { 0xffff } else { right };
    let value = match sum {
        Sum::Right => right,
        Sum::Partial => ones_sum(&pseudo),
        Sum::Wrong => right ^ 0x0101,
        Sum::Is(value) => value,
    };
    l4[field..field + 2].copy_from_slice(&value.to_be_bytes());
    l4
}

pub(crate) fn tcp(ends: Ends, flags: u8, options: &[u8], payload: &[u8], sum: Sum) -> Vec<u8> {
    let mut l4 = vec![0x30, 0x39, 0x00, 0x50, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    l4.extend([((20 + options.len()) / 4 * 16) as u8, flags, 0x72, 0x10, 0, 0, 0, 0]);
    l4.extend(options);
    l4.extend(payload);
    seal(ends, proto::TCP, l4, 16, sum)
}

/// MSS 1460, SACK permitted, timestamps, window scale 7: what Linux sends.
pub(crate) const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

pub(crate) fn udp(ends: Ends, payload: &[u8], sum: Sum) -> Vec<u8> {
    let mut l4 = vec![0x30, 0x39, 0x00, 0x35];
    l4.extend((8 + payload.len() as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    seal(ends, proto::UDP, l4, 6, sum)
}

/// A message of ICMP or ICMPv6, whichever fits the addresses; `rest` follows the checksum.
pub(crate) fn icmp(ends: Ends, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut l4 = vec![kind, code, 0, 0];
    l4.extend(rest);
    match ends.src {
        IpAddr::V6(_) => seal(ends, proto::ICMPV6, l4, 2, Sum::Right),
        IpAddr::V4(_) => {
            let sum = !ones_sum(&l4);
            l4[2..4].copy_from_slice(&sum.to_be_bytes());
            l4
        }
    }
}

pub(crate) fn icmp_protocol(ends: Ends) -> u8 {
    if ends.src.is_ipv4() { proto::ICMP } else { proto::ICMPV6 }
}

/// Bit by bit, reflected polynomial 0x82f63b78 (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub(crate) fn sctp(tag: u32, chunks: &[u8], sum: Sum) -> Vec<u8> {
    let mut l4 = vec![0x30, 0x39, 0x0b, 0x59];
    l4.extend(tag.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(chunks);
    let crc = match sum {
        Sum::Right => crc32c(&l4),
        Sum::Partial => 0,
        _ => crc32c(&l4) ^ 1,
    };
    l4[8..12].copy_from_slice(&crc.to_le_bytes());
    l4
}

/// INIT with 16 bytes of parameters.
pub(crate) const SCTP_INIT: [u8; 20] = [1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 9, 8, 7, 6];

/// Everything about a network header that a test may want otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) ends: Ends,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// IPv4: flags and offset as on the wire.
    pub(crate) fragment: u16,
    /// IPv4 options (a multiple of four bytes), or IPv6 extension headers in wire form.
    pub(crate) extra: Vec<u8>,
}

pub(crate) const ID: u16 = 0x1234;

impl Ip {
    pub(crate) fn new(ends: Ends, protocol: u8) -> Ip {
        Ip { ends, protocol, ttl: 64, fragment: 0, extra: Vec::new() }
    }

    /// The IP packet around `l4`. For IPv6 with `extra`, `protocol` is the first extension's type.
    pub(crate) fn packet(&self, l4: &[u8]) -> Vec<u8> {
        let mut p = Vec::new();
        if self.ends.src.is_ipv4() {
            p.extend([0x45 + (self.extra.len() / 4) as u8, 0]);
            p.extend(((20 + self.extra.len() + l4.len()) as u16).to_be_bytes());
            p.extend(ID.to_be_bytes());
            p.extend(self.fragment.to_be_bytes());
            p.extend([self.ttl, self.protocol, 0, 0]);
        } else {
            p.extend([0x60, 0, 0, 0]);
            p.extend(((self.extra.len() + l4.len()) as u16).to_be_bytes());
            p.extend([self.protocol, self.ttl]);
        }
        p.extend(octets(self.ends.src));
        p.extend(octets(self.ends.dst));
        p.extend(&self.extra);
        if self.ends.src.is_ipv4() {
            reseal_ipv4(&mut p);
        }
        p.extend(l4);
        p
    }

    pub(crate) fn frame(&self, l4: &[u8]) -> Vec<u8> {
        ether(if self.ends.src.is_ipv4() { 0x0800 } else { 0x86dd }, &self.packet(l4))
    }
}

/// Writes the header checksum of an IPv4 packet.
pub(crate) fn reseal_ipv4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !ones_sum(&packet[..header.min(packet.len())]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) const DST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SRC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(crate) fn ether(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&DST_MAC[..], &SRC_MAC[..], &ethertype.to_be_bytes()[..], packet].concat()
}

/// Shorthands for whole frames with default headers.
pub(crate) fn tcp_frame(ends: Ends, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    Ip::new(ends, proto::TCP).frame(&tcp(ends, flags, options, payload, Sum::Right))
}

pub(crate) fn udp_frame(ends: Ends, payload: &[u8]) -> Vec<u8> {
    Ip::new(ends, proto::UDP).frame(&udp(ends, payload, Sum::Right))
}

pub(crate) fn icmp_frame(ends: Ends, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    Ip::new(ends, icmp_protocol(ends)).frame(&icmp(ends, kind, code, rest))
}

/// An error from the far end about `packet`, sent back to the packet's source.
pub(crate) fn icmp_error_frame(about: Ends, kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    icmp_frame(about.back(), kind, code, &[&[0; 4][..], packet].concat())
}

/// An IPv6 fragment header for `next`.
pub(crate) fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let field = (offset | u16::from(more)).to_be_bytes();
    [next, 0, field[0], field[1], 0xde, 0xad, 0xbe, 0xef]
}

/// An options header (hop-by-hop or destination) of eight bytes of padding.
pub(crate) fn options_header(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}
