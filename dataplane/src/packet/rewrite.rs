//! What forwarding changes in a packet: link addresses, TTL or hop limit, a SYN's MSS option, and a
//! checksum that a local stack had left to a device.

use super::{L4, Packet, Tcp, checksum, sctp, tcp, upper};
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

/// Lowers the MSS option of a SYN, from which `p` was parsed and which [`forward`] has readied, to `max`
/// (J8), the checksum updated with it. An option that begins at an odd offset lies across two words
/// of the sum: there its bytes count the other way round (RFC 1071 section 2B).
pub fn lower_mss(frame: &mut [u8], p: &Packet, t: &Tcp, max: u16) {
    let (value_at, l4) = (usize::from(t.mss_offset), usize::from(p.l4));
    let Some(old) = t.mss.filter(|old| *old > max && value_at >= l4 + tcp::HEADER_LEN) else { return };
    let field_at = l4 + tcp::CHECKSUM;
    let Some(field) = frame.get(field_at..).and_then(|f| f.first_chunk::<2>()).copied() else { return };
    let Some(value) = frame.get_mut(value_at..value_at + 2) else { return };
    value.copy_from_slice(&max.to_be_bytes());
    let odd = (value_at - l4) % 2 == 1;
    let (old, new) = if odd { (old.swap_bytes(), max.swap_bytes()) } else { (old, max) };
    let field = checksum::update(u16::from_be_bytes(field), old, new);
    frame[field_at..field_at + 2].copy_from_slice(&field.to_be_bytes());
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
