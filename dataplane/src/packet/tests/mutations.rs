//! Hostile bytes: none may panic, and none that a checksum covers may change unnoticed.

use super::builder::*;
use super::{PARTIAL, STRICT, zoo};
use crate::addr::{Mac, proto};
use crate::packet::{Packet, build, parse, rewrite};
use proptest::prelude::*;

/// Everything that is ever done with a frame. The offsets are those that the types promise.
fn exercise(frame: &[u8]) {
    for options in [STRICT, PARTIAL] {
        let Ok(p) = parse(frame, options) else { continue };
        assert!(p.l3 < p.l4 && p.l4 <= p.end && usize::from(p.end) <= frame.len());
        let mut out = [0; build::FRAME_LEN_MAX];
        let source = if p.v4 { v4().src } else { v6().src };
        let mac = Mac(SRC_MAC);
        build::icmp_error(&mut out, frame, &p, build::ErrorKind::TimeExceeded, mac, mac, source.into());
        build::tcp_reset(&mut out, &p, mac, mac);
        let mut sent = frame.to_vec();
        rewrite::forward(&mut sent, &p, mac, Mac(DST_MAC));
        let expected =
            Packet { ttl: p.ttl.saturating_sub(1), complete_checksum: None, complete_crc: None, ..p };
        assert_eq!(parse(&sent, STRICT), Ok(expected));
        if let Some(mut fragments) = build::ipv4_fragments(&sent, &p, 68) {
            while fragments.write_next(&mut out).is_some() {}
        }
    }
}

proptest! {
    // Red on any panic, for any bytes.
    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        start in prop::sample::select(vec![None, Some([8u8, 0, 0x45]), Some([8, 0, 0x4f]), Some([0x86, 0xdd, 0x60]), Some([0x81, 0, 0])]),
    ) {
        let mut frame = bytes;
        if let Some(start) = start && frame.len() > 14 {
            frame[0] &= 0xfe;
            frame[12..15].copy_from_slice(&start);
            if frame.len() > 33 && start[..2] == [8, 0] {
                let len = (frame.len() - 14) as u16;
                frame[16..18].copy_from_slice(&len.to_be_bytes());
                reseal_ipv4(&mut frame[14..]);
            }
        }
        exercise(&frame);
    }

    // Red on any panic, and when a forwarded packet does not read as what it was.
    #[test]
    fn mutated_packets_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        reseal: bool,
    ) {
        let zoo = zoo();
        let mut frame = which.get(&zoo).1.clone();
        for (at, byte) in edits {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if reseal && frame[12..14] == [8, 0] {
            reseal_ipv4(&mut frame[14..]);
        }
        exercise(&frame);
    }
}

/// Every byte of a whole TCP and UDP packet, with each of its other values. Red when any covered byte
/// is left out of its checksum.
///
/// What may change unnoticed is what nothing covers: in IPv6 the traffic class, flow label and hop
/// limit, and the next header, which makes it a packet of another protocol.
#[test]
fn one_changed_byte_is_noticed() {
    for e in [v4(), v6()] {
        for frame in [tcp_frame(e, 0x18, &[1, 1, 1, 1], b"odd"), udp_frame(e, b"even")] {
            let original = parse(&frame, STRICT).unwrap();
            for at in 14..frame.len() {
                for change in 1..=255u8 {
                    let mut changed = frame.clone();
                    changed[at] ^= change;
                    for options in [STRICT, PARTIAL] {
                        let Ok(p) = parse(&changed, options) else { continue };
                        let uncovered = !p.v4 && matches!(at, 14..=17 | 21);
                        let other = !p.v4
                            && at == 20
                            && !matches!(p.tuple.protocol, proto::TCP | proto::UDP)
                            && p.tuple.protocol != original.tuple.protocol;
                        assert!(uncovered || other, "byte {at} ^ {change:#x}: {p:?}");
                    }
                }
            }
        }
    }
}
