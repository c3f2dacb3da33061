//! What forwarding changes in a packet: link addresses, TTL or hop limit, and a checksum that a
//! local stack had left to a device.

use super::{L4, Packet, checksum, sctp, tcp, upper};
use crate::addr::{Mac, proto};

/// Readies `frame`, from which `p` was parsed, for its next hop: writes the link addresses, lowers
/// TTL or hop limit by one (RFC 1812 section 5.3.1, RFC 8200 section 3) with the IPv4 header checksum
/// updated (RFC 1624), and writes the completed upper-layer checksum if there is one to write.
///
/// A TTL below 2 is not for forwarding: the caller has answered such a packet with time exceeded.
/// It stays at 0 here rather than wrap.
#[inline]
pub fn forward(frame: &mut [u8], p: &Packet, src: Mac, dst: Mac) {
    if let Some(macs) = frame.first_chunk_mut::<12>() {
        macs[..6].copy_from_slice(&dst.0);
        macs[6..].copy_from_slice(&src.0);
    }
    lower_ttl(frame, p);
    complete(frame, p, usize::from(p.l4));
}

fn lower_ttl(frame: &mut [u8], p: &Packet) {
    let header = frame.get_mut(usize::from(p.l3)..).unwrap_or(&mut []);
    if !p.v4 {
        if let Some(h) = header.first_chunk_mut::<8>() {
            h[7] = h[7].saturating_sub(1);
        }
    } else if let Some(h) = header.first_chunk_mut::<12>() {
        let old = u16::from_be_bytes([h[8], h[9]]);
        h[8] = h[8].saturating_sub(1);
        let new = u16::from_be_bytes([h[8], h[9]]);
        let field = checksum::update(u16::from_be_bytes([h[10], h[11]]), old, new);
        h[10..12].copy_from_slice(&field.to_be_bytes());
    }
}

/// Writes the checksum that `p` says is missing into bytes whose upper-layer header begins at `l4`,
/// if the field lies within them.
#[inline]
pub(super) fn complete(bytes: &mut [u8], p: &Packet, l4: usize) {
    if let Some(value) = p.complete_checksum {
        let field = match p.l4_info {
            L4::Tcp(_) => l4 + tcp::CHECKSUM,
            _ => l4 + upper::UDP_CHECKSUM,
        };
        debug_assert!(matches!(p.tuple.protocol, proto::TCP | proto::UDP));
        if let Some(field) = bytes.get_mut(field..field + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
    if let Some(crc) = p.complete_crc {
        let field = l4 + sctp::CHECKSUM;
        if let Some(field) = bytes.get_mut(field..field + 4) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }
}
