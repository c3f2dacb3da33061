//! Every valid packet, cut at every length.

use super::builder::*;
use super::{parse, zoo};
use crate::addr::proto;
use crate::drops::DropReason as R;

/// Red when any length is trusted that the frame does not have: a cut frame would then be read, or
/// refused by whatever read past its end.
#[test]
fn cut_frames_are_refused_by_the_layer_that_is_cut() {
    for (name, frame) in zoo() {
        assert!(parse(&frame).is_ok(), "{name} {:?}", parse(&frame));
        let v4 = frame[12..14] == [8, 0];
        for len in 0..frame.len() {
            let expected = match len {
                ..14 => R::EthernetTruncated,
                _ if v4 => R::Ipv4Malformed,
                _ => R::Ipv6Malformed,
            };
            assert_eq!(parse(&frame[..len]), Err(expected), "{name} cut to {len}");
        }
    }
}

/// Cuts the IP packet to `len` bytes and makes its header agree.
fn shorten(frame: &[u8], len: usize) -> Vec<u8> {
    let mut short = frame[..14 + len].to_vec();
    let p = &mut short[14..];
    if p[0] >> 4 == 4 {
        p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        reseal_ipv4(p);
    } else {
        p[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
    short
}

/// Red when an upper layer trusts that its header is there, or when a packet that lost its tail still
/// passes its checksum.
#[test]
fn cut_packets_with_agreeing_headers_are_refused_by_the_upper_layer() {
    for (name, frame) in zoo() {
        let whole = parse(&frame).unwrap();
        let (header, full) = (usize::from(whole.l4 - whole.l3), frame.len() - 14);
        for len in header..full {
            let outcome = parse(&shorten(&frame, len));
            let rest = len - header;
            let expected: &[Result<(), R>] = match whole.tuple.protocol {
                proto::TCP => &[Err(R::TcpMalformed), Err(R::L4Checksum)],
                proto::UDP => &[Err(R::UdpMalformed)],
                proto::ICMP | proto::ICMPV6 => &[Err(R::IcmpMalformed), Err(R::L4Checksum)],
                proto::SCTP => &[Err(R::SctpMalformed), Err(R::L4Checksum)],
                // Nothing in these says how long they are once their header is there.
                proto::GRE | proto::ESP if rest < 8 => &[Err(R::TunnelMalformed)],
                _ => &[Ok(())],
            };
            assert!(expected.contains(&outcome.map(|_| ())), "{name} with {rest} bytes: {outcome:?}");
        }
    }
}

/// Red when the extension chain is read past the end that the payload length sets.
#[test]
fn cut_extension_chains_are_refused() {
    let (_, frame) = zoo().pop().unwrap();
    for len in 40..40 + 32 {
        assert_eq!(parse(&shorten(&frame, len)), Err(R::Ipv6Extensions), "{len}");
    }
}

/// Red when a first fragment may leave a part of the header for a later one (RFC 1858, RFC 7112).
#[test]
fn first_fragments_hold_the_whole_header() {
    for e in [v4(), v6()] {
        let kinds = [
            (proto::TCP, 40, tcp(e, 2, &SYN_OPTIONS, b"12345678", Sum::Wrong)),
            (proto::UDP, 8, udp(e, b"1234567812345678", Sum::Wrong)),
            (proto::SCTP, 16, sctp(0, &[&SCTP_INIT[..], &[0; 16]].concat(), Sum::Wrong)),
            (icmp_protocol(e), 8, icmp(e, if e.src.is_ipv4() { 8 } else { 128 }, 0, &[0; 28])),
            (proto::GRE, 16, vec![0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
            (proto::ESP, 8, vec![1; 24]),
        ];
        for (protocol, header, l4) in kinds {
            for len in (8..=l4.len()).step_by(8) {
                let frame = first_fragment(e, protocol, &l4[..len]);
                let expected = if len < header { Err(R::FragmentTiny) } else { Ok(()) };
                assert_eq!(parse(&frame).map(|_| ()), expected, "protocol {protocol} with {len} bytes");
            }
        }
    }
}

fn first_fragment(e: Ends, protocol: u8, l4: &[u8]) -> Vec<u8> {
    if e.src.is_ipv4() {
        Ip { fragment: 0x2000, ..Ip::new(e, protocol) }.frame(l4)
    } else {
        Ip { extra: fragment_header(protocol, 0, true).to_vec(), ..Ip::new(e, 44) }.frame(l4)
    }
}
