//! The TLS listener: who a client certificate is, both protocols, and an orderly end.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fixtures::config;
use crate::config::Config;
use crate::server::ApiServer;

/// A certificate authority and what it signed.
struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn leaf(&self, name: &str, organization: &str, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
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

    fn server_tls(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = crate::auth::certificate::handshake_verifier(&self.ca.pem()).unwrap();
        let (certificate, key) = self.leaf("server", "x", ExtendedKeyUsagePurpose::ServerAuth);
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(clients);
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn client_tls(&self, leaf: Option<Leaf>, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
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

struct Running {
    pki: Pki,
    address: std::net::SocketAddr,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start() -> Self {
        let pki = Pki::new();
        let auth = crate::auth::Config { client_ca: Some(pki.ca.pem()), ..crate::auth::Config::default() };
        let server = ApiServer::new(Config { auth, ..config() }).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(server.serve(listener, pki.server_tls(), cancel.clone()));
        Self { pki, address, cancel, tasks }
    }

    async fn get(&mut self, path: &str, leaf: Option<Leaf>, http2: bool) -> http::Response<Incoming> {
        self.send(Request::get(path).body(Full::default()).unwrap(), leaf, http2).await
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        leaf: Option<Leaf>,
        http2: bool,
    ) -> http::Response<Incoming> {
        let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let connector = tokio_rustls::TlsConnector::from(self.pki.client_tls(leaf, protocol));
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
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

    fn admin(&self) -> Option<Leaf> {
        Some(self.pki.leaf("admin", "system:masters", ExtendedKeyUsagePurpose::ClientAuth))
    }
}

#[tokio::test]
async fn the_certificate_says_who_asks_in_both_protocols() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let admin = running.admin();
        let answer = running.get("/api/v1/namespaces", admin, http2).await;
        assert_eq!(answer.status(), StatusCode::OK, "http2: {http2}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
        let stranger = Some(running.pki.leaf("someone", "x", ExtendedKeyUsagePurpose::ClientAuth));
        assert_eq!(running.get("/api/v1/namespaces", stranger, http2).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(running.get("/api/v1/namespaces", None, http2).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(running.get("/livez", None, http2).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_answer_to_head_has_no_body_in_both_protocols() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let head = Request::head("/livez").body(Full::default()).unwrap();
        let admin = running.admin();
        let answer = running.send(head, admin, http2).await;
        assert_eq!((answer.status(), answer.headers()["content-length"].as_bytes()), (StatusCode::OK, &b"2"[..]));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "", "http2: {http2}");
    }
}

#[tokio::test]
async fn the_sender_of_a_body_that_is_too_large_gets_the_answer() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let request = Request::post("/api/v1/namespaces").header("content-type", "application/json");
        let request = request.body(Full::from(vec![b'x'; 4 << 20])).unwrap();
        let admin = running.admin();
        let answer = running.send(request, admin, http2).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["reason"], "RequestEntityTooLarge", "http2: {http2}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_unauthorized() {
    let mut running = Running::start().await;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &running.pki.ca).unwrap();
    let expired = (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let answer = running.get("/api/v1/namespaces", Some(expired), true).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["message"]), (&"Unauthorized".into(), &"Unauthorized".into()));
}

#[tokio::test]
async fn cancelling_ends_open_watches_and_then_the_listener() {
    let mut running = Running::start().await;
    let admin = running.admin();
    let watch = running.get("/api/v1/namespaces?watch=1", admin, false).await;
    assert_eq!(watch.status(), StatusCode::OK);
    running.cancel.cancel();
    let events = watch.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(events.iter().filter(|b| **b == b'\n').count(), 4);
    while let Some(ended) = running.tasks.join_next().await {
        ended.unwrap();
    }
    assert!(TcpStream::connect(running.address).await.is_err());
}
