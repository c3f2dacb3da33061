//! What runs through the nodes of a test while they die, stand still and come back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{Numbered, Streams};

use super::forge::{Carriers, Forger};
use super::repl::owners;
use super::{PATIENCE, TestLab, eventually};

/// The streams' port.
pub const TCP_PORT: u16 = 7000;
/// The lab's policy, and RSTs are checked too.
pub fn checking_policy() -> String {
    format!("{DEFAULT_POLICY}\n[tcp]\nrst_sequence_check = true\n")
}

/// Names the streams' sessions.
pub const TCP: [&str; 4] = ["--protocol", "tcp", "--destination-port", "7000"];

/// What runs through the nodes while they die.
pub struct Traffic {
    pub streams: Streams,
    pub streams_v6: Streams,
    pub numbered: Numbered,
    pub carriers: Carriers,
    pub forger: Forger,
}

impl Traffic {
    /// Begins.
    pub fn start(lab: &TestLab) -> Traffic {
        let (client, server) = (lab.client(), lab.server());
        let pace = Duration::from_millis(250);
        let open = |address, count| Streams::open(&client, &server, address, count, pace).unwrap();
        let streams = open(lab.server_v4(TCP_PORT), 160);
        let streams_v6 = open(lab.server_v6(TCP_PORT), 40);
        let numbered =
            Numbered::start(&client, &server, lab.server_v4(4000), Duration::from_millis(5)).unwrap();
        let carriers = Arc::new(Mutex::new(BTreeSet::new()));
        let forger = Forger::start(lab, &streams, lab.server_v4(TCP_PORT), &carriers);
        Traffic { streams, streams_v6, numbered, carriers, forger }
    }

    /// Connections.
    pub fn count(&self) -> usize {
        self.streams.locals().len() + self.streams_v6.locals().len()
    }

    /// Everything goes on, through the nodes that `carriers` names now.
    pub fn goes_on(&self, when: &str, carriers: &[u32]) {
        for streams in [&self.streams, &self.streams_v6] {
            streams.go_on(PATIENCE).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        assert!(self.numbered.wait_arrival(PATIENCE).is_some(), "UDP {when}");
        self.carry(carriers);
        for streams in [&self.streams, &self.streams_v6] {
            streams.go_on(PATIENCE).unwrap_or_else(|error| panic!("{when}, and on: {error}"));
        }
        assert_eq!(self.forger.arrived(), Vec::<String>::new(), "{when}");
    }

    /// Which nodes see both directions, and have for long enough to know the windows.
    pub fn carry(&self, carriers: &[u32]) {
        *self.carriers.lock().unwrap() = carriers.iter().copied().collect();
    }
}

/// Waits until no session of the streams is owned by a node that is dead.
pub fn wait_owned_by_others(lab: &TestLab, at: u32, dead: u32, count: usize) {
    eventually(&format!("node{at} sees all owned, none by node{dead}"), PATIENCE, || {
        let owners = owners(lab.at(at), &TCP);
        let all: usize = owners.values().sum();
        (all == count && !owners.contains_key(&format!("node{dead}"))).then_some(())
    });
}
