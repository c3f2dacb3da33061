//! The packet that an ICMP error is about.
//!
//! It is cut short (RFC 792 promises eight bytes of its payload, RFC 4443 as much as fits), its TTL
//! has changed and its checksums may not have been completed, so lengths and checksums are not
//! compared. What is read must be there, and must be a packet about which errors are sent at all.

use super::icmp::{self, Meaning};
use super::{ipv4, ipv6};
use crate::addr::{Addr, Tuple, proto};

/// RFC 792: "the first 64 bits of the original datagram's data".
const UPPER_LEN_MIN: usize = 8;

/// What an error's quote says.
pub(super) struct Quoted {
    pub(super) tuple: Tuple,
    /// TCP sequence number.
    pub(super) seq: Option<u32>,
}

/// Network header of the quoted packet.
struct Header<'a> {
    src: Addr,
    dst: Addr,
    protocol: u8,
    later_fragment: bool,
    upper: &'a [u8],
}

/// Reads the quote of an error of the given family; `None` when it is malformed.
pub(super) fn parse(quote: &[u8], v4: bool) -> Option<Quoted> {
    let header = if v4 { read_v4(quote)? } else { read_v6(quote)? };
    let Header { src, dst, protocol, later_fragment, upper } = header;
    let (src_port, dst_port, seq) =
        if later_fragment { (0, 0, None) } else { read_ports(protocol, v4, upper)? };
    Some(Quoted { tuple: Tuple { src, dst, src_port, dst_port, protocol }, seq })
}

fn read_v4(quote: &[u8]) -> Option<Header<'_>> {
    let h = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    if h[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return None;
    }
    Some(Header {
        src: Addr::from_v4([h[12], h[13], h[14], h[15]]),
        dst: Addr::from_v4([h[16], h[17], h[18], h[19]]),
        protocol: h[9],
        later_fragment: u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0,
        upper: quote.get(header_len..)?,
    })
}

fn read_v6(quote: &[u8]) -> Option<Header<'_>> {
    let (h, mut upper) = quote.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let src = Addr(u128::from_be_bytes(*h[8..].first_chunk()?));
    let dst = Addr(u128::from_be_bytes(*h[24..].first_chunk()?));
    // A v4-mapped address here would name a session of the other family.
    if src.is_v4() || dst.is_v4() {
        return None;
    }
    let mut protocol = h[6];
    let mut later_fragment = false;
    let mut extensions = 0;
    while ipv6::is_extension(protocol) && !later_fragment {
        if extensions == ipv6::EXTENSIONS_MAX {
            return None;
        }
        extensions += 1;
        let head = upper.first_chunk::<4>()?;
        later_fragment = protocol == ipv6::FRAGMENT && u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0;
        upper = upper.get(ipv6::extension_len(protocol, head[1])..)?;
        protocol = head[0];
    }
    Some(Header { src, dst, protocol, later_fragment, upper })
}

/// Ports, and the sequence number of TCP. No error is sent about an error (RFC 1122 section 3.2.2).
fn read_ports(protocol: u8, v4: bool, upper: &[u8]) -> Option<(u16, u16, Option<u32>)> {
    match protocol {
        proto::TCP | proto::UDP | proto::SCTP => {
            let h = upper.first_chunk::<UPPER_LEN_MIN>()?;
            let seq = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
            Some((
                u16::from_be_bytes([h[0], h[1]]),
                u16::from_be_bytes([h[2], h[3]]),
                (protocol == proto::TCP).then_some(seq),
            ))
        }
        proto::ICMP | proto::ICMPV6 if v4 != (protocol == proto::ICMP) => None,
        proto::ICMP | proto::ICMPV6 => match icmp::meaning(protocol, *upper.first()?) {
            Meaning::Error => None,
            Meaning::Other => Some((0, 0, None)),
            meaning => {
                let h = upper.first_chunk::<UPPER_LEN_MIN>()?;
                let id = u16::from_be_bytes([h[4], h[5]]);
                let (src_port, dst_port) = icmp::query_ports(id, meaning == Meaning::Reply);
                Some((src_port, dst_port, None))
            }
        },
        _ => Some((0, 0, None)),
    }
}
