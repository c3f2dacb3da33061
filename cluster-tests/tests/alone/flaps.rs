//! Ports that go away and come back, under traffic, a hundred times: each time the traffic comes back, and no
//! frame of the packet memory is lost.

use std::time::Duration;

use tidegate_lab::traffic::Numbered;

use crate::common::{PATIENCE, TestLab, eventually, lab};

const CYCLES: usize = 100;

/// Red when a port that came up again is not served (traffic stays away), or frames that were in its rings when
/// it went down never return to their pool (the total shrinks).
#[test]
fn ports_taken_down_and_up_come_back_each_time() {
    let lab = lab("down", |_| ());
    cycle(&lab, |port| {
        lab.node().ip(&format!("link set {port} down")).unwrap();
        lab.node().ip(&format!("link set {port} up")).unwrap();
    });
}

/// Red when the node holds on to the old interface index: the new interface of the same name is never opened.
#[test]
fn a_veth_pair_deleted_and_made_again_comes_back_each_time() {
    let lab = lab("delete", |_| ());
    cycle(&lab, |port| {
        lab.node().ip(&format!("link del {port}")).unwrap();
        lab.remake_link(port).unwrap();
    });
}

fn cycle(lab: &TestLab, flap: impl Fn(&str)) {
    let every = Duration::from_millis(1);
    let flows = [
        Numbered::start(&lab.client(), &lab.server(), lab.server_v4(4000), every).unwrap(),
        Numbered::start(&lab.client(), &lab.server(), lab.server_v6(4000), every).unwrap(),
    ];
    let back = |when: &str| {
        for (flow, family) in flows.iter().zip(["IPv4", "IPv6"]) {
            assert!(flow.wait_arrival(PATIENCE).is_some(), "{family} did not come back {when}");
        }
    };
    back("at the start");
    let frames = frames(lab);
    for number in 0..CYCLES {
        let port = ["inside", "outside"][number % 2];
        flap(port);
        back(&format!("after flap {number}, of {port}"));
        assert_eq!(self::frames(lab), frames, "frames after flap {number}, of {port}");
    }
    // The walls are looked at every few seconds, and the last look may have met a flap.
    eventually("nothing is degraded", PATIENCE, || {
        let status = lab.json(&["status"]).unwrap();
        (status["degraded"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
}

/// Frames of the packet memory, wherever they are.
fn frames(lab: &TestLab) -> u64 {
    lab.metrics().unwrap().sum("tidegate_frames", &[]).expect("the frames' metric") as u64
}
