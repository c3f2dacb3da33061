//! GRE (RFC 2784, RFC 2890; version 1: RFC 2637) and ESP (RFC 4303): sound headers, nothing inside.

use super::L4;
use super::upper::{Cover, Payload, Upper};
use crate::drops::DropReason;

const GRE_CHECKSUM: u16 = 0x8000;
const GRE_ROUTING: u16 = 0x4000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
/// Strict source route, recursion control: zero since RFC 2784 section 2.3.
const GRE_RESERVED: u16 = 0x0c00;
const GRE_V1_ACK: u16 = 0x0080;
const GRE_VERSION: u16 = 0x0007;
const GRE_V1_PROTOCOL: u16 = 0x880b;
const GRE_HEADER_LEN: usize = 4;

const ESP_HEADER_LEN: usize = 8;

/// Reads a GRE header of version 0 or 1.
pub(super) fn parse_gre(payload: &Payload<'_>) -> Result<Upper, DropReason> {
    let cut = payload.cut(DropReason::TunnelMalformed);
    let h = payload.bytes.first_chunk::<GRE_HEADER_LEN>().ok_or(cut)?;
    let flags = u16::from_be_bytes([h[0], h[1]]);
    let protocol = u16::from_be_bytes([h[2], h[3]]);
    if flags & (GRE_ROUTING | GRE_RESERVED) != 0 {
        return Err(DropReason::TunnelMalformed);
    }
    let field = |flag| if flags & flag != 0 { 4 } else { 0 };
    let mut header_len = GRE_HEADER_LEN + field(GRE_KEY) + field(GRE_SEQUENCE);
    match flags & GRE_VERSION {
        0 => header_len += field(GRE_CHECKSUM),
        1 => {
            header_len += field(GRE_V1_ACK);
            if flags & GRE_KEY == 0 || flags & GRE_CHECKSUM != 0 || protocol != GRE_V1_PROTOCOL {
                return Err(DropReason::TunnelMalformed);
            }
        }
        _ => return Err(DropReason::TunnelMalformed),
    }
    let inside = payload.bytes.get(header_len..).ok_or(cut)?;
    // RFC 2637: the high half of the key is the payload's length.
    if let (1, [_, _, _, _, high, low, ..]) = (flags & GRE_VERSION, payload.bytes) {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if payload.whole && len > inside.len() {
            return Err(DropReason::TunnelMalformed);
        }
    }
    let cover = match flags & GRE_CHECKSUM {
        0 => Cover::Nothing,
        _ => Cover::Ones { len: payload.bytes.len(), pseudo_header: false },
    };
    Ok(Upper::portless(L4::Gre, cover))
}

/// Reads an ESP header. SPI 0 never travels (RFC 4303 section 2.1).
pub(super) fn parse_esp(payload: &Payload<'_>) -> Result<Upper, DropReason> {
    let h = payload.bytes.first_chunk::<ESP_HEADER_LEN>().ok_or(payload.cut(DropReason::TunnelMalformed))?;
    if h[..4] == [0; 4] {
        return Err(DropReason::TunnelMalformed);
    }
    Ok(Upper::portless(L4::Esp, Cover::Nothing))
}
