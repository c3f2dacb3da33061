//! Packets: parsed once into a trusted type; nothing downstream checks a length again.
//!
//! [`parse`] reads a frame, verifies its checksums and says what it is, or why it must be dropped.
//! [`build`] writes the few packets that a firewall sends itself. No function here panics, for any
//! bytes: a fuzz target and property tests hold it to that.
//!
//! | file | holds |
//! |---|---|
//! | `ethernet`, `ipv4`, `ipv6`, `network` | link and network headers, extension headers, fragments, martians |
//! | `upper`, `tcp`, `sctp`, `icmp`, `embedded`, `tunnel` | upper layers, and the one pass that verifies their checksum |
//! | [`checksum`] | one's complement sums |
//! | [`rewrite`] | what forwarding changes |
//! | [`build`] | ICMP errors, resets, fragments |

use crate::addr::Tuple;
use crate::drops::DropReason;

pub mod build;
pub mod checksum;
mod embedded;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod network;
#[cfg(all(feature = "planted-panic", fuzzing))]
mod planted;
pub mod rewrite;
mod sctp;
mod tcp;
#[cfg(test)]
mod tests;
mod tunnel;
mod types;
mod upper;
pub use types::*;

/// Reads a whole Ethernet frame: a packet in which every length, flag and checksum holds, or the one
/// reason for which it must be dropped.
///
/// Pure and bounded: no allocation, one pass over the payload (for its checksum), every walk over
/// options, extension headers and chunks ends at the packet's end.
#[inline]
pub fn parse(frame: &[u8], options: ParseOptions) -> Result<Packet, DropReason> {
    let link = ethernet::parse(frame)?;
    let net = if link.v4 { ipv4::parse(frame, link.l3) } else { ipv6::parse(frame, link.l3) }?;
    let upper = upper::parse(frame, &net)?;
    if net.src == net.dst && is_land(&upper) {
        return Err(DropReason::Land);
    }
    let completion = upper::verify(frame, &net, &upper.cover, options)?;
    let (complete_checksum, complete_crc) = match completion {
        upper::Completion::Nothing => (None, None),
        upper::Completion::Checksum(value) => (Some(value), None),
        upper::Completion::Crc32c(crc) => (None, Some(crc)),
    };
    Ok(Packet {
        l3: net.l3 as u16,
        l4: net.l4 as u16,
        end: net.end as u16,
        v4: net.v4,
        ttl: net.ttl,
        dont_fragment: net.dont_fragment,
        vlan: link.vlan,
        fragment: net.fragment,
        tuple: Tuple {
            src: net.src,
            dst: net.dst,
            src_port: upper.src_port,
            dst_port: upper.dst_port,
            protocol: net.protocol,
        },
        l4_info: upper.info,
        complete_checksum,
        complete_crc,
    })
}

/// Whether a packet from an address to the same address is a land attack: from the port to the same
/// port, or without ports (an ICMP query's only tell the asking side from the asked). A later
/// fragment's ports are elsewhere: its first fragment is judged.
fn is_land(upper: &upper::Upper) -> bool {
    match upper.info {
        L4::IcmpQuery { .. } => true,
        L4::LaterFragment => false,
        _ => upper.src_port == upper.dst_port,
    }
}
