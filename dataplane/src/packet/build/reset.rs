//! TCP resets (RFC 9293 sections 3.5.2 and 3.10.7.1).

use super::Envelope;
use crate::addr::{Mac, proto};
use crate::packet::{Fragment, L4, Packet, checksum, tcp, tcp_flags};

/// Writes the reset that answers segment `p` as a closed port would: to its sender, in the name of
/// its destination. `None` for anything but a whole TCP segment, and for a reset, which is never
/// answered.
pub fn tcp_reset(out: &mut [u8], p: &Packet, src_mac: Mac, dst_mac: Mac) -> Option<usize> {
    let L4::Tcp(segment) = p.l4_info else { return None };
    if segment.flags & tcp_flags::RST != 0 || p.fragment != Fragment::Whole {
        return None;
    }
    let (seq, ack, flags) = if segment.flags & tcp_flags::ACK != 0 {
        (segment.ack, 0, tcp_flags::RST)
    } else {
        (0, segment.seq.wrapping_add(segment.segment_len()), tcp_flags::RST | tcp_flags::ACK)
    };
    let back = p.tuple.reversed();
    let envelope =
        Envelope { src_mac, dst_mac, src: back.src, dst: back.dst, protocol: proto::TCP, class: 0 };
    let start = envelope.write(out, tcp::HEADER_LEN)?;
    let header = out.get_mut(start..)?.first_chunk_mut::<{ tcp::HEADER_LEN }>()?;
    header[..2].copy_from_slice(&back.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&back.dst_port.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    header[12..14].copy_from_slice(&[(tcp::HEADER_LEN as u8 / 4) << 4, flags]);
    // Window, checksum, urgent pointer.
    header[14..].fill(0);
    let field = checksum::finish(checksum::sum(header) + envelope.pseudo_header(tcp::HEADER_LEN));
    header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&field.to_be_bytes());
    Some(start + tcp::HEADER_LEN)
}
