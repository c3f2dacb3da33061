//! Packets written by scapy 2.5, byte for byte. Each test is red when a field is read from the wrong
//! place, or when a checksum that scapy computed is not accepted.

use super::parse;
use crate::addr::{ICMP_QUERY_PORT, Tuple, proto};
use crate::packet::{Fragment, IcmpError, L4, Packet, Piece, Tcp};
use std::net::IpAddr;

const A4: &str = "192.0.2.1";
const B4: &str = "198.51.100.2";
const A6: &str = "2001:db8:1::1";
const B6: &str = "2001:db8:2::2";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn tuple(protocol: u8, src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    let addr = |s: &str| s.parse::<IpAddr>().unwrap().into();
    Tuple { src: addr(src), dst: addr(dst), src_port, dst_port, protocol }
}

fn read(hex: &str) -> Packet {
    let frame = bytes(hex);
    let packet = parse(&frame).unwrap();
    assert_eq!(usize::from(packet.end), frame.len());
    assert_eq!((packet.complete_checksum, packet.complete_crc), (None, None));
    packet
}

#[test]
fn rfc9293_tcp_syn_with_options() {
    let p = read(concat!(
        "02000000000102000000000208004500003c000100003f068f84c0000201c63364029c4001bb000003e800000000a002",
        "faf0bef30000020405b40402080a000000010000000001030307",
    ));
    assert_eq!((p.l3, p.l4, p.v4, p.ttl, p.dont_fragment, p.vlan), (14, 34, true, 63, false, false));
    assert_eq!(p.fragment, Fragment::Whole);
    assert_eq!(p.tuple, tuple(proto::TCP, A4, 40000, B4, 443));
    let expected = Tcp {
        seq: 1000,
        ack: 0,
        flags: 2,
        window: 64240,
        payload_len: 0,
        mss: Some(1460),
        mss_offset: 34 + 20 + 2,
        window_scale: Some(7),
        sack_permitted: true,
    };
    assert_eq!(p.l4_info, L4::Tcp(expected));
    assert_eq!(p.ip_len(), 60);
}

#[test]
fn rfc9293_tcp_data_over_ipv6() {
    let p = read(concat!(
        "02000000000102000000000286dd600000000026063e20010db800010000000000000000000120010db8000200000000",
        "0000000000029c410050000000050000000650180200d7060000474554202f20485454502f312e300d0a0d0a",
    ));
    assert_eq!((p.l3, p.l4, p.v4, p.ttl, p.dont_fragment), (14, 54, false, 62, true));
    assert_eq!(p.tuple, tuple(proto::TCP, A6, 40001, B6, 80));
    let expected = Tcp { seq: 5, ack: 6, flags: 0x18, window: 512, payload_len: 18, ..Tcp::default() };
    assert_eq!(p.l4_info, L4::Tcp(expected));
}

#[test]
fn rfc768_udp_of_both_families() {
    let p =
        read("02000000000102000000000208004500001f0001400040114e96c0000201c633640214e90035000b2b1e6f6464");
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::UDP, A4, 5353, B4, 53), L4::Udp));
    assert!(p.dont_fragment);
    let p = read(concat!(
        "02000000000102000000000286dd60000000000c114020010db800010000000000000000000120010db8000200000000",
        "0000000000020001ffff000cd9786576656e",
    ));
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::UDP, A6, 1, B6, 65535), L4::Udp));
}

#[test]
fn rfc792_echo_ports_hold_the_direction() {
    let p =
        read("0200000000010200000000020800450000200001000040018ea5c0000201c6336402080018e1004d000170696e67");
    assert_eq!(p.tuple, tuple(proto::ICMP, A4, 77, B4, ICMP_QUERY_PORT));
    assert_eq!(p.l4_info, L4::IcmpQuery { reply: false });
    let p = read(concat!(
        "02000000000102000000000286dd60000000000c3a4020010db800020000000000000000000220010db8000100000000",
        "0000000000018100441b004e0001706f6e67",
    ));
    assert_eq!(p.tuple, tuple(proto::ICMPV6, B6, ICMP_QUERY_PORT, A6, 78));
    assert_eq!(p.l4_info, L4::IcmpQuery { reply: true });
}

#[test]
fn rfc792_error_names_the_packet_it_is_about() {
    let p = read(concat!(
        "02000000000102000000000208004500003b0001000040018e8ac6336402c00002010303e950000000004500001f0001",
        "00000111cd96c0000201c63364020fa00009000b117e78797a",
    ));
    assert_eq!(p.tuple, tuple(proto::ICMP, B4, 0, A4, 0));
    let embedded = tuple(proto::UDP, A4, 4000, B4, 9);
    assert_eq!(p.l4_info, L4::IcmpError(IcmpError { kind: 3, code: 3, embedded, embedded_seq: None }));
    let p = read(concat!(
        "02000000000102000000000286dd6000000000443a4020010db800020000000000000000000220010db8000100000000",
        "000000000001020036cf00000500600000000014064020010db800010000000000000000000120010db8000200000000",
        "0000000000029c420016abcdef010000000050102000fd340000",
    ));
    let embedded = tuple(proto::TCP, A6, 40002, B6, 22);
    let error = IcmpError { kind: 2, code: 0, embedded, embedded_seq: Some(0xabcd_ef01) };
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::ICMPV6, B6, 0, A6, 0), L4::IcmpError(error)));
}

#[test]
fn rfc9260_sctp_init() {
    let p = read(concat!(
        "0200000000010200000000020800450000340001000040848e0ec0000201c63364020f1c0f1c000000005b53e8040100",
        "001400000001000000000000000000000000",
    ));
    assert_eq!(p.tuple, tuple(proto::SCTP, A4, 3868, B4, 3868));
    assert_eq!(p.l4_info, L4::Sctp { first_chunk: 1 });
}

#[test]
fn rfc2784_gre_and_rfc4303_esp_have_no_ports() {
    let p = read(concat!(
        "02000000000102000000000208004500003c00010000402f8e5bc0000201c6336402a000080057f60000000000094500",
        "001c00010000400166de0a0000010a0000020800f7ff00000000",
    ));
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::GRE, A4, 0, B4, 0), L4::Gre));
    let p = read(concat!(
        "02000000000102000000000286dd600000000010324020010db800010000000000000000000120010db8000200000000",
        "0000000000020000100000000001deadbeefdeadbeef",
    ));
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::ESP, A6, 0, B6, 0), L4::Esp));
}

#[test]
fn qinq_is_read_through_and_said() {
    let p = read(concat!(
        "02000000000102000000000288a800058100000608004500001f0001000040118e96c0000201c633640200070008000b",
        "3830746167",
    ));
    assert_eq!((p.l3, p.l4, p.vlan), (22, 42, true));
    assert_eq!(p.tuple, tuple(proto::UDP, A4, 7, B4, 8));
}

#[test]
fn rfc6946_atomic_fragment_behind_other_extensions_is_whole() {
    let p = read(concat!(
        "02000000000102000000000286dd600000000025004020010db800010000000000000000000120010db8000200000000",
        "0000000000023c000502000001002c0001040000000011000000000000050009000a000d7177636861696e",
    ));
    assert_eq!((p.l4, p.fragment), (14 + 40 + 24, Fragment::Whole));
    assert_eq!((p.tuple, p.l4_info), (tuple(proto::UDP, A6, 9, B6, 10), L4::Udp));
}

#[test]
fn rfc791_first_and_rfc8200_later_fragments() {
    let p = read(concat!(
        "0200000000010200000000020800450000240077200040116e1bc0000201c6336402000b000c0064abcd313233343536",
        "3738",
    ));
    let piece = Piece { id: 0x77, offset: 0, len: 16, more: true, next_header: proto::UDP };
    assert_eq!((p.fragment, p.l4_info), (Fragment::First(piece), L4::Udp));
    assert_eq!(p.tuple, tuple(proto::UDP, A4, 11, B4, 12));
    let p = read(concat!(
        "02000000000102000000000286dd6000000000102c4020010db800010000000000000000000120010db8000200000000",
        "00000000000211000321000000063132333435363738",
    ));
    let piece = Piece { id: 6, offset: 800, len: 8, more: true, next_header: proto::UDP };
    assert_eq!(p.fragment, Fragment::Later(piece));
    assert_eq!((p.l4, p.l4_info), (62, L4::LaterFragment));
    assert_eq!(p.tuple, tuple(proto::UDP, A6, 0, B6, 0));
}
