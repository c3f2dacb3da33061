//! What a TCP packet of an established session costs, in process. Run by hand, in release:
//! `cargo test --release -p tidegate-dataplane -- --ignored --nocapture cost_of`.

use super::*;

/// Connections that the packets are spread over: more than the second-level cache holds.
const FLOWS: u16 = 50_000;
/// Times that each connection sends a segment and gets its acknowledgement.
const ROUNDS: u32 = 40;

/// Sends one segment and one acknowledgement for every connection, in full batches.
fn round(lab: &mut Lab, n: u32) -> u64 {
    let mut sent = 0;
    for first in (1..=FLOWS).step_by(BATCH_MAX / 2) {
        let ports = first..=first.saturating_add(BATCH_MAX as u16 / 2 - 1).min(FLOWS);
        let mut frames: Vec<TestFrame> = ports
            .flat_map(|sport| {
                let seq = 1001 + n * 10;
                [
                    TestFrame { port: OUT, bytes: tcp(true, sport, 80, ACK, seq, 5001, 10), note: None },
                    TestFrame { port: IN, bytes: tcp(false, sport, 80, ACK, 5001, seq + 10, 0), note: None },
                ]
            })
            .collect();
        let mut verdicts = ArrayVec::new();
        #[expect(clippy::disallowed_methods, reason = "a measurement, run by hand")]
        let start = std::time::Instant::now();
        lab.engine.process(&mut frames, &mut verdicts, lab.now);
        sent += start.elapsed().as_nanos() as u64;
        assert!(verdicts.iter().all(|v| matches!(v, Verdict::Transmit(_))));
    }
    sent
}

#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_an_established_tcp_packet() {
    let mut lab = Lab::new(POLICY, 65_536);
    (1..=FLOWS).for_each(|sport| lab.connect(sport, 80));
    let packets = u64::from(FLOWS) * 2;
    let mut best = u64::MAX;
    for n in 0..ROUNDS {
        best = best.min(round(&mut lab, n) / packets);
    }
    println!("established TCP, {FLOWS} connections: {best} ns a packet (best of {ROUNDS} rounds)");
}
