//! HTTP probes and HTTP lifecycle hooks: one GET, redirects on the same host followed.

use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use bytes::Bytes;
use client::Owned;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::target::{Checked, connect, port_number};
use super::tls;

/// As many as Go's client follows.
const MAX_REDIRECTS: u32 = 10;
/// Only the beginning of a body is read.
const MAX_BODY: usize = 10 * 1024;

/// Where a GET goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    https: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl Target {
    pub(crate) fn of(action: &HTTPGetAction, c: &Container, pod_ip: &str) -> Result<Self, String> {
        let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| pod_ip.to_owned());
        let path = action.path.as_deref().unwrap_or("/");
        Ok(Self {
            https: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host,
            port: port_number(&action.port, c)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Where a redirect leads; `None` when it leaves the host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        let mut next = self.clone();
        if let Some(host) = uri.host() {
            if host.trim_matches(['[', ']']) != self.host {
                return None;
            }
            next.https = uri.scheme_str() == Some("https");
            next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
        }
        next.path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Some(next)
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(&self.path);
        let named = |name: &str| self.headers.iter().any(|(k, _)| k.eq_ignore_ascii_case(name));
        if !named(HOST.as_str()) {
            request = request.header(HOST, self.authority());
        }
        if !named(USER_AGENT.as_str()) {
            request = request.header(USER_AGENT, "kube-probe/1.36");
        }
        if !named(ACCEPT.as_str()) {
            request = request.header(ACCEPT, "*/*");
        }
        for (name, value) in self.headers.iter().filter(|(_, v)| !v.is_empty()) {
            request = request.header(name, value);
        }
        request.body(Empty::new())
    }
}

/// A probe's view of the answer.
pub(super) async fn probe(target: &Target, limit: Duration) -> Checked {
    match get(target, limit).await {
        Ok(Answer { status, .. }) if status.is_success() => Checked::Success,
        Ok(Answer { status, body }) if status.is_redirection() => {
            Checked::Warning(format!("Probe terminated redirects, Response body: {body:?}"))
        }
        Ok(Answer { status, .. }) => {
            Checked::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
        Err(why) => Checked::Failure(why),
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// # Errors
/// With the text of Go's client.
pub(crate) async fn get(target: &Target, limit: Duration) -> Result<Answer, String> {
    let url = target.url();
    match timeout(limit, follow(target, limit)).await {
        Ok(answer) => answer.map_err(|why| format!("Get {url:?}: {why}")),
        Err(_) => {
            Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

async fn follow(target: &Target, limit: Duration) -> Result<Answer, String> {
    let mut at = target.clone();
    for _ in 0..=MAX_REDIRECTS {
        let stream = connect(&at.host, at.port, limit).await?;
        let response = if at.https {
            let name = ServerName::try_from(at.host.clone()).map_err(|e| e.to_string())?;
            let stream = TlsConnector::from(tls::config()).connect(name, stream).await.map_err(|e| e.to_string())?;
            send(&at, stream).await?
        } else {
            send(&at, stream).await?
        };
        let (answer, location) = response;
        let next =
            if answer.status.is_redirection() { location.as_deref().and_then(|l| at.redirected(l)) } else { None };
        match next {
            Some(next) => at = next,
            None => return Ok(answer),
        }
    }
    Err("stopped after 10 redirects".to_owned())
}

async fn send<S>(target: &Target, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // The connection is driven for this one request and ends with this scope.
    let _driver = Owned::spawn(async move {
        // Its errors come back through the request.
        let _ = connection.await;
    });
    let request = target.request().map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    // A body over the limit is cut off, which the probe does not mind.
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    Ok((Answer { status, body: String::from_utf8_lossy(&body).into_owned() }, location))
}

#[cfg(test)]
mod tests {
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

    fn target(port: u16) -> Target {
        let action = serde_json::from_value(json!({"port": port, "path": "healthz"})).unwrap();
        Target::of(&action, &Container::default(), "127.0.0.1").unwrap()
    }

    #[tokio::test]
    async fn status_codes_decide() {
        const OK: &[&str] = &["HTTP/1.1 204 No Content\r\n\r\n"];
        const DOWN: &[&str] = &["HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"];
        const MOVED: &[&str] = &[
            "HTTP/1.1 302 F\r\nlocation: /next\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ];
        const AWAY: &[&str] = &["HTTP/1.1 302 F\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n"];
        for (answers, expected) in [
            (OK, Checked::Success),
            (DOWN, Checked::Failure("HTTP probe failed with statuscode: 503".to_owned())),
            (MOVED, Checked::Success),
            (AWAY, Checked::Warning("Probe terminated redirects, Response body: \"\"".to_owned())),
        ] {
            let (port, _server) = server(answers).await;
            assert_eq!(probe(&target(port), Duration::from_secs(5)).await, expected);
        }
    }

    #[test]
    fn own_headers_replace_the_default_ones() {
        let action =
            json!({"port": 80, "httpHeaders": [{"name": "Host", "value": "x"}, {"name": "User-Agent", "value": ""}]});
        let target = Target::of(&serde_json::from_value(action).unwrap(), &Container::default(), "10.0.0.1").unwrap();
        let request = target.request().unwrap();
        assert_eq!(request.headers()[HOST], "x");
        assert!(request.headers().get(USER_AGENT).is_none());
        assert_eq!(target.url(), "http://10.0.0.1:80/");
    }
}
