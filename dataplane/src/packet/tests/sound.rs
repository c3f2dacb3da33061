//! Unusual packets that are sound: refusing them would break somebody.

use super::builder::*;
use super::parse;
use crate::addr::proto;
use crate::packet::{Fragment, L4, Piece};

fn tcp_info(frame: &[u8]) -> crate::packet::Tcp {
    match parse(frame).unwrap().l4_info {
        L4::Tcp(tcp) => tcp,
        other => panic!("{other:?}"),
    }
}

/// Red when the end of the packet is taken from the frame instead of its header.
#[test]
fn ethernet_padding_belongs_to_nobody() {
    for e in [v4(), v6()] {
        let frame = tcp_frame(e, 0x10, &[], b"x");
        let padded = [frame.clone(), vec![0xee; 13]].concat();
        assert_eq!(parse(&padded), parse(&frame));
    }
}

/// Red when RFC 768's "no checksum" is taken for a wrong one.
#[test]
fn rfc768_udp_without_checksum_or_source_port_passes_over_ipv4() {
    let mut l4 = udp(v4(), b"no checksum", Sum::Is(0));
    assert!(parse(&Ip::new(v4(), proto::UDP).frame(&l4)).is_ok());
    l4[..2].fill(0);
    assert_eq!(parse(&Ip::new(v4(), proto::UDP).frame(&l4)).unwrap().tuple.src_port, 0);
}

/// Red when the UDP checksum is taken over the IP payload instead of the UDP length.
#[test]
fn rfc9868_udp_surplus_is_outside_length_and_checksum() {
    for e in [v4(), v6()] {
        let l4 = [udp(e, b"data", Sum::Right), vec![0xaa; 6]].concat();
        assert!(parse(&Ip::new(e, proto::UDP).frame(&l4)).is_ok());
    }
}

/// Red when a shift above 14 is passed on (RFC 7323 section 2.3).
#[test]
fn rfc7323_window_scale_ends_at_14() {
    let frame = tcp_frame(v4(), 0x02, &[3, 3, 200, 0], b"");
    assert_eq!(tcp_info(&frame).window_scale, Some(14));
}

/// Red when a non-SYN negotiates, or when bytes behind the end of the options are read.
#[test]
fn rfc9293_only_a_syn_negotiates_and_nothing_follows_the_end() {
    let data = tcp_info(&tcp_frame(v4(), 0x10, &SYN_OPTIONS, b""));
    assert_eq!((data.mss, data.mss_offset, data.window_scale, data.sack_permitted), (None, 0, None, false));
    let ended = tcp_info(&tcp_frame(v4(), 0x02, &[0, 2, 4, 1], b""));
    assert_eq!(ended.mss, None);
    let twice = tcp_info(&tcp_frame(v4(), 0x12, &[2, 4, 1, 0, 2, 4, 2, 0], b""));
    assert_eq!((twice.mss, twice.mss_offset), (Some(512), 34 + 20 + 6));
}

/// Red when a flag that means nothing to sessions (PSH, URG, ECE, CWR) spoils a valid combination, or
/// one of the valid ones is refused.
#[test]
fn tcp_flag_combinations_that_stacks_send() {
    for base in [0x02, 0x12, 0x10, 0x11, 0x04, 0x14] {
        for free in [0, 0x08, 0x20, 0x40, 0x80, 0xe8] {
            assert_eq!(tcp_info(&tcp_frame(v6(), base | free, &[], b"")).flags, base | free);
        }
    }
}

/// Red when the walk stops one header early, or a routing header that was already used up is refused.
#[test]
fn rfc8200_eight_extension_headers_pass() {
    let mut extra = options_header(43).to_vec();
    extra.extend([60, 0, 4, 0, 0, 0, 0, 0]);
    for next in [60, 60, 60, 60, 60, proto::TCP] {
        extra.extend(options_header(next));
    }
    let frame = Ip { extra, ..Ip::new(v6(), 0) }.frame(&tcp(v6(), 0x02, &[], b"", Sum::Right));
    let p = parse(&frame).unwrap();
    assert_eq!((p.l4, p.tuple.protocol), (14 + 40 + 64, proto::TCP));
}

/// Red when "no next header" is walked on, when AH is looked through, or when an IPv6 extension number
/// means something in IPv4.
#[test]
fn protocols_without_a_parser_are_other() {
    for (e, protocol) in [(v6(), 59), (v4(), 59), (v6(), 51), (v4(), 51), (v4(), 0), (v4(), 44), (v6(), 135)]
    {
        let p = parse(&Ip::new(e, protocol).frame(&tcp(e, 0x02, &[], b"", Sum::Right))).unwrap();
        assert_eq!((p.l4_info, p.tuple.src_port, p.tuple.protocol), (L4::Other, 0, protocol));
    }
    let empty = parse(&Ip::new(v6(), 59).frame(&[])).unwrap();
    assert_eq!((empty.l4, empty.end), (54, 54));
}

/// Red when a fragment's payload is judged by a header that is elsewhere.
#[test]
fn later_fragments_of_anything_pass() {
    for protocol in [proto::TCP, proto::UDP, proto::ICMP, proto::GRE, proto::SCTP, 99] {
        let last = Ip { fragment: 0x0040, ..Ip::new(v4(), protocol) };
        let p = parse(&last.frame(&[0xff; 5])).unwrap();
        let piece = Piece { id: u32::from(ID), offset: 512, len: 5, more: false, next_header: protocol };
        assert_eq!(p.fragment, Fragment::Later(piece));
        assert_eq!((p.l4_info, p.tuple.src_port, p.tuple.dst_port), (L4::LaterFragment, 0, 0));
    }
}

/// Red when an ICMP error with the shortest quote that RFC 792 allows is refused, or when the ports of
/// a quoted later fragment are invented.
#[test]
fn rfc792_shortest_quotes_are_read() {
    let quote = Ip::new(v4(), proto::TCP).packet(&tcp(v4(), 0x10, &[], b"more", Sum::Partial));
    let p = parse(&icmp_error_frame(v4(), 11, 0, &quote[..28])).unwrap();
    let L4::IcmpError(error) = p.l4_info else { panic!("{p:?}") };
    assert_eq!((error.embedded.src_port, error.embedded_seq), (12345, Some(0x1122_3344)));

    let later = Ip { fragment: 1000, ..Ip::new(v4(), proto::TCP) }.packet(&[9; 8]);
    let L4::IcmpError(error) = parse(&icmp_error_frame(v4(), 11, 1, &later)).unwrap().l4_info else {
        panic!("no error")
    };
    assert_eq!((error.embedded.src_port, error.embedded.dst_port, error.embedded_seq), (0, 0, None));

    let extra = fragment_header(proto::UDP, 0, true).to_vec();
    let first = Ip { extra, ..Ip::new(v6(), 44) }.packet(&udp(v6(), b"first", Sum::Right));
    let L4::IcmpError(error) = parse(&icmp_error_frame(v6(), 2, 0, &first[..56])).unwrap().l4_info else {
        panic!("no error")
    };
    assert_eq!((error.embedded.protocol, error.embedded.dst_port), (proto::UDP, 53));
}

/// Red when a quoted query has other ports than the query itself had.
#[test]
fn rfc5508_quoted_queries_have_the_ports_of_the_query() {
    for (e, kind) in [(v4(), 8), (v4(), 13), (v6(), 128)] {
        let query = Ip::new(e, icmp_protocol(e)).packet(&icmp(e, kind, 0, &[0x12, 0x34, 0, 1, 0, 0, 0, 0]));
        let ethertype = if e.src.is_ipv4() { 0x0800 } else { 0x86dd };
        let sent = parse(&ether(ethertype, &query)).unwrap().tuple;
        let unreachable = if e.src.is_ipv4() { 3 } else { 1 };
        let L4::IcmpError(error) = parse(&icmp_error_frame(e, unreachable, 0, &query)).unwrap().l4_info
        else {
            panic!("no error")
        };
        assert_eq!(error.embedded, sent);
    }
}

/// Red when other ICMP messages are taken for queries or errors, or the SCTP chunk walk refuses bundled
/// chunks or a missing last pad.
#[test]
fn messages_that_are_neither_query_nor_error() {
    let redirect = icmp_frame(v4(), 5, 1, &[0; 32]);
    assert_eq!(parse(&redirect).unwrap().l4_info, L4::IcmpOther { kind: 5, code: 1 });
    let solicitation = icmp_frame(v6(), 135, 0, &[0; 20]);
    assert_eq!(parse(&solicitation).unwrap().l4_info, L4::IcmpOther { kind: 135, code: 0 });
    let bundled = [11, 0, 0, 4, 0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, b'x'];
    let frame = Ip::new(v4(), proto::SCTP).frame(&sctp(7, &bundled, Sum::Right));
    assert_eq!(parse(&frame).unwrap().l4_info, L4::Sctp { first_chunk: 11 });
}

/// Red when a PPTP packet (RFC 2637) or a GRE checksum (RFC 2784) is refused.
#[test]
fn gre_of_both_versions() {
    let v1 = [0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
    assert_eq!(parse(&Ip::new(v4(), proto::GRE).frame(&v1)).unwrap().l4_info, L4::Gre);
    let mut v0 = vec![0x80, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3];
    let sum = !ones_sum(&v0);
    v0[4..6].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse(&Ip::new(v6(), proto::GRE).frame(&v0)).unwrap().l4_info, L4::Gre);
}
