//! Answers of the kubelet's API: plain ones, log streams, and connections that turn into streams.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use client::Owned;
use futures::Stream;
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::{AttachRequest, ExecRequest, Streams};
use serde::Serialize;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tracing::debug;

use super::log_query::LogQuery;
use super::log_reader::Reader;
use super::log_socket::{self, Encoding};
use super::streams::{self, Protocol};
use super::{switch, websocket};
use crate::kubelet::Kubelet;
use crate::observed::is_running;
use crate::pod::PodExt;

pub(super) type Reply = Response<BoxBody<Bytes, io::Error>>;

/// Chunks of a log that wait for a slow client.
const LOG_CHUNKS: usize = 4;
/// Each holds two pipes and three buffers.
const MAX_SESSIONS: usize = 256;

pub(super) fn text(status: StatusCode, body: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

pub(super) fn json(body: &impl Serialize) -> Reply {
    match serde_json::to_vec(body) {
        Ok(body) => reply(StatusCode::OK, "application/json", body.into()),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The chunks of a log; dropping it ends the reader.
struct LogStream {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    _reader: Owned,
}

impl Stream for LogStream {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_recv(cx).map(|next| next.map(|chunk| chunk.map(Frame::data)))
    }
}

/// The log of one container that is to be read.
pub(super) struct Log {
    pub(super) container_id: String,
    pub(super) file: PathBuf,
    pub(super) query: LogQuery,
}

impl Log {
    fn read(self, kubelet: &Kubelet) -> LogStream {
        let (out, chunks) = mpsc::channel(LOG_CHUNKS);
        let Self { container_id, file, query } = self;
        let reader = Reader { runtime: kubelet.runtime.clone(), container_id, log: file, query, out };
        LogStream { chunks, _reader: Owned::spawn(reader.run()) }
    }
}

pub(super) fn log_stream(kubelet: &Kubelet, log: Log) -> Reply {
    let stream = log.read(kubelet);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Whether the client wants another protocol than HTTP.
pub(super) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Upgrades the connection and sends the log over it.
pub(super) fn log_over_websocket(kubelet: &Arc<Kubelet>, request: &mut Request<Incoming>, log: Log) -> Reply {
    let (encoding, name, key) = match handshake(request.headers(), Encoding::choose) {
        Ok(agreed) => agreed,
        Err(reply) => return *reply,
    };
    let upgrade = hyper::upgrade::on(request);
    let log = log.read(kubelet);
    let carry = async move {
        match upgrade.await {
            Ok(upgraded) => log_socket::run(TokioIo::new(upgraded), log, encoding).await,
            Err(e) => debug!("kubelet API: upgrade: {e}"),
        }
    };
    switch_protocols(kubelet, carry, name, &key)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
}

/// Upgrades the connection and joins it with a process in a container.
pub(super) async fn process(
    kubelet: Arc<Kubelet>,
    mut request: Request<Incoming>,
    kind: Kind,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &[(String, String)],
) -> Reply {
    let id = match running_container(&kubelet, namespace, pod, container) {
        Ok(id) => id,
        Err(reply) => return *reply,
    };
    let (protocol, name, key) = match handshake(request.headers(), Protocol::choose) {
        Ok(agreed) => agreed,
        Err(reply) => return *reply,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let wanted = Wanted::of(query);
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let streams = open(&kubelet, kind, &id, wanted).await;
    let carry = async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(e) => {
                debug!("kubelet API: upgrade: {e}");
                return;
            }
        };
        match streams {
            Ok(streams) => streams::run(upgraded, streams, protocol).await,
            Err(e) => {
                if let Err(e) = streams::fail(upgraded, protocol, &e.to_string()).await {
                    debug!("kubelet API: client left: {e}");
                }
            }
        }
    };
    switch_protocols(&kubelet, carry, name, &key)
}

/// The answer of an upgrade; `carry` then lives on without the request.
fn switch_protocols(
    kubelet: &Kubelet,
    carry: impl Future<Output = ()> + Send + 'static,
    name: Option<&'static str>,
    key: &str,
) -> Reply {
    {
        let mut sessions = kubelet.sessions.lock();
        while sessions.try_join_next().is_some() {}
        if sessions.len() >= MAX_SESSIONS {
            return text(StatusCode::TOO_MANY_REQUESTS, "too many sessions");
        }
        sessions.spawn(carry);
    }
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    *response.body_mut() = http_body_util::Empty::new().map_err(|never| match never {}).boxed();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&websocket::accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = name {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    response
}

fn running_container(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str) -> Result<String, Box<Reply>> {
    let Some(entry) = kubelet.pods.find(namespace, pod) else {
        return Err(Box::new(text(StatusCode::NOT_FOUND, "pod does not exist")));
    };
    if entry.pod.container(container).is_none() {
        let message = format!("container {container:?} not found in pod {pod:?}\n");
        return Err(Box::new(text(StatusCode::NOT_FOUND, &message)));
    }
    let containers = kubelet.runtime.sandbox_containers(entry.pod.uid());
    let running = containers.into_iter().find(|c| c.name == container && is_running(c));
    running.map(|c| c.id).ok_or_else(|| {
        let message = format!("container not found (\"{container}\")");
        Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, &message))
    })
}

/// What was chosen of the client's offers, and its name if the client offered any.
type Choice<P> = Option<(P, Option<&'static str>)>;
/// The same, and the client's key.
type Agreed<P> = (P, Option<&'static str>, String);

fn handshake<P>(headers: &HeaderMap, choose: fn(&str) -> Choice<P>) -> Result<Agreed<P>, Box<Reply>> {
    let value = |name: &http::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let upgrade = value(&UPGRADE).to_ascii_lowercase();
    if upgrade.starts_with("spdy/") {
        let message = "SPDY is not served: use a WebSocket with v5.channel.k8s.io or v4.channel.k8s.io";
        return Err(Box::new(text(StatusCode::NOT_IMPLEMENTED, message)));
    }
    if upgrade != "websocket" || !headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(Box::new(text(StatusCode::BAD_REQUEST, "Upgrade request required")));
    }
    let offered: Vec<&str> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok()).collect();
    let Some((protocol, name)) = choose(&offered.join(",")) else {
        let message = "none of the offered subprotocols is supported";
        return Err(Box::new(text(StatusCode::BAD_REQUEST, message)));
    };
    Ok((protocol, name, value(&SEC_WEBSOCKET_KEY).to_owned()))
}

/// Which streams the client asked for, and the command.
struct Wanted {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn of(query: &[(String, String)]) -> Self {
        let tty = switch(query, ["tty", "tty"]);
        Self {
            command: query.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect(),
            stdin: switch(query, ["input", "stdin"]),
            stdout: switch(query, ["output", "stdout"]),
            // A terminal has one output.
            stderr: switch(query, ["error", "stderr"]) && !tty,
            tty,
        }
    }
}

async fn open(kubelet: &Kubelet, kind: Kind, id: &str, wanted: Wanted) -> runtime::Result<Streams> {
    let Wanted { command, stdin, stdout, stderr, tty } = wanted;
    match kind {
        Kind::Exec => kubelet.runtime.exec(id, ExecRequest { command, tty, stdin, stdout, stderr }).await,
        Kind::Attach => kubelet.runtime.attach(id, AttachRequest { stdin, stdout, stderr }).await,
    }
}
