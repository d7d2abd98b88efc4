//! TLS settings of the listeners.

use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::{KeyPair, Pki};

/// The certificates of this process's listeners, exchanged while they are served.
#[derive(Debug)]
pub(super) struct Certificates {
    server: Arc<Served>,
    kubelet: Arc<Served>,
}

impl Certificates {
    pub(super) fn new(pki: &Pki) -> anyhow::Result<Arc<Self>> {
        let served = |pair: &KeyPair| anyhow::Ok(Arc::new(Served(RwLock::new(certified(pair)?))));
        Ok(Arc::new(Self { server: served(&pki.server)?, kubelet: served(&pki.kubelet)? }))
    }

    /// Serves these from the next handshake on.
    pub(super) fn exchange(&self, pki: &Pki) -> anyhow::Result<()> {
        let (server, kubelet) = (certified(&pki.server)?, certified(&pki.kubelet)?);
        *self.server.0.write() = server;
        *self.kubelet.0.write() = kubelet;
        Ok(())
    }
}

#[cfg(test)]
impl Certificates {
    /// The leaves that the next handshakes show, the API server's and the kubelet's.
    pub(super) fn leaves(&self) -> [CertificateDer<'static>; 2] {
        [&self.server, &self.kubelet].map(|served| served.0.read().cert[0].clone())
    }
}

#[derive(Debug)]
struct Served(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// The API server judges client certificates itself, so that an expired one is answered 401 and not
/// cut off in the handshake.
pub(super) fn api_server(pki: &Pki, certificates: &Certificates) -> anyhow::Result<Arc<ServerConfig>> {
    let verifier = apiserver::auth::certificate::handshake_verifier(&pki.authority.certificate_pem)
        .context("the CA for client certificates")?;
    let mut config = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(certificates.server.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// The kubelet verifies certificates of the cluster's CA; a client without one shows a token.
pub(super) fn kubelet(pki: &Pki, certificates: &Certificates) -> anyhow::Result<Arc<ServerConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pki.authority.certificate_pem.as_bytes()) {
        roots.add(certificate.context("the CA's certificate")?)?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .context("the CA for client certificates")?;
    let mut config = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(certificates.kubelet.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

fn builder() -> anyhow::Result<Builder> {
    let mut provider = ring::default_provider();
    prefer_quick(&mut provider.cipher_suites, has_aes());
    Ok(ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?)
}

/// Orders cipher suites by what they cost this processor; all of them are safe. Go's servers do the same: AES with the
/// shorter key where the processor knows AES, else (a Raspberry Pi 4) ChaCha20, which is several times as quick there.
fn prefer_quick(suites: &mut [SupportedCipherSuite], has_aes: bool) {
    suites.sort_by_key(|suite| {
        let is_old = suite.tls13().is_none();
        let cost = match suite.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 1,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
                if has_aes {
                    3
                } else {
                    0
                }
            }
            _ => 2,
        };
        (is_old, cost)
    });
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let found = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = false;
    found
}

fn certified(pair: &KeyPair) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).context("reading a private key")?;
    let certified = CertifiedKey::from_der(chain.context("reading a certificate")?, key, &ring::default_provider())?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_cipher_comes_first() {
        let aes = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384];
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        for (has_aes, expected) in [(true, [aes[0], aes[1], chacha]), (false, [chacha, aes[0], aes[1]])] {
            let mut suites = ring::default_provider().cipher_suites;
            prefer_quick(&mut suites, has_aes);
            let first: Vec<CipherSuite> = suites.iter().take(3).map(SupportedCipherSuite::suite).collect();
            assert_eq!(first, expected, "AES: {has_aes}");
            assert_eq!(suites.len(), ring::ALL_CIPHER_SUITES.len());
        }
    }
}
