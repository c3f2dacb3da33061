//! Packets written by an independent builder, and by scapy, against the parser and the builders.

pub(crate) mod builder;
mod checksums;
mod golden;
mod mss;
mod mutations;
mod own;
mod refused;
mod seeds;
mod sound;
mod truncated;

use super::{Packet, ParseOptions};
use crate::drops::DropReason;

/// Ports whose frames carry whole checksums.
const STRICT: ParseOptions = ParseOptions { partial_checksums: false };
/// Ports behind which a local stack may leave them to a device.
const PARTIAL: ParseOptions = ParseOptions { partial_checksums: true };

fn parse(frame: &[u8]) -> Result<Packet, DropReason> {
    super::parse(frame, STRICT)
}

/// A valid frame of every kind that the parser tells apart, with a name.
fn zoo() -> Vec<(String, Vec<u8>)> {
    use crate::addr::proto;
    use builder::*;
    let mut zoo = Vec::new();
    for (family, e) in [("v4", v4()), ("v6", v6())] {
        let error = if family == "v4" { (3, 3) } else { (1, 4) };
        let echo = if family == "v4" { 8 } else { 128 };
        let quote = Ip::new(e, proto::TCP).packet(&tcp(e, 0x18, &[], b"quoted", Sum::Right));
        let kinds = [
            ("tcp syn", tcp_frame(e, 0x02, &SYN_OPTIONS, b"")),
            ("tcp data", tcp_frame(e, 0x18, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b"some payload")),
            ("udp", udp_frame(e, b"a datagram")),
            ("echo", icmp_frame(e, echo, 0, &[0x12, 0x34, 0, 1, 7, 7, 7, 7])),
            ("icmp error", icmp_error_frame(e, error.0, error.1, &quote)),
            ("sctp", Ip::new(e, proto::SCTP).frame(&sctp(0, &SCTP_INIT, Sum::Right))),
            ("gre", Ip::new(e, proto::GRE).frame(&[0x20, 0, 8, 0, 0, 0, 0, 1, 1, 2, 3, 4])),
            ("esp", Ip::new(e, proto::ESP).frame(&[0, 0, 1, 0, 0, 0, 0, 1, 9, 9, 9, 9])),
            ("other", Ip::new(e, 99).frame(&[1, 2, 3, 4])),
        ];
        zoo.extend(kinds.map(|(name, frame)| (format!("{family} {name}"), frame)));
    }
    let options = Ip { extra: vec![7, 7, 4, 0, 0, 0, 0, 0], ..Ip::new(v4(), proto::UDP) };
    zoo.push(("v4 options".into(), options.frame(&udp(v4(), b"options", Sum::Right))));
    let mut extra = Vec::new();
    extra.extend(options_header(60));
    extra.extend(options_header(43));
    extra.extend([44, 0, 3, 0, 0, 0, 0, 0]);
    extra.extend(fragment_header(proto::TCP, 0, false));
    let chain = Ip { extra, ..Ip::new(v6(), 0) };
    zoo.push(("v6 chain".into(), chain.frame(&tcp(v6(), 0x10, &[], b"atomic", Sum::Right))));
    zoo
}
