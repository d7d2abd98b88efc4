//! Over real TLS on loopback, with an API server that answers reviews from a table.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use api::k8s_openapi::api::authentication::v1::TokenReview;
use api::k8s_openapi::api::authorization::v1::SubjectAccessReview;
use client::Owned;
use client::kube::{self, client::Body};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::super::respond::text;
use super::super::reviews::Reviews;
use super::*;

const API_SERVER: &str = "api-server";
const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate authority, the server's certificate, and clients'.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), ca }
    }

    fn identity(&self, name: &str, group: Option<&str>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (vec![certificate], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        Arc::new(roots)
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let (chain, key) = self.identity("node", None);
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.unwrap().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap())
    }

    fn client(&self, identity: Option<Identity>) -> TlsConnector {
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(self.roots());
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// An API server for which the token `NAME-token` is NAME's; grants are "NAME VERB SUBRESOURCE".
fn api_server(grants: &'static [&'static str], questions: Arc<AtomicUsize>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let questions = Arc::clone(&questions);
        async move {
            questions.fetch_add(1, Ordering::Relaxed);
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = match path.as_str() {
                "/apis/authentication.k8s.io/v1/tokenreviews" => token_review(&body),
                "/apis/authorization.k8s.io/v1/subjectaccessreviews" => access_review(&body, grants),
                other => panic!("{other}"),
            };
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    kube::Client::new(service, "default")
}

fn token_review(body: &[u8]) -> Value {
    let mut review: TokenReview = serde_json::from_slice(body).unwrap();
    let name = review.spec.token.strip_suffix("-token").map(str::to_owned);
    let user = json!({"username": name, "groups": ["system:serviceaccounts"]});
    let status = if name.is_some() { json!({"authenticated": true, "user": user}) } else { json!({"error": "no"}) };
    review.status = Some(serde_json::from_value(status).unwrap());
    serde_json::to_value(review).unwrap()
}

fn access_review(body: &[u8], grants: &[&str]) -> Value {
    let mut review: SubjectAccessReview = serde_json::from_slice(body).unwrap();
    let asked = review.spec.resource_attributes.clone().unwrap();
    assert_eq!((asked.resource.as_deref(), asked.name.as_deref()), (Some("nodes"), Some("n1")));
    assert!(review.spec.groups.clone().unwrap().contains(&"system:authenticated".to_owned()));
    let words = [review.spec.user.clone(), asked.verb, asked.subresource].map(Option::unwrap_or_default);
    let allowed = grants.contains(&words.join(" ").as_str());
    review.status = Some(serde_json::from_value(json!({ "allowed": allowed })).unwrap());
    serde_json::to_value(review).unwrap()
}

struct Running {
    pki: Pki,
    at: SocketAddr,
    questions: Arc<AtomicUsize>,
    _task: Owned,
}

async fn serve(limits: Limits, grants: &'static [&'static str]) -> Running {
    let pki = Pki::new();
    let questions = Arc::new(AtomicUsize::new(0));
    let reviews = Reviews::new(api_server(grants, Arc::clone(&questions)), "n1".to_owned());
    let gate = Gate::new(API_SERVER.to_owned(), reviews);
    let listener = Listener::new(gate, pki.server(), limits, |request: Request<Incoming>| async move {
        text(StatusCode::OK, request.uri().path())
    });
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let task = Owned::spawn(listener.run(socket, CancellationToken::new()));
    Running { pki, at, questions, _task: task }
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

impl Running {
    async fn connect(&self, from: u8, identity: Option<Identity>) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).unwrap();
        let stream = socket.connect(self.at).await.unwrap();
        self.pki.client(identity).connect(ServerName::try_from("node").unwrap(), stream).await.unwrap()
    }

    async fn ask(&self, identity: Option<Identity>, method: &str, path: &str, token: &str) -> (u16, String) {
        let mut stream = self.connect(1, identity).await;
        request(&mut stream, method, path, token).await
    }
}

/// Sends a request on a connection and reads the answer.
async fn request(stream: &mut Client, method: &str, path: &str, token: &str) -> (u16, String) {
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: node\r\n{token}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = String::new();
    let mut buffer = [0; 4096];
    loop {
        let size = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        got.push_str(std::str::from_utf8(&buffer[..size]).unwrap());
        let Some((head, body)) = got.split_once("\r\n\r\n") else {
            assert!(size > 0, "closed after {got:?}");
            continue;
        };
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        if body.len() >= length {
            return (head[9..12].parse().unwrap(), body.to_owned());
        }
    }
}

async fn is_closed(stream: &mut Client) -> bool {
    matches!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_))
}

const GRANTS: &[&str] =
    &["scraper get metrics", "scraper get stats", "viewer get pods", "admin get proxy", "admin create proxy"];

#[tokio::test]
async fn tokens_are_let_in_by_the_rights_of_their_users() {
    let server = serve(Limits::default(), GRANTS).await;
    let forbidden = |user: &str, verb: &str, subresources: &str| {
        (403, format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n"))
    };
    let unauthorized = (401, "Unauthorized".to_owned());
    for (method, path, token, expected) in [
        ("GET", "/metrics", "", unauthorized.clone()),
        ("GET", "/healthz", "", unauthorized.clone()),
        ("GET", "/metrics", "nobody", unauthorized.clone()),
        ("GET", "/metrics/resource", "scraper-token", (200, "/metrics/resource".to_owned())),
        ("GET", "/stats/summary", "scraper-token", (200, "/stats/summary".to_owned())),
        ("GET", "/pods", "viewer-token", (200, "/pods".to_owned())),
        ("GET", "/pods", "admin-token", (200, "/pods".to_owned())),
        ("POST", "/exec/ns/p/c", "admin-token", (200, "/exec/ns/p/c".to_owned())),
        ("POST", "/metrics", "scraper-token", forbidden("scraper", "create", "metrics")),
        ("GET", "/pods", "scraper-token", forbidden("scraper", "get", "pods proxy")),
        ("GET", "/metrics", "admin-token", forbidden("admin", "get", "metrics")),
        ("GET", "/containerLogs/ns/p/c", "viewer-token", forbidden("viewer", "get", "proxy")),
        ("PUT", "/exec/ns/p/c", "admin-token", forbidden("admin", "update", "proxy")),
    ] {
        assert_eq!(server.ask(None, method, path, token).await, expected, "{method} {path} {token}");
    }
}

#[tokio::test]
async fn certificates_are_let_in_by_name_group_or_rights() {
    let server = serve(Limits::default(), GRANTS).await;
    for (name, group, path, expected) in [
        (API_SERVER, None, "/exec/ns/p/c", 200),
        ("root", Some("system:masters"), "/exec/ns/p/c", 200),
        ("scraper", None, "/metrics", 200),
        ("scraper", None, "/exec/ns/p/c", 403),
        ("", None, "/metrics", 401),
    ] {
        let identity = Some(server.pki.identity(name, group));
        assert_eq!(server.ask(identity, "GET", path, "").await.0, expected, "{name} {path}");
    }
    assert_eq!(server.questions.load(Ordering::Relaxed), 2, "nobody asks about the API server and masters");
}

#[tokio::test]
async fn answers_of_the_api_server_are_remembered() {
    let server = serve(Limits::default(), GRANTS).await;
    for (path, token, expected, questions) in [
        ("/metrics", "scraper-token", 200, 2),
        ("/metrics/cadvisor", "scraper-token", 200, 2),
        ("/pods", "scraper-token", 403, 4),
        ("/pods", "scraper-token", 403, 4),
        ("/pods", "nobody", 401, 5),
        ("/pods", "nobody", 401, 5),
    ] {
        assert_eq!(server.ask(None, "GET", path, token).await.0, expected);
        assert_eq!(server.questions.load(Ordering::Relaxed), questions, "{path} {token}");
    }
}

#[tokio::test]
async fn strangers_lock_nobody_out() {
    let limits = Limits { strangers: 32, strangers_of_address: 16, ..Limits::default() };
    let server = serve(limits, GRANTS).await;
    let mut silent = Vec::new();
    for n in 0..120 {
        silent.push(server.connect(2 + n % 3, None).await);
    }
    let identity = Some(server.pki.identity(API_SERVER, None));
    let mut known = server.connect(1, identity).await;
    assert_eq!(request(&mut known, "GET", "/pods", "").await.0, 200);
    assert_eq!(server.ask(None, "GET", "/metrics", "scraper-token").await.0, 200);
    for stream in &mut silent[..120 - 3 * 16] {
        assert!(is_closed(stream).await, "the oldest strangers give way at once");
    }
    assert_eq!(request(&mut known, "GET", "/pods", "").await.0, 200);
}

#[tokio::test]
async fn a_stranger_has_little_time_and_one_refusal() {
    let limits = Limits { patience: Duration::from_millis(1500), ..Limits::default() };
    let server = serve(limits, GRANTS).await;
    let (mut api_server, mut scraper) =
        (server.connect(1, Some(server.pki.identity(API_SERVER, None))).await, server.connect(1, None).await);
    assert_eq!(request(&mut scraper, "GET", "/metrics", "scraper-token").await.0, 200);
    let mut silent = server.connect(1, None).await;
    let mut no_tls = TcpStream::connect(server.at).await.unwrap();
    for (path, token, status) in [("/pods", "scraper-token", 403), ("/pods", "", 401)] {
        let mut refused = server.connect(1, None).await;
        assert_eq!(request(&mut refused, "GET", path, token).await.0, status);
        assert!(is_closed(&mut refused).await);
    }
    assert!(is_closed(&mut silent).await);
    assert!(matches!(tokio::time::timeout(PATIENCE, no_tls.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));
    // Those that were let in stay beyond that time.
    assert_eq!(request(&mut scraper, "GET", "/metrics", "scraper-token").await.0, 200);
    assert_eq!(request(&mut api_server, "GET", "/pods", "").await.0, 200);
    assert_eq!(request(&mut scraper, "GET", "/pods", "scraper-token").await.0, 403);
    assert!(is_closed(&mut scraper).await);
}

#[tokio::test]
async fn one_user_does_not_hold_all_connections() {
    let limits = Limits { known: 8, known_of_user: 4, ..Limits::default() };
    let server = serve(limits, GRANTS).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut stream = server.connect(1, None).await;
        assert_eq!(request(&mut stream, "GET", "/metrics", "scraper-token").await.0, 200);
        held.push(stream);
    }
    for stream in &mut held[..2] {
        assert!(is_closed(stream).await);
    }
    for stream in &mut held[2..] {
        assert_eq!(request(stream, "GET", "/metrics", "scraper-token").await.0, 200);
    }
}
