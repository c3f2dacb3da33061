//! One packet for each way of being wrong, and the one reason that it must be dropped for. Each line
//! is red when its check is taken out: the packet is otherwise sound.

use super::builder::*;
use super::parse;
use crate::addr::proto;
use crate::drops::DropReason as R;

fn assert_refused(cases: Vec<(&str, R, Vec<u8>)>) {
    for (name, reason, frame) in cases {
        assert_eq!(parse(&frame), Err(reason), "{name}");
    }
}

/// A frame with some of its bytes changed.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The same for an IPv4 header, whose checksum is made right again.
fn with_v4(frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = with(frame, 14 + at, bytes);
    reseal_ipv4(&mut frame[14..]);
    frame
}

#[test]
fn link_layer() {
    let udp = udp_frame(v4(), b"x");
    let packet = &udp[14..];
    let tags = |n: usize| [[0u8, 5, 0x81, 0].repeat(n - 1), vec![0, 5, 8, 0], packet.to_vec()].concat();
    assert!(parse(&ether(0x8100, &tags(1))).unwrap().vlan);
    assert!(parse(&ether(0x9100, &tags(2))).unwrap().vlan);
    assert_refused(vec![
        ("broadcast", R::NotForUs, with(udp.clone(), 0, &[0xff; 6])),
        ("multicast", R::NotForUs, with(udp.clone(), 0, &[0x33, 0x33])),
        ("arp", R::UnknownEtherType, ether(0x0806, packet)),
        ("802.3 length", R::UnknownEtherType, ether(46, packet)),
        ("three tags", R::VlanMalformed, ether(0x88a8, &tags(3))),
        ("cut tag", R::VlanMalformed, ether(0x8100, &[0, 5, 8])),
        ("unknown behind a tag", R::UnknownEtherType, ether(0x8100, &[0, 5, 8, 6])),
    ]);
}

#[test]
fn rfc791_ipv4_header() {
    let udp = udp_frame(v4(), b"x");
    let options = |o: &[u8]| Ip { extra: o.to_vec(), ..Ip::new(v4(), 99) }.frame(b"payload!");
    assert_refused(vec![
        ("version", R::Ipv4Malformed, with_v4(udp.clone(), 0, &[0x65])),
        ("header length", R::Ipv4Malformed, with_v4(udp.clone(), 0, &[0x44])),
        ("total length below the header", R::Ipv4Malformed, with_v4(udp.clone(), 2, &[0, 19])),
        ("header longer than the packet", R::Ipv4Malformed, with_v4(udp.clone(), 0, &[0x4f])),
        ("total length beyond the frame", R::Ipv4Malformed, with_v4(udp.clone(), 2, &[0, 200])),
        ("checksum", R::Ipv4Checksum, with(udp.clone(), 14 + 8, &[63])),
        ("option of length 0", R::Ipv4Options, options(&[7, 0, 0, 0])),
        ("option of length 1", R::Ipv4Options, options(&[1, 7, 1, 0])),
        ("option beyond the header", R::Ipv4Options, options(&[7, 5, 4, 0])),
        ("option without length", R::Ipv4Options, options(&[1, 1, 1, 7])),
        ("loose source route", R::Ipv4SourceRoute, options(&[1, 131, 7, 4, 10, 0, 0, 1])),
        ("strict source route", R::Ipv4SourceRoute, options(&[137, 7, 4, 10, 0, 0, 1, 0])),
    ]);
}

#[test]
fn rfc8200_ipv6_header_and_extensions() {
    let udp = udp_frame(v6(), b"x");
    let chain = |first: u8, extra: Vec<u8>| Ip { extra, ..Ip::new(v6(), first) }.frame(b"12345678");
    let destination = |options: [u8; 6]| {
        let [a, b, c, d, e, f] = options;
        chain(60, vec![99, 0, a, b, c, d, e, f])
    };
    let nine = (0..9).flat_map(|i| options_header(if i == 8 { 99 } else { 60 })).collect();
    assert!(parse(&destination([0, 0, 1, 2, 0, 0])).is_ok());
    assert_refused(vec![
        ("version", R::Ipv6Malformed, with(udp.clone(), 14, &[0x40])),
        ("payload beyond the frame", R::Ipv6Malformed, with(udp.clone(), 18, &[0, 10])),
        ("jumbogram length 0 with a payload", R::UdpMalformed, with(udp.clone(), 18, &[0, 0])),
        ("nine extension headers", R::Ipv6Extensions, chain(60, nine)),
        (
            "hop-by-hop not first",
            R::Ipv6Extensions,
            chain(60, [options_header(0), options_header(99)].concat()),
        ),
        ("header beyond the packet", R::Ipv6Extensions, chain(60, vec![99, 9, 1, 4, 0, 0, 0, 0])),
        ("option beyond its header", R::Ipv6Extensions, destination([1, 5, 0, 0, 0, 0])),
        ("option without length", R::Ipv6Extensions, destination([0, 0, 0, 0, 0, 5])),
        ("jumbo option", R::Ipv6Extensions, destination([0xc2, 4, 0, 1, 0, 0])),
        ("two fragment headers", R::Ipv6Extensions, {
            chain(44, [fragment_header(44, 0, false), fragment_header(99, 0, false)].concat())
        }),
        ("type 0 routing", R::Ipv6RoutingHeader, chain(43, vec![99, 0, 0, 0, 0, 0, 0, 0])),
        ("segments left", R::Ipv6RoutingHeader, chain(43, vec![99, 0, 4, 1, 0, 0, 0, 0])),
    ]);
}

#[test]
fn rfc1812_martians() {
    let sound = ["192.0.2.1", "10.0.0.1", "172.16.0.1", "100.64.0.1", "223.255.255.255", "1.0.0.0"];
    let martian = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"];
    let sound6 = ["2001:db8::1", "fd00::1", "64:ff9b::1.2.3.4", "fec0::1"];
    let martian6 = ["::", "::1", "::1.2.3.4", "::ffff:1.2.3.4", "fe80::1", "febf::1", "ff02::1", "ff0e::1"];
    for (far, sound, martian) in
        [("198.51.100.9", &sound[..], &martian[..]), ("2001:db8:ff::9", &sound6[..], &martian6[..])]
    {
        for addr in sound {
            assert!(parse(&udp_frame(ends(addr, far), b"x")).is_ok(), "{addr}");
            assert!(parse(&udp_frame(ends(far, addr), b"x")).is_ok(), "{addr}");
        }
        for addr in martian {
            assert_eq!(parse(&udp_frame(ends(addr, far), b"x")), Err(R::Martian), "from {addr}");
            assert_eq!(parse(&udp_frame(ends(far, addr), b"x")), Err(R::Martian), "to {addr}");
        }
    }
    assert_eq!(parse(&udp_frame(ends("192.0.2.1", "255.255.255.255"), b"x")), Err(R::Martian));
}

#[test]
fn rfc1858_fragments() {
    let v4f =
        |protocol, field, len: usize| Ip { fragment: field, ..Ip::new(v4(), protocol) }.frame(&vec![1; len]);
    let v6f = |protocol, offset, more, len: usize| {
        let extra = fragment_header(protocol, offset, more).to_vec();
        Ip { extra, ..Ip::new(v6(), 44) }.frame(&vec![1; len])
    };
    assert!(parse(&v4f(proto::TCP, 3, 8)).is_ok() && parse(&v6f(proto::TCP, 24, false, 8)).is_ok());
    assert!(parse(&v4f(proto::UDP, 1, 8)).is_ok() && parse(&v4f(proto::SCTP, 2, 8)).is_ok());
    assert!(parse(&v4f(99, 0x1ffd, 3)).is_ok() && parse(&v6f(99, 0xfff0, false, 15)).is_ok());
    let cut_chain = [fragment_header(60, 0, true), [99, 1, 1, 4, 0, 0, 0, 0]].concat();
    assert_refused(vec![
        ("odd length with more to come", R::FragmentMalformed, v4f(99, 0x2001, 12)),
        ("odd length with more to come", R::FragmentMalformed, v6f(99, 8, true, 12)),
        ("empty first", R::FragmentMalformed, v4f(99, 0x2000, 0)),
        ("empty last", R::FragmentMalformed, v4f(99, 5, 0)),
        ("beyond 65535", R::FragmentMalformed, v4f(99, 0x1fff, 8)),
        ("beyond 65535 with the header", R::FragmentMalformed, v4f(99, 0x1ffd, 4)),
        ("beyond 65535", R::FragmentMalformed, v6f(99, 0xfff8, false, 8)),
        ("tcp at 8", R::FragmentTiny, v4f(proto::TCP, 1, 8)),
        ("tcp at 16", R::FragmentTiny, v4f(proto::TCP, 0x2002, 8)),
        ("tcp at 8", R::FragmentTiny, v6f(proto::TCP, 8, false, 8)),
        ("sctp at 8", R::FragmentTiny, v4f(proto::SCTP, 1, 8)),
        ("chain cut", R::FragmentTiny, Ip { extra: cut_chain, ..Ip::new(v6(), 44) }.frame(&[])),
    ]);
    let error = Ip::new(v4(), proto::UDP).packet(&udp(v4(), b"x", Sum::Right));
    let message = icmp(v4(), 3, 3, &[&[0; 4][..], &error, &[0; 3]].concat());
    let first = Ip { fragment: 0x2000, ..Ip::new(v4(), proto::ICMP) }.frame(&message);
    assert_eq!(parse(&first), Err(R::IcmpMalformed), "an error in a fragment");
}

#[test]
fn rfc9293_tcp_header() {
    let ip = Ip::new(v4(), proto::TCP);
    let good = tcp(v4(), 0x02, &[], b"payload", Sum::Right);
    let sealed = |at: usize, bytes: &[u8]| {
        ip.frame(&seal(v4(), proto::TCP, with(good.clone(), at, bytes), 16, Sum::Right))
    };
    let syn = |options: &[u8]| tcp_frame(v4(), 0x02, options, b"");
    assert_refused(vec![
        ("source port 0", R::TcpMalformed, sealed(0, &[0, 0])),
        ("destination port 0", R::TcpMalformed, sealed(2, &[0, 0])),
        ("data offset below 5", R::TcpMalformed, sealed(12, &[0x40])),
        ("data offset beyond the packet", R::TcpMalformed, sealed(12, &[0x70])),
        ("option of length 0", R::TcpMalformed, syn(&[9, 0, 0, 0])),
        ("option of length 1", R::TcpMalformed, syn(&[1, 1, 9, 1])),
        ("option beyond the header", R::TcpMalformed, syn(&[1, 9, 4, 0])),
        ("option without length", R::TcpMalformed, syn(&[1, 1, 1, 9])),
        ("mss of length 3", R::TcpMalformed, syn(&[2, 3, 5, 0])),
        ("window scale of length 4", R::TcpMalformed, syn(&[3, 4, 5, 0])),
        ("sack permitted of length 3", R::TcpMalformed, syn(&[4, 3, 5, 0])),
        ("malformed option of a later segment", R::TcpMalformed, tcp_frame(v4(), 0x10, &[9, 0, 0, 0], b"")),
    ]);
    for flags in 0..=0x3f_u8 {
        let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 0x10 != 0);
        let exclusive = [fin, syn, rst].into_iter().filter(|set| *set).count();
        let refused = exclusive > 1 || !(syn || rst || ack);
        let outcome = parse(&tcp_frame(v4(), flags, &[], b""));
        assert_eq!(outcome == Err(R::TcpFlags), refused, "flags {flags:#x}: {outcome:?}");
        assert_eq!(outcome.is_ok(), !refused);
    }
}

#[test]
fn other_upper_layers() {
    let frame = |e, protocol, l4: &[u8]| Ip::new(e, protocol).frame(l4);
    let udp_len = |len: u16| {
        let l4 = with(udp(v4(), b"12345678", Sum::Right), 4, &len.to_be_bytes());
        frame(v4(), proto::UDP, &l4)
    };
    let no_port = seal(v4(), proto::UDP, with(udp(v4(), b"x", Sum::Right), 2, &[0, 0]), 6, Sum::Right);
    let sctp_frame = |tag, chunks: &[u8]| frame(v4(), proto::SCTP, &sctp(tag, chunks, Sum::Right));
    let quote = Ip::new(v4(), proto::ICMP).packet(&icmp(v4(), 3, 1, &[0; 28]));
    let foreign = Ip::new(ends("::ffff:192.0.2.1", "2001:db8::2"), proto::UDP).packet(&[0; 8]);
    let short = Ip::new(v4(), proto::UDP).packet(&udp(v4(), b"x", Sum::Right));
    let checksummed = [0x80, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3];
    assert_refused(vec![
        ("udp destination port 0", R::UdpMalformed, frame(v4(), proto::UDP, &no_port)),
        ("udp length below 8", R::UdpMalformed, udp_len(7)),
        ("udp length beyond the packet", R::UdpMalformed, udp_len(17)),
        (
            "udp without checksum over ipv6",
            R::L4Checksum,
            frame(v6(), proto::UDP, &udp(v6(), b"x", Sum::Is(0))),
        ),
        ("sctp tag 0 without init", R::SctpMalformed, sctp_frame(0, &[10, 0, 0, 4])),
        ("sctp init with a tag", R::SctpMalformed, sctp_frame(5, &SCTP_INIT)),
        ("sctp init bundled", R::SctpMalformed, sctp_frame(0, &[&SCTP_INIT[..], &[10, 0, 0, 4]].concat())),
        ("sctp chunk of length 3", R::SctpMalformed, sctp_frame(5, &[10, 0, 0, 3])),
        ("sctp chunk beyond the packet", R::SctpMalformed, sctp_frame(5, &[10, 0, 0, 4, 10, 0, 0, 9])),
        ("sctp cut chunk", R::SctpMalformed, sctp_frame(5, &[10, 0, 0, 4, 10, 0])),
        ("sctp port 0", R::SctpMalformed, frame(v4(), proto::SCTP, &[0; 28])),
        ("icmpv6 over ipv4", R::IcmpMalformed, frame(v4(), proto::ICMPV6, &[128, 0, 0x7f, 0xff, 0, 0, 0, 0])),
        ("icmp over ipv6", R::IcmpMalformed, frame(v6(), proto::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
        ("error about an error", R::IcmpMalformed, icmp_error_frame(v4(), 3, 1, &quote)),
        ("error about a v4-mapped packet", R::IcmpMalformed, icmp_error_frame(v6(), 1, 0, &foreign)),
        ("error about the other family", R::IcmpMalformed, icmp_error_frame(v6(), 1, 0, &short)),
        ("error with too short a quote", R::IcmpMalformed, icmp_error_frame(v4(), 3, 1, &short[..27])),
        ("gre version 2", R::TunnelMalformed, frame(v4(), proto::GRE, &[0, 2, 8, 0])),
        ("gre routing", R::TunnelMalformed, frame(v4(), proto::GRE, &[0x40, 0, 8, 0, 0, 0, 0, 0])),
        ("pptp without key", R::TunnelMalformed, frame(v4(), proto::GRE, &[0, 1, 0x88, 0x0b])),
        ("pptp payload cut", R::TunnelMalformed, frame(v4(), proto::GRE, &[0x20, 1, 0x88, 0x0b, 0, 9, 0, 1])),
        ("gre checksum", R::L4Checksum, frame(v4(), proto::GRE, &checksummed)),
        ("esp spi 0", R::TunnelMalformed, frame(v6(), proto::ESP, &[0; 16])),
    ]);
}

#[test]
fn land() {
    for addr in ["192.0.2.1", "2001:db8::1"] {
        let e = ends(addr, addr);
        let same = |protocol, l4: Vec<u8>, field| {
            let l4 = with(l4, 2, &[0x30, 0x39]);
            Ip::new(e, protocol).frame(&seal(e, protocol, l4, field, Sum::Right))
        };
        let echo = if e.src.is_ipv4() { 8 } else { 128 };
        assert_refused(vec![
            ("tcp", R::Land, same(proto::TCP, tcp(e, 2, &[], b"", Sum::Right), 16)),
            ("udp", R::Land, same(proto::UDP, udp(e, b"x", Sum::Right), 6)),
            ("echo", R::Land, icmp_frame(e, echo, 0, &[0, 1, 0, 1])),
            ("portless", R::Land, Ip::new(e, 99).frame(b"x")),
        ]);
        // Red when the address alone is taken for a land attack: ports differ, two sockets talk.
        assert!(parse(&tcp_frame(e, 2, &[], b"")).is_ok());
        if e.src.is_ipv4() {
            // Nor a later fragment, whose ports nobody knows.
            assert!(parse(&Ip { fragment: 9, ..Ip::new(e, proto::UDP) }.frame(b"later")).is_ok());
        }
    }
}
