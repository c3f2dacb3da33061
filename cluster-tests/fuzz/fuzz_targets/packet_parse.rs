//! Hostile frames against `packet::parse` and everything that is done with what it returns.
//!
//! The first byte says how the rest is treated: bit 0, the port has partial checksums; bit 1, the IP
//! and UDP lengths are made to fit the frame; bit 2, the checksums are made right, so that a mutated
//! packet gets past them; bits 3 to 7 choose the MTU that it is fragmented for.
#![no_main]

mod repair;

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::packet::build::{self, ErrorKind};
use tidegate_dataplane::packet::{L4, Packet, ParseOptions, parse, rewrite};

const STRICT: ParseOptions = ParseOptions { partial_checksums: false };
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const NEXT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
/// Bytes of a quote that an error of either family has room for.
const QUOTE_LEN: u16 = 548;

fuzz_target!(|data: &[u8]| {
    let Some((how, frame)) = data.split_first() else { return };
    let mut frame = frame.to_vec();
    if how & 2 != 0 {
        repair::lengths(&mut frame);
    }
    if how & 4 != 0 {
        repair::checksums(&mut frame);
    }
    let options = ParseOptions { partial_checksums: how & 1 != 0 };
    let Ok(p) = parse(&frame, options) else { return };
    assert!(p.l3 < p.l4 && p.l4 <= p.end && usize::from(p.end) <= frame.len());
    bounds_are_exact(&frame, &p, options);
    errors_read_back(&frame, &p);
    resets_read_back(&p);
    let sent = forwarded_reads_back(&frame, &p);
    fragments_reassemble(&sent, &p, 68 + u16::from(how >> 3) * 40);
});

/// Padding changes nothing, and the packet's last byte is needed.
fn bounds_are_exact(frame: &[u8], p: &Packet, options: ParseOptions) {
    let end = usize::from(p.end);
    assert_eq!(parse(&frame[..end], options), Ok(*p));
    assert_eq!(parse(&[&frame[..end], &[0x5a; 9]].concat(), options), Ok(*p));
    assert!(parse(&frame[..end - 1], options).is_err());
}

/// A forwarded frame reads as what it was, with a TTL one lower and nothing left to complete.
fn forwarded_reads_back(frame: &[u8], p: &Packet) -> Vec<u8> {
    let mut sent = frame.to_vec();
    rewrite::forward(&mut sent, p, OUR_MAC, NEXT_MAC);
    let ttl = p.ttl.saturating_sub(1);
    let expected = Packet { ttl, complete_checksum: None, complete_crc: None, ..*p };
    assert_eq!(parse(&sent, STRICT), Ok(expected));
    sent
}

/// An error about the packet is sound and is about this packet.
fn errors_read_back(frame: &[u8], p: &Packet) {
    let router = if p.v4 { "203.0.113.254" } else { "2001:db8:ffff::fe" };
    let router: Addr = router.parse::<IpAddr>().unwrap().into();
    if router == p.tuple.src {
        return;
    }
    let mut out = [0xa5; build::FRAME_LEN_MAX];
    let kind = ErrorKind::FragmentationNeeded { mtu: 1280 };
    let Some(len) = build::icmp_error(&mut out, frame, p, kind, OUR_MAC, NEXT_MAC, router) else { return };
    match parse(&out[..len], STRICT) {
        Ok(error) => match error.l4_info {
            L4::IcmpError(about) => assert_eq!(about.embedded, p.tuple),
            other => panic!("an error reads as {other:?}"),
        },
        // Extension headers may fill the quote.
        Err(reason) => {
            assert!(reason == DropReason::IcmpMalformed && p.l4 - p.l3 + 8 > QUOTE_LEN, "{reason:?}");
        }
    }
}

/// A reset is sound and goes back.
fn resets_read_back(p: &Packet) {
    let mut out = [0xa5; build::FRAME_LEN_MAX];
    if let Some(len) = build::tcp_reset(&mut out, p, OUR_MAC, NEXT_MAC) {
        let reset = parse(&out[..len], STRICT).expect("a sound reset");
        assert_eq!(reset.tuple, p.tuple.reversed());
    }
}

/// Fragments hold the payload, in order, and each fits.
fn fragments_reassemble(sent: &[u8], p: &Packet, mtu: u16) {
    let Some(mut fragments) = build::ipv4_fragments(sent, p, mtu) else { return };
    let mut left = fragments.count();
    let mut payload: Vec<u8> = Vec::new();
    let mut out = [0xa5; build::FRAME_LEN_MAX];
    while let Some(len) = fragments.write_next(&mut out) {
        left -= 1;
        assert!(len - usize::from(p.l3) <= usize::from(mtu));
        let header_len = usize::from(out[usize::from(p.l3)] & 0x0f) * 4;
        payload.extend(&out[usize::from(p.l3) + header_len..len]);
        // A link of 68 bytes cuts TCP headers in two, and we refuse errors in fragments.
        if let Err(reason) = parse(&out[..len], STRICT) {
            assert!(matches!(reason, DropReason::FragmentTiny | DropReason::IcmpMalformed), "{reason:?}");
        }
    }
    assert_eq!(left, 0);
    assert_eq!(payload, sent[usize::from(p.l4)..usize::from(p.end)]);
}
