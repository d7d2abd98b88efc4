//! gRPC health checks: one unary call of `grpc.health.v1.Health/Check` over plain HTTP/2. The two
//! messages have one field each, so they are encoded by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use client::Owned;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::target::{Checked, connect};

const SERVING: u64 = 1;
const MAX_ANSWER: usize = 4096;

pub(super) async fn probe(host: &str, port: u16, service: &str, limit: Duration) -> Checked {
    let place = format!("{host}:{port}");
    match timeout(limit, call(host, port, service, limit)).await {
        Err(_) => {
            Checked::Failure(format!("timeout: health rpc to {place:?} did not complete within {}s", limit.as_secs()))
        }
        Ok(Err(why)) => Checked::Failure(why),
        Ok(Ok(SERVING)) => Checked::Success,
        Ok(Ok(status)) => {
            let name = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNRECOGNIZED",
            };
            Checked::Failure(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

async fn call(host: &str, port: u16, service: &str, limit: Duration) -> Result<u64, String> {
    let stream = connect(host, port, limit)
        .await
        .map_err(|e| format!("failed to connect service \"{host}:{port}\" within {}s: {e}", limit.as_secs()))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let _driver = Owned::spawn(async move {
        // Its errors come back through the request.
        let _ = connection.await;
    });
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(encode_request(service)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| format!("health rpc failed: {e}"))?;
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    check_grpc_status(&headers, &trailers)?;
    decode_response(&body.to_bytes()).ok_or_else(|| "health rpc failed: malformed answer".to_owned())
}

/// The status stands in the trailers, or in the headers of an answer without a body.
fn check_grpc_status(headers: &HeaderMap, trailers: &HeaderMap) -> Result<(), String> {
    let find = |name: &str| trailers.get(name).or_else(|| headers.get(name)).and_then(|v| v.to_str().ok());
    match find("grpc-status") {
        Some("0") | None => Ok(()),
        Some("12") => Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
        Some(code) => Err(format!("health rpc failed: code {code}: {}", find("grpc-message").unwrap_or_default())),
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
}
