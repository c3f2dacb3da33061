//! Two queues and two workers: flows cross between them, frames do not get lost on the way.

mod common;

use std::time::Duration;

use tidegate_lab::traffic::{TcpEcho, UdpEcho, connect, exchange, udp_flows};

use common::{TestLab, eventually, lab};

/// Red when a packet is handled by whichever worker received it (no hand-overs; replies that arrive on another
/// queue find no session and get lost), or when a handed-over frame does not return to its pool.
#[test]
fn packets_are_handed_over_both_ways_and_no_frame_is_lost() {
    let lab = lab("queues", |spec| spec.queues = 2);
    let frames = sum(&lab, "tidegate_frames", &[]);
    let before = handovers(&lab);
    for server in [lab.server_v4(7), lab.server_v6(7)] {
        let _udp = UdpEcho::start(&lab.server(), server).unwrap();
        let answered =
            udp_flows(&lab.client(), server, 20_000..20_500, 3, Duration::from_millis(500)).unwrap();
        assert_eq!(answered.len(), 500, "{server}");
        let _tcp = TcpEcho::start(&lab.server(), server).unwrap();
        let patience = Duration::from_secs(5);
        for _ in 0..20 {
            let mut stream = connect(&lab.client(), server, patience).unwrap();
            exchange(&mut stream, &[0x42; 20_000], patience).unwrap();
        }
    }
    let after = handovers(&lab);
    for worker in 0..2 {
        assert!(after[worker] > before[worker] + 100, "worker {worker} handed over {before:?} to {after:?}");
    }
    let sessions = lab.sessions(&[]).unwrap();
    for worker in 0..2 {
        let owned = sessions.iter().filter(|session| session["worker"] == worker).count();
        assert!(owned > sessions.len() / 4, "worker {worker} owns {owned} of {} sessions", sessions.len());
    }
    eventually("all frames are accounted for", Duration::from_secs(5), || {
        (sum(&lab, "tidegate_frames", &[]) == frames).then_some(())
    });
}

fn handovers(lab: &TestLab) -> [u64; 2] {
    ["0", "1"].map(|worker| sum(lab, "tidegate_handovers_total", &[("worker", worker)]))
}

fn sum(lab: &TestLab, name: &str, labels: &[(&str, &str)]) -> u64 {
    lab.metrics().unwrap().sum(name, labels).unwrap_or_else(|| panic!("no metric {name}")) as u64
}
