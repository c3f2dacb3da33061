//! Joining, from the side of the member that is asked.
//!
//! The admission is one commit (the token is used, the node is a learner). It is idempotent by the key of
//! the certificate request: asked again, because an answer was lost, it gives the same id.

use super::counters::count;
use super::join::{ANSWER, Admitted, JoinAnswer, JoinRequest};
use super::shared::Shared;
use super::{ProposeError, Standing, propose, tls};
use crate::quic::endpoint::Close;
use crate::quic::frame::{self, Kind};
use crate::quic::hello::Hello;
use quinn::Connection;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{Command, NodeId, Outcome, Refusal, Role};
use tidegate_sync::codec;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Joins at the same time; more are told to come back.
static JOINS: Semaphore = Semaphore::const_new(8);
/// Times that an admission is proposed again because another node got the id first.
const RACES: usize = 20;
/// Longest node name.
const NAME_LONGEST: usize = 63;
/// Most addresses of a node.
const ADDRESSES: usize = 8;

/// One join connection: one request, one answer.
pub(crate) async fn serve(shared: &Arc<Shared>, connection: &Connection) {
    let from = connection.remote_address();
    let result = timeout(ANSWER, async {
        let (mut send, mut receive) = connection.accept_bi().await.map_err(quinn::ReadError::from)?;
        let bytes = frame::read_message(&mut receive, Kind::Join).await?;
        let answer = answer(shared, from, &bytes).await;
        frame::write_message(&mut send, Kind::JoinAnswer, &codec::encode(&answer)).await?;
        let _ = send.finish();
        // Until it was read.
        let _ = send.stopped().await;
        Ok::<_, frame::FrameError>(())
    });
    if let Ok(Err(error)) = result.await
        && error.is_violation()
    {
        count(&shared.counting.joins_refused);
        if let Some(held) = shared.may_log("join violation") {
            tracing::warn!("a join request from {from} was malformed: {error}{held}");
        }
    }
    connection.close(Close::Done.code(), b"");
}

async fn answer(shared: &Arc<Shared>, from: SocketAddr, bytes: &[u8]) -> JoinAnswer {
    let answer = match request(shared, bytes) {
        Ok(request) => admit(shared, &request).await,
        Err(answer) => answer,
    };
    let why = match &answer {
        JoinAnswer::Admitted(_) | JoinAnswer::Elsewhere(_) => return answer,
        JoinAnswer::Refused(refusal) => refusal.to_string(),
        JoinAnswer::Version(why) | JoinAnswer::Invalid(why) | JoinAnswer::Again(why) => why.clone(),
    };
    count(&shared.counting.joins_refused);
    if let Some(held) = shared.may_log(&format!("join {why}")) {
        tracing::warn!("a join request from {from} was refused: {why}{held}");
    }
    answer
}

fn request(shared: &Shared, bytes: &[u8]) -> Result<JoinRequest, JoinAnswer> {
    let invalid = |e: frame::FrameError| JoinAnswer::Invalid(e.to_string());
    let (versions, rest) = Hello::versions(bytes).map_err(invalid)?;
    if shared.versions.common(versions).is_none() {
        let own = shared.versions;
        return Err(JoinAnswer::Version(format!(
            "no common protocol version: node {} (build {}) speaks {own}, the joining node {versions}: upgrade the older of the two",
            shared.id, shared.options.build
        )));
    }
    codec::decode::<JoinRequest, { 64 << 10 }>(rest).map_err(|e| invalid(e.into()))
}

async fn admit(shared: &Arc<Shared>, request: &JoinRequest) -> JoinAnswer {
    match shared.standing() {
        Standing::Member => {}
        other => return JoinAnswer::Again(other.to_string()),
    }
    if shared.role == Role::Witness {
        return JoinAnswer::Elsewhere(full_members(shared));
    }
    let Ok(_place) = JOINS.try_acquire() else {
        return JoinAnswer::Again("too many nodes join at the same time".to_owned());
    };
    let key_sha256 = match check(shared, request) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let node = match redeem(shared, request, key_sha256).await {
        Ok(node) => node,
        Err(answer) => return answer,
    };
    // The leader's answer may be here before the entry was applied.
    let mut state = shared.state.subscribe();
    let _ = timeout(Duration::from_secs(5), state.wait_for(|s| s.members.contains_key(&node))).await;
    match welcome(shared, request, node, key_sha256) {
        Ok(admitted) => JoinAnswer::Admitted(Box::new(admitted)),
        Err(why) => JoinAnswer::Again(why),
    }
}

fn full_members(shared: &Shared) -> Vec<SocketAddr> {
    let state = shared.state();
    let full = state.members.values().filter(|m| m.role == Role::Node);
    full.flat_map(|m| m.addresses.iter().copied()).take(32).collect()
}

/// What needs no agreement; the rest is checked when the entry is applied. Returns SHA-256 of the key.
fn check(shared: &Shared, request: &JoinRequest) -> Result<[u8; 32], JoinAnswer> {
    let invalid = |why: String| Err(JoinAnswer::Invalid(why));
    check_name(&request.name).map_err(JoinAnswer::Invalid)?;
    check_addresses(&request.addresses).map_err(JoinAnswer::Invalid)?;
    // For a wrong role the token is not used up. A token that is not known here yet is left to the log.
    if let Some(token) = shared.state.borrow().tokens.get(&request.token)
        && token.role != request.role
    {
        let (token, node) = (token.role.name(), request.role.name());
        return invalid(format!("the join token is for a {token}, and this node is configured as a {node}"));
    }
    tls::request_key(&request.csr).or_else(invalid)
}

/// A name that can stand in tables, certificates and command lines.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    match begins && name.len() <= NAME_LONGEST && name.chars().all(fine) {
        true => Ok(()),
        false => Err(format!(
            "a name begins with a letter and has at most {NAME_LONGEST} letters, digits, `-`, `_` and `.`: {:?} does not",
            name.chars().take(NAME_LONGEST + 1).collect::<String>()
        )),
    }
}

/// Addresses that peers can dial.
pub(crate) fn check_addresses(addresses: &[SocketAddr]) -> Result<(), String> {
    if addresses.is_empty() || addresses.len() > ADDRESSES {
        return Err(format!("a node has 1 to {ADDRESSES} addresses, not {}", addresses.len()));
    }
    match addresses.iter().find(|a| a.ip().is_unspecified() || a.ip().is_multicast() || a.port() == 0) {
        Some(bad) => Err(format!("peers cannot dial {bad}: give an address of this node and a port")),
        None => Ok(()),
    }
}

/// The commit. Another node that joins at the same moment may get the id: then with the next.
async fn redeem(shared: &Arc<Shared>, request: &JoinRequest, key: [u8; 32]) -> Result<NodeId, JoinAnswer> {
    let mut node = shared.state.borrow().next_node;
    for _ in 0..RACES {
        let command = Command::Redeem {
            token: request.token,
            secret_sha256: Sha256::digest(request.secret).into(),
            key_sha256: key,
            node,
            name: request.name.clone(),
            addresses: request.addresses.clone(),
            store: request.store,
        };
        let by = format!("join token {}", request.token);
        match propose::propose(shared, command, &by, ANSWER - Duration::from_secs(5)).await {
            Ok(Outcome::Admitted { node }) => return Ok(node),
            Ok(Outcome::Refused(Refusal::IdMoved { next })) => node = next,
            Ok(Outcome::Refused(refusal)) => return Err(JoinAnswer::Refused(refusal)),
            Ok(_) => return Err(JoinAnswer::Again("the answer makes no sense".to_owned())),
            Err(ProposeError::Invalid(why)) => return Err(JoinAnswer::Invalid(why)),
            Err(error) => return Err(JoinAnswer::Again(error.to_string())),
        }
    }
    Err(JoinAnswer::Again("too many nodes join at the same time".to_owned()))
}

/// Certificate, and what else a new member gets.
fn welcome(
    shared: &Arc<Shared>,
    request: &JoinRequest,
    node: NodeId,
    key_sha256: [u8; 32],
) -> Result<Admitted, String> {
    let (state, life) = (shared.state(), shared.options.certificate_life);
    let Some(member) = state.members.get(&node) else {
        return Err("the admission is not applied here yet".to_owned());
    };
    let issued = tls::issue(&shared.directory, &request.csr, node, &member.name, life)?;
    let task = shared.clone();
    let not_after_unix_s = issued.not_after_unix_s();
    // For the record only: the node is in already, and tells again when it renews.
    shared.spawn(async move {
        let command = Command::Certify { node, key_sha256, not_after_unix_s };
        if let Err(error) = propose::propose(&task, command, "the cluster", ANSWER).await {
            tracing::warn!("the certificate of node {node} is not on record: {error}");
        }
    });
    let ca_key = match member.role {
        Role::Node => Some(shared.directory.ca().map_err(|e| e.to_string())?.key_pem()),
        Role::Witness => None,
    };
    Ok(Admitted {
        cluster: shared.cluster,
        cluster_name: shared.cluster_name.clone(),
        generation: shared.generation,
        node,
        certificate: issued.der().to_vec(),
        ca_key,
        members: state.members.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_that_cannot_be_used_are_refused() {
        for good in ["a", "fw-1.example", "N_2"] {
            assert_eq!(check_name(good), Ok(()));
        }
        // Numbers alone are ids, so a name begins with a letter.
        for bad in ["", "1", "-a", "a b", "a\n", "ä", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(check_addresses(&[parse("192.0.2.1:7400")]), Ok(()));
        for bad in ["0.0.0.0:7400", "[::]:7400", "224.0.0.1:7400", "192.0.2.1:0"] {
            assert!(check_addresses(&[parse(bad)]).is_err(), "{bad}");
        }
        assert!(check_addresses(&[]).is_err());
        assert!(check_addresses(&[parse("192.0.2.1:1"); 9]).is_err());
    }
}
