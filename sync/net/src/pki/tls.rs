//! rustls, as the nodes use it.

use super::{
    ALPN, ALPN_JOIN, ALPN_SYNC, CaCertificate, Membership, NodeCertificate, NodeKey, PeerError, PkiError,
    peer,
};
use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use std::sync::{Arc, OnceLock};
use tidegate_sync::cluster::NodeId;

/// What a member shows.
#[derive(Debug)]
pub struct Credentials {
    /// Its certificate.
    pub certificate: NodeCertificate,
    /// The key of it.
    pub key: NodeKey,
    /// The CA that signed it.
    pub ca: CaCertificate,
}

impl Credentials {
    /// Puts them together.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn new(certificate: NodeCertificate, key: NodeKey, ca: CaCertificate) -> Result<Self, PkiError> {
        if certificate.key_sha256() != key.sha256() {
            let (key, certificate) = ("the key in node.pem", "the certificate in it");
            return Err(PkiError::Mismatch { key, certificate });
        }
        match certificate.cluster() == ca.cluster() {
            true => Ok(Credentials { certificate, key, ca }),
            false => Err(PkiError::Foreign("ca.pem is of another cluster than the node's certificate")),
        }
    }
}

/// For dialling members: shows a certificate, and checks that the node of the dialled name
/// ([`super::server_name`]) answers and is a member.
///
/// # Errors
/// The credentials cannot be used.
pub fn client_config(
    credentials: &Credentials,
    membership: Arc<ArcSwap<Membership>>,
) -> Result<ClientConfig, PkiError> {
    dialling(credentials, membership, ALPN)
}

/// The same for session records.
///
/// # Errors
/// The credentials cannot be used.
pub fn sync_config(
    credentials: &Credentials,
    membership: Arc<ArcSwap<Membership>>,
) -> Result<ClientConfig, PkiError> {
    dialling(credentials, membership, ALPN_SYNC)
}

fn dialling(
    credentials: &Credentials,
    membership: Arc<ArcSwap<Membership>>,
    alpn: &[u8],
) -> Result<ClientConfig, PkiError> {
    let verifier = Arc::new(MemberVerifier::new(&credentials.ca, membership)?);
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain(credentials), credentials.key.der())
        .map_err(unusable)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For accepting members and those who join. Whoever shows a certificate must be a member; whoever shows
/// none may only join: ask [`accepted`] before anything is read from the connection.
///
/// # Errors
/// The credentials cannot be used.
pub fn server_config(
    credentials: &Credentials,
    membership: Arc<ArcSwap<Membership>>,
) -> Result<ServerConfig, PkiError> {
    let verifier = Arc::new(MemberVerifier::new(&credentials.ca, membership)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(credentials), credentials.key.der())
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_SYNC.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// For joining: shows nothing, and checks that any node of the cluster whose CA has this fingerprint
/// answers. Dial with any name. The CA's certificate is in the second value once the handshake is over.
///
/// # Errors
/// The crypto library's.
pub fn join_config(ca_sha256: [u8; 32]) -> Result<(ClientConfig, SeenCa), PkiError> {
    let seen = SeenCa(Arc::new(OnceLock::new()));
    let verifier = JoinVerifier { ca_sha256, seen: seen.clone() };
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok((config, seen))
}

/// The CA that a joining node was shown.
#[derive(Clone, Debug)]
pub struct SeenCa(Arc<OnceLock<Result<CaCertificate, PeerError>>>);

impl SeenCa {
    /// The CA, once the handshake has succeeded.
    pub fn ca(&self) -> Option<&CaCertificate> {
        self.0.get()?.as_ref().ok()
    }

    /// Whether another CA than the token's was shown.
    pub fn is_foreign(&self) -> bool {
        matches!(self.0.get(), Some(Err(PeerError::OtherCa)))
    }
}

/// Who came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// A member, by its certificate.
    Member(NodeId),
    /// A member that sends session records, by its certificate.
    Sync(NodeId),
    /// Somebody who wants to join: no more is known.
    Joining,
}

/// Who is at the other end of a connection after its handshake: by the protocol that was agreed on and
/// the certificates that the peer showed.
///
/// # Errors
/// No protocol of ours, or a member without a certificate.
pub fn accepted(alpn: Option<&[u8]>, certificates: &[CertificateDer<'_>]) -> Result<Accepted, PeerError> {
    match alpn {
        Some(ALPN_JOIN) => Ok(Accepted::Joining),
        Some(ALPN) => Ok(Accepted::Member(shown(certificates)?)),
        Some(ALPN_SYNC) => Ok(Accepted::Sync(shown(certificates)?)),
        _ => Err(PeerError::Protocol),
    }
}

/// Whose the first of these certificates is.
fn shown(certificates: &[CertificateDer<'_>]) -> Result<NodeId, PeerError> {
    let first = certificates.first().ok_or(PeerError::Missing)?;
    let it = NodeCertificate::from_der(first).map_err(|e| PeerError::Unusable(e.to_string()))?;
    Ok(it.node())
}

/// What a failed handshake is to be logged as: our reason if it has one.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => reason.to_string(),
        other => other.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PkiError> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)
}

/// With the CA, which a joining node does not have yet.
fn chain(credentials: &Credentials) -> Vec<CertificateDer<'static>> {
    vec![credentials.certificate.der().clone(), credentials.ca.der().clone()]
}

fn unusable(error: Error) -> PkiError {
    PkiError::Crypto { what: "use the node's certificate", reason: error.to_string() }
}

fn refuse(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn roots(ca: &CaCertificate) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    Ok(roots)
}

fn check_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, &algorithms)
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is spoken".to_owned()))
}

fn schemes() -> Vec<SignatureScheme> {
    rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
}

/// Between members, both ways.
#[derive(Debug)]
struct MemberVerifier {
    ca: CaCertificate,
    roots: RootCertStore,
    membership: Arc<ArcSwap<Membership>>,
}

impl MemberVerifier {
    fn new(ca: &CaCertificate, membership: Arc<ArcSwap<Membership>>) -> Result<Self, PkiError> {
        Ok(MemberVerifier { ca: ca.clone(), roots: roots(ca).map_err(unusable)?, membership })
    }

    fn member(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<NodeId, PeerError> {
        let node = peer::verify(&self.ca, &self.roots, end_entity, now)?.node();
        self.membership.load().check(node)?;
        Ok(node)
    }
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let dialled = match server_name {
            ServerName::DnsName(name) => super::name::parse_node(name.as_ref()),
            _ => None,
        };
        // The one that dials names a node of ours, always.
        let Some((_, dialled)) = dialled.filter(|(cluster, _)| *cluster == self.ca.cluster()) else {
            return Err(Error::General(format!("{server_name:?} is no node of this cluster")));
        };
        let answered = self.member(end_entity, now).map_err(refuse)?;
        match answered == dialled {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refuse(PeerError::OtherNode { dialled, answered })),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for MemberVerifier {
    /// Whoever joins has none; [`accepted`] asks for it.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.member(end_entity, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// From a joining node to a member.
#[derive(Debug)]
struct JoinVerifier {
    ca_sha256: [u8; 32],
    seen: SeenCa,
}

impl JoinVerifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<CaCertificate, PeerError> {
        // The fingerprint decides; what a stranger's certificate says does not matter.
        let shown = intermediates.iter().filter_map(|der| CaCertificate::from_der(der).ok());
        let ca = shown.into_iter().find(|ca| ca.sha256() == self.ca_sha256).ok_or(PeerError::OtherCa)?;
        let roots = roots(&ca).map_err(|e| PeerError::Unusable(e.to_string()))?;
        peer::verify(&ca, &roots, end_entity, now)?;
        Ok(ca)
    }
}

impl ServerCertVerifier for JoinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, now);
        let result = checked.as_ref().map(|_| ServerCertVerified::assertion()).map_err(|e| refuse(e.clone()));
        // Once a configuration; a second handshake with it must come to the same.
        let _ = self.seen.0.set(checked);
        result
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
