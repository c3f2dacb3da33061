//! Fragmentation by a router (RFC 791 section 3.2, RFC 1812 section 5.2.6): IPv4 only, and only
//! without don't-fragment.

use super::FRAME_LEN_MAX;
use crate::packet::{Packet, checksum, ipv4};

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
/// An option with this bit goes into every fragment.
const OPTION_COPIED: u8 = 0x80;
const FLAG_MORE: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The fragments of one packet, written one after the other with [`Fragments::write_next`].
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    link: &'a [u8],
    /// IP header of the packet, options included.
    header: &'a [u8],
    /// What is left of its payload.
    rest: &'a [u8],
    /// Whether nothing was written yet: the first fragment has all options.
    first: bool,
    /// Length of the header of the ones behind the first: only options that are copied.
    later_header_len: usize,
    /// Offset of `rest` in the whole packet's payload, in units of eight bytes.
    offset: u16,
    /// Whether the packet is itself a fragment that others follow.
    more: bool,
    mtu: usize,
}

/// Splits the packet in `frame`, which [`super::super::rewrite::forward`] has already readied for its
/// next hop (so that link addresses, TTL and checksums are those that leave), into fragments of at
/// most `mtu` bytes. `None` when it must not be fragmented, or the MTU has no room for eight bytes of
/// payload. An MTU above what [`FRAME_LEN_MAX`] takes counts as that.
pub fn ipv4_fragments<'a>(frame: &'a [u8], p: &Packet, mtu: u16) -> Option<Fragments<'a>> {
    if !p.v4 || p.dont_fragment {
        return None;
    }
    let (l3, l4, end) = (usize::from(p.l3), usize::from(p.l4), usize::from(p.end));
    let link = frame.get(..l3)?;
    let header = frame.get(l3..l4)?;
    let rest = frame.get(l4..end)?;
    let fixed = header.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    let mtu = usize::from(mtu).min(FRAME_LEN_MAX - l3.min(FRAME_LEN_MAX));
    if mtu < header.len() + 8 {
        return None;
    }
    let copied: usize = copied_options(header).map(<[u8]>::len).sum();
    Some(Fragments {
        link,
        header,
        rest,
        first: true,
        later_header_len: ipv4::HEADER_LEN + copied.next_multiple_of(4),
        offset: flags & OFFSET_MASK,
        more: flags & FLAG_MORE != 0,
        mtu,
    })
}

impl Fragments<'_> {
    /// How many are still to be written.
    pub fn count(&self) -> usize {
        let mut ahead = self.clone();
        let mut n = 0;
        while !ahead.rest.is_empty() {
            ahead.advance(ahead.piece_len());
            n += 1;
        }
        n
    }

    /// Writes the next fragment as a whole frame and returns its length; `None` when none is left or
    /// `out` is too short (then nothing was consumed).
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self.piece_len();
        let payload = self.rest.get(..len)?;
        let last = len == self.rest.len();
        let frame = out.get_mut(..self.link.len() + self.header_len() + len)?;
        let (link, ip) = frame.split_at_mut_checked(self.link.len())?;
        let (header, body) = ip.split_at_mut_checked(self.header_len())?;
        link.copy_from_slice(self.link);
        body.copy_from_slice(payload);
        let ip_len = (header.len() + body.len()) as u16;
        self.write_header(header, ip_len, last)?;
        self.advance(len);
        Some(frame.len())
    }

    fn write_header(&self, header: &mut [u8], ip_len: u16, last: bool) -> Option<()> {
        let header_words = (header.len() / 4) as u8;
        if self.first {
            header.copy_from_slice(self.header);
        } else {
            let (fixed, mut options) = header.split_at_mut_checked(ipv4::HEADER_LEN)?;
            fixed.copy_from_slice(self.header.get(..ipv4::HEADER_LEN)?);
            for option in copied_options(self.header) {
                let (place, behind) = options.split_at_mut_checked(option.len())?;
                place.copy_from_slice(option);
                options = behind;
            }
            options.fill(OPTION_END);
        }
        let more = if last && !self.more { 0 } else { FLAG_MORE };
        let fixed = header.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
        fixed[0] = 0x40 | header_words;
        fixed[2..4].copy_from_slice(&ip_len.to_be_bytes());
        fixed[6..8].copy_from_slice(&(self.offset | more).to_be_bytes());
        fixed[10..12].fill(0);
        let field = checksum::finish(checksum::sum(header));
        header.get_mut(10..12)?.copy_from_slice(&field.to_be_bytes());
        Some(())
    }

    /// Length of the next fragment's header.
    fn header_len(&self) -> usize {
        if self.first { self.header.len() } else { self.later_header_len }
    }

    /// Payload of the next fragment in bytes: what is left if that fits, else a multiple of eight.
    fn piece_len(&self) -> usize {
        let room = self.mtu - self.header_len();
        if self.rest.len() <= room { self.rest.len() } else { room & !7 }
    }

    fn advance(&mut self, len: usize) {
        self.rest = self.rest.get(len..).unwrap_or(&[]);
        self.offset += (len / 8) as u16;
        self.first = false;
    }
}

/// The options of an IP header that go into every fragment. The parser has checked their lengths.
fn copied_options(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header.get(ipv4::HEADER_LEN..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        loop {
            let len = match rest {
                [] | [OPTION_END, ..] => return None,
                [OPTION_NOP, ..] => 1,
                [_, len, ..] => usize::from(*len).max(1),
                _ => return None,
            };
            let (option, behind) = rest.split_at_checked(len)?;
            rest = behind;
            if option[0] & OPTION_COPIED != 0 {
                return Some(option);
            }
        }
    })
}
