//! A panic on purpose: the fuzz target must find it, or it would find nothing else either.
//!
//! Compiled only with the feature `planted-panic` and `--cfg fuzzing` together, which no build of the
//! product has.

use super::Tcp;
use std::hint::black_box;

/// Panics on a SYN that no stack sends: the largest window scale together with an MSS from 16,384 on.
/// Two steps, each visible in the coverage: the black box keeps them from being joined into one test.
pub(super) fn panic_on(tcp: &Tcp) {
    if tcp.window_scale == Some(14) {
        let mss = black_box(tcp.mss);
        assert!(mss.is_none_or(|mss| mss < 0x4000), "planted panic: the fuzz target found it");
    }
}
