//! IPv6 (RFC 8200): header, extension headers, fragments.
//!
//! Hop-by-hop options, destination options, routing and fragment headers are walked, at most eight
//! of them. Everything else ends the walk and is the upper layer, the authentication header (51)
//! included: as in IPv4 it is a protocol of its own, because nothing below its integrity value may
//! be changed, and because a rule that permits TCP should not permit TCP wrapped in it.

use super::Fragment;
use super::network::{FragmentFields, Network, refuse_martian_v6};
use crate::addr::Addr;
use crate::drops::DropReason;

/// Length of the fixed header.
pub(super) const HEADER_LEN: usize = 40;
/// Most extension headers that a packet may have.
pub(super) const EXTENSIONS_MAX: usize = 8;

/// Hop-by-hop options: only right behind the fixed header.
pub(super) const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub(super) const ROUTING: u8 = 43;
/// Fragment header.
pub(super) const FRAGMENT: u8 = 44;
/// Destination options.
pub(super) const DESTINATION_OPTIONS: u8 = 60;

const OPTION_PAD1: u8 = 0;
/// RFC 2675. No frame here is large enough for a jumbogram, and in any other packet it is an error.
const OPTION_JUMBO: u8 = 0xc2;
const ROUTING_TYPE_0: u8 = 0;

/// Reads and verifies the header at `l3` and the extension headers behind it.
#[inline]
pub(super) fn parse(frame: &[u8], l3: usize) -> Result<Network, DropReason> {
    let packet = frame.get(l3..).unwrap_or(&[]);
    let (h, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv6Malformed)?;
    let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    let l4 = l3 + HEADER_LEN;
    let end = l4 + payload_len;
    if h[0] >> 4 != 6 || payload_len > rest.len() || end > usize::from(u16::MAX) {
        return Err(DropReason::Ipv6Malformed);
    }
    let src = Addr(u128::from_be_bytes(*h[8..].first_chunk().ok_or(DropReason::Ipv6Malformed)?));
    let dst = Addr(u128::from_be_bytes(*h[24..].first_chunk().ok_or(DropReason::Ipv6Malformed)?));
    refuse_martian_v6(src, dst)?;
    let mut network = Network {
        v4: false,
        l3,
        l4,
        end,
        protocol: h[6],
        src,
        dst,
        ttl: h[7],
        dont_fragment: true,
        fragment: Fragment::Whole,
    };
    if is_extension(h[6]) {
        walk_extensions(frame, &mut network)?;
    }
    Ok(network)
}

/// Whether a next header value names an extension header that is walked through.
#[inline]
pub(super) fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks the chain from `network.l4` on, leaving protocol, offset and fragment of what follows it.
fn walk_extensions(frame: &[u8], network: &mut Network) -> Result<(), DropReason> {
    let first = network.l4;
    let mut fragment_seen = false;
    for _ in 0..EXTENSIONS_MAX {
        // RFC 7112: the first fragment holds the whole chain.
        let cut = match network.fragment {
            Fragment::First(_) => DropReason::FragmentTiny,
            _ => DropReason::Ipv6Extensions,
        };
        let rest = frame.get(network.l4..network.end).unwrap_or(&[]);
        let head = rest.first_chunk::<8>().ok_or(cut)?;
        let len = extension_len(network.protocol, head[1]);
        let body = rest.get(2..len).ok_or(cut)?;
        match network.protocol {
            HOP_BY_HOP if network.l4 != first => return Err(DropReason::Ipv6Extensions),
            HOP_BY_HOP | DESTINATION_OPTIONS => check_options(body)?,
            // Segments left: the destination is a way point, not the end that policy judges and that
            // the checksum covers. IPv4 source routes are refused for the same reason.
            ROUTING if head[2] == ROUTING_TYPE_0 || head[3] != 0 => {
                return Err(DropReason::Ipv6RoutingHeader);
            }
            FRAGMENT if fragment_seen => return Err(DropReason::Ipv6Extensions),
            FRAGMENT => {
                fragment_seen = true;
                network.fragment = read_fragment(head, network.l4 + len, first, network.end)?;
            }
            _ => {}
        }
        network.protocol = head[0];
        network.l4 += len;
        if matches!(network.fragment, Fragment::Later(_)) || !is_extension(network.protocol) {
            return Ok(());
        }
    }
    Err(DropReason::Ipv6Extensions)
}

/// Length in bytes of an extension header, from the length field in its second byte.
#[inline]
pub(super) fn extension_len(kind: u8, len_field: u8) -> usize {
    if kind == FRAGMENT { 8 } else { (usize::from(len_field) + 1) * 8 }
}

/// Reads a fragment header whose payload runs from `payload` to `end`; `first` is where the
/// extension headers begin. An atomic fragment (RFC 6946) is a whole packet.
fn read_fragment(head: &[u8; 8], payload: usize, first: usize, end: usize) -> Result<Fragment, DropReason> {
    let offset_and_flags = u16::from_be_bytes([head[2], head[3]]);
    FragmentFields {
        id: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        offset: u32::from(offset_and_flags & 0xfff8),
        more: offset_and_flags & 1 != 0,
        len: end.saturating_sub(payload) as u32,
        overhead: (payload - first).saturating_sub(8) as u32,
        protocol: head[0],
    }
    .judge()
}

/// Walks the options of a hop-by-hop or destination options header. Unknown ones are left to the
/// nodes that they are for.
fn check_options(options: &[u8]) -> Result<(), DropReason> {
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        rest = match *kind {
            OPTION_PAD1 => tail,
            OPTION_JUMBO => return Err(DropReason::Ipv6Extensions),
            _ => {
                let (len, value) = tail.split_first().ok_or(DropReason::Ipv6Extensions)?;
                value.get(usize::from(*len)..).ok_or(DropReason::Ipv6Extensions)?
            }
        };
    }
    Ok(())
}
