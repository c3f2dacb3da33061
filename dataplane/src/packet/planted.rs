//! A panic on purpose: the fuzz target must find it, or it would find nothing else either.
//!
//! Compiled only with the feature `planted-panic` and `--cfg fuzzing` together, which no build of the
//! product has.

use super::Tcp;

/// Panics on a SYN that no stack sends: the largest window scale, an MSS below a header's length,
/// and SACK permitted. Nested, so that coverage leads there step by step.
pub(super) fn panic_on(tcp: &Tcp) {
    if tcp.window_scale == Some(14)
        && let Some(mss) = tcp.mss
        && mss < 64
    {
        assert!(!tcp.sack_permitted, "planted panic: the fuzz target found it");
    }
}
