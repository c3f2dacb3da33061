//! What a coordinator shows.

use super::{Coordinator, Standing, Waiting};
use crate::replication::detect::{State, Word};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;

/// One look at a coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoordinatorStatus {
    /// This node.
    pub me: Boot,
    /// Whether it is in sync, as it says to everybody.
    pub in_sync: bool,
    /// What it waits for, if it waits.
    pub waiting: Option<Waiting>,
    /// Living nodes in sync that have not sent everything yet.
    pub missing: Vec<u16>,
    /// Whether its table has no room for what others own.
    pub no_room: bool,
    /// Whether all its workers run.
    pub workers_ok: bool,
    /// How often this process was stopped for longer than a detection time.
    pub pauses: u64,
    /// Heartbeats of boots that are over.
    pub outdated: u64,
    /// All other full members, by node.
    pub peers: Vec<PeerReport>,
}

/// What is believed of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerReport {
    /// Its node number.
    pub node: u16,
    /// Its boot, as far as known.
    pub boot: Option<u32>,
    /// What its own heartbeats say.
    pub state: State,
    /// Whether it is alive, by its own heartbeats or by a third node's word.
    pub alive: bool,
    /// Whether only a third node hears it.
    pub indirect: bool,
    /// Its word on whether it is in sync, while it is alive; `false` also if it has no room for what this node owns.
    pub in_sync: bool,
    /// It said that it has no room for what this node owns.
    pub is_full: bool,
    /// The number of the link that is up.
    pub link: Option<u64>,
    /// Whether all that it owns has come.
    pub caught_up: bool,
    /// What it says of itself, while each hears the other.
    pub word: Option<Word>,
    /// Age of its newest heartbeat, in ms.
    pub last_heartbeat_age_ms: Option<u64>,
}

impl Coordinator {
    /// One look at everything.
    pub fn status(&self, now: Now) -> CoordinatorStatus {
        let waiting = match self.standing {
            Standing::InSync => None,
            Standing::Waiting { why, .. } => Some(why),
        };
        CoordinatorStatus {
            me: self.me,
            in_sync: self.is_in_sync(),
            waiting,
            missing: self.missing(),
            no_room: self.lacks_room(),
            workers_ok: self.workers_ok,
            pauses: self.pauses,
            outdated: self.detector.outdated(),
            peers: self.members.keys().map(|node| self.report(*node, now)).collect(),
        }
    }

    fn report(&self, node: u16, now: Now) -> PeerReport {
        let known = self.detector.of(node, now);
        let life = self.alive.iter().find(|l| l.it.node == node);
        let member = self.members.get(&node);
        let boot = life.map(|l| l.it.boot).or(known.map(|(it, ..)| it.boot));
        let is_full = member.is_some_and(|m| m.is_full);
        PeerReport {
            node,
            boot,
            state: known.map_or(State::Unknown, |(_, state, _)| state),
            alive: life.is_some(),
            indirect: life.is_some_and(|l| !l.direct),
            in_sync: life.is_some_and(|l| l.in_sync) && !is_full,
            is_full,
            link: member.and_then(|m| m.link).map(|(_, link)| link),
            caught_up: member.is_some_and(|m| m.caught_up.is_some() && m.caught_up == boot),
            word: self.detector.word(node),
            last_heartbeat_age_ms: known.and_then(|(_, _, age)| age),
        }
    }
}
