//! IPv4 (RFC 791): header, options, fragments.

use super::checksum;
use super::network::{FragmentFields, Network, refuse_martian_v4};
use crate::addr::Addr;
use crate::drops::DropReason;

/// Length of a header without options.
pub(super) const HEADER_LEN: usize = 20;

const FLAG_DONT_FRAGMENT: u16 = 0x4000;
const FLAG_MORE: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// Reads and verifies the header at `l3`.
#[inline]
pub(super) fn parse(frame: &[u8], l3: usize) -> Result<Network, DropReason> {
    let packet = frame.get(l3..).unwrap_or(&[]);
    let h = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv4Malformed)?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    let end = l3 + total_len;
    if h[0] >> 4 != 4
        || header_len < HEADER_LEN
        || total_len < header_len
        || total_len > packet.len()
        || end > usize::from(u16::MAX)
    {
        return Err(DropReason::Ipv4Malformed);
    }
    let options = packet.get(HEADER_LEN..header_len).ok_or(DropReason::Ipv4Malformed)?;
    let options_sum = if options.is_empty() { 0 } else { checksum::sum(options) };
    if checksum::fold(checksum::sum_header(h) + options_sum) != 0xffff {
        return Err(DropReason::Ipv4Checksum);
    }
    check_options(options)?;
    let src = [h[12], h[13], h[14], h[15]];
    let dst = [h[16], h[17], h[18], h[19]];
    refuse_martian_v4(src, dst)?;

    let flags = u16::from_be_bytes([h[6], h[7]]);
    let fragment = FragmentFields {
        id: u32::from(u16::from_be_bytes([h[4], h[5]])),
        offset: u32::from(flags & OFFSET_MASK) * 8,
        more: flags & FLAG_MORE != 0,
        len: (total_len - header_len) as u32,
        overhead: header_len as u32,
        protocol: h[9],
    }
    .judge()?;
    Ok(Network {
        v4: true,
        l3,
        l4: l3 + header_len,
        end,
        protocol: h[9],
        src: Addr::from_v4(src),
        dst: Addr::from_v4(dst),
        ttl: h[8],
        dont_fragment: flags & FLAG_DONT_FRAGMENT != 0,
        fragment,
    })
}

/// Walks the options: each must lie inside the header, and none may choose the route (RFC 7126
/// sections 4.3 and 4.4).
fn check_options(options: &[u8]) -> Result<(), DropReason> {
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        rest = match *kind {
            OPTION_END => return Ok(()),
            OPTION_NOP => tail,
            kind => {
                let len = usize::from(*tail.first().ok_or(DropReason::Ipv4Options)?);
                if len < 2 || len > rest.len() {
                    return Err(DropReason::Ipv4Options);
                }
                if matches!(kind, OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE) {
                    return Err(DropReason::Ipv4SourceRoute);
                }
                rest.get(len..).unwrap_or(&[])
            }
        };
    }
    Ok(())
}
