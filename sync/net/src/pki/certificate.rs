//! Certificates as they are read.

use super::{PkiError, name};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tidegate_sync::cluster::{ClusterId, NodeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The certificate of a cluster's CA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    cluster: ClusterId,
    not_after_unix_s: u64,
    key_sha256: [u8; 32],
}

impl CaCertificate {
    /// Reads one.
    ///
    /// # Errors
    /// It is none of a Tidegate cluster.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        const FOREIGN: PkiError = PkiError::Foreign("it is not of a CA");
        let facts = facts(der)?;
        let cluster = facts.name.as_deref().and_then(name::parse_ca).ok_or(FOREIGN)?;
        Ok(CaCertificate {
            der: CertificateDer::from(der.to_vec()),
            cluster,
            not_after_unix_s: facts.not_after_unix_s,
            key_sha256: facts.key_sha256,
        })
    }

    /// Reads what [`CaCertificate::pem`] writes.
    ///
    /// # Errors
    /// It is none of a Tidegate cluster.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&der_of(pem)?)
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.der)
    }

    /// In DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The cluster that it is the CA of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its fingerprint: SHA-256 of its DER. Join tokens carry it.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Its end: Unix time in seconds.
    pub fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }

    /// SHA-256 of its public key.
    pub(super) fn key_sha256(&self) -> [u8; 32] {
        self.key_sha256
    }
}

/// The certificate of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeCertificate {
    der: CertificateDer<'static>,
    cluster: ClusterId,
    node: NodeId,
    not_before_unix_s: u64,
    not_after_unix_s: u64,
    key_sha256: [u8; 32],
}

impl NodeCertificate {
    /// Reads one. Who signed it is not looked at.
    ///
    /// # Errors
    /// It does not name a node of a Tidegate cluster.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        const FOREIGN: PkiError = PkiError::Foreign("it names no cluster and node");
        let facts = facts(der)?;
        let (cluster, node) = facts.name.as_deref().and_then(name::parse_node).ok_or(FOREIGN)?;
        Ok(NodeCertificate {
            der: CertificateDer::from(der.to_vec()),
            cluster,
            node,
            not_before_unix_s: facts.not_before_unix_s,
            not_after_unix_s: facts.not_after_unix_s,
            key_sha256: facts.key_sha256,
        })
    }

    /// Reads what [`NodeCertificate::pem`] writes.
    ///
    /// # Errors
    /// As [`NodeCertificate::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&der_of(pem)?)
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.der)
    }

    /// In DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The cluster that it names.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node that it names.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// From when it is good: Unix time in seconds.
    pub fn not_before_unix_s(&self) -> u64 {
        self.not_before_unix_s
    }

    /// Until when it is good: Unix time in seconds.
    pub fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }

    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    pub fn key_sha256(&self) -> [u8; 32] {
        self.key_sha256
    }

    /// From when it is to be renewed: see [`renewal_due_unix_s`].
    pub fn renewal_due_unix_s(&self) -> u64 {
        renewal_due_unix_s(self.not_before_unix_s, self.not_after_unix_s)
    }
}

/// When a certificate is to be renewed: after two thirds of its life. Unix times in seconds.
pub fn renewal_due_unix_s(not_before_unix_s: u64, not_after_unix_s: u64) -> u64 {
    not_before_unix_s + not_after_unix_s.saturating_sub(not_before_unix_s) / 3 * 2
}

struct Facts {
    /// The one DNS name, if it has exactly one name.
    name: Option<String>,
    not_before_unix_s: u64,
    not_after_unix_s: u64,
    key_sha256: [u8; 32],
}

fn facts(der: &[u8]) -> Result<Facts, PkiError> {
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("something follows it"));
    }
    let names = parsed.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
    let name = names.and_then(|names| match &names.value.general_names[..] {
        [GeneralName::DNSName(name)] => Some((*name).to_owned()),
        _ => None,
    });
    let unix_s = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Ok(Facts {
        name,
        not_before_unix_s: unix_s(parsed.validity().not_before),
        not_after_unix_s: unix_s(parsed.validity().not_after),
        key_sha256: Sha256::digest(parsed.public_key().raw).into(),
    })
}

fn malformed(reason: impl Into<String>) -> PkiError {
    PkiError::Malformed { what: "the certificate", reason: reason.into() }
}

fn der_of(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(e.to_string()))
}

fn pem_of(der: &CertificateDer<'_>) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}
