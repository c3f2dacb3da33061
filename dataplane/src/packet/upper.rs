//! The upper layers: which protocol, which ports, and the one pass over the payload that verifies or
//! completes its checksum.
//!
//! Ports: 0 is refused for TCP and SCTP and as a UDP destination (reserved: RFC 9260 section 3.1,
//! RFC 6335 section 6); as a UDP source it means "no reply wanted" (RFC 768) and passes.
//!
//! A fragment's checksum covers bytes that are elsewhere, so none is claimed for it. In whole packets
//! every checksum that the protocol has is verified: TCP, UDP (unless IPv4 and zero), ICMP, ICMPv6,
//! the SCTP CRC (RFC 9260 appendix A) and a GRE checksum that is present.

use super::network::Network;
use super::{Fragment, L4, ParseOptions, checksum, icmp, sctp, tcp, tunnel};
use crate::addr::proto;
use crate::drops::DropReason;

const UDP_HEADER_LEN: usize = 8;
/// Offset of the checksum field in a UDP header.
pub(super) const UDP_CHECKSUM: usize = 6;

/// What the upper-layer header says.
pub(super) struct Upper {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) info: L4,
    pub(super) cover: Cover,
}

/// Which checksum a whole packet has, over which bytes from the start of the upper-layer header.
pub(super) enum Cover {
    /// None, or none that one fragment could show.
    Nothing,
    /// One's complement over `len` bytes.
    Ones { len: usize, pseudo_header: bool },
    /// As before, and a local stack may have left it to a device: the field is at `field`.
    Offloadable { len: usize, field: usize },
    /// CRC32c over the whole packet.
    Crc32c,
}

/// What must still be written into a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    Nothing,
    Checksum(u16),
    Crc32c(u32),
}

impl Upper {
    /// A protocol without ports.
    pub(super) fn portless(info: L4, cover: Cover) -> Self {
        Upper { src_port: 0, dst_port: 0, info, cover }
    }
}

/// The upper-layer bytes in hand, and how a header that they cut short is to be called.
pub(super) struct Payload<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the bytes begin in the frame.
    pub(super) offset: usize,
    pub(super) v4: bool,
    /// Whether these are all of the packet's bytes: neither a first nor a later fragment.
    pub(super) whole: bool,
}

impl Payload<'_> {
    /// The reason for a header that does not fit: the sender's fault in a whole packet, an evasion
    /// in a first fragment (RFC 1858).
    pub(super) fn cut(&self, whole: DropReason) -> DropReason {
        if self.whole { whole } else { DropReason::FragmentTiny }
    }
}

/// Reads the upper-layer header.
#[inline]
pub(super) fn parse(frame: &[u8], net: &Network) -> Result<Upper, DropReason> {
    if matches!(net.fragment, Fragment::Later(_)) {
        return Ok(Upper::portless(L4::LaterFragment, Cover::Nothing));
    }
    let payload = Payload {
        bytes: frame.get(net.l4..net.end).unwrap_or(&[]),
        offset: net.l4,
        v4: net.v4,
        whole: net.fragment == Fragment::Whole,
    };
    let upper = match net.protocol {
        proto::TCP => tcp::parse(&payload),
        proto::UDP => parse_udp(&payload),
        proto::ICMP | proto::ICMPV6 => icmp::parse(&payload, net.protocol),
        proto::SCTP => sctp::parse(&payload),
        proto::GRE => tunnel::parse_gre(&payload),
        proto::ESP => tunnel::parse_esp(&payload),
        _ => Ok(Upper::portless(L4::Other, Cover::Nothing)),
    }?;
    Ok(if payload.whole { upper } else { Upper { cover: Cover::Nothing, ..upper } })
}

/// UDP (RFC 768). The length may be smaller than what IP carries (RFC 9868 puts options there), and
/// in a first fragment it is that of the whole datagram.
#[inline]
fn parse_udp(payload: &Payload<'_>) -> Result<Upper, DropReason> {
    let malformed = DropReason::UdpMalformed;
    let h = payload.bytes.first_chunk::<UDP_HEADER_LEN>().ok_or(payload.cut(malformed))?;
    let dst_port = u16::from_be_bytes([h[2], h[3]]);
    let len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if dst_port == 0 || len < UDP_HEADER_LEN || (payload.whole && len > payload.bytes.len()) {
        return Err(malformed);
    }
    let cover = match [h[6], h[7]] {
        [0, 0] if payload.v4 => Cover::Nothing,
        // RFC 8200 section 8.1.
        [0, 0] => return Err(DropReason::L4Checksum),
        _ => Cover::Offloadable { len, field: UDP_CHECKSUM },
    };
    Ok(Upper { src_port: u16::from_be_bytes([h[0], h[1]]), dst_port, info: L4::Udp, cover })
}

/// Verifies what [`Upper::cover`] names, in one pass.
///
/// With `S` the sum over the bytes with their checksum field and `P` that of the pseudo-header, the
/// packet is right when `S + P` folds to 0xffff. A local stack that left the checksum to a device
/// put `P` into the field: then `S` is already all that the device would have added up, and its
/// complement is the checksum.
#[inline]
pub(super) fn verify(
    frame: &[u8],
    net: &Network,
    cover: &Cover,
    options: ParseOptions,
) -> Result<Completion, DropReason> {
    let bytes = frame.get(net.l4..net.end).unwrap_or(&[]);
    let (len, pseudo_header, field) = match *cover {
        Cover::Nothing => return Ok(Completion::Nothing),
        Cover::Ones { len, pseudo_header } => (len, pseudo_header, None),
        Cover::Offloadable { len, field } => (len, true, Some(field)),
        Cover::Crc32c => return sctp::verify(bytes, options),
    };
    let covered = bytes.get(..len).ok_or(DropReason::L4Checksum)?;
    let payload_sum = checksum::sum(covered);
    let pseudo_sum =
        if pseudo_header { checksum::pseudo_header(net.src, net.dst, net.protocol, len as u32) } else { 0 };
    if checksum::fold(payload_sum + pseudo_sum) == 0xffff {
        return Ok(Completion::Nothing);
    }
    let Some(field) = field.filter(|_| options.partial_checksums) else {
        return Err(DropReason::L4Checksum);
    };
    let found = covered.get(field..).and_then(|f| f.first_chunk::<2>()).map(|f| u16::from_be_bytes(*f));
    if found != Some(checksum::fold(pseudo_sum)) {
        return Err(DropReason::L4Checksum);
    }
    let completed = checksum::finish(payload_sum);
    // RFC 768: a computed zero is sent as all ones.
    let zero_means_none = net.protocol == proto::UDP && completed == 0;
    Ok(Completion::Checksum(if zero_means_none { 0xffff } else { completed }))
}
