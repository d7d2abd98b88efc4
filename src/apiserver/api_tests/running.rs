//! The real listener on loopback, a certificate authority, and clients of both protocols.

use std::sync::Arc;

use http::Request;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::fixtures::config;
use crate::auth::user::KUBELET_CLIENT;
use crate::config::Config;
use crate::connections::Limits;
use crate::rest::KubeletIdentity;
use crate::server::ApiServer;

/// A certificate authority and what it signed.
pub(super) struct Pki {
    pub(super) ca: CertifiedIssuer<'static, KeyPair>,
}

pub(super) type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate of `CN=name,O=organization`; the latter may be empty.
    pub(super) fn leaf(&self, name: &str, organization: &str, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if !organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        Arc::new(roots)
    }

    pub(super) fn server_tls(&self, leaf: Leaf) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = crate::auth::certificate::handshake_verifier(&self.ca.pem()).unwrap();
        let (certificate, key) = leaf;
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(clients);
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// How the API server is known to kubelets.
    pub(super) fn kubelet_client(&self, name: &str) -> KubeletIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap().pem();
        KubeletIdentity { certificate, key: key.serialize_pem(), ca: self.ca.pem() }
    }

    pub(super) fn client_tls(&self, leaf: Option<Leaf>, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(self.roots());
        let mut config = match leaf {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

pub(super) struct Running {
    pub(super) pki: Pki,
    pub(super) server: Arc<ApiServer>,
    pub(super) address: std::net::SocketAddr,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: JoinSet<()>,
}

impl Running {
    pub(super) async fn start() -> Self {
        Self::start_within(Limits::DEFAULT).await
    }

    pub(super) async fn start_within(limits: Limits) -> Self {
        let pki = Pki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let auth = crate::auth::Config { client_ca: Some(pki.ca.pem()), ..crate::auth::Config::default() };
        let rest = crate::rest::Config { kubelet: Some(pki.kubelet_client(KUBELET_CLIENT)) };
        let config = Config { auth, rest, secure_port: address.port(), ..config() };
        let server = ApiServer::new(config).await.unwrap();
        let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let tls = pki.server_tls(pki.leaf("server", "x", ExtendedKeyUsagePurpose::ServerAuth));
        tasks.spawn(Arc::clone(&server).serve_within(limits, listener, tls, cancel.clone()));
        Self { pki, server, address, cancel, tasks }
    }

    /// A connection after its handshake, on which nothing was asked.
    pub(super) async fn connect(&self, leaf: Option<Leaf>, protocol: &[u8]) -> TlsStream<TcpStream> {
        let connector = tokio_rustls::TlsConnector::from(self.pki.client_tls(leaf, protocol));
        let tcp = TcpStream::connect(self.address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap()
    }

    pub(super) async fn get(&mut self, path: &str, leaf: Option<Leaf>, http2: bool) -> http::Response<Incoming> {
        self.send(Request::get(path).body(Full::default()).unwrap(), leaf, http2).await
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        leaf: Option<Leaf>,
        http2: bool,
    ) -> http::Response<Incoming> {
        let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let tls = self.connect(leaf, protocol).await;
        let (mut parts, body) = request.into_parts();
        // What becomes of the connection shows in the answer.
        if http2 {
            parts.uri = format!("https://localhost{}", parts.uri).parse().unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
            self.tasks.spawn(async move { drop(connection.await) });
            sender.send_request(Request::from_parts(parts, body)).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
            self.tasks.spawn(async move { drop(connection.await) });
            parts.headers.insert("host", "localhost".parse().unwrap());
            sender.send_request(Request::from_parts(parts, body)).await.unwrap()
        }
    }

    pub(super) fn admin(&self) -> Option<Leaf> {
        Some(self.pki.leaf("admin", "system:masters", ExtendedKeyUsagePurpose::ClientAuth))
    }
}
