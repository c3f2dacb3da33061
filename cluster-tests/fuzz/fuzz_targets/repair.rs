//! Makes lengths and checksums of a mutated frame right again, as far as it can be read at all.

use tidegate_dataplane::addr::{Addr, proto};
use tidegate_dataplane::packet::checksum;

/// Where the network and upper layers of a frame are.
struct Layout {
    l3: usize,
    l4: usize,
    end: usize,
    v4: bool,
    protocol: u8,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn layout(frame: &[u8]) -> Option<Layout> {
    let mut l3 = 14;
    while matches!(be16(frame, l3 - 2)?, 0x8100 | 0x88a8 | 0x9100) {
        l3 += 4;
    }
    if be16(frame, l3 - 2)? == 0x0800 {
        let header_len = usize::from(frame.get(l3)? & 15) * 4;
        let end = frame.len().min(l3 + usize::from(be16(frame, l3 + 2)?));
        return Some(Layout { l3, l4: l3 + header_len, end, v4: true, protocol: *frame.get(l3 + 9)? });
    }
    let end = frame.len().min(l3 + 40 + usize::from(be16(frame, l3 + 4)?));
    let (mut l4, mut protocol) = (l3 + 40, *frame.get(l3 + 6)?);
    for _ in 0..8 {
        let len = match protocol {
            0 | 43 | 60 => (usize::from(*frame.get(l4 + 1)?) + 1) * 8,
            44 => 8,
            _ => break,
        };
        protocol = *frame.get(l4)?;
        l4 += len;
    }
    Some(Layout { l3, l4, end, v4: false, protocol })
}

/// Makes the IP and UDP lengths those of the frame.
pub fn lengths(frame: &mut [u8]) -> Option<()> {
    let at = layout(frame)?;
    if at.v4 {
        put(frame, at.l3 + 2, (frame.len() - at.l3) as u16);
    } else {
        put(frame, at.l3 + 4, frame.len().checked_sub(at.l3 + 40)? as u16);
    }
    if at.protocol == proto::UDP {
        put(frame, at.l4 + 4, frame.len().checked_sub(at.l4)? as u16);
    }
    Some(())
}

/// Makes the IPv4 header checksum and the upper-layer checksum right.
pub fn checksums(frame: &mut [u8]) -> Option<()> {
    let at = layout(frame)?;
    if at.v4 {
        put(frame, at.l3 + 10, 0);
        let sum = checksum::sum(frame.get(at.l3..at.l4)?);
        put(frame, at.l3 + 10, checksum::finish(sum));
    }
    let addr = |offset: usize| -> Option<Addr> {
        if at.v4 {
            Some(Addr::from_v4(*frame.get(at.l3 + 12 + offset * 4..)?.first_chunk()?))
        } else {
            Some(Addr::from_v6(*frame.get(at.l3 + 8 + offset * 16..)?.first_chunk()?))
        }
    };
    let (src, dst) = (addr(0)?, addr(1)?);
    let (field, with_pseudo, end) = match at.protocol {
        proto::TCP => (16, true, at.end),
        proto::UDP => (6, true, at.l4 + usize::from(be16(frame, at.l4 + 4)?)),
        proto::ICMP => (2, false, at.end),
        proto::ICMPV6 => (2, true, at.end),
        proto::GRE if frame.get(at.l4)? & 0x80 != 0 => (4, false, at.end),
        proto::SCTP => return sctp(frame.get_mut(at.l4..at.end)?),
        _ => return None,
    };
    put(frame, at.l4 + field, 0);
    let covered = frame.get(at.l4..end)?;
    let pseudo =
        if with_pseudo { checksum::pseudo_header(src, dst, at.protocol, covered.len() as u32) } else { 0 };
    let value = match checksum::finish(checksum::sum(covered) + pseudo) {
        0 if at.protocol == proto::UDP => 0xffff,
        value => value,
    };
    put(frame, at.l4 + field, value);
    Some(())
}

fn sctp(packet: &mut [u8]) -> Option<()> {
    packet.get_mut(8..12)?.fill(0);
    let crc = crc32c::crc32c(packet);
    packet.get_mut(8..12)?.copy_from_slice(&crc.to_le_bytes());
    Some(())
}
