//! Certificates: a CA for each cluster, a certificate for each node, and who is let in.
//!
//! TLS itself, signatures and chains are rustls's and webpki's. What is ours: names that carry cluster
//! and node id, the check of those against the committed membership in every handshake, and reasons that
//! an operator understands. rustls is told to keep no sessions: a resumed one would pass without any of
//! these checks.

mod ca;
mod certificate;
mod key;
mod name;
mod peer;
#[cfg(test)]
mod tests;
mod tls;

pub use ca::Ca;
pub use certificate::{CaCertificate, NodeCertificate, renewal_due_unix_s};
pub use key::{Csr, NodeKey};
pub use name::{node_name, server_name};
pub use peer::{Membership, PeerError};
pub use tls::{
    Accepted, Credentials, SeenCa, accepted, client_config, join_config, reason, server_config, sync_config,
};

/// Protocol between members: both show a certificate.
pub const ALPN: &[u8] = b"tidegate/1";
/// Protocol of session records between members: a connection of its own, so that bulk data and Raft share nothing.
pub const ALPN_SYNC: &[u8] = b"tidegate-sync/1";
/// Protocol between a joining node and a member: only the member shows a certificate.
pub const ALPN_JOIN: &[u8] = b"tidegate-join/1";
/// How long a node's certificate is good, in seconds: 90 days.
pub const VALIDITY_S: u64 = 90 * DAY_S;
/// How long a CA's certificate is good, in seconds: 30 years. It cannot be changed in a running cluster.
const CA_VALIDITY_S: u64 = 30 * 365 * DAY_S;
/// How far the clock of a node may be behind that of the one that issues, in seconds.
const BACKDATED_S: u64 = 60 * 60;
const DAY_S: u64 = 24 * 60 * 60;

/// Why a key, certificate or request cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// It cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The certificate request was changed, or its sender does not have the key.
    #[error("the certificate request is not signed by its own key: it was changed on its way")]
    Request,
    /// Keys of that kind are not taken.
    #[error("{0} keys are not taken, only ECDSA P-256 and Ed25519")]
    Algorithm(String),
    /// Key and certificate do not belong together.
    #[error("{key} is not the key of {certificate}: put back the pair that belongs together")]
    Mismatch {
        /// The key.
        key: &'static str,
        /// The certificate.
        certificate: &'static str,
    },
    /// The certificate does not have what ours have.
    #[error("the certificate is none that a Tidegate cluster issues: {0}")]
    Foreign(&'static str),
    /// There is no CA key here.
    #[error("this node has no CA key (a witness never has one): issue the certificate on a full member")]
    NoCaKey,
    /// The crypto library refused.
    #[error("cannot {what}: {reason}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |error| PkiError::Crypto { what, reason: error.to_string() }
}
