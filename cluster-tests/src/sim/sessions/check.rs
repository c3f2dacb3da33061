//! What must hold at every moment, in calm, and when all nodes have come to agree.

use super::flows::Kind;
use super::frame::Segment;
use super::hosts::ends_of;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{Happened, SessionEvent, SessionFilter, SessionView};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::session::record::SessionId;
use tidegate_dataplane::session::{EndReason, State};

/// What is a little late is not wrong: clocks differ, and count milliseconds.
pub(super) const SLACK: u64 = 100_000;
/// From then on a flow that began in calm is known everywhere.
const SETTLED: u64 = 500_000;
/// By then one that was used again after its timeout is either known everywhere to be used, or gone.
pub(super) const REVIVED: u64 = 3_000_000;

/// A rule that was broken, and by which flow it shows.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) flow: Option<usize>,
}

impl From<String> for Finding {
    fn from(what: String) -> Self {
        Finding { what, flow: None }
    }
}

/// What is known of one session.
#[derive(Default)]
struct Life {
    flow: Option<usize>,
    /// Which boots have ended it, why, and when.
    ends: BTreeMap<Boot, (EndReason, u64)>,
}

/// Remembers what was seen.
#[derive(Default)]
pub(super) struct Oracle {
    sessions: BTreeMap<SessionId, Life>,
    /// When a node last forwarded a packet of a flow.
    pub(super) last: BTreeMap<(usize, usize), u64>,
    /// When a flow's first session of its present life was set up.
    pub(super) begun: BTreeMap<usize, u64>,
    /// Flows whose session every node held when the calm began.
    pub(super) solid: BTreeSet<usize>,
    /// Flows that went on after a pause longer than their timeout, and when.
    pub(super) revived: BTreeMap<usize, u64>,
    /// Flows that had a life before their present one.
    pub(super) again: BTreeSet<usize>,
    /// Sessions that nobody has felt responsible for, and since when.
    pub(super) orphans: BTreeMap<SessionId, u64>,
    /// What each node held when its story was told last.
    pub(super) held: BTreeMap<usize, BTreeMap<SessionId, Tuple>>,
    /// When a session of a flow last ended for good, anywhere.
    pub(super) finals: BTreeMap<usize, u64>,
}

impl Oracle {
    /// A node forwarded a packet of a flow whose sessions have that timeout.
    pub(super) fn forwarded(&mut self, flow: usize, place: usize, timeout: u64, now: u64) {
        // A replica forwards for some time longer than the timeout: whether that revives it is chance.
        if self.last_of(flow).is_none_or(|at| at + timeout < now + SLACK) {
            self.revived.insert(flow, now);
        }
        self.last.insert((flow, place), now);
    }

    /// A flow begins anew.
    pub(super) fn reopened(&mut self, flow: usize) {
        self.again.insert(flow);
        self.last.retain(|(f, _), _| *f != flow);
        self.begun.remove(&flow);
        self.solid.remove(&flow);
    }

    /// A node lost its memory.
    pub(super) fn crashed(&mut self, place: usize, boot: Boot) {
        self.last.retain(|(_, p), _| *p != place);
        for life in self.sessions.values_mut() {
            life.ends.remove(&boot);
        }
    }

    /// Flows whose latest session a boot made: nobody need hold what it alone knew when it died.
    pub(super) fn made_by(&self, boot: Boot) -> Vec<(SessionId, usize)> {
        let is_its = |id: &SessionId| (id.origin, id.boot) == (boot.node, boot.boot);
        let made = self.sessions.iter().filter(|(id, _)| is_its(id));
        made.filter_map(|(id, life)| Some((*id, life.flow?))).collect()
    }

    /// When any node last forwarded a packet of a flow.
    pub(super) fn last_of(&self, flow: usize) -> Option<u64> {
        self.last.range((flow, 0)..(flow + 1, 0)).map(|(_, at)| *at).max()
    }

    /// Whether a boot that still runs has ended a session, not by age alone.
    pub(super) fn has_ended(&self, it: Boot, id: SessionId) -> bool {
        let end = self.sessions.get(&id).and_then(|life| life.ends.get(&it));
        end.is_some_and(|(reason, _)| reason.is_final())
    }

    /// Whether a boot that still runs, and so must have told it, has ended a session for good.
    pub(super) fn final_end(&self, id: SessionId) -> Option<(Boot, EndReason)> {
        let ends = &self.sessions.get(&id)?.ends;
        // What is superseded may be found to live on by others, and come back.
        let is_final = |reason: EndReason| reason.is_final() && reason != EndReason::Superseded;
        ends.iter().find(|(_, (reason, _))| is_final(*reason)).map(|(boot, (reason, _))| (*boot, *reason))
    }
}

impl World {
    /// Something happened to a session on a node.
    pub(super) fn event(&mut self, place: usize, me: Boot, event: &SessionEvent) -> Result<(), Finding> {
        let flow = ends_of(&event.tuple).and_then(|ends| self.by_ends.get(&ends).copied());
        let now = self.now;
        match event.what {
            Happened::Created if (event.id.origin, event.id.boot) == (me.node, me.boot) => {
                self.counts.sessions += 1;
                self.tell(flow, || format!("node {}: {} begins", place + 1, event.id));
                self.oracle.sessions.entry(event.id).or_default().flow = flow;
                let Some(flow) = flow else { return Ok(()) };
                if self.oracle.solid.contains(&flow)
                    && self.flows[flow].lives == 1
                    && self.is_calm()
                    && self.is_alive(flow)
                {
                    let what = format!("node {} made {} anew for a live session", place + 1, event.id);
                    return Err(Finding { what, flow: Some(flow) });
                }
                self.oracle.begun.insert(flow, now);
            }
            Happened::Created => {}
            Happened::Changed { from } => {
                let to = event.state;
                self.tell(flow, || format!("node {}: {} {from:?} to {to:?}", place + 1, event.id));
            }
            Happened::Ended(reason) => {
                self.tell(flow, || format!("node {}: {} ends, {reason:?}", place + 1, event.id));
                self.counts.ends += 1;
                let life = self.oracle.sessions.entry(event.id).or_default();
                life.ends.insert(me, (reason, now));
                if let Some(flow) = flow {
                    return self.ended(place, flow, event, reason);
                }
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        place: usize,
        flow: usize,
        event: &SessionEvent,
        reason: EndReason,
    ) -> Result<(), Finding> {
        let now = self.now;
        if reason.is_final() {
            self.counts.final_ends += 1;
            self.oracle.finals.insert(flow, now);
            self.oracle.last.retain(|(f, _), _| *f != flow);
            self.oracle.solid.remove(&flow);
            return Ok(());
        }
        self.counts.aged += 1;
        if self.flows[flow].kind.is_tcp() && event.state != State::Established {
            self.oracle.last.remove(&(flow, place));
            return Ok(());
        }
        let timeout = self.timeout_of(flow);
        // What it saw itself counts always; what others saw, once they could tell.
        let seen = match self.is_calm() && self.oracle.solid.contains(&flow) {
            true => self.oracle.last_of(flow),
            false => self.oracle.last.get(&(flow, place)).copied(),
        };
        match seen.map(|at| now - at) {
            Some(idle) if idle + SLACK < timeout => {
                let (number, id) = (place + 1, event.id);
                let what =
                    format!("node {number} aged {id} {} ms after a packet of it was forwarded", idle / 1_000);
                Err(Finding { what, flow: Some(flow) })
            }
            _ => Ok(()),
        }
    }

    /// The shortest timeout that a flow's session may have now: a closing one is not kept by its packets.
    pub(super) fn timeout_of(&self, flow: usize) -> u64 {
        // One that opens again may run in the session of its life before, until that is over.
        let revived = self.oracle.revived.get(&flow).is_some_and(|at| at + REVIVED > self.now);
        if revived || !self.oracle.begun.contains_key(&flow) {
            return 0;
        }
        let flow = &self.flows[flow];
        if flow.kind.is_tcp() && !flow.is_connected() { 0 } else { flow.kind.timeout() }
    }

    /// A node dropped a packet of a flow.
    pub(super) fn dropped(
        &mut self,
        flow: usize,
        place: usize,
        reason: DropReason,
        segment: &Segment,
    ) -> Result<(), Finding> {
        self.counts.packets_dropped += 1;
        let denied = self.flows[flow].kind == Kind::Shifty && self.denying[self.revision as usize];
        if !self.is_calm() || !self.is_settled(flow) || !self.is_alive(flow) || denied {
            return Ok(());
        }
        if reason == DropReason::TcpOutOfWindow {
            // What another node forwarded is not known here at once.
            self.counts.out_of_window += 1;
            return Ok(());
        }
        let what = format!("node {} dropped a packet of a live session: {reason:?}, {segment:?}", place + 1);
        Err(Finding { what, flow: Some(flow) })
    }

    pub(super) fn is_alive(&self, flow: usize) -> bool {
        let idle = self.oracle.last_of(flow).map(|at| self.now - at);
        idle.is_some_and(|idle| idle + SLACK < self.timeout_of(flow))
    }

    /// Whether every node must know a flow's session by now.
    pub(super) fn is_settled(&self, flow: usize) -> bool {
        let begun = self.oracle.begun.get(&flow).copied();
        let in_calm =
            begun.is_some_and(|at| self.calm_since.is_some_and(|calm| at > calm) && at + SETTLED < self.now);
        self.oracle.solid.contains(&flow) || in_calm
    }

    /// Whether nothing is broken, and was not for so long that nothing of it may be felt any more.
    pub(super) fn is_calm(&self) -> bool {
        self.calm_since.is_some()
    }

    /// A host was told that its connection is reset, or gave up.
    pub(super) fn failed(&mut self, flow: usize, how: &str) -> Result<(), Finding> {
        self.counts.failures += 1;
        self.tell(Some(flow), || format!("flow {flow}: a host {how}"));
        let began_in_calm =
            matches!((self.oracle.begun.get(&flow), self.calm_since), (Some(at), Some(calm)) if *at > calm);
        let counts = self.oracle.solid.contains(&flow) || began_in_calm;
        if self.is_calm() && counts && !self.flows[flow].is_confused() {
            return Err(Finding { what: format!("in calm, a host {how}"), flow: Some(flow) });
        }
        Ok(())
    }

    /// Sessions of a node, by identity.
    pub(super) fn sessions_of(&self, place: usize) -> Vec<SessionView> {
        let Some(node) = self.places[place].node.as_ref() else { return Vec::new() };
        let (now, mut out) = (node.clock(self.now), Vec::new());
        for worker in &node.workers {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                cursor = worker.engine.list(at, 4_096, &SessionFilter::default(), now, &mut out);
            }
        }
        out.sort_unstable_by_key(|s| s.id);
        out
    }

    /// Sessions that are about to age, or wait for it, on any node: one node is a little earlier than another.
    fn expiring(&self) -> BTreeSet<SessionId> {
        // What is used again behind its timeout is gone on one node and back on another for a while.
        let flow = |s: &SessionView| self.by_ends.get(&ends_of(&s.wings[0].tuple)?).copied();
        let late = |f: usize| self.oracle.revived.get(&f).is_some_and(|at| at + REVIVED > self.now);
        let soon = |s: &SessionView| {
            s.remaining_ms.is_some_and(|ms| ms < SLACK / 1_000) || flow(s).is_some_and(late)
        };
        let places = self.running().into_iter().flat_map(|p| self.sessions_of(p));
        places.filter(soon).map(|s| s.id).collect()
    }

    /// What a session is to be everywhere the same.
    fn picture(&self, place: usize) -> BTreeMap<SessionId, String> {
        let Some(node) = self.places[place].node.as_ref() else { return BTreeMap::new() };
        let shown = |s: &SessionView| {
            let zones = s.wings.map(|w| node.names.zone_name(w.zone).to_owned());
            let bits = s.wings.map(|w| w.facts.bits & 0x3f);
            format!("{:?} zones {zones:?} {:?} facts {bits:?}", s.wings[0].tuple, s.state)
        };
        self.sessions_of(place).iter().map(|s| (s.id, shown(s))).collect()
    }

    /// Whether all nodes hold the same, and nothing that has ended for good.
    pub(super) fn agreed(&mut self) -> Result<(), Finding> {
        let running = self.running();
        let expiring = self.expiring();
        let mut pictures: Vec<_> = running.iter().map(|p| self.picture(*p)).collect();
        pictures.iter_mut().for_each(|p| p.retain(|id, _| !expiring.contains(id)));
        let flow_of = |world: &World, id: &SessionId| world.oracle.sessions.get(id).and_then(|l| l.flow);
        for (place, picture) in running.iter().zip(&pictures) {
            let number = place + 1;
            for id in picture.keys() {
                if let Some((boot, reason)) = self.oracle.final_end(*id) {
                    let what =
                        format!("node {number} holds {id}, which node {} has ended: {reason:?}", boot.node);
                    return Err(Finding { what, flow: flow_of(self, id) });
                }
            }
            for (other, theirs) in running.iter().zip(&pictures) {
                let lacking = picture.iter().find(|(id, shown)| theirs.get(id) != Some(shown));
                if let Some((id, shown)) = lacking {
                    let what = format!(
                        "node {number} holds {id}: {shown}; node {} {}",
                        other + 1,
                        theirs.get(id).map_or("lacks it".to_owned(), |t| format!("has {t}"))
                    );
                    return Err(Finding { what, flow: flow_of(self, id) });
                }
            }
        }
        self.counts.sessions_compared += pictures.first().map_or(0, |p| p.len() as u64);
        Ok(())
    }

    /// The flows whose sessions all nodes hold are solid from here on.
    pub(super) fn solidify(&mut self) {
        let Some(place) = self.running().first().copied() else { return };
        let expiring = self.expiring();
        let held = self.sessions_of(place);
        let flow = |s: &SessionView| self.by_ends.get(&ends_of(&s.wings[0].tuple)?).copied();
        // A closed one that still has a flow's tuple says nothing of the connection that follows it.
        let stands =
            |s: &&SessionView| matches!(s.state, State::OneWay | State::Replied | State::Established);
        self.oracle.solid = held
            .iter()
            .filter(|s| stands(s) && !expiring.contains(&s.id))
            .filter_map(flow)
            .filter(|f| self.flows[*f].kind != Kind::Both || self.flows[*f].is_connected())
            .collect();
    }
}
