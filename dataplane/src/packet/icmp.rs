//! ICMP (RFC 792) and ICMPv6 (RFC 4443): queries, errors, the rest.

use super::upper::{Cover, Payload, Upper};
use super::{IcmpError, L4, embedded};
use crate::addr::{ICMP_QUERY_PORT, proto};
use crate::drops::DropReason;

/// Length of the header of an error or a query, in both families.
pub(super) const HEADER_LEN: usize = 8;
/// RFC 4443 section 2.1: type, code, checksum. ICMP for IPv4 always has four bytes more.
const HEADER_LEN_MIN_V6: usize = 4;

/// What a message type is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Query,
    Reply,
    Error,
    Other,
}

/// Meaning of a type. Timestamp, information and address mask carry their identifier where echo has
/// it, and so does the extended echo of RFC 8335.
pub(super) fn meaning(protocol: u8, kind: u8) -> Meaning {
    match (protocol, kind) {
        (proto::ICMP, 8 | 13 | 15 | 17 | 42) | (proto::ICMPV6, 128 | 160) => Meaning::Query,
        (proto::ICMP, 0 | 14 | 16 | 18 | 43) | (proto::ICMPV6, 129 | 161) => Meaning::Reply,
        (proto::ICMP, 3 | 4 | 11 | 12) | (proto::ICMPV6, 1..=4) => Meaning::Error,
        _ => Meaning::Other,
    }
}

/// The ports of a query or its reply: the identifier on the asking side.
pub(super) fn query_ports(id: u16, reply: bool) -> (u16, u16) {
    if reply { (ICMP_QUERY_PORT, id) } else { (id, ICMP_QUERY_PORT) }
}

/// Reads a message. An error in a fragment is refused: it may end a session (J9), and its checksum
/// could not be verified.
pub(super) fn parse(payload: &Payload<'_>, protocol: u8) -> Result<Upper, DropReason> {
    let malformed = DropReason::IcmpMalformed;
    if payload.v4 != (protocol == proto::ICMP) {
        return Err(malformed);
    }
    let cut = payload.cut(malformed);
    let head_min = if payload.v4 { HEADER_LEN } else { HEADER_LEN_MIN_V6 };
    let (kind, code) = match payload.bytes {
        [kind, code, ..] if payload.bytes.len() >= head_min => (*kind, *code),
        _ => return Err(cut),
    };
    let cover = Cover::Ones { len: payload.bytes.len(), pseudo_header: !payload.v4 };
    let meaning = meaning(protocol, kind);
    if meaning == Meaning::Other {
        return Ok(Upper::portless(L4::IcmpOther { kind, code }, cover));
    }
    let (h, quote) = payload.bytes.split_first_chunk::<HEADER_LEN>().ok_or(cut)?;
    if meaning == Meaning::Error {
        if !payload.whole {
            return Err(malformed);
        }
        let quoted = embedded::parse(quote, payload.v4).ok_or(malformed)?;
        let error = IcmpError { kind, code, embedded: quoted.tuple, embedded_seq: quoted.seq };
        return Ok(Upper::portless(L4::IcmpError(error), cover));
    }
    let reply = meaning == Meaning::Reply;
    let (src_port, dst_port) = query_ports(u16::from_be_bytes([h[4], h[5]]), reply);
    Ok(Upper { src_port, dst_port, info: L4::IcmpQuery { reply }, cover })
}
