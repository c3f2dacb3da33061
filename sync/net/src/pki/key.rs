//! Private keys, and requests for certificates.

use super::{PkiError, crypto};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// A private key: of a node or a CA. ECDSA P-256.
pub struct NodeKey(pub(super) KeyPair);

/// Without the key.
impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey")
    }
}

impl NodeKey {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(NodeKey).map_err(crypto("make a key"))
    }

    /// Reads what [`NodeKey::pem`] writes. Other PEM blocks before or behind it do not matter.
    ///
    /// # Errors
    /// It is none, or of a kind that is not taken.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let malformed = |reason: String| PkiError::Malformed { what: "the private key", reason };
        let der =
            <PrivatePkcs8KeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes())
                .map_err(|e| malformed(e.to_string()))?;
        let key = KeyPair::try_from(&der).map_err(|e| malformed(e.to_string()))?;
        check_algorithm(&key)?;
        Ok(NodeKey(key))
    }

    /// PKCS #8 in PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.subject_public_key_info()).into()
    }

    /// A secret of this key for another use: the same for the same label, until the key changes.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let parts = Sha256::new().chain_update(b"tidegate derive\n").chain_update(label).chain_update(b"\n");
        parts.chain_update(self.0.serialized_der()).finalize().into()
    }

    /// A certificate request (DER), signed with this key. Only its key counts, not the name in it.
    ///
    /// # Errors
    /// The crypto library's.
    pub fn csr(&self, node_name: &str) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_name);
        let request = params.serialize_request(&self.0).map_err(crypto("make a certificate request"))?;
        Ok(request.der().to_vec())
    }

    pub(super) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

/// A request for a certificate whose signature was checked: its sender has the key.
pub struct Csr {
    pub(super) key: rcgen::PublicKey,
    sha256: [u8; 32],
}

impl std::fmt::Debug for Csr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csr")
    }
}

impl Csr {
    /// Longest request, in bytes.
    pub const LONGEST: usize = 8 << 10;

    /// Reads and checks a request.
    ///
    /// # Errors
    /// It is none, was changed, or its key is of a kind that is not taken.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let malformed = |reason: String| PkiError::Malformed { what: "the certificate request", reason };
        if der.len() > Self::LONGEST {
            return Err(malformed(format!("{} bytes are too many", der.len())));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("something follows it".to_owned()));
        }
        parsed.verify_signature().map_err(|_| PkiError::Request)?;
        let sha256 = Sha256::digest(parsed.certification_request_info.subject_pki.raw).into();
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let key = request.map_err(|e| malformed(e.to_string()))?.public_key;
        check_algorithm(&key)?;
        // What is issued holds the key as rcgen writes it; it must be the one that was hashed.
        let written: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
        match written == sha256 {
            true => Ok(Csr { key, sha256 }),
            false => Err(malformed("its key is written in an unusual way".to_owned())),
        }
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER): asked twice with the same key, a node is
    /// admitted once.
    pub fn key_sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

fn check_algorithm(key: &impl PublicKeyData) -> Result<(), PkiError> {
    let algorithm = key.algorithm();
    match algorithm == &PKCS_ECDSA_P256_SHA256 || algorithm == &PKCS_ED25519 {
        true => Ok(()),
        false => Err(PkiError::Algorithm(format!("{algorithm:?}"))),
    }
}
