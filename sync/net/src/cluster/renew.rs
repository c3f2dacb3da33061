//! New certificates: at two thirds of the old one's life, and when somebody asks.
//!
//! A full member signs its own; a witness, which has no CA key, has it signed by a full member. New
//! handshakes use the new one from then on; connections stay.

use super::shared::{Shared, unix_ms};
use super::tls::{self, Tls};
use super::{ProposeError, RotateError, Standing, propose};
use crate::pki::{NodeCertificate, NodeKey, PkiError};
use crate::quic::rpc::{self, Answer, Request};
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{Command, Member, NodeId, Role};
use tokio::time::{Instant, sleep};

/// Longest pause between looks at the certificate's end; the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(600);
/// First and longest pause after a renewal that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3_600));
/// How long a renewal may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Renews by itself, for as long as the member runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut retry = RETRY.0;
    loop {
        let left = shared.tls.load().renewal_due_unix_s.saturating_sub(unix_ms() / 1_000);
        if left > 0 || shared.standing() != Standing::Member {
            sleep(Duration::from_secs(left.max(1)).min(LOOK)).await;
            continue;
        }
        match renew(&shared, "the cluster", WITHIN).await {
            Ok(_) => retry = RETRY.0,
            Err(error) => {
                tracing::warn!("the node's certificate could not be renewed: {error}");
                sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

/// A new key and certificate for this node; returns its end, Unix time in seconds.
pub(crate) async fn renew(shared: &Arc<Shared>, by: &str, within: Duration) -> Result<u64, RotateError> {
    let result = renew_now(shared, by, within).await;
    let error = result.as_ref().err().map(ToString::to_string);
    *shared.renewal_error.lock().unwrap_or_else(|e| e.into_inner()) = error;
    result
}

async fn renew_now(shared: &Arc<Shared>, by: &str, within: Duration) -> Result<u64, RotateError> {
    let _one = shared.renewing.lock().await;
    let end = Instant::now() + within;
    let standing = shared.standing();
    if standing != Standing::Member {
        return Err(RotateError::NotRecorded(ProposeError::Standing(standing)));
    }
    let (key, csr) = new_key(&shared.name).map_err(|e| identity(&e))?;
    let certificate = match shared.role {
        Role::Node => {
            let life = shared.options.certificate_life;
            tls::issue(&shared.directory, &csr, shared.id, &shared.name, life)
                .map_err(RotateError::NotSigned)?
        }
        Role::Witness => {
            let der = signed_elsewhere(shared, &csr, within / 2).await?;
            NodeCertificate::from_der(&der).map_err(|e| identity(&e))?
        }
    };
    // A peer signed it: it must be what was asked for.
    if (certificate.cluster(), certificate.node()) != (shared.cluster, shared.id) {
        return Err(RotateError::NotSigned("the certificate that came is another node's".to_owned()));
    }
    shared.directory.write_certificate(&certificate, &key).map_err(|e| identity(&e))?;
    let tls = Tls::load(&shared.directory, &shared.membership).map_err(|e| identity(&e))?;
    let not_after_unix_s = tls.not_after_unix_s;
    if let Some(endpoints) = shared.endpoints.get() {
        endpoints.set_server(&tls.server);
    }
    shared.tls.store(Arc::new(tls));
    let key_sha256 = key.sha256();
    let command = Command::Certify { node: shared.id, key_sha256, not_after_unix_s };
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    propose::propose(shared, command, by, left).await.map_err(RotateError::NotRecorded)?;
    tracing::info!("a new certificate is in use");
    Ok(not_after_unix_s)
}

fn identity(error: &dyn std::fmt::Display) -> RotateError {
    RotateError::Identity(error.to_string())
}

/// A new key, and a request for a certificate of it.
fn new_key(name: &str) -> Result<(NodeKey, Vec<u8>), PkiError> {
    let key = NodeKey::generate()?;
    let csr = key.csr(name)?;
    Ok((key, csr))
}

/// Asks full members in turn.
async fn signed_elsewhere(
    shared: &Arc<Shared>,
    csr: &[u8],
    within: Duration,
) -> Result<Vec<u8>, RotateError> {
    let full: Vec<NodeId> = {
        let state = shared.state.borrow();
        state.members.iter().filter(|(_, m)| m.role == Role::Node).map(|(id, _)| *id).collect()
    };
    let mut errors = Vec::new();
    for id in full {
        let connection = match shared.peers.connected(id, Duration::from_secs(2)).await {
            Ok(connection) => connection,
            Err(why) => {
                errors.push(format!("node {id}: {why}"));
                continue;
            }
        };
        match rpc::call(&connection, &Request::Sign { csr: csr.to_vec() }, within).await {
            Ok(Answer::Signed(Ok(certificate))) => return Ok(certificate),
            Ok(Answer::Signed(Err(why)) | Answer::Invalid(why)) => errors.push(format!("node {id}: {why}")),
            Ok(_) => errors.push(format!("node {id}: the answer makes no sense")),
            Err(error) => errors.push(format!("node {id}: {error}")),
        }
    }
    Err(RotateError::NotSigned(errors.join("; ")))
}

/// Signs for the member that asks, and for nobody else.
pub(crate) fn sign(shared: &Shared, from: NodeId, member: &Member, csr: &[u8]) -> Result<Vec<u8>, String> {
    if shared.role == Role::Witness {
        return Err("a witness has no CA key".to_owned());
    }
    let life = shared.options.certificate_life;
    tls::issue(&shared.directory, csr, from, &member.name, life).map(|issued| issued.der().to_vec())
}
