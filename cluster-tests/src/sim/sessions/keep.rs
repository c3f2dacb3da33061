//! What is looked at again and again: who holds what, who is responsible for it, and how much memory it takes.

use super::check::{Finding, REVIVED, SLACK};
use super::hosts::ends_of;
use super::hub::INBOX;
use super::world::{Event, World};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_dataplane::engine::SessionView;
use tidegate_dataplane::session::record::SessionId;

/// How often everything is looked at.
const LOOK_EVERY: u64 = 200_000;
/// Longest batch, with its envelope.
const BATCH_BYTES: u64 = 70_000;

impl World {
    /// What must hold at every moment.
    pub(super) fn look(&mut self) -> Result<(), Finding> {
        self.at(self.now + LOOK_EVERY, Event::Look);
        let mut all = BTreeMap::new();
        for place in self.running() {
            if self.places[place].node.as_ref().is_some_and(|n| n.frozen.is_some()) {
                continue;
            }
            let sessions = self.sessions_of(place);
            self.counts.most_sessions = self.counts.most_sessions.max(sessions.len() as u64);
            self.holds_what_it_forwards(place, &sessions)?;
            self.memory(place)?;
            all.insert(place, sessions);
        }
        self.owned(&all)
    }

    /// Which copies a node has learned or lost since the last time, for the story: engines do not tell of that.
    pub(super) fn tell_copies(&mut self, place: usize) {
        if self.story.is_none() {
            return;
        }
        let now: BTreeMap<SessionId, _> =
            self.sessions_of(place).iter().map(|s| (s.id, s.wings[0].tuple)).collect();
        let before = self.oracle.held.insert(place, now.clone()).unwrap_or_default();
        let new = now.iter().filter(|(id, _)| !before.contains_key(id)).map(|s| (s, "has"));
        let gone = before.iter().filter(|(id, _)| !now.contains_key(id)).map(|s| (s, "is without"));
        for ((id, tuple), what) in new.chain(gone) {
            let flow = ends_of(tuple).and_then(|ends| self.by_ends.get(&ends).copied());
            self.tell(flow, || format!("node {} {what} {id}", place + 1));
        }
    }

    /// What a node itself forwarded, it keeps; in calm it keeps what anybody forwarded.
    fn holds_what_it_forwards(&self, place: usize, sessions: &[SessionView]) -> Result<(), Finding> {
        let flow = |s: &SessionView| self.by_ends.get(&ends_of(&s.wings[0].tuple)?).copied();
        let held: BTreeSet<usize> = sessions.iter().filter_map(flow).collect();
        for ((flow, by), at) in &self.oracle.last {
            let counts = *by == place || (self.is_calm() && self.is_settled(*flow));
            let idle = self.now - at;
            // Another node's word may have ended it since, and its connection goes on by another session.
            let in_calm = self.calm_since.is_some_and(|calm| *at > calm);
            let over = self.oracle.finals.get(flow).is_some_and(|end| !in_calm || end > at);
            // By which session it went, that of its present life or that of the one before, is not known.
            let in_doubt = self.oracle.again.contains(flow)
                && self.oracle.revived.get(flow).is_some_and(|since| *at < since + REVIVED);
            if counts && !over && !in_doubt && idle + SLACK < self.timeout_of(*flow) && !held.contains(flow) {
                let (number, by, ms) = (place + 1, by + 1, idle / 1_000);
                let what = format!(
                    "node {by} forwarded a packet {ms} ms ago, node {number} holds no session for it"
                );
                return Err(Finding { what, flow: Some(*flow) });
            }
        }
        Ok(())
    }

    /// No session is without an owner for longer than it takes to notice that one is gone.
    fn owned(&mut self, all: &BTreeMap<usize, Vec<SessionView>>) -> Result<(), Finding> {
        let mut orphans = BTreeMap::new();
        let mut owned: BTreeSet<SessionId> = BTreeSet::new();
        for (place, sessions) in all {
            let me = self.places[*place].node.as_ref().map(|n| n.me);
            owned.extend(sessions.iter().filter(|s| s.owner == me).map(|s| s.id));
        }
        // Nothing can decide about it: whoever holds it thinks that somebody else does. What that one has ended it cannot
        // always say at once, if the link between the two is cut: that is for the comparison when all is whole.
        let is_ended = |s: &SessionView| s.owner.is_some_and(|owner| self.oracle.has_ended(owner, s.id));
        let waits = |s: &&SessionView| !owned.contains(&s.id) && s.remaining_ms != Some(0) && !is_ended(s);
        // Who has just come, or was cut off, does not rely on what it holds, nor on whom it sees.
        let relied_on = all.iter().filter(|(place, _)| self.is_ready(**place)).flat_map(|(_, held)| held);
        for session in relied_on.filter(waits) {
            let since = self.oracle.orphans.get(&session.id).copied().unwrap_or(self.now);
            orphans.insert(session.id, since);
            if since + self.ownerless() < self.now {
                let flow = ends_of(&session.wings[0].tuple).and_then(|ends| self.by_ends.get(&ends).copied());
                let holders = all.iter().filter(|(_, held)| held.iter().any(|s| s.id == session.id));
                let holders: Vec<usize> = holders.map(|(place, _)| place + 1).collect();
                let what = format!(
                    "{} is without an owner for {} ms: held by nodes {holders:?}, owner {:?}, idle {} ms; {}",
                    session.id,
                    (self.now - since) / 1_000,
                    session.owner,
                    session.idle_ms,
                    self.views()
                );
                return Err(Finding { what, flow });
            }
        }
        self.counts.orphans += orphans.len() as u64;
        self.oracle.orphans = orphans;
        Ok(())
    }

    /// How long a session may be without an owner: until a death is noticed, and until a resync has brought it to the
    /// new owner if the log did not hold it any more. One may have just begun, and another waits a second then.
    fn ownerless(&self) -> u64 {
        3 * self.plan.detection() + 2_000_000
    }

    /// How much longer than its timeout a session may be held that nobody uses.
    pub(super) fn bound(&self) -> u64 {
        1_000_000 + self.plan.detection() + 1_500_000
    }

    /// Every queue is bounded.
    fn memory(&self, place: usize) -> Result<(), Finding> {
        let Some(node) = self.places[place].node.as_ref() else { return Ok(()) };
        if let Some((doubt, count)) = node.hub.doubts.iter().next() {
            let what = format!("node {} doubts {count} honest records: {doubt}", place + 1);
            return Err(Finding::from(what));
        }
        for (worker, post) in node.workers.iter().zip(&node.posts) {
            let status = post.shard.status(&worker.engine);
            // Who does not agree on who is there may tell what is not its to tell; nobody tells what cannot be.
            let wrong = |(why, _): &&(&str, u64)| !matches!(*why, "birth_of_another" | "not_owner");
            if let Some((why, count)) = status.peers.iter().flat_map(|p| &p.refused).find(wrong) {
                let what = format!("node {} refuses {count} honest records: {why}", place + 1);
                return Err(Finding::from(what));
            }
            let pending = status.peers.iter().map(|p| p.pending_bytes).max().unwrap_or(0);
            let tombs = worker.engine.tombstones();
            let most = self.plan.tombstones.max(tombs.0.min(1));
            let checks = [
                ("bytes not acknowledged", pending, (self.plan.unacked_max as u64 + 2) * BATCH_BYTES),
                ("tombstones", u64::from(tombs.0), u64::from(most)),
                ("others' tombstones", u64::from(tombs.1), u64::from(most)),
                // Batches wait outside; what the node itself says is little.
                ("messages for a worker", post.inbox.len() as u64, 2 * INBOX as u64 + 64),
                ("batches in a ring", post.out.len() as u64, self.plan.ring as u64),
            ];
            for (what, is, most) in checks {
                if is > most {
                    return Err(Finding::from(format!(
                        "node {}: {is} {what}, at most {most} are meant",
                        place + 1
                    )));
                }
            }
        }
        Ok(())
    }
}
