//! What the parser hands to the engine.

use super::Tuple;

/// A parsed, structurally sound, checksum-verified IP packet inside an Ethernet frame.
///
/// All offsets are bytes from the start of the frame; `l3 < l4 <= end <= frame length`. Bytes from
/// `end` on are Ethernet padding and belong to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Offset of the IP header (14 without VLAN tags).
    pub l3: u16,
    /// Offset of the upper-layer header (for a later fragment: of its payload).
    pub l4: u16,
    /// Offset one past the last byte of the IP packet.
    pub end: u16,
    /// Whether it is IPv4.
    pub v4: bool,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// IPv4 don't-fragment; always true for IPv6.
    pub dont_fragment: bool,
    /// Whether a VLAN tag precedes the IP header.
    pub vlan: bool,
    /// Place in a fragmented packet.
    pub fragment: Fragment,
    /// The flow's direction as this packet has it. Ports are 0 for a later fragment, and its protocol
    /// is what the fragment header names, which in IPv6 may be destination options rather than the
    /// upper layer: the fragments of one IPv6 packet are told by addresses and identification alone
    /// (RFC 8200 section 4.5).
    pub tuple: Tuple,
    /// Upper-layer meaning.
    pub l4_info: L4,
    /// What must be written into the upper-layer checksum field before the frame may leave
    /// (RFC 1624 arithmetic); `None` when the field is right as it is.
    pub complete_checksum: Option<u16>,
    /// The same for SCTP's CRC32c (RFC 9260 appendix A).
    pub complete_crc: Option<u32>,
}

impl Packet {
    /// Length of the IP packet in bytes: what counters and the MTU count.
    #[inline]
    pub fn ip_len(&self) -> u16 {
        self.end - self.l3
    }
}

/// Place of a packet in a fragmented one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first fragment; it holds the whole upper-layer header.
    First(Piece),
    /// A later fragment: no ports.
    Later(Piece),
}

impl Fragment {
    /// The fragment's part of its datagram; `None` for a whole packet.
    #[inline]
    pub fn piece(self) -> Option<Piece> {
        match self {
            Fragment::Whole => None,
            Fragment::First(piece) | Fragment::Later(piece) => Some(piece),
        }
    }
}

/// Which part of its datagram's payload a fragment carries. Lengths and offset are sound by
/// themselves: `len` is not 0 and a multiple of 8 unless it is the last, and the datagram that it
/// belongs to ends at 65,535 bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification, shared by the fragments of one datagram.
    pub id: u32,
    /// Offset in the datagram's payload in bytes, a multiple of 8.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// Whether more fragments follow.
    pub more: bool,
    /// IPv4 protocol, or what the IPv6 fragment header names as the next header.
    pub next_header: u8,
}

/// Upper-layer header, as far as sessions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP (RFC 9293).
    Tcp(Tcp),
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260): type of the first chunk.
    Sctp {
        /// First chunk's type.
        first_chunk: u8,
    },
    /// A query (echo, timestamp) or its reply, ICMP or ICMPv6.
    IcmpQuery {
        /// Whether it is the reply.
        reply: bool,
    },
    /// An ICMP or ICMPv6 error with the packet it is about. [`Packet::tuple`] is the outer packet's.
    IcmpError(IcmpError),
    /// Any other ICMP message (neighbour discovery, multicast listener, redirect, ...).
    IcmpOther {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// GRE (RFC 2784, RFC 2890).
    Gre,
    /// ESP (RFC 4303).
    Esp,
    /// Anything else.
    Other,
    /// A later fragment: its upper-layer header travels in the first.
    LaterFragment,
}

/// TCP header fields (RFC 9293 section 3.1) and the options that tracking needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tcp {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number; meaningful with ACK.
    pub ack: u32,
    /// Flag bits, see [`tcp_flags`].
    pub flags: u8,
    /// Window as on the wire, unscaled.
    pub window: u16,
    /// Payload length in bytes.
    pub payload_len: u16,
    /// MSS option of a SYN.
    pub mss: Option<u16>,
    /// Offset of the MSS option's value from the start of the frame; 0 without one.
    pub mss_offset: u16,
    /// Window scale option of a SYN (RFC 7323), at most 14.
    pub window_scale: Option<u8>,
    /// SACK permitted option of a SYN.
    pub sack_permitted: bool,
}

impl Tcp {
    /// Sequence space that the segment takes: payload, plus one each for SYN and FIN.
    #[inline]
    pub fn segment_len(&self) -> u32 {
        u32::from(self.payload_len)
            + u32::from(self.flags & tcp_flags::SYN != 0)
            + u32::from(self.flags & tcp_flags::FIN != 0)
    }
}

/// TCP flag bits.
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
}

/// An ICMP error and the packet that it is about (RFC 792, RFC 4443, RFC 5508).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The embedded packet's tuple: the direction in which the offending packet travelled. An
    /// embedded ICMP query has the ports of [`Tuple`]; a later fragment has ports 0.
    pub embedded: Tuple,
    /// The embedded TCP sequence number, when the error carries it.
    pub embedded_seq: Option<u32>,
}

/// How a frame is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ParseOptions {
    /// The port may hand over frames whose TCP or UDP checksum field holds only the pseudo-header sum,
    /// or whose SCTP checksum is 0 (CHECKSUM_PARTIAL of a local stack behind a veth): they are
    /// completed, not refused.
    pub partial_checksums: bool,
}
