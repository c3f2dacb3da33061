//! Operators: what they ask for, and what they are told.

use super::check::newest;
use super::rng::Rng;
use super::world::{Event, Packet, World};
use std::collections::BTreeMap;
use tidegate_sync::cluster::{
    ClusterState, Command, Lease, NodeId, Outcome, Proposal, Refusal, RequestId, Role, StoreId, TokenId,
};
use tidegate_sync::raft::{ProposeError, ReadId};

use super::check::Finding;
use super::node::Node;

/// How long an operator waits, in microseconds of virtual time.
const PATIENCE: u64 = 4_000_000;
/// Between two attempts.
const AGAIN: u64 = 350_000;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// A new policy; whether it is to be confirmed afterwards.
    Apply {
        confirm: bool,
    },
    Confirm(u32),
    Rollback,
    /// A token for that joiner.
    Token(u64),
    /// Its admission.
    Redeem(u64),
    Remove(NodeId),
    Read,
}

/// One request on its way.
pub(super) struct Op {
    pub(super) node: NodeId,
    goal: Goal,
    proposal: Option<Proposal>,
    /// Newest revision that somebody had been told of when it began.
    floor: u32,
    deadline: u64,
}

/// A machine that wants to join.
pub(super) struct Joiner {
    token: TokenId,
    secret_sha256: [u8; 32],
    key_sha256: [u8; 32],
    store: StoreId,
    role: Role,
    pub(super) admitted: Option<NodeId>,
    /// Whether it holds a token and may be a member without knowing.
    pub(super) begun: bool,
}

/// All operators.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) ops: BTreeMap<u64, Op>,
    pub(super) joiners: BTreeMap<u64, Joiner>,
    next: u64,
}

impl Clients {
    /// The request of that proposal, if it waits at that node.
    pub(super) fn waiting(&self, node: NodeId, request: &RequestId) -> Option<u64> {
        let this = |op: &Op| op.node == node && op.proposal.as_ref().is_some_and(|p| p.id == *request);
        self.ops.iter().find(|(_, op)| this(op)).map(|(number, _)| *number)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A proposal of the cluster's or of an operator's.
pub(super) fn proposal(rng: &mut Rng, node: &Node, now: u64, command: Command) -> Proposal {
    let at_unix_ms = wall_ms(node, now);
    Proposal { id: RequestId(rng.bytes()), by: "sim".to_owned(), via: node.id, at_unix_ms, command }
}

/// A node's wall clock.
pub(super) fn wall_ms(node: &Node, now: u64) -> u64 {
    // The same share too fast or too slow as its ticks.
    1_700_000_000_000 + node.ahead_ms + now * 50_000 / node.tick / 1_000
}

impl World {
    /// Some operator wants something.
    pub(super) fn wish(&mut self) -> Result<(), Finding> {
        let Some(node) = self.any_node() else { return Ok(()) };
        let Some(state) = self.nodes.get(&node).and_then(Node::state) else { return Ok(()) };
        let goal = match self.rng.range(0, 100) {
            0..40 => Goal::Apply { confirm: self.rng.per_mille(500) },
            40..46 => Goal::Rollback,
            46..92 => Goal::Read,
            92..96 if state.members.len() < self.plan.most => return self.join(),
            96..98 if state.members.len() > self.plan.least => {
                let members: Vec<_> = state.members.keys().copied().collect();
                Goal::Remove(*self.rng.pick(&members).unwrap_or(&node))
            }
            _ => Goal::Read,
        };
        self.ask(node, goal)
    }

    /// A machine gets a token and joins.
    pub(super) fn join(&mut self) -> Result<(), Finding> {
        let Some(node) = self.any_node() else { return Ok(()) };
        let number = self.clients.number();
        let role = if self.rng.per_mille(300) { Role::Witness } else { Role::Node };
        let joiner = Joiner {
            token: TokenId(self.rng.bytes()),
            secret_sha256: self.rng.bytes(),
            key_sha256: self.rng.bytes(),
            store: StoreId(self.rng.bytes()),
            role,
            admitted: None,
            begun: false,
        };
        self.clients.joiners.insert(number, joiner);
        self.ask(node, Goal::Token(number))
    }

    fn command(&mut self, goal: Goal, node: NodeId) -> Option<Command> {
        let at = self.nodes.get(&node)?;
        let (state, now_ms) = (at.state()?, wall_ms(at, self.now));
        let base = state.policy.in_force().map_or(0, |r| r.number);
        let lease = |rng: &mut Rng| {
            let within_ms = rng.range(500, 3_000);
            Lease { within_ms, deadline_unix_ms: now_ms + within_ms }
        };
        Some(match goal {
            Goal::Apply { confirm } => {
                let text = format!("policy {:016x}", self.rng.next()).into();
                let lease = (confirm || self.rng.per_mille(100)).then(|| lease(&mut self.rng));
                Command::ApplyPolicy { base, text, lease }
            }
            Goal::Confirm(revision) => Command::ConfirmPolicy { revision },
            Goal::Rollback => {
                let to = self.rng.range(1, u64::from(newest(state)) + 1) as u32;
                Command::RollbackPolicy { base, to, lease: None }
            }
            Goal::Token(joiner) => {
                let j = self.clients.joiners.get(&joiner)?;
                let (token, secret_sha256, role) = (j.token, j.secret_sha256, j.role);
                Command::CreateToken { token, secret_sha256, role, expires_unix_ms: u64::MAX }
            }
            Goal::Redeem(joiner) => {
                let j = self.clients.joiners.get(&joiner)?;
                Command::Redeem {
                    token: j.token,
                    secret_sha256: j.secret_sha256,
                    key_sha256: j.key_sha256,
                    node: state.next_node,
                    name: format!("j{joiner}"),
                    addresses: vec![],
                    store: j.store,
                }
            }
            Goal::Remove(node) => Command::Remove { node },
            Goal::Read => return None,
        })
    }

    fn ask(&mut self, node: NodeId, goal: Goal) -> Result<(), Finding> {
        let command = self.command(goal, node);
        let Some(at) = self.nodes.get(&node) else { return Ok(()) };
        let proposal = command.map(|command| proposal(&mut self.rng, at, self.now, command));
        if proposal.is_none() && goal != Goal::Read {
            return self.later(goal);
        }
        let number = self.clients.number();
        let (floor, deadline) = (self.check.floor(), self.now + PATIENCE);
        self.clients.ops.insert(number, Op { node, goal, proposal, floor, deadline });
        self.attempt(number)
    }

    /// Asks, for the first time or again.
    pub(super) fn attempt(&mut self, number: u64) -> Result<(), Finding> {
        let now = self.now;
        let Some(op) = self.clients.ops.get(&number) else { return Ok(()) };
        if now >= op.deadline {
            let goal = op.goal;
            self.clients.ops.remove(&number);
            self.counts.unknown += 1;
            return self.gave_up(goal);
        }
        let pause = AGAIN + self.rng.range(0, AGAIN);
        self.at(now + pause, Event::Again(number));
        let others = self.running();
        let Some(op) = self.clients.ops.get_mut(&number) else { return Ok(()) };
        if !others.contains(&op.node) {
            // Its node is down: the same request through another one.
            op.node = *self.rng.pick(&others).unwrap_or(&op.node);
        }
        let (node, proposal) = (op.node, op.proposal.clone());
        let Some(at) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(replica) = at.replica.as_mut() else { return Ok(()) };
        match proposal {
            None => {
                let read = self.rng.next();
                if replica.read_index(ReadId(read)).is_ok() {
                    at.reads.insert(read, number);
                }
            }
            Some(proposal) => {
                if let Err(ProposeError::NotLeader { leader: Some(leader) }) = replica.propose(&proposal)
                    && leader != node
                {
                    let packet = Packet::Propose { op: number, proposal };
                    self.send(node, leader, packet);
                }
            }
        }
        self.drive(node)
    }

    /// A read was answered at its node.
    pub(super) fn answer_read(&mut self, number: u64, node: NodeId) -> Result<(), Finding> {
        let Some(op) = self.clients.ops.remove(&number) else { return Ok(()) };
        let Some(state) = self.nodes.get(&node).and_then(Node::state) else { return Ok(()) };
        self.counts.reads += 1;
        self.check.read(op.floor, state)
    }

    /// A request was answered.
    pub(super) fn answer(&mut self, number: u64, outcome: &Outcome) -> Result<(), Finding> {
        let Some(op) = self.clients.ops.remove(&number) else { return Ok(()) };
        let Some(proposal) = op.proposal else { return Ok(()) };
        match (op.goal, outcome) {
            (_, Outcome::Refused(refusal)) => {
                self.counts.refusals += 1;
                if let (Goal::Redeem(joiner), Refusal::TokenUsed { .. }) = (op.goal, refusal) {
                    // It was admitted without knowing, and removed since.
                    self.clients.joiners.remove(&joiner);
                    return Ok(());
                }
                return self.gave_up(op.goal);
            }
            (_, Outcome::Revision { unchanged: true, .. }) => {}
            (Goal::Apply { confirm }, Outcome::Revision { number, .. }) => {
                self.counts.policies += 1;
                self.check.revision(proposal.id, op.floor, *number)?;
                if confirm && self.rng.per_mille(700) {
                    return self.ask(op.node, Goal::Confirm(*number));
                }
            }
            (Goal::Rollback, Outcome::Revision { number, .. }) => {
                self.counts.rollbacks += 1;
                self.check.revision(proposal.id, op.floor, *number)?;
            }
            (Goal::Confirm(number), _) => {
                self.counts.confirmations += 1;
                self.check.confirmed(number);
            }
            (Goal::Token(joiner), _) => {
                if let Some(joiner) = self.clients.joiners.get_mut(&joiner) {
                    joiner.begun = true;
                }
                return self.ask(op.node, Goal::Redeem(joiner));
            }
            (Goal::Redeem(joiner), Outcome::Admitted { node }) => return self.admit(joiner, *node),
            (Goal::Remove(node), _) => {
                self.counts.removals += 1;
                self.check.removed(node);
                let when = self.now + self.rng.range(0, 2_000_000);
                self.at(when, Event::Retire(node));
            }
            (goal, outcome) => return Err(format!("{goal:?} was answered with {outcome:?}")),
        }
        Ok(())
    }

    fn admit(&mut self, number: u64, node: NodeId) -> Result<(), Finding> {
        let Some(joiner) = self.clients.joiners.get_mut(&number) else { return Ok(()) };
        self.check.admitted(node, joiner.key_sha256)?;
        if joiner.admitted.replace(node).is_some() {
            return Ok(());
        }
        self.counts.joins += 1;
        let new = Node::new(node, joiner.store, None, self.plan.compact_after, &mut self.rng)?;
        self.insert(new);
        Ok(())
    }

    /// A joiner does not give up: it may be a member without knowing, and everybody would wait for it.
    pub(super) fn gave_up(&mut self, goal: Goal) -> Result<(), Finding> {
        let Goal::Redeem(joiner) = goal else { return Ok(()) };
        match self.any_node() {
            Some(node) => self.ask(node, Goal::Redeem(joiner)),
            None => self.later(goal),
        }
    }

    /// Nobody can be asked now.
    fn later(&mut self, goal: Goal) -> Result<(), Finding> {
        if let Goal::Redeem(joiner) = goal {
            self.at(self.now + AGAIN, Event::Rejoin(joiner));
        }
        Ok(())
    }

    /// Whether a joiner waits for its answer.
    pub(super) fn joining(&self) -> bool {
        self.clients.joiners.values().any(|j| j.begun && j.admitted.is_none())
    }

    /// A running node that holds a state and does not know of its removal.
    pub(super) fn any_node(&mut self) -> Option<NodeId> {
        let member = |id: &NodeId, state: &ClusterState| state.members.contains_key(id);
        let able = self.nodes.values().filter(|n| n.state().is_some_and(|s| member(&n.id, s)));
        let able: Vec<_> = able.map(|n| n.id).collect();
        self.rng.pick(&able).copied()
    }

    /// An operator asks for one more policy; to show at the end that the cluster agrees on things.
    pub(super) fn last_wish(&mut self) -> Result<(), Finding> {
        match self.any_node() {
            Some(node) => self.ask(node, Goal::Apply { confirm: false }),
            None => Ok(()),
        }
    }
}
