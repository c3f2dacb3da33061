//! Packets of our own, read back with the parser.

use super::builder::*;
use super::{PARTIAL, parse, zoo};
use crate::addr::{Addr, Mac, proto};
use crate::packet::build::{ErrorKind, FRAME_LEN_MAX, icmp_error, ipv4_fragments, tcp_reset};
use crate::packet::{L4, Packet, rewrite};
use proptest::prelude::*;

const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const THEIR_MAC: Mac = Mac(SRC_MAC);

fn router(p: &Packet) -> Addr {
    let addr = if p.v4 { "203.0.113.1" } else { "2001:db8:ff::1" };
    addr.parse::<std::net::IpAddr>().unwrap().into()
}

fn error_about(frame: &[u8], p: &Packet, kind: ErrorKind) -> Option<Vec<u8>> {
    let mut out = [0xa5; FRAME_LEN_MAX];
    let len = icmp_error(&mut out, frame, p, kind, OUR_MAC, THEIR_MAC, router(p))?;
    Some(out[..len].to_vec())
}

/// Type and code.
type Code = (u8, u8);

/// Each kind with what it is called in IPv4 and IPv6.
const KINDS: [(ErrorKind, Code, Code); 6] = [
    (ErrorKind::TimeExceeded, (11, 0), (3, 0)),
    (ErrorKind::FragmentationNeeded { mtu: 1400 }, (3, 4), (2, 0)),
    (ErrorKind::NetUnreachable, (3, 0), (1, 0)),
    (ErrorKind::HostUnreachable, (3, 1), (1, 3)),
    (ErrorKind::PortUnreachable, (3, 3), (1, 4)),
    (ErrorKind::AdminProhibited, (3, 13), (1, 1)),
];

/// Red when a checksum, length, type, code or address of an error is wrong, or when the quote is not
/// the packet that it is about.
#[test]
fn rfc1812_errors_about_every_kind_of_packet() {
    for (name, frame) in zoo() {
        let p = parse(&frame).unwrap();
        for (kind, code_v4, code_v6) in KINDS {
            let told = error_about(&frame, &p, kind);
            if matches!(p.l4_info, L4::IcmpError(_)) {
                assert_eq!(told, None, "RFC 1122: no error about an error");
                continue;
            }
            let told = told.unwrap();
            assert_eq!((&told[..6], &told[6..12]), (&THEIR_MAC.0[..], &OUR_MAC.0[..]));
            let e = parse(&told).unwrap_or_else(|r| panic!("{name} {kind:?}: {r:?}"));
            let L4::IcmpError(error) = e.l4_info else { panic!("{name}: {e:?}") };
            assert_eq!((error.kind, error.code), if p.v4 { code_v4 } else { code_v6 });
            assert_eq!(error.embedded, p.tuple, "{name}");
            assert_eq!((e.tuple.src, e.tuple.dst), (router(&p), p.tuple.src));
            let at = usize::from(e.l4);
            assert_eq!(told[at + 8..], frame[usize::from(p.l3)..], "the quote");
            let mtu = if matches!(kind, ErrorKind::FragmentationNeeded { .. }) { 1400u32 } else { 0 };
            assert_eq!(told[at + 4..at + 8], mtu.to_be_bytes());
        }
    }
}

/// Red when an error is longer than RFC 1812 and RFC 4443 allow, or shorter than it could be.
#[test]
fn rfc4443_errors_quote_as_much_as_fits() {
    for (e, max) in [(v4(), 576), (v6(), 1280)] {
        let frame = udp_frame(e, &[7; 1400]);
        let p = parse(&frame).unwrap();
        let told = error_about(&frame, &p, ErrorKind::TimeExceeded).unwrap();
        assert_eq!(told.len(), 14 + max);
        assert_eq!(usize::from(parse(&told).unwrap().end), told.len());
    }
}

/// Red when the quote has the pseudo-header sum that the sender's stack left for a device.
#[test]
fn quotes_of_partial_checksums_are_completed() {
    for e in [v4(), v6()] {
        let quoted = |sum| Ip::new(e, proto::TCP).frame(&tcp(e, 0x18, &[], b"data", sum));
        let (right, partial) = (quoted(Sum::Right), quoted(Sum::Partial));
        let p = crate::packet::parse(&partial, PARTIAL).unwrap();
        let told = error_about(&partial, &p, ErrorKind::HostUnreachable).unwrap();
        assert!(told.ends_with(&right[14..]));
    }
}

/// Red when errors are sent about packets about which RFC 1122 section 3.2.2, RFC 1812 section
/// 4.3.2.7 or RFC 4443 section 2.4 (e) forbid them.
#[test]
fn rfc1122_no_error_about_these() {
    let redirect4 = icmp_frame(v4(), 5, 0, &[0; 32]);
    let redirect6 = icmp_frame(v6(), 137, 0, &[0; 36]);
    let unknown_error6 = icmp_frame(v6(), 100, 0, &[0; 36]);
    let later = Ip { fragment: 9, ..Ip::new(v4(), proto::UDP) }.frame(b"later");
    for frame in [redirect4, redirect6, unknown_error6, later] {
        let p = parse(&frame).unwrap();
        assert_eq!(error_about(&frame, &p, ErrorKind::TimeExceeded), None);
    }
    let mut group = udp_frame(v4(), b"x");
    let p = parse(&group).unwrap();
    group[0] = 1;
    assert_eq!(error_about(&group, &p, ErrorKind::TimeExceeded), None);
    // Nor one from an address of the other family, nor into a buffer that is too short.
    let frame = udp_frame(v4(), b"x");
    let other = v6().src.into();
    let mut out = [0; 60];
    let kind = ErrorKind::TimeExceeded;
    assert_eq!(icmp_error(&mut out, &frame, &p, kind, OUR_MAC, THEIR_MAC, other), None);
    assert_eq!(icmp_error(&mut out, &frame, &p, kind, OUR_MAC, THEIR_MAC, router(&p)), None);
}

fn reset_for(frame: &[u8]) -> Option<(Packet, crate::packet::Tcp)> {
    let mut out = [0xa5; FRAME_LEN_MAX];
    let len = tcp_reset(&mut out, &parse(frame).unwrap(), OUR_MAC, THEIR_MAC)?;
    let p = parse(&out[..len]).unwrap();
    assert_eq!(usize::from(p.end), len);
    match p.l4_info {
        L4::Tcp(tcp) => Some((p, tcp)),
        other => panic!("{other:?}"),
    }
}

/// Red when the reset has another sequence number than the one that the sender will accept.
#[test]
fn rfc9293_resets_take_their_numbers_from_the_segment() {
    for e in [v4(), v6()] {
        let (p, rst) = reset_for(&tcp_frame(e, 0x18, &[], b"12345")).unwrap();
        assert_eq!((rst.flags, rst.seq, rst.ack), (0x04, 0x5566_7788, 0));
        assert_eq!(p.tuple.reversed(), parse(&tcp_frame(e, 0x18, &[], b"12345")).unwrap().tuple);
        let (_, rst) = reset_for(&tcp_frame(e, 0x02, &SYN_OPTIONS, b"abc")).unwrap();
        assert_eq!((rst.flags, rst.seq, rst.ack), (0x14, 0, 0x1122_3344 + 4));
    }
}

/// Red when a reset answers a reset (two of us would never end), or anything that is no TCP segment.
#[test]
fn rfc9293_no_reset_for_these() {
    assert!(reset_for(&tcp_frame(v4(), 0x04, &[], b"")).is_none());
    assert!(reset_for(&tcp_frame(v6(), 0x14, &[], b"")).is_none());
    assert!(reset_for(&udp_frame(v4(), b"")).is_none());
    let first = Ip { fragment: 0x2000, ..Ip::new(v4(), proto::TCP) };
    assert!(reset_for(&first.frame(&tcp(v4(), 0x10, &[], b"1234", Sum::Right))).is_none());
}

/// Puts the fragments of a packet together again; returns its payload and each fragment's header.
fn reassemble(frame: &[u8], mtu: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
    let p = parse(frame).unwrap();
    let mut fragments = ipv4_fragments(frame, &p, mtu).unwrap();
    let (mut payload, mut headers) = (Vec::new(), Vec::new());
    let base = p.fragment.piece().map_or(0, |piece| piece.offset as usize);
    let count = fragments.count();
    let mut out = [0xa5; FRAME_LEN_MAX];
    while let Some(len) = fragments.write_next(&mut out) {
        let f = parse(&out[..len]).unwrap();
        assert!(f.ip_len() <= mtu);
        assert_eq!(usize::from(f.end), len);
        let (offset, more) = match f.fragment.piece() {
            None => (0, false),
            Some(piece) => {
                assert_eq!(piece.id, u32::from(ID));
                assert_eq!(piece.len as usize, len - usize::from(f.l4));
                (piece.offset as usize, piece.more)
            }
        };
        assert_eq!(offset, base + payload.len());
        payload.extend(&out[usize::from(f.l4)..len]);
        headers.push(out[14..usize::from(f.l4)].to_vec());
        let last = headers.len() == count;
        let more_follow = p.fragment.piece().is_some_and(|piece| piece.more);
        assert_eq!(more, !last || more_follow);
    }
    assert_eq!(headers.len(), count);
    (payload, headers)
}

proptest! {
    // Red when a fragment is too long, lost, misplaced, or does not carry its part of the payload.
    #[test]
    fn rfc791_fragments_reassemble(len in 60usize..1500, mtu in 76u16..1600, field in prop::sample::select(vec![0u16, 0x2000, 0x2010, 0x0010])) {
        let payload: Vec<u8> = (0..len & !7).map(|i| (i * 7 % 251) as u8).collect();
        let frame = Ip { fragment: field, ..Ip::new(v4(), 99) }.frame(&payload);
        prop_assert_eq!(reassemble(&frame, mtu).0, payload);
    }
}

/// Red when later fragments carry options that are only for the first, or lose those for all
/// (RFC 791 section 3.1).
#[test]
fn rfc791_options_go_where_they_belong() {
    // Record route (first only), stream identifier (copied), one byte of padding left over.
    let extra = vec![7, 3, 4, 136, 4, 0x12, 0x34, 0];
    let frame = Ip { extra: extra.clone(), ..Ip::new(v4(), 99) }.frame(&[3; 200]);
    let (payload, headers) = reassemble(&frame, 100);
    assert_eq!(payload, [3; 200]);
    assert_eq!(headers[0][20..], extra);
    for later in &headers[1..] {
        assert_eq!(later[20..], [136, 4, 0x12, 0x34]);
    }
}

/// Red when don't-fragment, IPv6, or a link without room for any payload is fragmented for.
#[test]
fn rfc1191_not_fragmented() {
    let dont = Ip { fragment: 0x4000, ..Ip::new(v4(), 99) }.frame(&[1; 500]);
    let v6 = udp_frame(v6(), &[1; 500]);
    let may = Ip::new(v4(), 99).frame(&[1; 500]);
    for (frame, mtu) in [(dont, 200), (v6, 200), (may.clone(), 27)] {
        assert!(ipv4_fragments(&frame, &parse(&frame).unwrap(), mtu).is_none());
    }
    let p = parse(&may).unwrap();
    let mut fragments = ipv4_fragments(&may, &p, 28).unwrap();
    assert_eq!(fragments.count(), 500usize.div_ceil(8));
    // Red when a buffer that is too short loses a fragment.
    assert_eq!(fragments.write_next(&mut [0; 20]), None);
    assert_eq!(fragments.count(), 500usize.div_ceil(8));
}

/// Red when TTL, its checksum or the link addresses are not those of the next hop, or when anything
/// else changes.
#[test]
fn rfc1624_forwarding_changes_only_what_it_must() {
    for (name, frame) in zoo() {
        for ttl in 2..=255 {
            let mut received = frame.clone();
            let v4 = received[12..14] == [8, 0];
            received[14 + if v4 { 8 } else { 7 }] = ttl;
            if v4 {
                reseal_ipv4(&mut received[14..]);
            }
            let p = parse(&received).unwrap();
            let mut expected = received.clone();
            expected[..6].copy_from_slice(&THEIR_MAC.0);
            expected[6..12].copy_from_slice(&OUR_MAC.0);
            expected[14 + if v4 { 8 } else { 7 }] = ttl - 1;
            if v4 {
                reseal_ipv4(&mut expected[14..]);
            }
            rewrite::forward(&mut received, &p, OUR_MAC, THEIR_MAC);
            assert_eq!(received, expected, "{name} with ttl {ttl}");
        }
    }
}
