//! Changes from all nodes while leaders die.

use crate::support::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{Command, Outcome, Role};
use tidegate_sync_net::cluster::ProposeError;

#[test]
fn every_acknowledged_change_survives_killed_leaders_in_order_on_every_node() {
    // Red when a node acknowledges before a majority has synced, when a proposal that is sent again takes
    // effect twice, or when a restarted node does not catch up.
    let home = tempfile::tempdir().unwrap();
    let mut nodes = three(home.path(), Role::Node);
    let mut acknowledged = BTreeMap::new();
    let (mut down, mut unknown, mut took) = (None, 0, Vec::new());
    for round in 0..120_usize {
        if round % 15 == 5 {
            let at = leader(&nodes);
            nodes[at].kill();
            down = Some(at);
        }
        if round % 15 == 12
            && let Some(at) = down.take()
        {
            nodes[at].open();
        }
        let at = (0..3).map(|n| (round + n) % 3).find(|n| Some(*n) != down).unwrap();
        let node = &nodes[at];
        let text = format!("policy {round}");
        let start = Instant::now();
        let state = node.run(node.cluster().read(LONG)).unwrap();
        let base = state.policy.in_force().unwrap().number;
        let command = Command::ApplyPolicy { base, text: text.as_str().into(), lease: None };
        match node.run(node.cluster().propose(command, "test", Duration::from_secs(20))) {
            Ok(Outcome::Revision { number, unchanged: false }) => {
                assert!(acknowledged.insert(number, text).is_none(), "revision {number} twice");
            }
            Err(ProposeError::OutcomeUnknown { .. }) => unknown += 1,
            // One that was unknown came in between.
            Ok(Outcome::Refused(_)) if unknown > 0 => {}
            other => panic!("round {round} at {at}: {other:?}"),
        }
        took.push(start.elapsed());
    }
    if let Some(at) = down {
        nodes[at].open();
    }
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::open);
    let state = nodes[0].run(nodes[0].cluster().read(LONG)).unwrap();
    for (number, text) in &acknowledged {
        let revision = state.policy.get(*number).unwrap_or_else(|| panic!("revision {number} is gone"));
        assert_eq!(revision.text.as_deref(), Some(text.as_str()));
    }
    until("equal copies everywhere", || {
        let copies: Vec<_> = nodes.iter().map(|n| n.cluster().state().borrow().digest()).collect();
        copies.iter().all(|c| *c == copies[0])
    });
    took.sort_unstable();
    println!(
        "{} acknowledged, {unknown} unknown; median {:?}, longest {:?}",
        acknowledged.len(),
        took[60],
        took[119]
    );
    assert!(acknowledged.len() > 100, "only {} of 120", acknowledged.len());
}
