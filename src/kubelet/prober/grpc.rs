//! gRPC health checks: one unary call of `grpc.health.v1.Health/Check` over plain HTTP/2. The two
//! messages have one field each, so they are encoded by hand. Failures read as those of Go's gRPC.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use client::Owned;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use wire::{Paced, until_answered};

use super::target::{Checked, connect};
use crate::failures::go_seconds;

const SERVING: u64 = 1;
const MAX_ANSWER: usize = 4096;
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);

const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

/// How a call failed.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// Whatever answers does not speak HTTP/2.
    NotConnected,
    Status {
        code: u32,
        message: String,
    },
}

impl Fault {
    fn status(code: u32, message: impl Into<String>) -> Self {
        Self::Status { code, message: message.into() }
    }

    /// In the words of upstream's prober.
    fn text(&self, place: &str, limit: Duration) -> String {
        let limit = go_seconds(limit);
        match self {
            Self::NotConnected => {
                format!("timeout: failed to connect service {place:?} within {limit}: context deadline exceeded")
            }
            Self::Status { code: UNIMPLEMENTED, message } => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ),
            Self::Status { code: DEADLINE_EXCEEDED, .. } => {
                format!("timeout: health rpc did not complete within {limit}")
            }
            Self::Status { code, message } => {
                format!("error: health rpc probe failed: rpc error: code = {} desc = {message}", code_name(*code))
            }
        }
    }
}

pub(super) async fn probe(host: &str, port: u16, service: &str, limit: Duration) -> Checked {
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match check(host, port, service, &place, Instant::now() + limit).await {
        Err(fault) => Checked::Failure(fault.text(&place, limit)),
        Ok(SERVING) => Checked::Success,
        Ok(status) => Checked::Failure(format!("service unhealthy (responded with {:?})", health_name(status))),
    }
}

async fn check(host: &str, port: u16, service: &str, place: &str, end: Instant) -> Result<u64, Fault> {
    // Upstream's waits for a connection as long as it may, whatever refuses it meanwhile.
    let (sender, _driver) = loop {
        match timeout_at(end, open(host, port, end)).await {
            Ok(Some(open)) => break open,
            Ok(None) if Instant::now() + RETRY < end => sleep(RETRY).await,
            Ok(None) | Err(_) => {
                sleep_until(end).await;
                return Err(Fault::NotConnected);
            }
        }
    };
    let late = |_| Err(Fault::status(DEADLINE_EXCEEDED, ""));
    timeout_at(end, call(sender, place, service)).await.unwrap_or_else(late)
}

type Open = (SendRequest<Full<Bytes>>, Owned);

async fn open(host: &str, port: u16, end: Instant) -> Option<Open> {
    let stream = connect(host, port, end.saturating_duration_since(Instant::now())).await.ok()?;
    // The whole answer is small, so the bound on what comes before it is never lifted.
    let (stream, _answered) = until_answered(Paced::turns(stream));
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    let driver = Owned::spawn(async move {
        // Its errors come back through the request.
        let _ = connection.await;
    });
    Some((sender, driver))
}

async fn call(mut sender: SendRequest<Full<Bytes>>, place: &str, service: &str) -> Result<u64, Fault> {
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(encode_request(service)))
        .map_err(|e| Fault::status(INTERNAL, e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|_| Fault::NotConnected)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|e| Fault::status(INTERNAL, e.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    check_answer(status, &headers, &trailers)?;
    decode_response(&body.to_bytes())
        .ok_or_else(|| Fault::status(INTERNAL, "grpc: failed to unmarshal the received message"))
}

/// The status stands in the trailers, or in the headers of an answer without a body.
fn check_answer(status: StatusCode, headers: &HeaderMap, trailers: &HeaderMap) -> Result<(), Fault> {
    let find = |name: &str| trailers.get(name).or_else(|| headers.get(name)).and_then(|v| v.to_str().ok());
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let is_grpc = kind.is_some_and(|kind| kind.starts_with("application/grpc"));
    if !is_grpc || status != StatusCode::OK {
        return Err(not_grpc(status, kind.filter(|_| !is_grpc), is_grpc));
    }
    match find("grpc-status").map(str::parse) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => Err(Fault::status(code, unescaped(find("grpc-message").unwrap_or_default()))),
        Some(Err(_)) => Err(Fault::status(INTERNAL, "transport: malformed grpc-status")),
        None => Err(Fault::status(INTERNAL, "server closed the stream without sending trailers")),
    }
}

/// An answer of some other HTTP server.
fn not_grpc(status: StatusCode, kind: Option<&str>, is_grpc: bool) -> Fault {
    let code = match status.as_u16() {
        200 | 400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => 14,
        _ => 2,
    };
    let mut why = Vec::new();
    if status != StatusCode::OK {
        let text = status.canonical_reason().unwrap_or_default();
        why.push(format!("unexpected HTTP status code received from server: {} ({text})", status.as_u16()));
    }
    match kind {
        _ if is_grpc => {}
        Some(kind) => why.push(format!("transport: received unexpected content-type {kind:?}")),
        None => why.push("malformed header: missing HTTP content-type".to_owned()),
    }
    Fault::status(code, why.join("; "))
}

/// A message as it was before the server escaped what is no printable ASCII.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|d| std::str::from_utf8(d).ok());
        if let Some(escaped) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(escaped);
            rest = &after[2..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let known = usize::try_from(code).ok().and_then(|at| NAMES.get(at));
    known.map_or_else(|| format!("Code({code})"), |name| (*name).to_owned())
}

/// What is none of the protocol's is a number, as Go prints it.
fn health_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// A length-prefixed message with the string field 1.
fn encode_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.unsplit(message);
    out.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).expect("invariant: seven bits") | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).expect("invariant: seven bits"));
}

/// The enum field 1; absent means 0, unknown.
fn decode_response(body: &[u8]) -> Option<u64> {
    let message = body.get(5..)?;
    if body[0] != 0 {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, value, ..] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_and_decoded() {
        assert_eq!(&encode_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&encode_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (body, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0], None),
        ] {
            assert_eq!(decode_response(body), expected, "{body:?}");
        }
    }

    #[test]
    fn failures_read_as_upstreams() {
        let (place, limit) = ("10.244.0.5:80", Duration::from_secs(1));
        for (fault, expected) in [
            (
                Fault::NotConnected,
                "timeout: failed to connect service \"10.244.0.5:80\" within 1s: context deadline exceeded",
            ),
            (
                Fault::status(12, "unknown service grpc.health.v1.Health"),
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
                 unknown service grpc.health.v1.Health",
            ),
            (Fault::status(4, ""), "timeout: health rpc did not complete within 1s"),
            (
                Fault::status(5, "unknown service"),
                "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
            ),
            (Fault::status(99, "x"), "error: health rpc probe failed: rpc error: code = Code(99) desc = x"),
        ] {
            assert_eq!(fault.text(place, limit), expected);
        }
    }

    #[test]
    fn answers_without_grpc_are_told_apart() {
        let headers = |list: &[(&'static str, &'static str)]| -> HeaderMap {
            list.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
        };
        let grpc = ("content-type", "application/grpc");
        let check = |status: u16, head: &[_], tail: &[_]| {
            check_answer(StatusCode::from_u16(status).unwrap(), &headers(head), &headers(tail))
        };
        assert_eq!(check(200, &[grpc], &[("grpc-status", "0")]), Ok(()));
        assert_eq!(
            check(200, &[grpc, ("grpc-status", "5"), ("grpc-message", "no%20such%C3%A4")], &[]),
            Err(Fault::status(5, "no suchä"))
        );
        assert_eq!(
            check(404, &[("content-type", "text/plain")], &[]),
            Err(Fault::status(
                12,
                "unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected \
                 content-type \"text/plain\""
            ))
        );
        assert_eq!(check(200, &[], &[]), Err(Fault::status(13, "malformed header: missing HTTP content-type")));
        assert_eq!(
            check(200, &[grpc], &[]),
            Err(Fault::status(13, "server closed the stream without sending trailers"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_nobody_listens_on_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let expected =
            format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 1s: context deadline exceeded");
        assert_eq!(probe("127.0.0.1", port, "", Duration::from_secs(1)).await, Checked::Failure(expected));
    }
}
