//! J8: a SYN's MSS option is lowered, checksum and all.

use super::builder::*;
use super::{PARTIAL, STRICT};
use crate::addr::{Mac, proto};
use crate::packet::{L4, parse, rewrite};
use proptest::prelude::*;

proptest! {
    // Red when the checksum misses a carry, an option at an odd offset or a checksum left to a device;
    // when an MSS is raised, or a byte changes that is neither MSS nor checksum.
    #[test]
    fn j8_lowering_equals_a_packet_written_with_the_lower_mss(
        mss: u16,
        max in 64u16..,
        nops in 0usize..8,
        payload in prop::collection::vec(any::<u8>(), 0..40),
        family: bool,
        partial: bool,
        acks: bool,
    ) {
        let e = if family { v4() } else { v6() };
        let flags = if acks { 0x12 } else { 0x02 };
        let written = |mss: u16, sum| {
            let mut options = vec![1; nops];
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
            options.extend([3, 3, 7]);
            options.resize(options.len().next_multiple_of(4), 0);
            Ip::new(e, proto::TCP).frame(&tcp(e, flags, &options, &payload, sum))
        };
        let lowered = |mut frame: Vec<u8>, options| {
            let p = parse(&frame, options).unwrap();
            let L4::Tcp(t) = p.l4_info else { panic!("no TCP") };
            rewrite::forward(&mut frame, &p, Mac(SRC_MAC), Mac(DST_MAC));
            rewrite::lower_mss(&mut frame, &p, &t, max);
            frame
        };
        let sum = if partial { Sum::Partial } else { Sum::Right };
        let got = lowered(written(mss, sum), PARTIAL);
        let want = lowered(written(mss.min(max), Sum::Right), STRICT);
        let p = parse(&got, STRICT).unwrap();
        let L4::Tcp(t) = p.l4_info else { panic!("no TCP") };
        prop_assert_eq!(t.mss, Some(mss.min(max)));
        // One's complement has two zeros: as the field itself both are right, and both were verified.
        let field = usize::from(p.l4) + 16;
        prop_assert_eq!(&got[..field], &want[..field]);
        prop_assert_eq!(&got[field + 2..], &want[field + 2..]);
    }
}

/// Red when a SYN without the option, or a packet whose offset points elsewhere, is touched.
#[test]
fn j8_nothing_is_written_where_there_is_no_option() {
    for e in [v4(), v6()] {
        let frame = Ip::new(e, proto::TCP).frame(&tcp(e, 0x02, &[1, 1, 4, 2], b"", Sum::Right));
        let p = parse(&frame, STRICT).unwrap();
        let L4::Tcp(mut t) = p.l4_info else { panic!("no TCP") };
        let mut after = frame.clone();
        rewrite::lower_mss(&mut after, &p, &t, 64);
        t.mss = Some(1460);
        for offset in [0, 5, p.l4, p.l4 + 19, p.end, u16::MAX] {
            t.mss_offset = offset;
            rewrite::lower_mss(&mut after[..usize::from(p.end)], &p, &t, 64);
        }
        assert_eq!(after, frame);
    }
}
