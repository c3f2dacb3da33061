//! SCTP (RFC 9260): common header, chunk lengths, CRC32c.

use super::upper::{Completion, Cover, Payload, Upper};
use super::{L4, ParseOptions};
use crate::drops::DropReason;

const HEADER_LEN: usize = 12;
/// Offset of the checksum field.
pub(super) const CHECKSUM: usize = 8;
const CHUNK_HEADER_LEN: usize = 4;
const CHUNK_INIT: u8 = 1;

/// Reads the common header and, of a whole packet, every chunk's header.
pub(super) fn parse(payload: &Payload<'_>) -> Result<Upper, DropReason> {
    let malformed = DropReason::SctpMalformed;
    let cut = payload.cut(malformed);
    let (h, chunks) = payload.bytes.split_first_chunk::<HEADER_LEN>().ok_or(cut)?;
    let first = chunks.first_chunk::<CHUNK_HEADER_LEN>().ok_or(cut)?;
    let src_port = u16::from_be_bytes([h[0], h[1]]);
    let dst_port = u16::from_be_bytes([h[2], h[3]]);
    let untagged = h[4..8] == [0; 4];
    // RFC 9260 section 8.5.1: tag 0 belongs to INIT, and to nothing else.
    if src_port == 0 || dst_port == 0 || untagged != (first[0] == CHUNK_INIT) {
        return Err(malformed);
    }
    if payload.whole {
        check_chunks(chunks)?;
    }
    Ok(Upper { src_port, dst_port, info: L4::Sctp { first_chunk: first[0] }, cover: Cover::Crc32c })
}

/// Walks the chunks: each has a length of at least its header and lies inside the packet, and INIT
/// travels alone (RFC 9260 section 6.10). The last one's padding may be missing.
fn check_chunks(chunks: &[u8]) -> Result<(), DropReason> {
    let mut rest = chunks;
    while !rest.is_empty() {
        let head = rest.first_chunk::<CHUNK_HEADER_LEN>().ok_or(DropReason::SctpMalformed)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if len < CHUNK_HEADER_LEN || len > rest.len() {
            return Err(DropReason::SctpMalformed);
        }
        let padded = len.next_multiple_of(4);
        let bundled = rest.len() < chunks.len() || padded < rest.len();
        if head[0] == CHUNK_INIT && bundled {
            return Err(DropReason::SctpMalformed);
        }
        rest = rest.get(padded..).unwrap_or(&[]);
    }
    Ok(())
}

/// Verifies the CRC32c (RFC 9260 appendix A: computed with the field as 0, sent low byte first).
/// A local stack that leaves it to a device leaves 0 there.
pub(super) fn verify(packet: &[u8], options: ParseOptions) -> Result<Completion, DropReason> {
    let (h, chunks) = packet.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::SctpMalformed)?;
    let (ports_and_tag, field) = h.split_at(CHECKSUM);
    let crc = crc32c::crc32c(ports_and_tag);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, chunks);
    if field == crc.to_le_bytes() {
        Ok(Completion::Nothing)
    } else if options.partial_checksums && field == [0; 4] {
        Ok(Completion::Crc32c(crc))
    } else {
        Err(DropReason::L4Checksum)
    }
}
