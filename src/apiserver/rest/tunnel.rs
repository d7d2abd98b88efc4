//! Forwarding one request over a connection of its own, and joining both ends when it is upgraded.
//!
//! Nothing is known of the server there: it is read in turns, its answer has to begin soon, and a body in
//! tiny pieces is passed on a few of them at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::{EndlessHead, Paced, Turn, until_answered};

/// Headers that concern one connection only, and those that are credentials for us alone.
const NOT_FORWARDED: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
];
/// Headers that say who somebody is, which a server behind the proxy might believe.
const IDENTITY_PREFIXES: [&str; 5] =
    ["impersonate-", "x-remote-user", "x-remote-uid", "x-remote-group", "x-remote-extra-"];
/// What passes through a body in one turn, in bytes, of which each piece counts so many more for itself.
const BODY_TURN: usize = 16 * 1024;
const PIECE: usize = 256;
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The connections that were upgraded and live on without their request.
#[derive(Debug, Default)]
pub struct Tunnels {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Tunnels {
    /// Ends all of them and waits until they have.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn join(&self, driver: Driver, client: OnUpgrade, backend: OnUpgrade) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let tunnel = async {
                // The driver ends when the connection has been handed over.
                driver.await?;
                let (client, backend) = tokio::try_join!(client, backend)?;
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                // Either end may vanish at any time; that is how a session ends.
                if let Err(error) = copy_bidirectional(&mut client, &mut backend).await {
                    tracing::debug!(%error, "a tunnel broke");
                }
                Ok::<(), hyper::Error>(())
            };
            tokio::select! {
                () = closing.cancelled() => {}
                result = tunnel => if let Err(error) = result {
                    tracing::debug!(%error, "an upgraded connection was not handed over");
                }
            }
        });
    }
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Sends a request whose URI is a path over `stream` and returns the answer; if that is 101, the two
/// connections are joined behind it.
///
/// # Errors
/// When the other end does not speak HTTP, goes away, or does not come to its answer.
pub(super) async fn forward<S>(stream: S, request: Request<Body>, tunnels: &Tunnels) -> Result<Response, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    exchange(stream, request, tunnels).await.map_err(|error| EndlessHead::or(&error))
}

async fn exchange<S>(stream: S, mut request: Request<Body>, tunnels: &Tunnels) -> hyper::Result<Response>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (stream, answered) = until_answered(Paced::turns(stream));
    let client = request.extensions_mut().remove::<OnUpgrade>();
    clean(request.headers_mut());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver: Driver = Box::pin(connection.with_upgrades());
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let (mut response, driver) = tokio::select! {
        response = &mut answer => (response?, Some(driver)),
        // A server that answers and hangs up may have done both by now: the answer counts.
        ended = &mut driver => match answer.await {
            Ok(response) => (response, None),
            Err(lost) => return Err(ended.err().unwrap_or(lost)),
        },
    };
    answered.tell();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        let backend = hyper::upgrade::on(&mut response);
        tunnels.join(driver.unwrap_or_else(|| Box::pin(async { Ok(()) })), client, backend);
        return Ok(response.map(|_| Body::empty()));
    }
    // The framing of the answer is this server's to choose.
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    response.headers_mut().remove(header::CONNECTION);
    Ok(response.map(|body| Body::new(Driven { driver, body, turn: Turn::of(BODY_TURN) })))
}

/// Whether the client wants to leave HTTP.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get(header::CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    headers.contains_key(header::UPGRADE) && connection.to_ascii_lowercase().contains("upgrade")
}

fn clean(headers: &mut HeaderMap) {
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    if !is_upgrade(headers) {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
    let identities: Vec<HeaderName> =
        headers.keys().filter(|n| IDENTITY_PREFIXES.iter().any(|p| n.as_str().starts_with(p))).cloned().collect();
    for name in identities {
        headers.remove(name);
    }
    hide_token(headers);
}

/// A token among the subprotocols was for us.
fn hide_token(headers: &mut HeaderMap) {
    let protocols: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty() && !p.starts_with(TOKEN_PROTOCOL))
        .collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = protocols.join(", ").parse()
        && !protocols.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// A body that drives its own connection, so that dropping it closes the connection.
struct Driven {
    driver: Option<Driver>,
    body: Incoming,
    /// The driver reads in turns, but it is asked again for each piece that it gave.
    turn: Turn,
}

impl HttpBody for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        ready!(self.turn.poll_left(cx));
        if let Some(driver) = self.driver.as_mut()
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => self.turn.take(PIECE + frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(Some(Err(_)) | None) => {}
            Poll::Pending => self.turn.renew(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::api_tests::fixtures::beside;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn credentials_stay_here() {
        let mut map = headers(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "ann"),
            ("x-remote-user", "ann"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("connection", "keep-alive"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj"),
            ("accept", "*/*"),
        ]);
        clean(&mut map);
        assert_eq!(map, headers(&[("sec-websocket-protocol", "v5.channel.k8s.io"), ("accept", "*/*")]));
        let mut upgrade = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        clean(&mut upgrade);
        assert!(is_upgrade(&upgrade));
    }

    /// Reads a request's head and writes `answer`.
    async fn serve(mut end: tokio::io::DuplexStream, answer: &'static str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(end.read_u8().await.unwrap());
        }
        end.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_streamed_through() {
        let (near, far) = duplex(1024);
        let request = Request::get("/logs?follow=true").header("host", "n1").body(Body::empty()).unwrap();
        let tunnels = Tunnels::default();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello";
        let (response, head) = tokio::join!(forward(near, request, &tunnels), serve(far, answer));
        assert!(head.starts_with("GET /logs?follow=true HTTP/1.1\r\n"), "{head}");
        let response = response.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        tunnels.close().await;
    }

    /// A server that says this for a long time, all of which can be read at once.
    fn endless(first: &str, again: &str) -> (tokio::io::DuplexStream, tokio::task::JoinSet<()>) {
        let flood = [first, &again.repeat((4 << 20) / again.len())].concat();
        let (near, mut far) = duplex(8 << 20);
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            head(&mut far).await;
            far.write_all(flood.as_bytes()).await.unwrap();
        });
        (near, server)
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_to_its_answer_is_given_up_and_keeps_no_thread() {
        let said = "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded \
                    262144 bytes; aborted";
        for (first, again) in [
            ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
            ("", "HTTP/1.1 100 Continue\r\nlink: x\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyy"),
        ] {
            let (stream, _server) = endless(first, again);
            let asked = async move {
                let request = Request::get("/").header("host", "x").body(Body::empty()).unwrap();
                forward(stream, request, &Tunnels::default()).await.map(drop)
            };
            let (answer, turns) = beside(asked).await;
            assert_eq!(answer, Err(said.to_owned()), "{again:?}");
            assert!(turns >= 60, "others had {turns} turns beside {again:?}");
        }
    }

    #[tokio::test]
    async fn a_body_in_tiny_pieces_keeps_no_thread() {
        let (stream, _server) = endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n");
        let read = async move {
            let request = Request::get("/").header("host", "x").body(Body::empty()).unwrap();
            let mut body = forward(stream, request, &Tunnels::default()).await.unwrap().into_body();
            let mut pieces = 0;
            while pieces < 6_400 && body.frame().await.unwrap().is_ok() {
                pieces += 1;
            }
            pieces
        };
        let (pieces, turns) = beside(read).await;
        assert_eq!(pieces, 6_400);
        assert!(turns >= pieces / 64, "others had {turns} turns");
    }

    /// Reads until the end of a message's head.
    async fn head(end: &mut tokio::io::DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(end.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_joined_with_the_backends() {
        let (mut client, front) = duplex(1024);
        let (near, mut backend) = duplex(1024);
        let tunnels = std::sync::Arc::new(Tunnels::default());
        let near = std::sync::Mutex::new(Some(near));
        let joined = std::sync::Arc::clone(&tunnels);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let near = near.lock().unwrap().take().unwrap();
            let tunnels = std::sync::Arc::clone(&joined);
            async move { exchange(near, request.map(Body::new), &tunnels).await }
        });
        let server =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(front), service).with_upgrades();
        let session = async {
            client
                .write_all(b"GET /exec HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
                .await
                .unwrap();
            let asked = head(&mut backend).await;
            assert!(asked.contains("upgrade: websocket"), "{asked}");
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhi";
            backend.write_all(switch).await.unwrap();
            let answer = head(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
            let mut text = [0; 2];
            client.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"hi");
            client.write_all(b"ok").await.unwrap();
            backend.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"ok");
            // Closing one end closes the other.
            drop(backend);
            assert_eq!(client.read(&mut text).await.unwrap(), 0);
        };
        let (served, ()) = tokio::join!(server, session);
        served.unwrap();
        tunnels.close().await;
    }
}
