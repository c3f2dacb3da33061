//! Frames of the simulated hosts, written and read byte by byte: nothing of the product's is used here.

use tidegate_dataplane::engine::Frame;
use tidegate_dataplane::fragment::FragmentNote;
use tidegate_dataplane::route::PortId;

/// Port of every node towards the clients, and towards the servers.
pub(super) const OUTSIDE: PortId = PortId(0);
pub(super) const INSIDE: PortId = PortId(1);

/// MAC of a port, the same on every node: who gets a frame is decided by the simulated routing.
pub(super) fn port_mac(port: PortId) -> [u8; 6] {
    [2, 0xf, 0, 0, 0, port.0]
}

/// MAC of the one next hop behind a port.
pub(super) fn hop_mac(port: PortId) -> [u8; 6] {
    [2, 0xc, 0, 0, 0, port.0]
}

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// The two ends of a flow: an address behind `OUTSIDE` and one behind `INSIDE`, with their ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ends {
    pub(super) protocol: u8,
    pub(super) client: ([u8; 4], u16),
    pub(super) server: ([u8; 4], u16),
}

/// What a packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) len: u16,
}

impl Segment {
    /// A datagram of that many bytes.
    pub(super) fn datagram(len: u16) -> Self {
        Segment { flags: 0, seq: 0, ack: 0, len }
    }

    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// How much of the sequence space it takes.
    pub(super) fn space(&self) -> u32 {
        u32::from(self.len) + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// A frame at a node's port.
#[derive(Clone, Debug)]
pub(super) struct SimFrame {
    pub(super) port: PortId,
    pub(super) bytes: Vec<u8>,
    note: Option<FragmentNote>,
}

impl SimFrame {
    pub(super) fn new(port: PortId, bytes: Vec<u8>) -> Self {
        SimFrame { port, bytes, note: None }
    }
}

impl Frame for SimFrame {
    fn port(&self) -> PortId {
        self.port
    }
    fn data(&self) -> &[u8] {
        &self.bytes
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn note(&self) -> Option<FragmentNote> {
        self.note
    }
    fn set_note(&mut self, note: FragmentNote) {
        self.note = Some(note);
    }
}

fn sum16(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The frame as a node gets it; `up` is from the client to the server.
pub(super) fn write(ends: &Ends, up: bool, segment: &Segment) -> Vec<u8> {
    let (port, from, to) =
        if up { (OUTSIDE, ends.client, ends.server) } else { (INSIDE, ends.server, ends.client) };
    let header = if ends.protocol == TCP { 20 } else { 8 };
    let total = 20 + header + segment.len;
    let mut out = Vec::with_capacity(14 + usize::from(total));
    out.extend(port_mac(port));
    out.extend(hop_mac(port));
    out.extend([8, 0, 0x45, 0]);
    out.extend(total.to_be_bytes());
    out.extend([0, 1, 0x40, 0, 64, ends.protocol, 0, 0]);
    out.extend(from.0);
    out.extend(to.0);
    let sum = fold(sum16(&out[14..34]));
    out[24..26].copy_from_slice(&sum);
    out.extend(from.1.to_be_bytes());
    out.extend(to.1.to_be_bytes());
    let sum_at = if ends.protocol == TCP {
        out.extend(segment.seq.to_be_bytes());
        out.extend(segment.ack.to_be_bytes());
        out.extend([0x50, segment.flags, 0xea, 0x60, 0, 0, 0, 0]);
        34 + 16
    } else {
        out.extend((8 + segment.len).to_be_bytes());
        out.extend([0, 0]);
        34 + 6
    };
    out.resize(14 + usize::from(total), 0x5a);
    let pseudo = sum16(&out[26..34]) + u32::from(ends.protocol) + u32::from(total - 20);
    let sum = fold(pseudo + sum16(&out[34..]));
    out[sum_at..sum_at + 2].copy_from_slice(&sum);
    out
}

/// What a frame that left a node is, and whether it goes up; `None` for what no host here sends.
pub(super) fn read(bytes: &[u8]) -> Option<(Ends, bool, Segment)> {
    let at16 = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let at32 = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let host = |at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok();
    let (total, protocol) = (at16(16)?, *bytes.get(23)?);
    let (from, to) = ((host(26)?, at16(34)?), (host(30)?, at16(36)?));
    let segment = match protocol {
        TCP => Segment {
            flags: *bytes.get(47)?,
            seq: at32(38)?,
            ack: at32(42)?,
            len: total.checked_sub(20 + 4 * u16::from(*bytes.get(46)? >> 4))?,
        },
        UDP => Segment::datagram(total.checked_sub(28)?),
        _ => return None,
    };
    let up = from.0[1] == 1;
    let (client, server) = if up { (from, to) } else { (to, from) };
    Some((Ends { protocol, client, server }, up, segment))
}
