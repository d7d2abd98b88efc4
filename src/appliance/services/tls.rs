//! TLS settings of the listeners.

use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::{KeyPair, Pki};

/// The API server judges client certificates itself, so that an expired one is answered 401 and not
/// cut off in the handshake.
pub(super) fn api_server(pki: &Pki) -> anyhow::Result<Arc<ServerConfig>> {
    let verifier = apiserver::auth::certificate::handshake_verifier(&pki.authority.certificate_pem)
        .context("the CA for client certificates")?;
    let (chain, key) = load(&pki.server)?;
    let mut config = builder()?.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The kubelet lets nobody in without a certificate of the cluster's CA.
pub(super) fn kubelet(pki: &Pki) -> anyhow::Result<Arc<ServerConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pki.authority.certificate_pem.as_bytes()) {
        roots.add(certificate.context("the CA's certificate")?)?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .context("the CA for client certificates")?;
    let (chain, key) = load(&pki.kubelet)?;
    let mut config = builder()?.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

fn builder() -> anyhow::Result<Builder> {
    let provider = Arc::new(ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn load(pair: &KeyPair) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).context("reading a private key")?;
    Ok((chain.context("reading a certificate")?, key))
}
