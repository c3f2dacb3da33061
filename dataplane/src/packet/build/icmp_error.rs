//! ICMP and ICMPv6 errors (RFC 792, RFC 1812 section 4.3.2, RFC 4443 section 2.4).

use super::Envelope;
use crate::addr::{Addr, Mac, proto};
use crate::packet::{Fragment, L4, Packet, checksum, ethernet, icmp, ipv4, ipv6, rewrite};

/// RFC 1812 section 4.3.2.3: an error is at most this long, IP header included.
const PACKET_LEN_MAX_V4: usize = 576;
/// RFC 4443 section 2.4 (c): as much as fits the minimum IPv6 MTU.
const PACKET_LEN_MAX_V6: usize = 1280;
/// RFC 1812 section 4.3.2.5: errors have precedence 6, internetwork control.
const CLASS: u8 = 0xc0;

/// Why a packet cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// TTL or hop limit ran out.
    TimeExceeded,
    /// Larger than the next link: fragmentation needed (RFC 1191), packet too big in IPv6.
    FragmentationNeeded {
        /// Bytes of IP packet that the next link takes.
        mtu: u16,
    },
    /// No route.
    NetUnreachable,
    /// The next hop does not answer.
    HostUnreachable,
    /// Nobody listens there.
    PortUnreachable,
    /// A rule forbids it (RFC 1812 section 5.2.7.1).
    AdminProhibited,
}

impl ErrorKind {
    /// Type, code, and the four bytes behind the checksum.
    fn header(self, v4: bool) -> (u8, u8, [u8; 4]) {
        let (kind, code) = match (self, v4) {
            (ErrorKind::TimeExceeded, true) => (11, 0),
            (ErrorKind::TimeExceeded, false) => (3, 0),
            (ErrorKind::FragmentationNeeded { .. }, true) => (3, 4),
            (ErrorKind::FragmentationNeeded { .. }, false) => (2, 0),
            (ErrorKind::NetUnreachable, true) => (3, 0),
            (ErrorKind::NetUnreachable, false) => (1, 0),
            (ErrorKind::HostUnreachable, true) => (3, 1),
            (ErrorKind::HostUnreachable, false) => (1, 3),
            (ErrorKind::PortUnreachable, true) => (3, 3),
            (ErrorKind::PortUnreachable, false) => (1, 4),
            (ErrorKind::AdminProhibited, true) => (3, 13),
            (ErrorKind::AdminProhibited, false) => (1, 1),
        };
        let mtu = match self {
            ErrorKind::FragmentationNeeded { mtu } => u32::from(mtu),
            _ => 0,
        };
        (kind, code, mtu.to_be_bytes())
    }
}

/// Writes the error about `p` to the one who sent it. `original` is the frame as it was received
/// (not yet through [`rewrite::forward`]); `source` is the address that the error comes from.
///
/// The quote is the packet as received, with a checksum that its sender had left to a device filled
/// in: the sender's stack compares nothing else. `None` for packets about which no error may be
/// sent: ICMP errors and redirects, later fragments, link-layer or IP groups.
pub fn icmp_error(
    out: &mut [u8],
    original: &[u8],
    p: &Packet,
    kind: ErrorKind,
    src_mac: Mac,
    dst_mac: Mac,
    source: Addr,
) -> Option<usize> {
    if !may_be_told(original, p) || source.is_v4() != p.v4 {
        return None;
    }
    let (protocol, ip_header_len, len_max) = if p.v4 {
        (proto::ICMP, ipv4::HEADER_LEN, PACKET_LEN_MAX_V4)
    } else {
        (proto::ICMPV6, ipv6::HEADER_LEN, PACKET_LEN_MAX_V6)
    };
    let quote_max = len_max - ip_header_len - icmp::HEADER_LEN;
    let packet = original.get(usize::from(p.l3)..usize::from(p.end))?;
    let quote = packet.get(..quote_max).unwrap_or(packet);

    let envelope = Envelope { src_mac, dst_mac, src: source, dst: p.tuple.src, protocol, class: CLASS };
    let message_len = icmp::HEADER_LEN + quote.len();
    let start = envelope.write(out, message_len)?;
    let message = out.get_mut(start..start + message_len)?;
    let (kind, code, rest) = kind.header(p.v4);
    let (header, body) = message.split_first_chunk_mut::<{ icmp::HEADER_LEN }>()?;
    header[..4].copy_from_slice(&[kind, code, 0, 0]);
    header[4..].copy_from_slice(&rest);
    body.copy_from_slice(quote);
    rewrite::complete(body, p, usize::from(p.l4 - p.l3));

    let pseudo = if p.v4 { 0 } else { envelope.pseudo_header(message_len) };
    let field = checksum::finish(checksum::sum(message) + pseudo);
    message.get_mut(2..4)?.copy_from_slice(&field.to_be_bytes());
    Some(start + message_len)
}

/// Whether errors may be sent about this packet (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7,
/// RFC 4443 section 2.4 (e)). Sources and destinations that are no single host never get past the
/// parser.
fn may_be_told(original: &[u8], p: &Packet) -> bool {
    let group = original.first().is_none_or(|first| first & 1 != 0);
    let about_error = match p.l4_info {
        L4::IcmpError(_) => true,
        // Redirects; and every ICMPv6 type below 128 is an error, known or not.
        L4::IcmpOther { kind, .. } if p.v4 => kind == 5,
        L4::IcmpOther { kind, .. } => kind < 128 || kind == 137,
        _ => false,
    };
    !group
        && !about_error
        && !matches!(p.fragment, Fragment::Later(_))
        && usize::from(p.l3) >= ethernet::HEADER_LEN
        && p.l4 >= p.l3
}
