//! Sessions live exactly as long as they are used, wherever they are used, and go everywhere when they are not.

use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{Trickle, TrickleFlow, UdpEcho, udp_flows};

use crate::common::cluster::length;
use crate::common::repl::{replicating, wait_verified};
use crate::common::{EACH_TRY, PATIENCE, TRIES, eventually, now, pause};

/// Idle timeouts in seconds; UDP to port 7100 + N has N.
const TIMEOUTS: [u16; 3] = [2, 3, 4];

/// The lab's policy, with short timeouts.
fn policy() -> String {
    let (head, tail) = DEFAULT_POLICY.split_at(DEFAULT_POLICY.rfind("[[rule]]").unwrap());
    let own: String = TIMEOUTS
        .map(|timeout| {
            format!(
                "[[application]]\nname = \"idle-{timeout}\"\nprotocol = \"udp\"\ndestination_port = {port}\n\
                 inactivity_timeout = {timeout}\n\n\
                 [[rule]]\nname = \"idle-{timeout}\"\nfrom = \"outside\"\nto = \"inside\"\nsource = \"any\"\n\
                 destination = \"any\"\napplication = \"idle-{timeout}\"\naction = \"permit\"\n\n",
                port = 7100 + timeout
            )
        })
        .concat();
    format!("{head}{own}{tail}")
}

/// Red when replicas do not tell of what passes through them, or too rarely; when a new owner does not know of it; or
/// when anybody but the owner ages.
#[test]
fn flows_that_trickle_through_replicas_live_though_their_owner_dies() {
    let lab = replicating("trickle", 3, |spec| spec.policy = Some(policy()));
    let flow = |number: u16| {
        let timeout = TIMEOUTS[usize::from(number) % 3];
        let every = Duration::from_millis(u64::from(timeout) * 800);
        let phase = every.mul_f64(f64::from(number * 37 % 200) / 200.0);
        TrickleFlow { client_port: 30_000 + number, server_port: 7100 + timeout, every, phase }
    };
    let server = lab.server_v4(0).ip();
    let flows: Vec<_> = (0..200).map(flow).collect();
    // Node 1 makes them; all that comes later passes through node 2.
    let trickle = Trickle::open(&lab.client(), &lab.server(), server, flows).unwrap();
    lab.route_via(2).unwrap();
    let half = length(4, 10) as u64;
    for part in 0..half {
        assert_eq!(trickle.dead(PATIENCE), [], "part {part}, their owner lives");
    }
    lab.at(1).kill().unwrap();
    for part in 0..half {
        assert_eq!(trickle.dead(PATIENCE), [], "part {part}, their owner is dead");
    }
    let filter = ["--protocol", "udp", "--destination-port", "7102-7104"];
    eventually("both that are left hold all", PATIENCE, || {
        [2, 3].iter().all(|node| lab.at(*node).sessions(&filter).unwrap().len() == 200).then_some(())
    });
}

/// Red when an idle session goes before its timeout, or is still anywhere when the staleness bound has passed too.
#[test]
fn idle_sessions_go_everywhere_and_not_before_their_time() {
    let lab = replicating("idle", 3, |spec| spec.policy = Some(policy()));
    let _echoes =
        TIMEOUTS.map(|timeout| UdpEcho::start(&lab.server(), lab.server_v4(7100 + timeout)).unwrap());
    let timeout = TIMEOUTS[2];
    let port = 7100 + timeout;
    let filter = ["--protocol", "udp", "--destination-port", &port.to_string()];
    let answered = udp_flows(&lab.client(), lab.server_v4(port), 20_000..20_100, TRIES, EACH_TRY).unwrap();
    assert_eq!(answered.len(), 100);
    // Used once more, at a replica.
    lab.route_via(2).unwrap();
    let first = now();
    let answered = udp_flows(&lab.client(), lab.server_v4(port), 20_000..20_100, TRIES, EACH_TRY).unwrap();
    assert_eq!(answered.len(), 100);
    let last = now();
    let timeout = Duration::from_secs(timeout.into());
    let mut gone_before = None;
    loop {
        let asked = now();
        let left: Vec<_> = [1, 2, 3].map(|node| lab.at(node).sessions(&filter).unwrap().len()).into();
        // The list may be cut off only behind the moment at which it was asked for.
        if asked.elapsed() < Duration::from_secs(1) && first.elapsed() < timeout {
            assert_eq!(left, [100; 3], "before their timeout");
            gone_before = Some(asked);
        }
        if left == [0; 3] {
            break;
        }
        // A quarter of the timeout and the time to detect a death on top, and time for a machine that is busy.
        assert!(last.elapsed() < timeout * 5 / 4 + Duration::from_secs(10), "still there: {left:?}");
        pause(Duration::from_millis(100));
    }
    assert!(gone_before.is_some(), "the test was too slow to look in time");
    wait_verified(lab.at(1));
}
