//! Rows of the state machine, seen through `apply`.

use super::*;
use std::sync::Arc;

fn founded() -> ClusterState {
    ClusterState::founded(Founding {
        cluster: ClusterId([7; 16]),
        name: "edge".to_owned(),
        node: "a".to_owned(),
        addresses: vec!["192.0.2.1:7400".parse().unwrap()],
        store: StoreId([1; 16]),
        key_sha256: [1; 32],
        not_after_unix_s: 0,
        by: "root".to_owned(),
        at_unix_ms: 1_000,
        policy: None,
    })
}

/// Applies commands one after the other, each with an id of its own.
struct Log {
    state: ClusterState,
    index: u64,
    now: u64,
}

impl Log {
    fn new() -> Self {
        Log { state: founded(), index: 0, now: 2_000 }
    }

    fn proposal(&self, id: u64, command: Command) -> Proposal {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id.to_le_bytes());
        let (by, via) = ("root".to_owned(), NodeId(1));
        Proposal { id: RequestId(bytes), by, via, at_unix_ms: self.now, command }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let proposal = self.proposal(self.index, command);
        self.state.apply(self.index, &proposal)
    }

    fn policy(&mut self, base: u32, text: &str, lease: Option<Lease>) -> Outcome {
        self.apply(Command::ApplyPolicy { base, text: Arc::from(text), lease })
    }

    fn token(&mut self, id: u8, role: Role) -> Outcome {
        let (token, secret_sha256) = (TokenId([id; 8]), [id; 32]);
        self.apply(Command::CreateToken { token, secret_sha256, role, expires_unix_ms: 10_000 })
    }

    fn join(&mut self, token: u8, key: u8, name: &str, node: u64) -> Outcome {
        self.apply(Command::Redeem {
            token: TokenId([token; 8]),
            secret_sha256: [token; 32],
            key_sha256: [key; 32],
            node: NodeId(node),
            name: name.to_owned(),
            addresses: vec![],
            store: StoreId([key; 16]),
        })
    }
}

const LEASE: Option<Lease> = Some(Lease { within_ms: 1_000, deadline_unix_ms: 5_000 });

fn revision(number: u32) -> Outcome {
    Outcome::Revision { number, unchanged: false }
}

#[test]
fn a_token_admits_one_key_once_and_the_same_key_again() {
    // Without `used` the third line admits; without the key's comparison the second refuses.
    let mut log = Log::new();
    log.token(5, Role::Witness);
    assert_eq!(log.join(5, 9, "w", 2), Outcome::Admitted { node: NodeId(2) });
    assert_eq!(log.join(5, 9, "w", 3), Outcome::Admitted { node: NodeId(2) });
    let used = Refusal::TokenUsed { by: NodeId(2), name: "w".to_owned() };
    assert_eq!(log.join(5, 8, "x", 3), Outcome::Refused(used));
    assert_eq!(log.state.members[&NodeId(2)].role, Role::Witness);
    assert_eq!(log.state.members.len(), 2);
}

#[test]
fn an_unknown_expired_or_wrong_token_and_a_taken_name_are_each_refused() {
    // Each line is red without its check in `redeem`.
    let mut log = Log::new();
    log.token(5, Role::Node);
    assert_eq!(log.join(6, 9, "b", 2), Outcome::Refused(Refusal::UnknownToken));
    let taken = Refusal::NameTaken { name: "a".to_owned(), by: NodeId(1) };
    assert_eq!(log.join(5, 9, "a", 2), Outcome::Refused(taken));
    assert_eq!(log.join(5, 9, "b", 7), Outcome::Refused(Refusal::IdMoved { next: NodeId(2) }));
    log.now = 10_001;
    assert_eq!(log.join(5, 9, "b", 2), Outcome::Refused(Refusal::TokenExpired));
    assert_eq!(log.state.members.len(), 1);
}

#[test]
fn an_id_never_returns() {
    // Give ids by counting members, and the last line says 2.
    let mut log = Log::new();
    log.token(5, Role::Node);
    log.join(5, 9, "b", 2);
    assert_eq!(log.apply(Command::Remove { node: NodeId(2) }), Outcome::Done);
    log.token(6, Role::Node);
    assert_eq!(log.join(6, 9, "b", 2), Outcome::Refused(Refusal::IdMoved { next: NodeId(3) }));
    assert_eq!(log.join(6, 9, "b", 3), Outcome::Admitted { node: NodeId(3) });
}

#[test]
fn two_members_have_one_voter_and_three_have_three() {
    let mut log = Log::new();
    log.token(5, Role::Node);
    log.join(5, 9, "b", 2);
    assert_eq!(log.state.voters_wanted(), [NodeId(1)].into());
    log.token(6, Role::Witness);
    log.join(6, 8, "w", 3);
    let all: std::collections::BTreeSet<_> = [NodeId(1), NodeId(2), NodeId(3)].into();
    assert_eq!(log.state.voters_wanted(), all);
    log.apply(Command::SetVoters { voters: all });
    // The witness alone never is the one that decides.
    log.apply(Command::Remove { node: NodeId(1) });
    assert_eq!(log.state.voters_wanted(), [NodeId(2)].into());
    log.apply(Command::SetVoters { voters: [NodeId(2)].into() });
    let last = Refusal::LastVoter(NodeId(2));
    assert_eq!(log.apply(Command::Remove { node: NodeId(2) }), Outcome::Refused(last));
}

#[test]
fn witnesses_are_never_left_alone() {
    // Without the check the second line is done, and nobody is left who holds the CA key.
    let mut log = Log::new();
    for (key, name) in [(5, "v"), (6, "w")] {
        log.token(key, Role::Witness);
        log.join(key, key, name, u64::from(key) - 3);
    }
    log.apply(Command::SetVoters { voters: log.state.members.keys().copied().collect() });
    let last = Refusal::LastNode(NodeId(1));
    assert_eq!(log.apply(Command::Remove { node: NodeId(1) }), Outcome::Refused(last));
    assert_eq!(log.apply(Command::Remove { node: NodeId(2) }), Outcome::Done);
}

#[test]
fn a_proposal_sent_twice_takes_effect_once() {
    // Without the answers that are kept there are two revisions.
    let mut log = Log::new();
    let command = Command::ApplyPolicy { base: 0, text: "x".into(), lease: None };
    let proposal = log.proposal(77, command);
    assert_eq!(log.state.apply(1, &proposal), revision(1));
    assert_eq!(log.state.apply(2, &proposal), revision(1));
    assert_eq!(log.state.policy.all().count(), 1);
    assert_eq!(log.state.applied, 2);
}

#[test]
fn the_second_of_two_concurrent_applies_is_told_that_the_revision_moved() {
    let mut log = Log::new();
    assert_eq!(log.policy(0, "one", None), revision(1));
    let moved = Refusal::RevisionMoved { base: 0, now: 1 };
    assert_eq!(log.policy(0, "two", None), Outcome::Refused(moved));
    assert_eq!(log.policy(0, "one", None), Outcome::Revision { number: 1, unchanged: true });
    assert_eq!(log.policy(1, "two", None), revision(2));
}

#[test]
fn an_unconfirmed_revision_expires_into_the_last_confirmed_one() {
    let mut log = Log::new();
    log.policy(0, "one", None);
    assert_eq!(log.policy(1, "two", LEASE), revision(2));
    assert_eq!(log.state.policy.in_force().unwrap().number, 2);
    assert_eq!(log.state.policy.fallback().unwrap().number, 1);
    // One on top of it, unconfirmed as well: the way back is the same.
    assert_eq!(log.policy(2, "three", LEASE), revision(3));
    assert_eq!(log.state.policy.get(2).unwrap().standing, Standing::Replaced);
    assert_eq!(log.apply(Command::ExpirePolicy { revision: 3 }), revision(1));
    assert_eq!(log.state.policy.in_force().unwrap().number, 1);
    let late = Refusal::LeaseExpired(3);
    assert_eq!(log.apply(Command::ConfirmPolicy { revision: 3 }), Outcome::Refused(late));
    // Numbers are never used twice.
    assert_eq!(log.policy(1, "three", None), revision(4));
}

#[test]
fn a_confirmed_revision_does_not_expire() {
    let mut log = Log::new();
    log.policy(0, "one", LEASE);
    assert_eq!(log.apply(Command::ConfirmPolicy { revision: 1 }), revision(1));
    let not = Outcome::Refused(Refusal::NotPending(1));
    assert_eq!(log.apply(Command::ExpirePolicy { revision: 1 }), not);
    assert_eq!(log.state.policy.in_force().unwrap().number, 1);
    assert!(log.state.policy.pending().is_none());
}

#[test]
fn a_rollback_is_a_new_revision_with_an_old_text() {
    let mut log = Log::new();
    log.policy(0, "one", None);
    log.policy(1, "two", None);
    let back = |base, to| Command::RollbackPolicy { base, to, lease: None };
    assert_eq!(log.apply(back(2, 9)), Outcome::Refused(Refusal::NoSuchRevision(9)));
    assert_eq!(log.apply(back(2, 1)), revision(3));
    let now = log.state.policy.in_force().unwrap();
    assert_eq!((now.text.as_deref(), now.source), (Some("one"), Source::Rollback(1)));
}

#[test]
fn old_texts_go_but_never_the_one_to_fall_back_to() {
    // Without the exception for the confirmed one its text is gone.
    let mut log = Log::new();
    let long = |n: u32| format!("{n:08}{}", "x".repeat(4 << 20));
    log.policy(0, &long(1), None);
    for n in 1..20 {
        log.policy(n, &long(n + 1), LEASE);
    }
    assert!(log.state.policy.get(1).unwrap().text.is_some());
    assert!(log.state.policy.get(2).unwrap().text.is_none());
    assert!(log.state.policy.get(20).unwrap().text.is_some());
    let back = Command::RollbackPolicy { base: 20, to: 2, lease: None };
    assert_eq!(log.apply(back), Outcome::Refused(Refusal::NoSuchRevision(2)));
}

#[test]
fn recovery_makes_a_generation_of_one_and_keeps_the_ids() {
    let mut log = Log::new();
    log.token(5, Role::Node);
    log.join(5, 9, "b", 2);
    let state = log.state.recovered(NodeId(2), "root".to_owned(), 9_000).unwrap();
    assert_eq!((state.generation, state.voters()), (2, [NodeId(2)].into()));
    assert_eq!(state.removed[&NodeId(1)], "a");
    assert_eq!(state.next_node, NodeId(3));
}

#[test]
fn the_audit_history_names_who_asked_and_what_came_of_it_without_secrets() {
    let mut log = Log::new();
    log.token(5, Role::Node);
    log.policy(3, "x", None);
    let lines: Vec<_> =
        log.state.audit.iter().map(|a| format!("{} {}: {}", a.by, a.what, a.outcome)).collect();
    assert_eq!(lines[1], "root create join token 0505050505050505 for a node: done");
    assert!(
        lines[2].starts_with("root apply policy: refused: the policy's revision moved from 3 to 0"),
        "{}",
        lines[2]
    );
}

#[test]
fn a_join_token_survives_copying_and_notices_damage() {
    let token = JoinToken {
        ca_sha256: [3; 32],
        token: TokenId([4; 8]),
        secret: [5; 16],
        role: Role::Witness,
        addresses: vec!["192.0.2.1:7400".parse().unwrap(), "[2001:db8::1]:7400".parse().unwrap()],
    };
    let text = token.to_string();
    assert_eq!(JoinToken::parse(&format!(" {}\n", text.to_uppercase())).unwrap(), token);
    assert_eq!(JoinToken::parse("hello"), Err(TokenError::Prefix));
    assert_eq!(JoinToken::parse(&text[..text.len() - 1]), Err(TokenError::Damaged));
    for n in "tidegate-join-1-".len()..text.len() {
        let other = if &text[n..=n] == "a" { "b" } else { "a" };
        let damaged = format!("{}{other}{}", &text[..n], &text[n + 1..]);
        assert_ne!(JoinToken::parse(&damaged).ok().as_ref(), Some(&token), "character {n}");
    }
    assert!(!format!("{token:?}").contains("05, 05") && !format!("{token:?}").contains("[5"));
}
