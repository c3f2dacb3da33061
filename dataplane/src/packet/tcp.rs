//! TCP (RFC 9293): header, flags, and the options of a SYN that tracking needs.

use super::upper::{Cover, Payload, Upper};
use super::{L4, Tcp, tcp_flags};
use crate::drops::DropReason;

/// Length of a header without options.
pub(super) const HEADER_LEN: usize = 20;
/// Offset of the checksum field.
pub(super) const CHECKSUM: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
/// RFC 7323 section 2.3: a larger shift counts as this one.
const WINDOW_SCALE_MAX: u8 = 14;

/// Reads header and options.
#[inline]
pub(super) fn parse(payload: &Payload<'_>) -> Result<Upper, DropReason> {
    let cut = payload.cut(DropReason::TcpMalformed);
    let h = payload.bytes.first_chunk::<HEADER_LEN>().ok_or(cut)?;
    let src_port = u16::from_be_bytes([h[0], h[1]]);
    let dst_port = u16::from_be_bytes([h[2], h[3]]);
    let header_len = usize::from(h[12] >> 4) * 4;
    if header_len < HEADER_LEN || src_port == 0 || dst_port == 0 {
        return Err(DropReason::TcpMalformed);
    }
    let options = payload.bytes.get(HEADER_LEN..header_len).ok_or(cut)?;
    let mut tcp = Tcp {
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        flags: h[13],
        window: u16::from_be_bytes([h[14], h[15]]),
        payload_len: (payload.bytes.len() - header_len) as u16,
        ..Tcp::default()
    };
    if !flags_are_sane(tcp.flags) {
        return Err(DropReason::TcpFlags);
    }
    read_options(options, payload.offset + HEADER_LEN, &mut tcp)?;
    let cover = Cover::Offloadable { len: payload.bytes.len(), field: CHECKSUM };
    Ok(Upper { src_port, dst_port, info: L4::Tcp(tcp), cover })
}

/// Whether a stack can have sent this combination: a SYN neither ends nor resets, a RST does not
/// end, and everything else acknowledges. PSH, URG, ECE and CWR are free.
#[inline]
fn flags_are_sane(flags: u8) -> bool {
    use tcp_flags::{ACK, FIN, RST, SYN};
    match flags & (SYN | FIN | RST) {
        SYN | RST => true,
        0 | FIN => flags & ACK != 0,
        _ => false,
    }
}

/// Walks the options, which begin at `offset` of the frame. Where an option comes twice, the later
/// one counts, as it does in Linux. Only a SYN's negotiate (RFC 9293 section 3.2).
#[inline]
fn read_options(options: &[u8], offset: usize, tcp: &mut Tcp) -> Result<(), DropReason> {
    let syn = tcp.flags & tcp_flags::SYN != 0;
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        let at = offset + options.len() - rest.len();
        rest = match *kind {
            OPTION_END => break,
            OPTION_NOP => tail,
            kind => {
                let len = usize::from(*tail.first().ok_or(DropReason::TcpMalformed)?);
                let option = rest.get(..len).filter(|_| len >= 2).ok_or(DropReason::TcpMalformed)?;
                if syn {
                    read_syn_option(kind, option, at, tcp)?;
                }
                rest.get(len..).unwrap_or(&[])
            }
        };
    }
    #[cfg(all(feature = "planted-panic", fuzzing))]
    super::planted::panic_on(tcp);
    Ok(())
}

/// Takes one option of a SYN, which begins at `at` of the frame.
fn read_syn_option(kind: u8, option: &[u8], at: usize, tcp: &mut Tcp) -> Result<(), DropReason> {
    match (kind, option) {
        (OPTION_MSS, [_, _, high, low]) => {
            tcp.mss = Some(u16::from_be_bytes([*high, *low]));
            tcp.mss_offset = (at + 2) as u16;
        }
        (OPTION_WINDOW_SCALE, [_, _, shift]) => tcp.window_scale = Some((*shift).min(WINDOW_SCALE_MAX)),
        (OPTION_SACK_PERMITTED, [_, _]) => tcp.sack_permitted = true,
        (OPTION_MSS | OPTION_WINDOW_SCALE | OPTION_SACK_PERMITTED, _) => {
            return Err(DropReason::TcpMalformed);
        }
        _ => {}
    }
    Ok(())
}
