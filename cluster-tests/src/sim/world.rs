//! Virtual time: events in their order, and what each node makes of them.

use super::check::{Checker, Finding};
use super::clients::{Clients, proposal, wall_ms};
use super::counts::Counts;
use super::net::{Net, Weather};
use super::node::Node;
use super::rng::{Rng, mix};
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use std::collections::BTreeMap;
use tidegate_sync::cluster::{ClusterId, ClusterState, Founding, NodeId, Outcome, Proposal, StoreId};
use tidegate_sync::raft::{Output, RaftRole, StepError};

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's clock, in one of its runs.
    Tick(NodeId, u64),
    Deliver(NodeId, NodeId, Box<Packet>),
    /// An operator wants something.
    Wish,
    /// A request is sent again.
    Again(u64),
    /// A joiner asks again.
    Rejoin(u64),
    /// Something breaks.
    Fault,
    /// The network is whole and fair again, unless something else broke since.
    Heal(u64),
    /// A node comes back.
    Start(NodeId),
    /// A removed node is switched off.
    Retire(NodeId),
}

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Raft(Vec<u8>),
    Propose { op: u64, proposal: Proposal },
    Answer { op: u64, outcome: Outcome },
}

/// What a seed has in store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Members at the start.
    pub(super) members: usize,
    /// Members that are not removed, and that none joins beyond.
    pub(super) least: usize,
    pub(super) most: usize,
    /// End of the troubled time, in microseconds.
    pub(super) until: u64,
    /// Longest pauses between faults and between wishes, in microseconds.
    pub(super) fault_every: u64,
    pub(super) wish_every: u64,
    pub(super) weather: Weather,
    pub(super) compact_after: u64,
    /// Voters of a thousand that lose their power when they have voted.
    pub(super) voters_die: u64,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let members = [3, 3, 4, 5][rng.range(0, 4) as usize];
        Plan {
            members,
            least: rng.range(2, members as u64 + 1) as usize,
            most: members + rng.range(0, 2) as usize,
            until: rng.range(12, 25) * 1_000_000,
            fault_every: rng.range(300, 2_000) * 1_000,
            wish_every: rng.range(40, 200) * 1_000,
            weather: Weather {
                loss: rng.range(0, 60),
                twice: rng.range(0, 60),
                delay: rng.range(1_000, 60_000),
                late: rng.range(0, 60),
            },
            compact_after: rng.range(6, 60),
            voters_die: rng.range(100, 700),
        }
    }
}

/// Everything.
pub(super) struct World {
    pub(super) rng: Rng,
    /// Microseconds since the beginning.
    pub(super) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) net: Net,
    pub(super) check: Checker,
    pub(super) clients: Clients,
    pub(super) counts: Counts,
    pub(super) plan: Plan,
    pub(super) troubled: bool,
    /// Counts what befell the network.
    pub(super) troubles: u64,
    /// Nothing else breaks before.
    pub(super) duel_until: u64,
    /// Follows from everything that happened: two runs of a seed have the same.
    pub(super) trace: u64,
}

impl World {
    /// A founder, alone.
    pub(super) fn new(seed: u64) -> Result<Self, Finding> {
        let mut rng = Rng::new(mix(seed));
        let plan = Plan::new(&mut rng);
        let store = StoreId(rng.bytes());
        let state = ClusterState::founded(Founding {
            cluster: ClusterId(rng.bytes()),
            name: "sim".to_owned(),
            node: "founder".to_owned(),
            addresses: vec![],
            store,
            key_sha256: rng.bytes(),
            not_after_unix_s: 0,
            by: "sim".to_owned(),
            at_unix_ms: 1_700_000_000_000,
            policy: None,
        });
        let founder = Node::new(NodeId(1), store, Some(&state), plan.compact_after, &mut rng)?;
        let mut world = World {
            rng,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes: BTreeMap::new(),
            net: Net::new(Weather::FAIR),
            check: Checker::default(),
            clients: Clients::default(),
            counts: Counts::default(),
            plan,
            troubled: false,
            troubles: 0,
            duel_until: 0,
            trace: 0,
        };
        world.insert(founder);
        Ok(world)
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((when, self.sequence), event);
    }

    pub(super) fn insert(&mut self, node: Node) {
        let (id, run) = (node.id, node.run);
        self.nodes.insert(id, node);
        self.at(self.now + 1, Event::Tick(id, run));
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|n| n.replica.is_some()).map(|n| n.id).collect()
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |n: &&Node| n.replica.as_ref().is_some_and(|r| r.role() == RaftRole::Leader);
        self.nodes.values().find(leads).map(|n| n.id)
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        for delay in self.net.send(from, to, &mut self.rng, &mut self.counts) {
            self.at(self.now + delay, Event::Deliver(from, to, Box::new(packet.clone())));
        }
    }

    /// Lets everything happen up to that time.
    pub(super) fn run_until(&mut self, end: u64) -> Result<(), Finding> {
        while let Some((&(when, sequence), _)) = self.queue.first_key_value() {
            if when > end {
                break;
            }
            let Some(event) = self.queue.remove(&(when, sequence)) else { break };
            self.now = when;
            self.trace = mix(self.trace ^ when.rotate_left(20) ^ sequence);
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Finding> {
        match event {
            Event::Tick(id, run) => self.tick(id, run),
            Event::Deliver(from, to, packet) => self.deliver(from, to, *packet),
            Event::Wish if self.troubled => {
                let pause = self.rng.range(1_000, self.plan.wish_every);
                self.at(self.now + pause, Event::Wish);
                self.wish()
            }
            Event::Fault if self.troubled => {
                let pause = self.rng.range(1_000, self.plan.fault_every);
                self.at(self.now.max(self.duel_until) + pause, Event::Fault);
                if self.now < self.duel_until { Ok(()) } else { self.fault() }
            }
            Event::Wish | Event::Fault => Ok(()),
            Event::Again(op) => self.attempt(op),
            Event::Rejoin(joiner) => self.gave_up(super::clients::Goal::Redeem(joiner)),
            Event::Heal(trouble) => {
                self.heal(trouble);
                Ok(())
            }
            Event::Start(id) => self.start(id),
            Event::Retire(id) => {
                self.nodes.remove(&id);
                Ok(())
            }
        }
    }

    fn tick(&mut self, id: NodeId, run: u64) -> Result<(), Finding> {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.run == run) else { return Ok(()) };
        let wall = wall_ms(node, self.now);
        let (when, event) = (self.now + node.tick, Event::Tick(id, run));
        let Some(replica) = node.replica.as_mut() else { return Ok(()) };
        replica.tick();
        if let Some(command) = replica.tidy(wall) {
            let expiry = matches!(command, tidegate_sync::cluster::Command::ExpirePolicy { .. });
            self.counts.leases_expired += u64::from(expiry);
            let proposal = proposal(&mut self.rng, node, self.now, command);
            // Busy: it will be said again.
            let _ = node.replica.as_mut().map(|r| r.propose(&proposal));
        }
        self.at(when, event);
        self.drive(id)
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, packet: Packet) -> Result<(), Finding> {
        let Some(node) = self.nodes.get_mut(&to) else { return Ok(()) };
        let Some(replica) = node.replica.as_mut() else { return Ok(()) };
        match packet {
            Packet::Raft(message) => {
                node.offered_snapshot = is_snapshot(&message);
                match replica.step(&message, from) {
                    Ok(()) | Err(StepError::Removed(_) | StepError::Busy) => {}
                    Err(e @ (StepError::Lost { .. } | StepError::Snapshot(_))) => {
                        return Err(format!("node {to} on a message of node {from}: {e}"));
                    }
                    Err(_) => self.counts.messages_refused += 1,
                }
                self.drive(to)
            }
            Packet::Propose { op, proposal } => {
                // The answer comes when it is applied; refused ones are asked again.
                if replica.propose(&proposal).is_ok() {
                    node.askers.insert(proposal.id, (from, op));
                }
                self.drive(to)
            }
            Packet::Answer { op, outcome } => match self.clients.ops.get(&op) {
                Some(asked) if asked.node == to => self.answer(op, &outcome),
                _ => Ok(()),
            },
        }
    }

    /// Lets a node do what is to do, and sees to what comes of it.
    pub(super) fn drive(&mut self, id: NodeId) -> Result<(), Finding> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(replica) = node.replica.as_mut() else { return Ok(()) };
        let mut early = Vec::new();
        let out = replica.drive_early(&mut |to, message| early.push((to, message)));
        for (to, message) in early {
            self.send(id, to, Packet::Raft(message));
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        match out {
            Err(_) if node.power_failed() => {
                self.counts.crashes_while_writing += 1;
                self.crash(id);
                Ok(())
            }
            Err(e) => Err(format!("node {id}: {e}")),
            Ok(out) if node.doomed && !out.messages.is_empty() => {
                self.counts.crashes_before_sending += 1;
                self.crash(id);
                Ok(())
            }
            Ok(out) => self.driven(id, out),
        }
    }

    fn driven(&mut self, id: NodeId, out: Output) -> Result<(), Finding> {
        let mut voted = false;
        for (to, message) in out.messages {
            voted |= message.len() < 64 && gives_vote(&message);
            self.send(id, to, Packet::Raft(message));
        }
        if out.role_changed || out.state_changed {
            self.inspect(id)?;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let mut answers = Vec::new();
        for (request, outcome) in &out.answers {
            if let Some((asker, op)) = node.askers.remove(request) {
                answers.push((asker, Packet::Answer { op, outcome: outcome.clone() }));
            }
        }
        let reads: Vec<_> = out.reads.iter().filter_map(|(read, _)| node.reads.remove(&read.0)).collect();
        for (asker, packet) in answers {
            self.send(id, asker, packet);
        }
        for read in reads {
            self.answer_read(read, id)?;
        }
        for (request, outcome) in out.answers {
            if let Some(op) = self.clients.waiting(id, &request) {
                self.answer(op, &outcome)?;
            }
        }
        if voted && self.troubled && self.rng.per_mille(self.plan.voters_die) {
            self.counts.crashes_of_voters += 1;
            self.crash_for(id, 1_000, 30_000);
        }
        Ok(())
    }

    /// The checks of one node, and what it went through.
    fn inspect(&mut self, id: NodeId) -> Result<(), Finding> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(replica) = &node.replica else { return Ok(()) };
        let status = replica.status();
        self.trace = mix(self.trace ^ status.applied ^ (status.term << 32));
        if status.snapshot > node.snapshot_seen {
            let came = std::mem::take(&mut node.offered_snapshot);
            match came {
                true => self.counts.snapshots_installed += 1,
                false => self.counts.compactions += 1,
            }
        }
        self.counts.joint_changes +=
            u64::from(status.joint && !node.joint_seen && status.role == RaftRole::Leader);
        (node.snapshot_seen, node.joint_seen) = (status.snapshot, status.joint);
        let leads = status.role == RaftRole::Leader;
        self.check.node(&status, replica.state().map(|s| &**s), leads, &mut self.counts)
    }
}

/// Whether it is a snapshot. The first field is the kind; the rest is long.
fn is_snapshot(message: &[u8]) -> bool {
    message.starts_with(&[8, MessageType::MsgSnapshot as u8])
}

/// Whether it is a vote for its receiver.
fn gives_vote(message: &[u8]) -> bool {
    Message::decode(message)
        .is_ok_and(|m| m.msg_type == MessageType::MsgRequestVoteResponse as i32 && !m.reject)
}
