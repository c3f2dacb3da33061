//! Certificates in use: the configurations of both sides, and what a connection says of its other end.

use super::OpenError;
use crate::identity::Directory;
use crate::pki::{self, Accepted, Csr, Membership, SeenCa};
use crate::quic::endpoint;
use crate::quic::hello::printable;
use arc_swap::ArcSwap;
use quinn::{Connection, ConnectionError};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_sync::cluster::{ClusterState, Member, NodeId};

/// The configurations that new connections use.
pub(crate) struct Tls {
    pub(crate) client: quinn::ClientConfig,
    /// To dial for session records.
    pub(crate) sync: quinn::ClientConfig,
    pub(crate) server: quinn::ServerConfig,
    /// End of the certificate, Unix time in seconds.
    pub(crate) not_after_unix_s: u64,
    /// When to take a new one.
    pub(crate) renewal_due_unix_s: u64,
    /// Fingerprint of the CA.
    pub(crate) ca_sha256: [u8; 32],
    /// For stateless resets.
    pub(crate) reset_key: [u8; 32],
}

impl Tls {
    /// Reads the directory's certificate and key.
    pub(crate) fn load(
        directory: &Directory,
        membership: &Arc<ArcSwap<Membership>>,
    ) -> Result<Self, OpenError> {
        let text = |e: String| OpenError::Identity(e);
        let credentials = directory.credentials().map_err(|e| text(e.to_string()))?;
        let client = pki::client_config(&credentials, membership.clone()).map_err(|e| text(e.to_string()))?;
        let sync = pki::sync_config(&credentials, membership.clone()).map_err(|e| text(e.to_string()))?;
        let server = pki::server_config(&credentials, membership.clone()).map_err(|e| text(e.to_string()))?;
        Ok(Tls {
            client: endpoint::client(client).map_err(text)?,
            sync: endpoint::sync_client(sync).map_err(text)?,
            server: endpoint::server(server).map_err(text)?,
            not_after_unix_s: credentials.certificate.not_after_unix_s(),
            renewal_due_unix_s: credentials.certificate.renewal_due_unix_s(),
            ca_sha256: credentials.ca.sha256(),
            reset_key: credentials.key.derive("stateless reset"),
        })
    }
}

/// Whom a TLS handshake lets through: members, and those that were removed, which the hello then tells so.
/// Nothing else is read from them.
pub(crate) fn membership(state: &ClusterState, newer: &BTreeMap<NodeId, Member>) -> Membership {
    let members = state.members.iter().chain(newer).map(|(id, m)| (*id, m.name.clone()));
    let removed = state.removed.iter().map(|(id, name)| (*id, name.clone()));
    Membership::new(state.cluster, members.chain(removed))
}

/// The configuration to join with; the CA that was seen comes out of the second value.
pub(crate) fn joining(ca_sha256: [u8; 32]) -> Result<(quinn::ClientConfig, SeenCa), String> {
    let (tls, seen) = pki::join_config(ca_sha256).map_err(|e| e.to_string())?;
    Ok((endpoint::client(tls)?, seen))
}

/// The name to dial when joining: any node of the cluster may answer.
pub(crate) const JOIN_NAME: &str = "join.tidegate";

/// Who is at the other end.
pub(crate) fn accepted(connection: &Connection) -> Result<Accepted, String> {
    let data = connection.handshake_data();
    let data = data.and_then(|d| d.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    let certificates = connection.peer_identity().and_then(|c| c.downcast::<Vec<CertificateDer<'_>>>().ok());
    let certificates = certificates.map(|c| *c).unwrap_or_default();
    let alpn = data.and_then(|d| d.protocol);
    pki::accepted(alpn.as_deref(), &certificates).map_err(|e| e.to_string())
}

/// Why a connection ended or never stood, in words that fit into a log line.
pub(crate) fn close_reason(error: &ConnectionError) -> String {
    let text = match error {
        ConnectionError::TransportError(e) if !e.reason.is_empty() => plain(&e.reason).to_owned(),
        ConnectionError::ConnectionClosed(c) if !c.reason.is_empty() => {
            format!("the peer refused: {}", plain(&String::from_utf8_lossy(&c.reason)))
        }
        ConnectionError::ApplicationClosed(c) if !c.reason.is_empty() => {
            format!("closed by the peer: {}", String::from_utf8_lossy(&c.reason))
        }
        ConnectionError::TimedOut => "the peer is silent".to_owned(),
        ConnectionError::LocallyClosed => "closed by this node".to_owned(),
        ConnectionError::Reset => "the peer's process is another one now".to_owned(),
        other => other.to_string(),
    };
    printable(&text, 400)
}

/// Our own reason without what rustls wraps it in.
fn plain(reason: &str) -> &str {
    let own = reason.strip_prefix("invalid peer certificate: Other(OtherError(");
    own.and_then(|own| own.strip_suffix("))")).unwrap_or(reason)
}

/// SHA-256 of the key in a certificate request whose signature is right.
pub(crate) fn request_key(csr: &[u8]) -> Result<[u8; 32], String> {
    Ok(Csr::from_der(csr).map_err(|e| e.to_string())?.key_sha256())
}

/// A certificate for a node, by the CA key in the directory.
pub(crate) fn issue(
    directory: &Directory,
    csr: &[u8],
    node: NodeId,
    name: &str,
    life: std::time::Duration,
) -> Result<pki::NodeCertificate, String> {
    let text = |e: String| e;
    let csr = Csr::from_der(csr).map_err(|e| text(e.to_string()))?;
    let ca = directory.ca().map_err(|e| text(e.to_string()))?;
    let now = super::shared::unix_ms() / 1_000;
    ca.issue(&csr, node, name, now, life.as_secs()).map_err(|e| text(e.to_string()))
}
