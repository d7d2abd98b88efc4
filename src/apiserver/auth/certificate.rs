//! Users who present a client certificate: the common name is the user, each organisation a group.
//!
//! The TLS handshake proves only that the client holds the certificate's key. Whether the certificate
//! is ours and in date is judged for each request, because a client must be told `Unauthorized`, as
//! upstream does, and not be cut off in the handshake.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::User;

/// How many verified certificates are remembered: clients of one cluster are far fewer.
const REMEMBERED: usize = 512;

/// What the TLS client of a connection presented; the handshake proved possession of its key.
#[derive(Debug)]
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// A chain is looked up once for each connection, its dates at each request.
    known: OnceLock<Arc<Known>>,
}

impl PeerCertificate {
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, known: OnceLock::new() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the client CA bundle holds no certificate")]
    NoCa,
    #[error("the client CA bundle: {0}")]
    Ca(#[source] rustls::Error),
    #[error("the client CA bundle: {0}")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("no certificate was presented")]
    Empty,
    #[error("the certificate is not ours: {0}")]
    Untrusted(#[source] rustls::Error),
    #[error("the certificate has no common name")]
    Nameless,
    #[error("the certificate is not valid at this time")]
    OutOfDate,
}

/// Judges client certificates against the cluster's client CAs.
#[derive(Debug)]
pub struct Certificates {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Each command of kubectl is a connection of its own: to verify a signature costs twice what the rest of a
    /// handshake does.
    known: Mutex<HashMap<CertificateDer<'static>, Arc<Known>>>,
}

/// Whose a certificate of ours is, and when.
#[derive(Debug)]
struct Known {
    user: Arc<User>,
    not_before: i64,
    not_after: i64,
}

impl Certificates {
    /// Reads the CA bundle.
    ///
    /// # Errors
    /// When it is empty or damaged.
    pub fn new(ca_pem: &str) -> Result<Self, CertificateError> {
        WebPkiClientVerifier::builder_with_provider(roots(ca_pem)?, Arc::new(ring::default_provider()))
            .build()
            .map(|verifier| Self { verifier, known: Mutex::default() })
            .map_err(CertificateError::Verifier)
    }

    /// The user of a presented chain.
    ///
    /// # Errors
    /// When the chain does not lead to one of our CAs, or is out of date.
    pub fn authenticate(&self, peer: &PeerCertificate, now: Timestamp) -> Result<Arc<User>, CertificateError> {
        let known = match peer.known.get() {
            Some(known) => known,
            None => {
                let known = self.verify(&peer.chain, now)?;
                peer.known.get_or_init(|| known)
            }
        };
        if now.as_second() < known.not_before || now.as_second() > known.not_after {
            return Err(CertificateError::OutOfDate);
        }
        Ok(Arc::clone(&known.user))
    }

    /// Who a chain belongs to, from memory or by its signatures.
    fn verify(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<Arc<Known>, CertificateError> {
        let (leaf, rest) = chain.split_first().ok_or(CertificateError::Empty)?;
        if rest.is_empty()
            && let Some(known) = self.known.lock().get(leaf)
        {
            return Ok(Arc::clone(known));
        }
        let seconds = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
        self.verifier
            .verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(seconds))
            .map_err(CertificateError::Untrusted)?;
        let known = Arc::new(read_certificate(leaf)?);
        // Of a longer chain each certificate would have to be looked at, and it could be of any size.
        if rest.is_empty() {
            let mut all = self.known.lock();
            if all.len() >= REMEMBERED {
                all.clear();
            }
            all.insert(leaf.clone(), Arc::clone(&known));
        }
        Ok(known)
    }
}

fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|_| CertificateError::NoCa)?).map_err(CertificateError::Ca)?;
    }
    if roots.is_empty() { Err(CertificateError::NoCa) } else { Ok(Arc::new(roots)) }
}

fn read_certificate(leaf: &CertificateDer<'_>) -> Result<Known, CertificateError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::Nameless)?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()
        .and_then(|n| n.as_str().ok())
        .filter(|n| !n.is_empty())
        .ok_or(CertificateError::Nameless)?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut user = User::authenticated(name, &groups);
    let credential = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![credential]);
    let validity = certificate.validity();
    Ok(Known {
        user: Arc::new(user),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// The verifier for the listener's TLS configuration: it asks for a client certificate, requires none,
/// and checks the handshake's signature only.
///
/// # Errors
/// When the CA bundle, which clients are told as a hint, is empty or damaged.
pub fn handshake_verifier(ca_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let hints = roots(ca_pem)?.subjects();
    let provider: CryptoProvider = ring::default_provider();
    Ok(Arc::new(HandshakeVerifier { hints, algorithms: provider.signature_verification_algorithms }))
}

#[derive(Debug)]
struct HandshakeVerifier {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for HandshakeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, name: Option<&str>) -> PeerCertificate {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.distinguished_name.push(DnType::OrganizationName, "devs");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap();
        PeerCertificate::new(vec![signed.der().clone()])
    }

    #[test]
    fn the_subject_names_user_and_groups() {
        let ca = ca();
        let certificates = Certificates::new(&ca.pem()).unwrap();
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let user = certificates.authenticate(&leaf(&ca, Some("ann")), now).unwrap();
        assert_eq!((user.name.as_str(), &*user.groups), ("ann", &["devs".into(), "system:authenticated".into()][..]));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }

    #[test]
    fn a_certificate_is_verified_once_for_all_connections() {
        let ca = ca();
        let certificates = Certificates::new(&ca.pem()).unwrap();
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let first = leaf(&ca, Some("ann"));
        let second = PeerCertificate::new(first.chain.clone());
        let user = certificates.authenticate(&first, now).unwrap();
        assert!(Arc::ptr_eq(&user, &certificates.authenticate(&second, now).unwrap()));
        let mut longer = first.chain.clone();
        longer.push(first.chain[0].clone());
        let unshared = certificates.authenticate(&PeerCertificate::new(longer), now).unwrap();
        assert!(!Arc::ptr_eq(&user, &unshared) && user.name == unshared.name);
    }

    #[test]
    fn strangers_the_nameless_and_the_expired_are_refused() {
        let (other, ca) = (ca(), ca());
        let certificates = Certificates::new(&ca.pem()).unwrap();
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2027-06-01T00:00:00Z".parse().unwrap();
        let good = leaf(&ca, Some("ann"));
        let refused = |peer: &PeerCertificate, at| certificates.authenticate(peer, at).unwrap_err();
        assert!(matches!(refused(&leaf(&other, Some("ann")), now), CertificateError::Untrusted(_)));
        assert!(matches!(refused(&leaf(&ca, None), now), CertificateError::Nameless));
        assert!(matches!(refused(&PeerCertificate::new(Vec::new()), now), CertificateError::Empty));
        assert!(matches!(refused(&good, later), CertificateError::Untrusted(_)));
        certificates.authenticate(&good, now).unwrap();
        assert!(matches!(refused(&good, later), CertificateError::OutOfDate), "also once it is remembered");
        assert!(matches!(Certificates::new(""), Err(CertificateError::NoCa)));
    }
}
