//! What IPv4 and IPv6 have in common: the result of reading them, fragments, and addresses that no
//! transit packet may have.

use super::{Fragment, Piece};
use crate::addr::{Addr, proto};
use crate::drops::DropReason;

/// Longest IP packet, and end of the largest reassembled one.
pub(super) const IP_LEN_MAX: u32 = 65_535;

/// A sound network header.
pub(super) struct Network {
    pub(super) v4: bool,
    pub(super) l3: usize,
    pub(super) l4: usize,
    pub(super) end: usize,
    pub(super) protocol: u8,
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) fragment: Fragment,
}

/// The fields of a fragment, of either family.
pub(super) struct FragmentFields {
    pub(super) id: u32,
    /// In bytes.
    pub(super) offset: u32,
    pub(super) more: bool,
    /// Payload of this fragment in bytes.
    pub(super) len: u32,
    /// What the reassembled packet has beside this payload and counts in its 16-bit length.
    pub(super) overhead: u32,
    pub(super) protocol: u8,
}

impl FragmentFields {
    /// Judges the fields: lengths that contradict each other, packets that would grow beyond 65,535
    /// bytes, and fragments that would overwrite the header of the first (RFC 1858, RFC 3128).
    pub(super) fn judge(self) -> Result<Fragment, DropReason> {
        let FragmentFields { id, offset, more, len, overhead, protocol } = self;
        if offset == 0 && !more {
            return Ok(Fragment::Whole);
        }
        if len == 0 || (more && len % 8 != 0) || overhead + offset + len > IP_LEN_MAX {
            return Err(DropReason::FragmentMalformed);
        }
        let piece = Piece { id, offset, len, more, next_header: protocol };
        if offset == 0 {
            return Ok(Fragment::First(piece));
        }
        if offset < header_len_min(protocol) {
            return Err(DropReason::FragmentTiny);
        }
        Ok(Fragment::Later(piece))
    }
}

/// What the first fragment holds at least, so that a later one may not begin inside it.
fn header_len_min(protocol: u8) -> u32 {
    match protocol {
        proto::TCP => 20,
        proto::SCTP => 16,
        _ => 8,
    }
}

/// Refuses IPv4 addresses that are never forwarded: 0/8, 127/8, 169.254/16, multicast, 240/4 with
/// the limited broadcast (RFC 1812 sections 4.2.2.11, 5.3.7; RFC 3927; RFC 6890).
pub(super) fn refuse_martian_v4(src: [u8; 4], dst: [u8; 4]) -> Result<(), DropReason> {
    let martian = |a: [u8; 4]| matches!(a, [0 | 127 | 224.., ..] | [169, 254, ..]);
    if martian(src) || martian(dst) { Err(DropReason::Martian) } else { Ok(()) }
}

/// Refuses IPv6 addresses that are never forwarded: unspecified, loopback and v4-compatible (::/96),
/// v4-mapped (which [`Addr`] keeps for IPv4), link-local, multicast (RFC 4291, RFC 6890).
pub(super) fn refuse_martian_v6(src: Addr, dst: Addr) -> Result<(), DropReason> {
    if is_martian_v6(src) || is_martian_v6(dst) { Err(DropReason::Martian) } else { Ok(()) }
}

#[inline]
fn is_martian_v6(addr: Addr) -> bool {
    let top = addr.0 >> 32;
    top == 0 || top == 0xffff || addr.0 >> 118 == 0xfe80 >> 6 || addr.0 >> 120 == 0xff
}
