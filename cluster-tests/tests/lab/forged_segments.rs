//! Forged segments among honest connections, and whether the tests' forger would notice one that arrives.

use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::Streams;

use crate::common::forge::{Carriers, Forger};
use crate::common::{PATIENCE, TestLab, eventually, kernel_lab, lab};

const TCP_PORT: u16 = 7000;

/// Red when the tests' forger forges nothing, or would not notice what arrives: where nothing is checked, all of it does.
#[test]
fn forged_segments_arrive_where_nobody_checks_and_not_where_a_node_does() {
    let open = |lab: &TestLab| {
        let address = lab.server_v4(TCP_PORT);
        let streams =
            Streams::open(&lab.client(), &lab.server(), address, 20, Duration::from_millis(20)).unwrap();
        streams.go_on(PATIENCE).unwrap();
        let carriers = Carriers::default();
        carriers.lock().unwrap().insert(1);
        let forger = Forger::start(lab, &streams, address, &carriers);
        (streams, forger)
    };
    let unchecked = kernel_lab("forged", |_| ());
    let (_streams, forger) = open(&unchecked);
    for what in ["an ACK", "a SYN-ACK", "data from", "a RST from", "an answer from", "a RST in answer from"] {
        eventually(what, PATIENCE, || forger.arrived().iter().any(|one| one.starts_with(what)).then_some(()));
    }
    for what in ["data outside", "a RST outside", "an answer outside", "a RST in answer outside"] {
        eventually(what, PATIENCE, || forger.arrived().iter().any(|one| one.starts_with(what)).then_some(()));
    }
    drop((forger, unchecked));
    let policy = format!("{DEFAULT_POLICY}\n[tcp]\nrst_sequence_check = true\n");
    let checked = lab("checked", |spec| spec.policy = Some(policy));
    let (streams, forger) = open(&checked);
    eventually("a thousand are forged", PATIENCE, || (forger.sent() > 1_000).then_some(()));
    streams.go_on(PATIENCE).unwrap();
    assert_eq!(forger.arrived(), Vec::<String>::new());
}
