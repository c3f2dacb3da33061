//! What breaks.

use super::check::Finding;
use super::net::Weather;
use super::world::{Event, World};
use tidegate_sync::cluster::NodeId;

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self) -> Result<(), Finding> {
        let running = self.running();
        let Some(node) = self.rng.pick(&running).copied() else { return Ok(()) };
        match self.rng.range(0, 100) {
            0..16 => self.crash(node),
            16..30 => {
                let writes = self.rng.range(0, 12);
                if let Some(node) = self.nodes.get(&node) {
                    node.fail_while_writing(writes);
                }
            }
            30..42 => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.doomed = true;
                }
            }
            42..47 => self.blackout(&running, 1_000),
            47..53 => self.blackout(&running, 500),
            53..60 => self.hand_over(node)?,
            60..68 => {
                self.net.split(&running, &mut self.rng);
                self.counts.partitions_full += 1;
                self.trouble();
            }
            68..76 => {
                let deaf = self.rng.per_mille(500);
                self.net.one_way(node, &running, deaf);
                self.counts.partitions_one_way += 1;
                self.trouble();
            }
            76..84 => {
                self.net.bridge(node, &running);
                self.counts.partitions_bridge += 1;
                match self.rng.per_mille(600) {
                    true => self.duel(node),
                    false => self.trouble(),
                }
            }
            84..93 => {
                if let Some(leader) = self.leader() {
                    self.net.isolate(leader, &running);
                    self.counts.leaders_isolated += 1;
                    self.trouble();
                }
            }
            _ => {
                let (loss, late) = (self.rng.range(0, 300), self.rng.range(0, 300));
                self.net.weather = Weather { loss, late, ..self.plan.weather };
                self.trouble();
            }
        }
        Ok(())
    }

    /// The one between two sides is down for a while. When it is back, both look for a majority, over
    /// links so slow that they do so at the same time, and its vote decides.
    fn duel(&mut self, between: NodeId) {
        self.counts.duels += 1;
        self.crash_for(between, 400_000, 1_000_000);
        self.net.weather.delay = self.rng.range(60_000, 250_000);
        self.troubles += 1;
        self.duel_until = self.now + self.rng.range(2_500_000, 5_000_000);
        self.at(self.duel_until, Event::Heal(self.troubles));
    }

    /// The network's trouble ends after a while.
    fn trouble(&mut self) {
        self.troubles += 1;
        let when = self.now + self.rng.range(200_000, 4_000_000);
        self.at(when, Event::Heal(self.troubles));
    }

    pub(super) fn heal(&mut self, trouble: u64) {
        if trouble == self.troubles {
            self.net.heal();
            self.net.weather = self.plan.weather;
        }
    }

    /// Many lose their power at once.
    fn blackout(&mut self, nodes: &[NodeId], per_mille: u64) {
        self.counts.blackouts += u64::from(per_mille == 1_000);
        for node in nodes {
            if self.rng.per_mille(per_mille) {
                self.crash(*node);
            }
        }
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        self.crash_for(id, 1_000, 1_500_000);
    }

    /// The power is back after that many microseconds.
    pub(super) fn crash_for(&mut self, id: NodeId, least: u64, most: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.crash(&mut self.rng, &mut self.counts);
            let when = self.now + self.rng.range(least, most);
            self.at(when, Event::Start(id));
        }
    }

    pub(super) fn start(&mut self, id: NodeId) -> Result<(), Finding> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.replica.is_some() {
            return Ok(());
        }
        node.start()?;
        let run = node.run;
        self.at(now + 1, Event::Tick(id, run));
        Ok(())
    }

    /// The leader hands over the lead, as one does that is stopped orderly.
    fn hand_over(&mut self, to: NodeId) -> Result<(), Finding> {
        let Some(leader) = self.leader().filter(|id| *id != to) else { return Ok(()) };
        if let Some(replica) = self.nodes.get_mut(&leader).and_then(|n| n.replica.as_mut()) {
            replica.transfer_leader(to);
            self.counts.leader_transfers += 1;
        }
        self.drive(leader)
    }
}
