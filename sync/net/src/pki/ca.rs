//! The CA of a cluster.

use super::{
    BACKDATED_S, CA_VALIDITY_S, CaCertificate, Csr, NodeCertificate, NodeKey, PkiError, crypto, name,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use std::ops::Range;
use tidegate_sync::cluster::{ClusterId, NodeId};
use time::OffsetDateTime;

/// A CA with its key: on full members only.
#[derive(Debug)]
pub struct Ca {
    certificate: CaCertificate,
    key: NodeKey,
}

impl Ca {
    /// A new CA for a new cluster. It may sign names of this cluster only, and no other CA.
    ///
    /// # Errors
    /// The crypto library's.
    pub fn create(cluster: ClusterId, cluster_name: &str, now_unix_s: u64) -> Result<Self, PkiError> {
        let key = NodeKey::generate()?;
        let subject = format!("Tidegate cluster {cluster_name}");
        let mut params = params(&subject, name::ca_name(cluster), now_unix_s..now_unix_s + CA_VALIDITY_S)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(name::domain(cluster))],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(&key.0).map_err(crypto("make the CA's certificate"))?;
        Ok(Ca { certificate: CaCertificate::from_der(certificate.der())?, key })
    }

    /// A CA from its certificate and its key.
    ///
    /// # Errors
    /// The key is not the certificate's.
    pub fn new(certificate: CaCertificate, key: NodeKey) -> Result<Self, PkiError> {
        match certificate.key_sha256() == key.sha256() {
            true => Ok(Ca { certificate, key }),
            false => Err(PkiError::Mismatch { key: "ca.key", certificate: "ca.pem" }),
        }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// Its key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.pem()
    }

    /// A certificate for that node, good for `validity_s` seconds from now. The clock of a node may be an
    /// hour behind.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn issue(
        &self,
        csr: &Csr,
        node: NodeId,
        node_name: &str,
        now_unix_s: u64,
        validity_s: u64,
    ) -> Result<NodeCertificate, PkiError> {
        self.issue_between(csr, node, node_name, now_unix_s..now_unix_s.saturating_add(validity_s))
    }

    pub(super) fn issue_between(
        &self,
        csr: &Csr,
        node: NodeId,
        node_name: &str,
        good: Range<u64>,
    ) -> Result<NodeCertificate, PkiError> {
        let mut params = params(node_name, name::node_name(self.certificate.cluster(), node), good)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key.0)
            .map_err(crypto("use the CA's certificate"))?;
        let signed = params.signed_by(&csr.key, &issuer).map_err(crypto("sign the certificate"))?;
        NodeCertificate::from_der(signed.der())
    }
}

fn params(subject: &str, dns_name: String, good: Range<u64>) -> Result<CertificateParams, PkiError> {
    let unusable = |what| move |reason: String| PkiError::Malformed { what, reason };
    let time = |unix_s: u64| {
        let unix_s = i64::try_from(unix_s).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(unix_s).map_err(|e| unusable("the date")(e.to_string()))
    };
    let mut params = CertificateParams::default();
    params.not_before = time(good.start.saturating_sub(BACKDATED_S))?;
    params.not_after = time(good.end)?;
    params.serial_number = Some(SerialNumber::from(serial().to_vec()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    let dns_name = dns_name.try_into().map_err(|e: rcgen::Error| unusable("the name")(e.to_string()))?;
    params.subject_alt_names = vec![SanType::DnsName(dns_name)];
    Ok(params)
}

/// RFC 5280, 4.1.2.2: positive, at most 20 octets.
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7F | 0x40;
    serial
}
