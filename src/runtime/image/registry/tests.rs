//! A client against registries on loopback ports that answer as a test says.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// What the kernel's buffers of a connection hold at most, beside what was read.
const IN_FLIGHT: usize = 40 << 20;

/// What a registry answers a request with.
enum Answer {
    /// Head without its end, and body.
    Whole(String, String),
    /// A head, and a body that has no end.
    Endless(String),
}

/// What a test sees of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    target: String,
    authorization: Option<String>,
    body: String,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    /// How much of each endless answer was sent until the client hung up.
    sent: mpsc::Receiver<usize>,
    _serving: JoinSet<()>,
}

async fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::<Mutex<Vec<Request>>>::default();
    let (sender, sent) = mpsc::channel(8);
    let seen = Arc::clone(&requests);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut answers = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let request = read_request(stream).await;
            let Some((request, stream)) = request else { continue };
            seen.lock().push(request.clone());
            let answer = answer(&request);
            let sender = sender.clone();
            answers.spawn(async move { respond(stream, answer, &sender).await });
        }
    });
    Server { address, requests, sent, _serving: serving }
}

async fn read_request(mut stream: TcpStream) -> Option<(Request, TcpStream)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((Request { target, authorization, body: String::from_utf8(body).unwrap() }, stream))
}

async fn respond(mut stream: TcpStream, answer: Answer, sent: &mpsc::Sender<usize>) {
    match answer {
        Answer::Whole(head, body) => {
            let length = body.len();
            let text = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Answer::Endless(head) => {
            let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
            let (chunk, mut count) = (vec![b'['; 64 << 10], 0);
            while stream.write_all(&chunk).await.is_ok() {
                count += chunk.len();
            }
            let _ = sent.send(count).await;
        }
    }
}

fn ok(body: &str) -> Answer {
    Answer::Whole("200 OK".to_owned(), body.to_owned())
}

/// Refuses, with a challenge.
fn challenge(challenge: &str) -> Answer {
    Answer::Whole(format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), "{}".to_owned())
}

fn basic_credentials() -> Credentials {
    Credentials::Basic { username: "me".to_owned(), password: "word".to_owned() }
}

const BASIC: &str = "Basic bWU6d29yZA==";

impl Server {
    fn client(&self, credentials: Credentials) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client::new(http.clone(), http, true, &self.address, credentials)
    }

    fn image(&self) -> Reference {
        self.repository("a/b")
    }

    fn repository(&self, repository: &str) -> Reference {
        Reference::with_tag(self.address.clone(), repository.to_owned(), "c".to_owned())
    }

    async fn manifest(&self, credentials: Credentials) -> Result<String, RegistryError> {
        let (manifest, _) = self.client(credentials).manifest(&self.image()).await?;
        Ok(String::from_utf8(manifest).unwrap())
    }

    /// The requests since the last call: target and authorization.
    fn asked(&self) -> Vec<(String, Option<String>)> {
        self.requests.lock().drain(..).map(|request| (request.target, request.authorization)).collect()
    }

    async fn assert_hung_up(&mut self, limit: usize) {
        let sent = self.sent.recv().await.unwrap();
        assert!(sent < limit + IN_FLIGHT, "{sent} bytes were sent");
    }
}

fn text(error: &RegistryError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn asked(target: &str, authorization: Option<&str>) -> (String, Option<String>) {
    (target.to_owned(), authorization.map(str::to_owned))
}

#[tokio::test]
async fn a_document_without_an_end_is_refused() {
    let mut server = serve(|_| Answer::Endless("200 OK".to_owned())).await;
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    assert_eq!(error.to_string(), "manifest is larger than 4194304 bytes");
    assert!(!error.is_transient());
    server.assert_hung_up(MANIFEST_MAX).await;
    let error = server.client(Credentials::Anonymous).config(&server.image(), "sha256:1").await.unwrap_err();
    assert_eq!(error.to_string(), "image configuration is larger than 8388608 bytes");
    server.assert_hung_up(CONFIG_MAX).await;
}

#[tokio::test]
async fn a_document_that_says_it_is_too_large_is_not_read() {
    let mut server = serve(|_| Answer::Endless("200 OK\r\nContent-Length: 10000000000".to_owned())).await;
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    assert_eq!(error.to_string(), "manifest is larger than 4194304 bytes");
    server.assert_hung_up(0).await;
}

#[tokio::test]
async fn a_token_without_an_end_is_refused() {
    let mut tokens = serve(|_| Answer::Endless("200 OK".to_owned())).await;
    let realm = tokens.address.clone();
    let server = serve(move |_| challenge(&format!("Bearer realm=\"http://{realm}/token\""))).await;
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    let expected = "failed to authorize: failed to fetch anonymous token: token answer is larger than 1048576 bytes";
    assert_eq!(text(&error), expected);
    tokens.assert_hung_up(TOKEN_ANSWER_MAX).await;
}

#[tokio::test]
async fn an_error_without_an_end_is_told_by_its_status() {
    let mut server = serve(|_| Answer::Endless("404 Not Found".to_owned())).await;
    let expected = |path: &str| {
        format!("unexpected status from GET request to http://{}/v2/a/b/{path}: 404 Not Found", server.address)
    };
    let (of_manifest, of_blob) = (expected("manifests/c"), expected("blobs/sha256:1"));
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    assert_eq!(error.to_string(), of_manifest);
    server.assert_hung_up(ERROR_MAX).await;
    let blob = server.client(Credentials::Anonymous).blob(&server.image(), "sha256:1").await;
    assert_eq!(blob.map(|_| ()).unwrap_err().to_string(), of_blob);
    server.assert_hung_up(ERROR_MAX).await;
}

#[tokio::test]
async fn an_error_of_a_token_server_without_an_end_is_told_by_its_status() {
    let mut tokens = serve(|_| Answer::Endless("503 Service Unavailable".to_owned())).await;
    let realm = tokens.address.clone();
    let server = serve(move |_| challenge(&format!("Bearer realm=\"http://{realm}/token\""))).await;
    let error = server.manifest(basic_credentials()).await.unwrap_err();
    let expected = format!(
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request to http://{}/token: \
         503 Service Unavailable",
        tokens.address
    );
    assert_eq!(text(&error), expected);
    assert!(error.is_transient());
    tokens.assert_hung_up(ERROR_MAX).await;
}

#[tokio::test]
async fn a_registrys_own_reasons_are_told() {
    let body = r#"{"errors": [{"code": "TOOMANYREQUESTS", "message": "later", "detail": {}}]}"#;
    let server = serve(move |_| Answer::Whole("429 Too Many Requests".to_owned(), body.to_owned())).await;
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    assert!(
        error.to_string().ends_with("/v2/a/b/manifests/c: 429 Too Many Requests: toomanyrequests: later"),
        "{error}"
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_registry_that_wants_nothing_is_given_nothing() {
    let server = serve(|_| Answer::Whole("200 OK\r\nDocker-Content-Digest: sha256:x".to_owned(), "m".to_owned())).await;
    let client = server.client(basic_credentials());
    let (manifest, digest) = client.manifest(&server.image()).await.unwrap();
    assert_eq!((manifest.as_slice(), digest.as_deref()), (&b"m"[..], Some("sha256:x")));
    let mut blob = client.blob(&server.image(), "sha256:1").await.unwrap();
    assert_eq!(blob.next().await.unwrap().as_deref(), Some(&b"m"[..]));
    assert_eq!(blob.next().await.unwrap(), None);
    assert_eq!(server.asked(), [asked("/v2/a/b/manifests/c", None), asked("/v2/a/b/blobs/sha256:1", None)]);
}

#[tokio::test]
async fn a_name_and_a_password_go_to_a_registry_that_asks_for_them() {
    let answer = |request: &Request| match request.authorization.as_deref() {
        Some(BASIC) => ok("m"),
        Some(_) | None => challenge("Basic realm=\"x\""),
    };
    let server = serve(answer).await;
    let client = server.client(basic_credentials());
    client.manifest(&server.image()).await.unwrap();
    client.blob(&server.image(), "sha256:1").await.unwrap();
    let manifest = "/v2/a/b/manifests/c";
    assert_eq!(
        server.asked(),
        [asked(manifest, None), asked(manifest, Some(BASIC)), asked("/v2/a/b/blobs/sha256:1", Some(BASIC))]
    );
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    assert!(error.to_string().ends_with("401 Unauthorized"), "{error}");
    assert_eq!(server.asked(), [asked(manifest, None)]);
    let wrong = Credentials::Basic { username: "me".to_owned(), password: "other".to_owned() };
    let error = server.manifest(wrong).await.unwrap_err();
    assert!(error.to_string().ends_with("401 Unauthorized"), "{error}");
    assert_eq!(server.asked().len(), 2, "it is tried once");
}

#[tokio::test]
async fn an_identity_token_is_shown_to_the_token_server_alone() {
    let tokens = serve(|request| {
        let given = request.body
            == "scope=repository%3Aa%2Fb%3Apull&service=s&client_id=coracle\
                                     &grant_type=refresh_token&refresh_token=identity%2B";
        if given { ok(r#"{"access_token": "t"}"#) } else { Answer::Whole("401 Unauthorized".to_owned(), String::new()) }
    })
    .await;
    let realm = tokens.address.clone();
    let server = serve(move |request| match request.authorization.as_deref() {
        Some("Bearer t") => ok("m"),
        Some(_) | None => challenge(&format!("Bearer realm=\"http://{realm}/token\",service=\"s\"")),
    })
    .await;
    assert_eq!(server.manifest(Credentials::Identity("identity+".to_owned())).await.unwrap(), "m");
    let manifest = "/v2/a/b/manifests/c";
    assert_eq!(server.asked(), [asked(manifest, None), asked(manifest, Some("Bearer t"))]);
    assert_eq!(tokens.asked(), [asked("/token", None)]);
    let error = server.manifest(Credentials::Identity("old".to_owned())).await.unwrap_err();
    assert!(error.is_denied_token(), "{error}");
    let error = server.manifest(Credentials::Identity("x".repeat(TOKEN_MAX + 1))).await.unwrap_err();
    assert!(text(&error).ends_with("token is larger than 65536 bytes"), "{error}");
}

/// A registry whose tokens serve `uses` requests each, and its token server.
async fn token_registry(uses: usize) -> (Server, Server) {
    let count = Mutex::new(0_usize);
    let tokens = serve(move |_| {
        let mut count = count.lock();
        *count += 1;
        // The one name of the two that a server sends is as good as the other.
        let name = if *count % 2 == 1 { "token" } else { "access_token" };
        ok(&format!("{{\"{name}\": \"t{count}\", \"expires_in\": 300}}"))
    })
    .await;
    let realm = format!("http://{}/token?x=y", tokens.address);
    let used = Mutex::new(std::collections::HashMap::<String, usize>::new());
    let registry = serve(move |request| {
        let Some(token) = &request.authorization else {
            return challenge(&format!("Bearer realm=\"{realm}\",service=\"s t\",scope=\"repository:other:push\""));
        };
        let mut used = used.lock();
        let of_token = used.entry(token.clone()).or_default();
        *of_token += 1;
        if *of_token > uses { challenge(&format!("Bearer realm=\"{realm}\",error=\"invalid_token\"")) } else { ok("m") }
    })
    .await;
    (registry, tokens)
}

#[tokio::test]
async fn a_token_is_fetched_for_a_repository_and_kept() {
    let (registry, tokens) = token_registry(10).await;
    let client = registry.client(Credentials::Anonymous);
    client.manifest(&registry.image()).await.unwrap();
    client.blob(&registry.image(), "sha256:1").await.unwrap();
    assert_eq!(tokens.asked(), [asked("/token?x=y&scope=repository%3Aa%2Fb%3Apull&service=s+t", None)]);
    let manifest = "/v2/a/b/manifests/c";
    assert_eq!(
        registry.asked(),
        [asked(manifest, None), asked(manifest, Some("Bearer t1")), asked("/v2/a/b/blobs/sha256:1", Some("Bearer t1"))]
    );
    client.manifest(&registry.repository("d")).await.unwrap();
    assert_eq!(tokens.asked(), [asked("/token?x=y&scope=repository%3Ad%3Apull&service=s+t", None)]);
    for n in 0..=TOKENS_KEPT {
        client.manifest(&registry.repository(&format!("r{n}"))).await.unwrap();
    }
    assert_eq!(client.0.kept.lock().len(), TOKENS_KEPT);
}

#[tokio::test]
async fn a_token_that_is_not_valid_any_more_leads_to_another() {
    let (registry, tokens) = token_registry(1).await;
    let client = registry.client(basic_credentials());
    client.manifest(&registry.image()).await.unwrap();
    client.manifest(&registry.image()).await.unwrap();
    let manifest = "/v2/a/b/manifests/c";
    assert_eq!(
        registry.asked(),
        [
            asked(manifest, None),
            asked(manifest, Some("Bearer t1")),
            asked(manifest, Some("Bearer t1")),
            asked(manifest, Some("Bearer t2"))
        ]
    );
    let authorizations = tokens.asked().into_iter().map(|(_, authorization)| authorization.unwrap());
    assert_eq!(authorizations.collect::<Vec<_>>(), [BASIC, BASIC]);
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    for (answer, expected) in [
        ("{}".to_owned(), "authorization server did not include a token in the response"),
        (r#"{"token": ""}"#.to_owned(), "authorization server did not include a token in the response"),
        ("<html>".to_owned(), "unable to decode token response: expected value at line 1 column 1"),
        (r#"{"token": "a\nb"}"#.to_owned(), "the token has characters that no header has"),
        (format!("{{\"token\": \"{}\"}}", "a".repeat(TOKEN_MAX + 1)), "token is larger than 65536 bytes"),
    ] {
        let tokens = serve(move |_| ok(&answer)).await;
        let realm = tokens.address.clone();
        let server = serve(move |_| challenge(&format!("Bearer realm=\"http://{realm}/\""))).await;
        let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
        assert!(text(&error).ends_with(expected), "{error:?}");
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let tokens = serve(|_| ok(r#"{"token": "t"}"#)).await;
    let realm = tokens.address.clone();
    let other = serve(move |request| match request.target.as_str() {
        "/open" => ok("m"),
        _ => challenge(&format!("Bearer realm=\"http://{realm}/\"")),
    })
    .await;
    let to = other.address.clone();
    let server = serve(move |request| match request.authorization.as_deref() {
        Some(BASIC) if request.target.ends_with("/blobs/sha256:1") => {
            Answer::Whole(format!("307 Temporary Redirect\r\nLocation: http://{to}/open"), String::new())
        }
        Some(BASIC) => {
            let location = format!("Location: http://{to}/closed?signature=secret");
            Answer::Whole(format!("307 Temporary Redirect\r\n{location}"), String::new())
        }
        Some(_) | None => challenge("Basic realm=\"x\""),
    })
    .await;
    let client = server.client(basic_credentials());
    let mut blob = client.blob(&server.image(), "sha256:1").await.unwrap();
    assert_eq!(blob.next().await.unwrap().as_deref(), Some(&b"m"[..]));
    let error = client.blob(&server.image(), "sha256:2").await.map(|_| ()).unwrap_err();
    let expected = format!("unexpected status from GET request to http://{}/closed: 401 Unauthorized", other.address);
    assert_eq!(error.to_string(), expected);
    assert_eq!(other.asked(), [asked("/open", None), asked("/closed?signature=secret", None)]);
    assert!(tokens.asked().is_empty());
}

#[tokio::test]
async fn a_password_in_an_address_is_not_told() {
    let other = serve(|_| Answer::Whole("403 Forbidden".to_owned(), String::new())).await;
    let to = other.address.clone();
    let server = serve(move |request| match request.target.contains("/manifests/") {
        true => {
            let location = format!("Location: http://me:word@{to}/there#part");
            Answer::Whole(format!("307 Temporary Redirect\r\n{location}"), String::new())
        }
        false => challenge("Bearer realm=\"http://me:word@[x/\""),
    })
    .await;
    let error = server.manifest(Credentials::Anonymous).await.unwrap_err();
    let expected = format!("unexpected status from GET request to http://{}/there: 403 Forbidden", other.address);
    assert_eq!(text(&error), expected);
    let error = server.client(Credentials::Anonymous).blob(&server.image(), "sha256:1").await.map(|_| ()).unwrap_err();
    let expected = "failed to authorize: failed to fetch anonymous token: invalid URL: invalid IPv6 address";
    assert_eq!(text(&error), expected);
    let url = "https://me:word@r/v2/?signature=x#part".parse().unwrap();
    let refusal = Refusal::new(StatusCode::FORBIDDEN, &url, b"").to_string();
    assert_eq!(refusal, "unexpected status from GET request to https://r/v2/: 403 Forbidden");
}

/// A registry that only ever says that it will answer.
#[tokio::test]
async fn interim_answers_without_an_end_are_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = Client::new(http.clone(), http, true, &address, Credentials::Anonymous);
    let image = Reference::with_tag(address, "a/b".to_owned(), "c".to_owned());
    let registry = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (_, mut stream) = read_request(stream).await.unwrap();
        // From here on the clock runs as fast as everybody waits.
        tokio::time::pause();
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (manifest, ()) = tokio::join!(client.manifest(&image), registry);
    assert!(matches!(manifest, Err(RegistryError::Slow)), "{manifest:?}");
}
