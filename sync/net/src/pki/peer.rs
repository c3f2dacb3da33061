//! Who a peer is, by its certificate, and whether it is let in.

use super::{CaCertificate, NodeCertificate};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use std::collections::BTreeMap;
use std::fmt;
use tidegate_sync::cluster::{ClusterId, ClusterState, NodeId};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who may come in: from the committed state, swapped at each change of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    cluster: ClusterId,
    members: BTreeMap<NodeId, String>,
    removed: BTreeMap<NodeId, String>,
}

impl Membership {
    /// These members: what a node knows that has just joined.
    pub fn new(cluster: ClusterId, members: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        Membership { cluster, members: members.into_iter().collect(), removed: BTreeMap::new() }
    }

    /// What the state says.
    pub fn of(state: &ClusterState) -> Self {
        let members = state.members.iter().map(|(id, m)| (*id, m.name.clone()));
        let mut membership = Membership::new(state.cluster, members);
        membership.removed.clone_from(&state.removed);
        membership
    }

    /// Adds members that joined while this node was away, as a member that it knows told it: else it
    /// would refuse a new leader, and never learn of it. What it knows to be removed stays out.
    pub fn with_newer(mut self, members: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        for (id, name) in members {
            if !self.removed.contains_key(&id) {
                self.members.entry(id).or_insert(name);
            }
        }
        self
    }

    #[cfg(test)]
    pub(super) fn removed_for_tests(&mut self, removed: impl IntoIterator<Item = (NodeId, String)>) {
        self.removed.extend(removed);
    }

    /// Whether that node is a member.
    ///
    /// # Errors
    /// [`PeerError::Removed`] or [`PeerError::Unknown`].
    pub fn check(&self, node: NodeId) -> Result<(), PeerError> {
        match (self.members.contains_key(&node), self.removed.get(&node)) {
            (true, _) => Ok(()),
            (false, Some(name)) => Err(PeerError::Removed { node, name: name.clone() }),
            (false, None) => Err(PeerError::Unknown { node }),
        }
    }
}

/// Why a peer is not let in. The other side gets the same words when the handshake fails.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is over.
    #[error("the certificate of node {node} expired at {}: `tidegate cluster reissue` there makes a new one (if it is still good: is this clock right?)", date(*.not_after_unix_s))]
    Expired {
        /// Whose.
        node: NodeId,
        /// Its end: Unix time in seconds.
        not_after_unix_s: u64,
    },
    /// It is for later.
    #[error("the certificate of node {node} is good from {} only: compare the clocks of the nodes", date(*.not_before_unix_s))]
    NotYetValid {
        /// Whose.
        node: NodeId,
        /// Its beginning: Unix time in seconds.
        not_before_unix_s: u64,
    },
    /// It is of another cluster.
    #[error("the certificate is of cluster {theirs}, this is cluster {ours}: two clusters share addresses")]
    OtherCluster {
        /// The one in the certificate.
        theirs: ClusterId,
        /// This one.
        ours: ClusterId,
    },
    /// It is signed by itself.
    #[error("the certificate is signed by itself, not by this cluster's CA")]
    SelfSigned,
    /// It is signed by somebody else.
    #[error("the certificate is not signed by this cluster's CA")]
    NotIssued,
    /// It is for another use, or of an unknown kind.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
    /// The node was removed.
    #[error("node {node} ({name}) was removed from the cluster: it can join again as a new node")]
    Removed {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// The node never was a member, as far as is known here.
    #[error("node {node} is no member of the cluster")]
    Unknown {
        /// Which.
        node: NodeId,
    },
    /// Another node answered than was dialled.
    #[error(
        "node {answered} answers where node {dialled} was expected: the addresses of the members are mixed up"
    )]
    OtherNode {
        /// The one that was dialled.
        dialled: NodeId,
        /// The one that answered.
        answered: NodeId,
    },
    /// No certificate.
    #[error("a member must show a certificate")]
    Missing,
    /// The CA is not the one of the join token.
    #[error("the cluster there is not the one of the join token: its CA has another fingerprint")]
    OtherCa,
    /// The peer offers none of the protocols.
    #[error("the peer speaks none of `tidegate/1`, `tidegate-sync/1` and `tidegate-join/1`")]
    Protocol,
}

/// rustls shows errors of others by `Debug`.
impl fmt::Debug for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn date(unix_s: u64) -> String {
    let at = i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    at.map_or_else(
        || format!("{unix_s} s"),
        |t| format!("{} {:02}:{:02} UTC", t.date(), t.hour(), t.minute()),
    )
}

/// Checks chain, dates and name; whose it is.
pub(super) fn verify(
    ca: &CaCertificate,
    roots: &RootCertStore,
    end_entity: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<NodeCertificate, PeerError> {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(end_entity).map_err(|e| PeerError::Unusable(e.to_string()))?;
    // Every certificate of ours is good for both sides, so one check serves for both.
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms)
        .map_err(|error| explain(ca, end_entity, &error))?;
    let node = NodeCertificate::from_der(end_entity).map_err(|e| PeerError::Unusable(e.to_string()))?;
    match node.cluster() == ca.cluster() {
        true => Ok(node),
        false => Err(PeerError::OtherCluster { theirs: node.cluster(), ours: ca.cluster() }),
    }
}

/// The reason in our words.
fn explain(ca: &CaCertificate, end_entity: &CertificateDer<'_>, error: &rustls::Error) -> PeerError {
    let node = NodeCertificate::from_der(end_entity).ok();
    let rustls::Error::InvalidCertificate(reason) = error else {
        return PeerError::Unusable(error.to_string());
    };
    match (reason, node) {
        (CertificateError::ExpiredContext { .. } | CertificateError::Expired, Some(it)) => {
            PeerError::Expired { node: it.node(), not_after_unix_s: it.not_after_unix_s() }
        }
        (CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet, Some(it)) => {
            PeerError::NotYetValid { node: it.node(), not_before_unix_s: it.not_before_unix_s() }
        }
        // Which of the two depends on whether the CAs have the same name.
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, node) => match node {
            Some(it) if it.cluster() != ca.cluster() => {
                PeerError::OtherCluster { theirs: it.cluster(), ours: ca.cluster() }
            }
            _ if self_signed(end_entity) => PeerError::SelfSigned,
            _ => PeerError::NotIssued,
        },
        (other, _) => PeerError::Unusable(other.to_string()),
    }
}

fn self_signed(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, it)| it.verify_signature(None).is_ok())
}
