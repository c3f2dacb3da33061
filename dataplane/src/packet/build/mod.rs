//! The few packets that a firewall writes itself: ICMP errors, TCP resets, and the fragments of a
//! packet that is too large for the next link.
//!
//! Each function writes one whole Ethernet frame into the caller's buffer and returns its length, or
//! `None` when such a packet must not be sent or does not fit. None of them decides whether it is
//! wanted, nor how often: the rate limit is the engine's. No frame here is longer than
//! [`FRAME_LEN_MAX`].

mod fragments;
mod icmp_error;
mod reset;

pub use fragments::{Fragments, ipv4_fragments};
pub use icmp_error::{ErrorKind, icmp_error};
pub use reset::tcp_reset;

use super::{checksum, ethernet, ipv4, ipv6};
use crate::addr::{Addr, Mac};

/// Longest frame that is ever written here: a buffer of this size always suffices.
pub const FRAME_LEN_MAX: usize = 1792;

/// TTL and hop limit of a packet of our own (RFC 1700, IANA's recommended default).
const TTL: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// Everything in front of the payload of a packet of our own.
struct Envelope {
    src_mac: Mac,
    dst_mac: Mac,
    src: Addr,
    dst: Addr,
    protocol: u8,
    /// Type of service or traffic class.
    class: u8,
}

impl Envelope {
    /// Writes Ethernet and IP headers for a payload of `payload_len` bytes; returns where it begins.
    /// IPv4 packets are atomic (RFC 6864): never fragmented, so their identification is 0.
    fn write(&self, out: &mut [u8], payload_len: usize) -> Option<usize> {
        let (link, rest) = out.split_first_chunk_mut::<{ ethernet::HEADER_LEN }>()?;
        link[..6].copy_from_slice(&self.dst_mac.0);
        link[6..12].copy_from_slice(&self.src_mac.0);
        let (ethertype, header_len) = match (self.src.to_v4(), self.dst.to_v4()) {
            (Some(src), Some(dst)) => {
                let total_len = u16::try_from(ipv4::HEADER_LEN + payload_len).ok()?;
                let h = rest.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
                h[..2].copy_from_slice(&[0x45, self.class]);
                h[2..4].copy_from_slice(&total_len.to_be_bytes());
                h[4..6].fill(0);
                h[6..8].copy_from_slice(&DONT_FRAGMENT);
                h[8..12].copy_from_slice(&[TTL, self.protocol, 0, 0]);
                h[12..16].copy_from_slice(&src);
                h[16..20].copy_from_slice(&dst);
                let field = checksum::finish(checksum::sum(h));
                h[10..12].copy_from_slice(&field.to_be_bytes());
                (ethernet::ETHERTYPE_IPV4, ipv4::HEADER_LEN)
            }
            (None, None) => {
                let h = rest.first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
                h[..4].copy_from_slice(&[0x60 | self.class >> 4, self.class << 4, 0, 0]);
                h[4..6].copy_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
                h[6..8].copy_from_slice(&[self.protocol, TTL]);
                h[8..24].copy_from_slice(&self.src.0.to_be_bytes());
                h[24..40].copy_from_slice(&self.dst.0.to_be_bytes());
                (ethernet::ETHERTYPE_IPV6, ipv6::HEADER_LEN)
            }
            _ => return None,
        };
        link[12..14].copy_from_slice(&ethertype.to_be_bytes());
        Some(ethernet::HEADER_LEN + header_len)
    }

    /// The pseudo-header sum of an upper-layer packet of `len` bytes.
    fn pseudo_header(&self, len: usize) -> u32 {
        checksum::pseudo_header(self.src, self.dst, self.protocol, len as u32)
    }
}
