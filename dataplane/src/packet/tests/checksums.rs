//! Checksums: verified, and completed on ports behind which a local stack leaves them to a device.

use super::builder::*;
use super::{PARTIAL, STRICT, zoo};
use crate::addr::{Mac, proto};
use crate::drops::DropReason as R;
use crate::packet::{parse, rewrite};
use proptest::prelude::*;

/// The frames of one protocol with each kind of checksum.
fn frames(e: Ends, protocol: u8, payload: &[u8]) -> [Vec<u8>; 3] {
    [Sum::Right, Sum::Partial, Sum::Wrong].map(|sum| {
        let l4 = match protocol {
            proto::TCP => tcp(e, 0x18, &[], payload, sum),
            proto::UDP => udp(e, payload, sum),
            _ => {
                let len = (16 + payload.len() as u16).to_be_bytes();
                let data = [&[0, 3, len[0], len[1], 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0], payload].concat();
                sctp(9, &data, sum)
            }
        };
        Ip::new(e, protocol).frame(&l4)
    })
}

proptest! {
    // Red when verification or completion miss a carry, a length or the odd byte; when a partial
    // checksum passes on a port that has none, or a wrong one passes anywhere.
    #[test]
    fn partial_checksums_are_completed_where_they_may_occur(
        payload in prop::collection::vec(any::<u8>(), 0..1400),
        family: bool,
        protocol in prop::sample::select(vec![proto::TCP, proto::UDP, proto::SCTP]),
    ) {
        let e = if family { v4() } else { v6() };
        let [right, partial, wrong] = frames(e, protocol, &payload);
        for options in [STRICT, PARTIAL] {
            let p = parse(&right, options).unwrap();
            prop_assert_eq!((p.complete_checksum, p.complete_crc), (None, None));
            prop_assert_eq!(parse(&wrong, options), Err(R::L4Checksum));
        }
        if partial != right {
            prop_assert_eq!(parse(&partial, STRICT), Err(R::L4Checksum));
        }
        let p = parse(&partial, PARTIAL).unwrap();
        let (mut sent, mut expected) = (partial, right.clone());
        rewrite::forward(&mut sent, &p, Mac(SRC_MAC), Mac(DST_MAC));
        let whole = parse(&right, STRICT).unwrap();
        rewrite::forward(&mut expected, &whole, Mac(SRC_MAC), Mac(DST_MAC));
        prop_assert_eq!(sent, expected);
    }
}

/// Red when a completed UDP checksum of 0 is written as 0, which says "none" (RFC 768).
#[test]
fn rfc768_completed_zero_is_all_ones() {
    for e in [v4(), v6()] {
        // A payload word that makes everything else add up to 0xffff.
        let zero = udp(e, &[0, 0], Sum::Right);
        let field = [zero[6], zero[7]];
        let partial = Ip::new(e, proto::UDP).frame(&udp(e, &field, Sum::Partial));
        let p = parse(&partial, PARTIAL).unwrap();
        assert_eq!(p.complete_checksum, Some(0xffff));
    }
}

/// Red when ICMP, whose checksum no stack leaves to a device, is completed; or when a first fragment
/// is, whose checksum covers bytes that are elsewhere.
#[test]
fn nothing_else_is_ever_completed() {
    let l4 = seal(v6(), proto::ICMPV6, vec![128, 0, 0, 0, 0, 1, 0, 1], 2, Sum::Partial);
    assert_eq!(parse(&Ip::new(v6(), proto::ICMPV6).frame(&l4), PARTIAL), Err(R::L4Checksum));
    let first = Ip { fragment: 0x2000, ..Ip::new(v4(), proto::UDP) };
    let p = parse(&first.frame(&udp(v4(), b"12345678", Sum::Partial)), PARTIAL).unwrap();
    assert_eq!(p.complete_checksum, None);
}

/// Red when the outcome for a sound packet depends on the kind of port.
#[test]
fn sound_packets_are_the_same_on_every_port() {
    for (name, frame) in zoo() {
        assert_eq!(parse(&frame, STRICT), parse(&frame, PARTIAL), "{name}");
    }
}
