//! Two queues and two workers: flows cross between them, frames do not get lost on the way.

use tidegate_lab::traffic::{TcpEcho, UdpEcho, connect, exchange, udp_flows};

use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, lab};

/// Red when a packet is handled by whichever worker received it (no hand-overs; replies that arrive on another
/// queue find no session and get lost), or when a handed-over frame does not return to its pool.
#[test]
fn packets_are_handed_over_both_ways_and_no_frame_is_lost() {
    let lab = lab("queues", |spec| spec.queues = 2);
    let frames = sum(&lab, "tidegate_frames", &[]);
    let before = handovers(&lab);
    for server in [lab.server_v4(7), lab.server_v6(7)] {
        let _udp = UdpEcho::start(&lab.server(), server).unwrap();
        let answered = udp_flows(&lab.client(), server, 20_000..20_500, TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), 500, "{server}");
        let _tcp = TcpEcho::start(&lab.server(), server).unwrap();
        for _ in 0..20 {
            let mut stream = connect(&lab.client(), server, PATIENCE).unwrap();
            exchange(&mut stream, &[0x42; 20_000], PATIENCE).unwrap();
        }
    }
    eventually("both workers have handed over a hundred and more", PATIENCE, || {
        let after = handovers(&lab);
        (0..2).all(|worker| after[worker] > before[worker] + 100).then_some(())
    });
    let sessions = lab.sessions(&[]).unwrap();
    for worker in 0..2 {
        let owned = sessions.iter().filter(|session| session["worker"] == worker).count();
        assert!(owned > sessions.len() / 4, "worker {worker} owns {owned} of {} sessions", sessions.len());
    }
    eventually("all frames are accounted for", PATIENCE, || {
        (sum(&lab, "tidegate_frames", &[]) == frames).then_some(())
    });
}

fn handovers(lab: &TestLab) -> [u64; 2] {
    ["0", "1"].map(|worker| sum(lab, "tidegate_handovers_total", &[("worker", worker)]))
}

fn sum(lab: &TestLab, name: &str, labels: &[(&str, &str)]) -> u64 {
    lab.metrics().unwrap().sum(name, labels).unwrap_or_else(|| panic!("no metric {name}")) as u64
}
