//! Whether this node is in sync, and how it comes to be.

use super::{AskWhy, Coordinator, Event, Order};
use crate::replication::detect::Life;
use crate::replication::heartbeat::Heartbeat;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;

/// This node's own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds all that the others own.
    InSync,
    /// It does not, or does not know.
    Waiting {
        /// Since when; patience counts from here.
        since: Now,
        /// What for.
        why: Waiting,
    },
}

/// What a node waits for that is not in sync.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Waiting {
    /// It has just started.
    Start,
    /// It was paused.
    Paused,
    /// It was cut off.
    CutOff,
}

impl Waiting {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Waiting::Start => "start",
            Waiting::Paused => "paused",
            Waiting::CutOff => "cut_off",
        }
    }
}

impl Coordinator {
    /// How long unreachable members are waited for, in ms.
    pub fn patience_ms(&self) -> u64 {
        (10 * u64::from(self.detector.config().detection_ms())).max(3_000)
    }

    /// This process, or a worker of it, was stopped: others may have taken it for dead, and what they sent since then
    /// lies in queues.
    pub(super) fn paused(&mut self, gap_ms: u64, now: Now) {
        self.pauses += 1;
        self.detector.forgive(now);
        self.standing = match self.standing {
            // Still the same wait; its clock did not run meanwhile.
            Standing::Waiting { since, why } => Standing::Waiting { since: Now(since.0 + gap_ms), why },
            Standing::InSync => Standing::Waiting { since: now, why: Waiting::Paused },
        };
    }

    /// A peer that does not hear this node while it recovers from a pause took it for dead, and told the others so: what
    /// it has sent since then is not all.
    pub(super) fn note_heartbeat(&mut self, it: &Heartbeat, known: Option<Boot>) {
        let paused = matches!(self.standing, Standing::Waiting { why: Waiting::Paused, .. });
        if let Some(member) = self.members.get_mut(&it.from.node) {
            if known.is_some_and(|boot| boot != it.from) {
                member.caught_up = member.caught_up.filter(|boot| *boot == it.from.boot);
            }
            if paused && !it.hears(self.me) {
                member.caught_up = None;
            }
        }
    }

    /// Nodes in sync that this one had lost are back. If more of them were together than here, this node is the one that
    /// missed something, unless its links stood all the time.
    pub(super) fn note_returned(&mut self, before: &[Life], now: Now) {
        if self.standing != Standing::InSync {
            return;
        }
        let is_mine = |it: Boot| before.iter().any(|l| l.it == it);
        let theirs = self.alive.iter().filter(|l| l.in_sync && !is_mine(l.it));
        let cut = theirs.clone().any(|l| self.has_missed(l.it));
        let mine = 1 + before.iter().filter(|l| l.in_sync).count();
        if cut && theirs.count() > mine {
            self.cut_off(now);
        }
    }

    /// Whether something that this boot told may not have come: its link is not the one by which it sent everything.
    fn has_missed(&self, it: Boot) -> bool {
        self.members
            .get(&it.node)
            .is_none_or(|m| m.caught_up != Some(it.boot) || m.link.is_none_or(|(_, link)| link != m.by_link))
    }

    fn cut_off(&mut self, now: Now) {
        self.standing = Standing::Waiting { since: now, why: Waiting::CutOff };
        for member in self.members.values_mut() {
            member.caught_up = None;
        }
        self.order(Order::Event(Event::CutOff));
    }

    /// Comes to be in sync, or asks for what is missing.
    pub(super) fn stand(&mut self, now: Now) {
        let Standing::Waiting { since, why } = self.standing else { return };
        if !self.is_member {
            return;
        }
        let missing = self.missing();
        let in_sync = self.alive.iter().any(|l| l.in_sync);
        let waited = now.since(since);
        let ready = match (why, in_sync) {
            // The others have a detection time to show that they took this node for dead.
            (Waiting::Paused, true) => missing.is_empty() && waited >= self.detection_ms(),
            (_, true) => missing.is_empty(),
            // Who is alive has shown it by then.
            (Waiting::Paused, false) => self.members.is_empty() || waited >= 3 * self.detection_ms(),
            (_, false) => self.members.is_empty() || waited >= self.patience_ms(),
        };
        if ready {
            self.standing = Standing::InSync;
            self.order(Order::Event(Event::InSync));
            self.order(Order::Resume);
        } else if let Some(why) = ask_why(why) {
            self.ask(&missing, why, now);
        }
    }

    /// Living nodes in sync that have not sent everything yet.
    pub(super) fn missing(&self) -> Vec<u16> {
        let is_missing = |life: &&Life| {
            life.in_sync && self.members.get(&life.it.node).is_none_or(|m| m.caught_up != Some(life.it.boot))
        };
        self.alive.iter().filter(is_missing).map(|life| life.it.node).collect()
    }

    fn detection_ms(&self) -> u64 {
        u64::from(self.detector.config().detection_ms())
    }

    fn ask(&mut self, nodes: &[u16], why: AskWhy, now: Now) {
        // A resync of a large table takes a while.
        let pause = self.patience_ms();
        for node in nodes {
            let Some(member) = self.members.get_mut(node) else { continue };
            let due = member.asked.is_none_or(|at| now.since(at) >= pause) && member.applying.is_none();
            if due && member.link.is_some() {
                member.asked = Some(now);
                self.order(Order::AskResync { node: *node, why });
            }
        }
    }
}

/// After a start peers send everything unasked: the boot is new to them.
fn ask_why(why: Waiting) -> Option<AskWhy> {
    match why {
        Waiting::Start => None,
        Waiting::Paused => Some(AskWhy::Paused),
        Waiting::CutOff => Some(AskWhy::CutOff),
    }
}
