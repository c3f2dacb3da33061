//! How a log entry changes the state.

use super::command::{Command, Proposal};
use super::ids::NodeId;
use super::outcome::{Outcome, Refusal};
use super::policy::Asked;
use super::state::{Ageing, AuditEntry, ClusterState, Member, Role, Token};
use std::collections::BTreeSet;

impl ClusterState {
    /// Applies the entry at `index`. A proposal that was applied before is answered as it was then.
    ///
    /// For one that comes with a Raft membership change, the change is to be made exactly when the answer
    /// is no refusal and [`ClusterState::answer`] did not know it before.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) -> Outcome {
        self.applied = index;
        if let Some(known) = self.answered.get(&proposal.id) {
            return known.clone();
        }
        let outcome = self.change(proposal);
        self.note(AuditEntry {
            index,
            at_unix_ms: proposal.at_unix_ms,
            by: proposal.by.clone(),
            via: proposal.via,
            what: self.describe(&proposal.command),
            outcome: match &outcome {
                Outcome::Refused(refusal) => format!("refused: {refusal}"),
                Outcome::Revision { number, unchanged: true } => format!("unchanged: revision {number}"),
                Outcome::Revision { number, unchanged: false } => format!("revision {number}"),
                Outcome::Admitted { node } => format!("node {node}"),
                Outcome::Done => "done".to_owned(),
            },
        });
        self.remember(proposal.id, outcome.clone());
        outcome
    }

    /// Takes an entry that is none of ours: an empty one of a new leader, the end of a joint change.
    pub fn pass(&mut self, index: u64) {
        self.applied = index;
    }

    fn change(&mut self, proposal: &Proposal) -> Outcome {
        let asked = Asked { by: &proposal.by, via: proposal.via, at_unix_ms: proposal.at_unix_ms };
        let result = match &proposal.command {
            Command::ApplyPolicy { base, text, lease } => {
                return self.policy.apply(*base, text, *lease, &asked);
            }
            Command::ConfirmPolicy { revision } => return self.policy.confirm(*revision),
            Command::RollbackPolicy { base, to, lease } => {
                return self.policy.rollback(*base, *to, *lease, &asked);
            }
            Command::ExpirePolicy { revision } => return self.policy.expire(*revision),
            Command::Redeem { .. } => return self.redeem(proposal).unwrap_or_else(Outcome::Refused),
            Command::CreateToken { token, secret_sha256, role, expires_unix_ms } => {
                self.forget_tokens(proposal.at_unix_ms);
                let new = Token {
                    secret_sha256: *secret_sha256,
                    role: *role,
                    expires_unix_ms: *expires_unix_ms,
                    used: None,
                };
                match self.tokens.contains_key(token) {
                    true => Err(Refusal::TokenExists(*token)),
                    false => {
                        self.tokens.insert(*token, new);
                        Ok(())
                    }
                }
            }
            Command::RevokeToken { token } => {
                self.tokens.remove(token).map(drop).ok_or(Refusal::UnknownToken)
            }
            Command::Remove { node } => self.remove(*node),
            Command::SetVoters { voters } => self.set_voters(voters),
            Command::Advertise { node, addresses } => {
                self.member_mut(*node).map(|m| m.addresses.clone_from(addresses))
            }
            Command::Certify { node, key_sha256, not_after_unix_s } => self.member_mut(*node).map(|m| {
                m.key_sha256 = *key_sha256;
                m.not_after_unix_s = *not_after_unix_s;
            }),
            Command::SetAgeing { epoch, on, reason } => {
                let now = self.ageing.epoch;
                match *epoch == now + 1 {
                    true => {
                        self.ageing = Ageing { epoch: *epoch, on: *on, reason: reason.clone() };
                        Ok(())
                    }
                    false => Err(Refusal::EpochMoved { given: *epoch, now }),
                }
            }
        };
        result.map_or_else(Outcome::Refused, |()| Outcome::Done)
    }

    fn redeem(&mut self, proposal: &Proposal) -> Result<Outcome, Refusal> {
        let Command::Redeem { token: id, secret_sha256, key_sha256, node, name, addresses, store } =
            &proposal.command
        else {
            return Err(Refusal::UnknownToken);
        };
        let token = self.tokens.get_mut(id).ok_or(Refusal::UnknownToken)?;
        if token.secret_sha256 != *secret_sha256 {
            return Err(Refusal::WrongSecret);
        }
        if let Some((by, key)) = token.used {
            // The same request again, because its answer was lost.
            if key == *key_sha256 && self.members.contains_key(&by) {
                return Ok(Outcome::Admitted { node: by });
            }
            let name = self.members.get(&by).map(|m| &m.name).or_else(|| self.removed.get(&by));
            return Err(Refusal::TokenUsed { by, name: name.cloned().unwrap_or_default() });
        }
        if proposal.at_unix_ms > token.expires_unix_ms {
            return Err(Refusal::TokenExpired);
        }
        if let Some((by, _)) = self.members.iter().find(|(_, m)| m.name == *name) {
            return Err(Refusal::NameTaken { name: name.clone(), by: *by });
        }
        if *node != self.next_node {
            return Err(Refusal::IdMoved { next: self.next_node });
        }
        token.used = Some((*node, *key_sha256));
        let member = Member {
            name: name.clone(),
            role: token.role,
            addresses: addresses.clone(),
            store: *store,
            key_sha256: *key_sha256,
            not_after_unix_s: 0,
            joined_unix_ms: proposal.at_unix_ms,
            voter: false,
        };
        self.members.insert(*node, member);
        self.next_node = NodeId(node.0 + 1);
        Ok(Outcome::Admitted { node: *node })
    }

    fn remove(&mut self, node: NodeId) -> Result<(), Refusal> {
        let member = self.member_mut(node)?;
        let (voter, role) = (member.voter, member.role);
        if voter && self.voters().len() == 1 {
            return Err(Refusal::LastVoter(node));
        }
        let full = |(id, m): (&NodeId, &Member)| m.role == Role::Node && *id != node;
        if role == Role::Node && !self.members.iter().any(full) {
            return Err(Refusal::LastNode(node));
        }
        if let Some(member) = self.members.remove(&node) {
            self.removed.insert(node, member.name);
        }
        Ok(())
    }

    fn set_voters(&mut self, voters: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        if voters.is_empty() || voters.iter().any(|id| !self.members.contains_key(id)) {
            return Err(Refusal::BadVoters);
        }
        for (id, member) in &mut self.members {
            member.voter = voters.contains(id);
        }
        Ok(())
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, Refusal> {
        self.members.get_mut(&node).ok_or_else(|| Refusal::UnknownNode(node.to_string()))
    }

    /// Drops what was used or has expired more than a day ago, so that a used token still says by whom.
    fn forget_tokens(&mut self, now_unix_ms: u64) {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        self.tokens.retain(|_, t| t.expires_unix_ms.saturating_add(DAY_MS) > now_unix_ms);
    }

    fn describe(&self, command: &Command) -> String {
        let called = |id: &NodeId| {
            let name = self.members.get(id).map(|m| &m.name).or_else(|| self.removed.get(id));
            name.map_or_else(|| format!("node {id}"), |name| format!("node {id} ({name})"))
        };
        match command {
            Command::CreateToken { token, role, .. } => {
                format!("create join token {token} for a {}", role.name())
            }
            Command::RevokeToken { token } => format!("revoke join token {token}"),
            Command::Redeem { token, name, .. } => format!("admit {name} by join token {token}"),
            Command::Remove { node } => format!("remove {}", called(node)),
            Command::SetVoters { voters } => {
                let all: Vec<_> = voters.iter().map(NodeId::to_string).collect();
                format!("let nodes {} vote", all.join(", "))
            }
            Command::Advertise { node, .. } => format!("new addresses of {}", called(node)),
            Command::Certify { node, .. } => format!("new certificate of {}", called(node)),
            Command::ApplyPolicy { lease: None, .. } => "apply policy".to_owned(),
            Command::ApplyPolicy { lease: Some(lease), .. } => {
                format!("apply policy, to be confirmed within {} s", lease.within_ms / 1_000)
            }
            Command::ConfirmPolicy { revision } => format!("confirm policy revision {revision}"),
            Command::RollbackPolicy { to, .. } => format!("roll the policy back to revision {to}"),
            Command::ExpirePolicy { revision } => {
                format!("policy revision {revision} was not confirmed in time")
            }
            Command::SetAgeing { epoch, on, reason } => {
                format!("ageing epoch {epoch} {}: {reason}", if *on { "on" } else { "off" })
            }
        }
    }
}
