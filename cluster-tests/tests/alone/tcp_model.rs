//! TCP tracking against its model, with a fixed number of seeded inputs; the fuzz target `tcp_track` goes on
//! where this ends.

#[path = "../../fuzz/src/tcp/mod.rs"]
mod tcp;

/// Inputs, and segments in each.
const INPUTS: u64 = 10_000;
const SEGMENTS: usize = 40;

/// A generator of its own, so that every run is the same (xorshift64*).
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// An input in which most segments go on where the last one ended.
fn input(seed: u64) -> Vec<u8> {
    let mut data = bytes(seed, 2 + SEGMENTS * 6);
    for (n, step) in data[2..].chunks_mut(6).enumerate() {
        // How far from the path: never, now and then, always.
        let strays = [0, 1, 3, 7][(seed % 4) as usize];
        if n < 3 {
            let handshake = [0, 3, 4][n];
            step.copy_from_slice(&[handshake, 0, 0, 0, 0, 0]);
        } else if u64::from(step[1]) % 8 >= strays {
            (step[1], step[2], step[3], step[4]) = (0, 0, 0, 0);
        }
    }
    if seed.is_multiple_of(5) {
        data[2..].rotate_left(18)
    };
    data
}

/// Red when any transition of the tracker differs from the model: verdict, state, timeout, end or counter.
#[test]
fn j4_j5_j6_j7_the_tracker_agrees_with_its_model() {
    for seed in 0..INPUTS {
        let data = input(seed);
        let mut told = Vec::new();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tcp::drive::run(&data, |line| told.push(line));
        }));
        assert!(ran.is_ok(), "input {seed}:\n{}", told.join("\n"));
    }
}
