//! What this node answers to its peers' questions.

use super::Standing;
use super::propose;
use super::renew;
use super::shared::Shared;
use crate::quic::hello::printable;
use crate::quic::rpc::{Answer, Request};
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{Command, Member, NodeId, Proposal, Role};
use tokio::time::timeout;

/// Longest that a peer may let this node wait for its engines.
const WAIT: Duration = Duration::from_secs(60);

/// Answers `from`'s question.
pub(crate) async fn answer(shared: &Arc<Shared>, from: NodeId, request: Request) -> Answer {
    let member = shared.state.borrow().members.get(&from).cloned();
    let Some(member) = member else {
        return Answer::Invalid(format!("node {from} is no member"));
    };
    match request {
        Request::Propose(proposal) => match may_propose(from, &member, &proposal) {
            Ok(()) if shared.standing() == Standing::Member => propose::for_peer(shared, &proposal).await,
            Ok(()) => Answer::NotLeader(None),
            Err(why) => Answer::Invalid(why),
        },
        Request::WaitEnforced { revision, sha256, timeout_ms } => {
            let within = Duration::from_millis(timeout_ms).min(WAIT);
            Answer::Enforced(wait_enforced(shared, revision, sha256, within).await)
        }
        Request::Report => Answer::Report(shared.report()),
        Request::Rotate { by, timeout_ms } => {
            let by = format!("{} (asked at node {from})", printable(&by, 200));
            let within = Duration::from_millis(timeout_ms).min(WAIT);
            Answer::Rotated(renew::renew(shared, &by, within).await.map_err(|e| e.to_string()))
        }
        Request::Sign { csr } => Answer::Signed(renew::sign(shared, from, &member, &csr)),
    }
}

/// Whether a peer may ask for that. Its name stands in the history, so it can only speak for itself; what
/// the cluster itself proposes comes from its leader's own thread.
fn may_propose(from: NodeId, member: &Member, proposal: &Proposal) -> Result<(), String> {
    let full = member.role == Role::Node;
    if proposal.via != from {
        return Err(format!("node {from} proposes in the name of node {}", proposal.via));
    }
    if proposal.by.len() > 2 * propose::BY_LONGEST || printable(&proposal.by, usize::MAX) != proposal.by {
        return Err("who asks is not named in printable characters".to_owned());
    }
    match &proposal.command {
        Command::SetVoters { .. } | Command::ExpirePolicy { .. } => {
            Err("only the cluster itself proposes that".to_owned())
        }
        Command::Redeem { .. } if !full => Err("a witness admits nobody: it has no CA key".to_owned()),
        Command::Certify { node, .. } | Command::Advertise { node, .. } if *node != from && !full => {
            Err(format!("node {from} speaks for node {node}"))
        }
        _ => Ok(()),
    }
}

/// Waits until this node's engines enforce a revision or a newer one.
pub(crate) async fn wait_enforced(
    shared: &Shared,
    revision: u32,
    sha256: [u8; 32],
    within: Duration,
) -> Result<(), String> {
    let mut enforced = shared.enforced.subscribe();
    let there = |now: &Option<(u32, [u8; 32])>| now.is_some_and(|(number, _)| number >= revision);
    let now = match timeout(within, enforced.wait_for(there)).await {
        Ok(Ok(now)) => *now,
        _ => *shared.enforced.borrow(),
    };
    match now {
        Some((number, digest)) if number == revision && digest != sha256 => {
            Err(format!("enforces another text as revision {revision}"))
        }
        Some((number, _)) if number >= revision => Ok(()),
        Some((number, _)) => Err(format!("still enforces revision {number}")),
        None => Err("enforces no policy of the cluster yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sync::cluster::{RequestId, StoreId, TokenId};

    fn member(role: Role) -> Member {
        Member {
            name: "b".to_owned(),
            role,
            addresses: vec![],
            store: StoreId([0; 16]),
            key_sha256: [0; 32],
            not_after_unix_s: 0,
            joined_unix_ms: 0,
            voter: true,
        }
    }

    fn asked(via: u64, by: &str, command: Command) -> Proposal {
        Proposal { id: RequestId([1; 16]), by: by.to_owned(), via: NodeId(via), at_unix_ms: 0, command }
    }

    #[test]
    fn a_peer_proposes_only_in_its_own_name_and_right() {
        // Each line is red without its arm in `may_propose`.
        let may = |role, proposal: Proposal| may_propose(NodeId(2), &member(role), &proposal).is_ok();
        let confirm = || Command::ConfirmPolicy { revision: 1 };
        assert!(may(Role::Node, asked(2, "root", confirm())));
        assert!(may(Role::Witness, asked(2, "root", confirm())));
        assert!(!may(Role::Node, asked(3, "root", confirm())));
        assert!(!may(Role::Node, asked(2, "root\nroot", confirm())));
        assert!(!may(Role::Node, asked(2, &"x".repeat(600), confirm())));
        assert!(!may(Role::Node, asked(2, "root", Command::ExpirePolicy { revision: 1 })));
        assert!(!may(Role::Node, asked(2, "root", Command::SetVoters { voters: [NodeId(2)].into() })));
        let redeem = || Command::Redeem {
            token: TokenId([0; 8]),
            secret_sha256: [0; 32],
            key_sha256: [0; 32],
            node: NodeId(3),
            name: "c".to_owned(),
            addresses: vec![],
            store: StoreId([0; 16]),
        };
        assert!(
            may(Role::Node, asked(2, "root", redeem())) && !may(Role::Witness, asked(2, "root", redeem()))
        );
        let certify =
            |node| Command::Certify { node: NodeId(node), key_sha256: [0; 32], not_after_unix_s: 0 };
        assert!(may(Role::Witness, asked(2, "root", certify(2))));
        assert!(!may(Role::Witness, asked(2, "root", certify(1))));
    }
}
