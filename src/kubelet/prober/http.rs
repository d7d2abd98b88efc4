//! HTTP probes and HTTP lifecycle hooks: one GET, redirects on the same host followed.
//!
//! The server is a container's: it is read in turns, and its answer has to begin soon.

use std::io;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::Owned;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TRAILER, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::InvalidMessage;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wire::{EndlessHead, Paced, until_answered};

use super::target::{Checked, connect, port_number};
use super::tls;
use super::url::{NoUrl, Url};

/// As many as Go's client follows.
const MAX_REDIRECTS: u32 = 10;
/// Only the beginning of a body is read.
const MAX_BODY: usize = 10 * 1024;
/// What Go's client says of a server that does not speak TLS.
const NO_TLS: &str = "http: server gave HTTP response to HTTPS client";
/// Go's client writes these itself, whatever a pod says of them.
const NOT_THEIRS: [HeaderName; 4] = [CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING];

/// On whose behalf a GET is made; servers read it in the user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Probe,
    Lifecycle,
}

impl Purpose {
    fn user_agent(self) -> &'static str {
        match self {
            Self::Probe => "kube-probe/1.36",
            Self::Lifecycle => "kube-lifecycle/1.36",
        }
    }
}

/// Where a GET goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    url: Result<Url, NoUrl>,
    headers: Vec<(String, String)>,
    purpose: Purpose,
}

impl Target {
    pub(crate) fn of(action: &HTTPGetAction, c: &Container, pod_ip: &str, purpose: Purpose) -> Result<Self, String> {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        let https = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
        Ok(Self {
            url: Url::of(https, host, port_number(&action.port, c)?, action.path.as_deref().unwrap_or_default()),
            headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
            purpose,
        })
    }

    /// The same without TLS, and without what the server is to know of the client then.
    fn over_http(&self) -> Option<(Self, Url)> {
        let url = Url { https: false, user: None, ..self.url.clone().ok()? };
        let mut plain = Self { url: Ok(url.clone()), ..self.clone() };
        plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        Some((plain, url))
    }

    /// The first header of this name.
    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name.as_str())).map(|(_, value)| value.as_str())
    }

    /// A host that the pod names holds for its own URL and for redirects that name none.
    fn request(&self, url: &Url, keep_host: bool) -> Result<Request<Empty<Bytes>>, http::Error> {
        let host = self.header(&HOST).filter(|host| keep_host && !host.is_empty());
        let host = host.map_or_else(|| url.authority(), str::to_owned);
        let mut request = Request::get(url.target()).header(HOST, HeaderValue::from_bytes(host.as_bytes())?);
        request = request.header(CONNECTION, "close");
        if self.header(&USER_AGENT).is_none() {
            request = request.header(USER_AGENT, self.purpose.user_agent());
        }
        if self.header(&ACCEPT).is_none() {
            request = request.header(ACCEPT, "*/*");
        }
        if let Some((name, password)) = &url.user
            && self.header(&AUTHORIZATION).is_none_or(str::is_empty)
        {
            request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))));
        }
        // An empty one of these two means that it is not sent.
        let unsent = [USER_AGENT, ACCEPT].map(|name| self.header(&name).is_some_and(str::is_empty).then_some(name));
        for (name, value) in &self.headers {
            let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str());
            if !NOT_THEIRS.iter().any(is) && !unsent.iter().flatten().any(is) {
                request = request.header(name, HeaderValue::from_bytes(value.as_bytes())?);
            }
        }
        request.body(Empty::new())
    }
}

/// A hook's GET: upstream's kubelet once spoke HTTP to HTTPS hooks, so one whose server does not speak TLS
/// is called without. Gives host and port where that was done.
///
/// # Errors
/// With the text of Go's client.
pub(crate) async fn call_hook(target: &Target, limit: Duration) -> Result<Option<String>, String> {
    let Err(why) = get(target, limit).await else { return Ok(None) };
    match target.over_http().filter(|_| why.ends_with(NO_TLS)) {
        Some((plain, url)) if get(&plain, limit).await.is_ok() => Ok(Some(url.authority())),
        Some(_) | None => Err(why),
    }
}

/// A probe's view of the answer.
pub(super) async fn probe(target: &Target, limit: Duration) -> Checked {
    match get(target, limit).await {
        Ok(Answer { status, .. }) if status.is_success() => Checked::Success,
        Ok(Answer { status, body }) if status.is_redirection() => {
            Checked::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Answer { status, .. }) => {
            Checked::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
        Err(why) => Checked::Failure(why),
    }
}

struct Answer {
    status: StatusCode,
    body: String,
}

/// Fails with the text of Go's client.
async fn get(target: &Target, limit: Duration) -> Result<Answer, String> {
    let url = match &target.url {
        Ok(url) => url,
        Err(no_url) => return Err(format!("Get {no_url}")),
    };
    match timeout(limit, follow(target, url, limit)).await {
        Ok(answer) => answer.map_err(|failed| format!("Get {failed}")),
        Err(_) => {
            let url = url.text();
            Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

/// Follows redirects as long as they stay on the host.
async fn follow(target: &Target, url: &Url, limit: Duration) -> Result<Answer, NoUrl> {
    let mut at = url.clone();
    let mut keep_host = true;
    let mut requests = 0;
    loop {
        requests += 1;
        let failed = |why| NoUrl { url: at.text(), why };
        let request = target.request(&at, keep_host).map_err(|e| failed(e.to_string()))?;
        let stream = connect(&at.host, at.port, limit).await.map_err(failed)?;
        let (answer, location) = if at.https {
            let name = ServerName::try_from(at.host.clone()).map_err(|e| failed(e.to_string()))?;
            let stream = TlsConnector::from(tls::config()).connect(name, Paced::turns(stream)).await;
            send(request, stream.map_err(|e| failed(handshake_error(&e)))?).await
        } else {
            send(request, stream).await
        }
        .map_err(failed)?;
        let Some(location) = location.filter(|_| leads_on(answer.status)) else { return Ok(answer) };
        let next = at.join(&location)?;
        if next.host != url.host {
            return Ok(answer);
        }
        if requests == MAX_REDIRECTS {
            return Err(NoUrl { url: location, why: format!("stopped after {MAX_REDIRECTS} redirects") });
        }
        keep_host &= next.authority() == at.authority() && next.https == at.https;
        at = next;
    }
}

fn handshake_error(e: &io::Error) -> String {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => NO_TLS.to_owned(),
        Some(_) | None => e.to_string(),
    }
}

fn leads_on(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

async fn send<S>(request: Request<Empty<Bytes>>, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, answered) = until_answered(Paced::turns(stream));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // The connection is driven for this one request and ends with this scope.
    let _driver = Owned::spawn(async move {
        // Its errors come back through the request.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(|e| EndlessHead::or(&e))?;
    answered.tell();
    let status = response.status();
    let location = response.headers().get(LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let location = location.filter(|location| !location.is_empty());
    Ok((Answer { status, body: beginning(response.into_body()).await }, location))
}

/// What was read of a body before it ended, broke or grew too long.
async fn beginning(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BODY
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
    }
    bytes.truncate(MAX_BODY);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each request in turn with one of these texts.
    async fn server(answers: &'static [&'static str]) -> (u16, Owned) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = Owned::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 2048];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (port, task)
    }

    fn target(action: serde_json::Value) -> Target {
        let action = serde_json::from_value(action).unwrap();
        Target::of(&action, &Container::default(), "127.0.0.1", Purpose::Probe).unwrap()
    }

    #[tokio::test]
    async fn status_codes_decide() {
        const OK: &[&str] = &["HTTP/1.1 204 No Content\r\n\r\n"];
        const DOWN: &[&str] = &["HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"];
        const MOVED: &[&str] = &[
            "HTTP/1.1 302 F\r\nlocation: next one?x#y\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ];
        const AWAY: &[&str] = &["HTTP/1.1 302 F\r\nlocation: http://example.com/ä\r\ncontent-length: 5\r\n\r\nthere"];
        const CHOICES: &[&str] = &["HTTP/1.1 300 C\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"];
        const NOWHERE: &[&str] = &["HTTP/1.1 302 F\r\ncontent-length: 0\r\n\r\n"];
        const BROKEN: &[&str] = &["HTTP/1.1 302 F\r\nlocation: /%zz\r\ncontent-length: 0\r\n\r\n"];
        let warning = |body: &str| Checked::Warning(format!("Probe terminated redirects, Response body: {body}"));
        for (answers, expected) in [
            (OK, Checked::Success),
            (DOWN, Checked::Failure("HTTP probe failed with statuscode: 503".to_owned())),
            (MOVED, Checked::Success),
            (AWAY, warning("there")),
            (CHOICES, warning("")),
            (NOWHERE, warning("")),
        ] {
            let (port, _server) = server(answers).await;
            let target = target(json!({"port": port, "path": "healthz"}));
            assert_eq!(probe(&target, Duration::from_secs(5)).await, expected);
        }
        let (port, _server) = server(BROKEN).await;
        let outcome = probe(&target(json!({ "port": port })), Duration::from_secs(5)).await;
        let parse = r#"failed to parse Location header "/%zz": parse "/%zz": invalid URL escape "%zz""#;
        assert_eq!(outcome, Checked::Failure(format!("Get \"http://127.0.0.1:{port}\": {parse}")));
    }

    #[tokio::test]
    async fn redirects_in_a_circle_end() {
        const CIRCLE: &[&str] = &["HTTP/1.1 307 T\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n"; 10];
        let (port, _server) = server(CIRCLE).await;
        let outcome = probe(&target(json!({ "port": port })), Duration::from_secs(5)).await;
        assert_eq!(outcome, Checked::Failure("Get \"/a\": stopped after 10 redirects".to_owned()));
    }

    #[tokio::test]
    async fn a_long_body_is_read_as_far_as_it_matters() {
        let long = format!("HTTP/1.1 302 F\r\ncontent-length: 20000\r\n\r\n{}", "x".repeat(20_000));
        let answers: Vec<&'static str> = vec![long.leak()];
        let (port, _server) = server(answers.leak()).await;
        let answer = get(&target(json!({ "port": port })), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.body, "x".repeat(MAX_BODY));
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_to_its_answer_fails_and_keeps_no_thread() {
        let said = "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded \
                    262144 bytes; aborted";
        for (first, again) in [("", "HTTP/1.1 103 Early Hints\r\n\r\n"), ("HTTP/1.1 200 OK\r\nx: ", "yy")] {
            let flood = [first, &again.repeat((4 << 20) / again.len())].concat();
            let (near, mut far) = tokio::io::duplex(8 << 20);
            let mut tasks = tokio::task::JoinSet::new();
            let _server = Owned::spawn(async move {
                let _asked = far.read(&mut [0; 2048]).await.unwrap();
                far.write_all(flood.as_bytes()).await.unwrap();
            });
            tasks.spawn(async move {
                let request = Request::get("/").header(HOST, "x").body(Empty::new()).unwrap();
                send(request, near).await.map(drop)
            });
            let turns = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&turns);
            tasks.spawn(std::future::poll_fn(move |cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                cx.waker().wake_by_ref();
                Poll::Pending
            }));
            let answer = tasks.join_next().await.unwrap().unwrap();
            let turns = turns.load(Ordering::Relaxed);
            assert_eq!(answer, Err(said.to_owned()), "{again:?}");
            assert!(turns >= 60, "others had {turns} turns beside {again:?}");
        }
    }

    #[tokio::test]
    async fn a_hook_whose_server_speaks_no_tls_is_called_without() {
        const NO_TLS_HERE: &[&str] =
            &["HTTP/1.0 400 Bad Request\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"];
        let (port, _server) = server(NO_TLS_HERE).await;
        let action = json!({"port": port, "scheme": "HTTPS", "httpHeaders": [{"name": "authorization", "value": "x"}]});
        let hook = target(action);
        assert_eq!(hook.over_http().unwrap().0.header(&AUTHORIZATION), None);
        let called = call_hook(&hook, Duration::from_secs(5)).await;
        assert_eq!(called, Ok(Some(format!("127.0.0.1:{port}"))));
        let (port, _server) = server(NO_TLS_HERE).await;
        let outcome = probe(&target(json!({"port": port, "scheme": "HTTPS"})), Duration::from_secs(5)).await;
        assert_eq!(outcome, Checked::Failure(format!("Get \"https://127.0.0.1:{port}\": {NO_TLS}")));
    }

    #[tokio::test]
    async fn a_url_without_a_host_fails() {
        let outcome = probe(&target(json!({"port": 80, "path": "mailto:a"})), Duration::from_secs(5)).await;
        assert_eq!(outcome, Checked::Failure("Get \"http:a\": http: no Host in request URL".to_owned()));
    }

    #[test]
    fn own_headers_replace_the_default_ones() {
        let headers = json!([
            {"name": "Host", "value": "x"}, {"name": "User-Agent", "value": ""}, {"name": "X-Empty", "value": ""},
            {"name": "X-Two", "value": "a"}, {"name": "X-Two", "value": "ü"}, {"name": "Content-Length", "value": "9"},
        ]);
        let target = target(json!({"port": 80, "path": "//me:pw@h/a b?c d", "httpHeaders": headers}));
        let url = target.url.clone().unwrap();
        let request = target.request(&url, true).unwrap();
        let headers = request.headers();
        assert_eq!(request.uri(), "/a%20b?c%20d");
        assert_eq!(headers[HOST], "x");
        assert_eq!(headers[AUTHORIZATION], "Basic bWU6cHc=");
        assert_eq!((headers.get(USER_AGENT), headers.get(CONTENT_LENGTH)), (None, None));
        assert_eq!((&headers["x-empty"], headers.get_all("x-two").iter().count()), (&HeaderValue::from_static(""), 2));
        assert_eq!(headers[ACCEPT], "*/*");
        assert_eq!(headers[CONNECTION], "close");
        assert_eq!(target.request(&url, false).unwrap().headers()[HOST], "127.0.0.1:80");
    }
}
