//! Joining, from the side of the node that wants in.

use super::tls;
use super::{Join, OpenError};
use crate::pki::CaCertificate;
use crate::quic::Versions;
use crate::quic::endpoint::{self, CONNECT, Close};
use crate::quic::frame::{self, Kind};
use crate::quic::hello::printable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterId, Member, NodeId, Refusal, Role, StoreId, TokenId};
use tidegate_sync::codec;
use tokio::time::{Instant, sleep, timeout};

/// How long a member may take for an answer: it agrees on the admission with the others meanwhile.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// Pause between rounds over the addresses.
const PAUSE: Duration = Duration::from_millis(250);
/// Addresses that are asked at most; members may name others than the token does.
const ADDRESSES: usize = 32;

/// What a joining node says, once it knows that it talks to the cluster of its token.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) token: TokenId,
    pub(crate) secret: [u8; 16],
    /// The certificate request, DER.
    pub(crate) csr: Vec<u8>,
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) store: StoreId,
    pub(crate) role: Role,
}

impl JoinRequest {
    /// The versions come first, as in a hello.
    pub(crate) fn write(&self, versions: Versions) -> Vec<u8> {
        let mut bytes = [versions.min.to_le_bytes(), versions.max.to_le_bytes()].concat();
        bytes.extend(codec::encode(self));
        bytes
    }
}

/// The answer.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// No common version, in words. Never moves: every version reads it.
    Version(String),
    /// Welcome.
    Admitted(Box<Admitted>),
    /// The cluster refused it.
    Refused(Refusal),
    /// The request cannot be granted as it is.
    Invalid(String),
    /// Not now: ask again, with the same key.
    Again(String),
    /// This member admits nobody (a witness): ask there.
    Elsewhere(Vec<SocketAddr>),
}

/// What a new member needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admitted {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: String,
    pub(crate) generation: u32,
    pub(crate) node: NodeId,
    /// Its certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// The CA's private key, PEM; full members only.
    pub(crate) ca_key: Option<String>,
    /// All members, this one too: whom to dial until the log tells.
    pub(crate) members: BTreeMap<NodeId, Member>,
}

/// Without the key.
impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted").field("node", &self.node).field("cluster", &self.cluster).finish()
    }
}

/// Why one address did not let the node in.
#[derive(Debug)]
enum Ask {
    /// Another member, or later, may do better.
    Again(String),
    /// Not the cluster of the token, or the token is of no use.
    Final(OpenError),
    Elsewhere(Vec<SocketAddr>),
    /// The address shows another CA than the token names.
    Foreign(String),
}

/// Asks the token's addresses in turn until one lets the node in. Returns the CA's certificate, whose
/// fingerprint is the token's, and what the node was given.
pub(crate) async fn ask(join: &Join, request: &JoinRequest) -> Result<(CaCertificate, Admitted), OpenError> {
    let end = Instant::now() + join.timeout;
    let dialling = endpoint::dialling();
    let mut addresses = join.token.addresses.clone();
    let mut tried: BTreeMap<SocketAddr, String> = BTreeMap::new();
    loop {
        let mut foreign = 0;
        let mut at = 0;
        while let Some(address) = addresses.get(at).copied() {
            at += 1;
            let answer = async {
                let endpoint = endpoint::pick(&dialling.0, &dialling.1, address).map_err(Ask::Again)?;
                ask_at(endpoint, address, join, request).await
            };
            match timeout(end.saturating_duration_since(Instant::now()), answer).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(Ask::Final(error))) => return Err(error),
                Ok(Err(Ask::Again(why))) => drop(tried.insert(address, why)),
                Ok(Err(Ask::Foreign(why))) => {
                    foreign += 1;
                    tried.insert(address, why);
                }
                Ok(Err(Ask::Elsewhere(others))) => {
                    tried.insert(address, "a witness, which admits nobody".to_owned());
                    let new = others.into_iter().filter(|a| !addresses.contains(a)).collect::<Vec<_>>();
                    addresses.extend(new);
                    addresses.truncate(ADDRESSES);
                }
                Err(_) => drop(tried.entry(address).or_insert_with(|| "no answer in time".to_owned())),
            }
        }
        let all_foreign = foreign > 0 && foreign == addresses.len();
        if all_foreign || Instant::now() + PAUSE >= end {
            let within = join.timeout;
            return Err(OpenError::Join { within, tried: tried.into_iter().collect() });
        }
        sleep(PAUSE).await;
    }
}

async fn ask_at(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    join: &Join,
    request: &JoinRequest,
) -> Result<(CaCertificate, Admitted), Ask> {
    let again = |why: String| Ask::Again(why);
    let (config, seen) = tls::joining(join.token.ca_sha256).map_err(again)?;
    let connecting =
        endpoint.connect_with(config, address, tls::JOIN_NAME).map_err(|e| again(e.to_string()))?;
    let connection = match timeout(CONNECT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let why = tls::close_reason(&error);
            return Err(if seen.is_foreign() { Ask::Foreign(why) } else { Ask::Again(why) });
        }
        Err(_) => return Err(again(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    // From here on the other side is known to hold a certificate of the token's CA.
    let ca = seen.ca().cloned().ok_or_else(|| again("it showed no CA certificate".to_owned()))?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(quinn::ReadError::from)?;
        let bytes = request.write(Versions::default());
        frame::write_message(&mut send, Kind::Join, &bytes).await?;
        let _ = send.finish();
        let body = frame::read_message(&mut receive, Kind::JoinAnswer).await?;
        Ok::<_, frame::FrameError>(codec::decode::<JoinAnswer, { 512 << 10 }>(&body)?)
    };
    let answer = timeout(ANSWER + Duration::from_secs(2), exchange).await;
    connection.close(Close::Done.code(), b"");
    match answer {
        Ok(Ok(answer)) => judge(address, ca, answer),
        Ok(Err(error)) => Err(again(match connection.close_reason() {
            Some(reason) if !error.is_violation() => tls::close_reason(&reason),
            _ => error.to_string(),
        })),
        Err(_) => Err(again(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}

fn judge(
    address: SocketAddr,
    ca: CaCertificate,
    answer: JoinAnswer,
) -> Result<(CaCertificate, Admitted), Ask> {
    let refused = |message: String| {
        let message = printable(&message, 400);
        Ask::Final(OpenError::JoinRefused { address, message })
    };
    match answer {
        JoinAnswer::Admitted(admitted) => Ok((ca, *admitted)),
        JoinAnswer::Refused(refusal) => Err(Ask::Final(OpenError::Refused(refusal))),
        JoinAnswer::Invalid(why) | JoinAnswer::Version(why) => Err(refused(why)),
        JoinAnswer::Again(why) => Err(Ask::Again(printable(&why, 400))),
        JoinAnswer::Elsewhere(others) => Err(Ask::Elsewhere(others)),
    }
}
