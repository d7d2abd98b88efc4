//! exec and attach over WebSocket: Kubernetes' channel protocol between a client and the streams of
//! a process.
//!
//! Every binary message begins with a channel's number: 0 stdin, 1 stdout, 2 stderr, 3 the final
//! status, 4 terminal sizes, and, in version 5, 255 to close one of them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::{Streams, TerminalSize};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::debug;

use super::websocket::{self, CloseCode, Decoder, FrameError, Message};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Frames that wait for a slow client, of which a node may have hundreds; the process then waits, too.
const FRAMES: usize = 4;
const CHUNK: usize = 32 * 1024;
const FAREWELL: Duration = Duration::from_secs(5);

/// The versions of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `v5.channel.k8s.io`: channels can be closed.
    V5,
    /// `v4.channel.k8s.io`: the status is JSON.
    V4,
    /// `channel.k8s.io`: the status is text, and only errors are told.
    V1,
}

impl Protocol {
    /// The best version among those that a client offers; one that offers none gets the first.
    pub(super) fn choose(offered: &str) -> Option<(Self, Option<&'static str>)> {
        if offered.trim().is_empty() {
            return Some((Self::V1, None));
        }
        let known = [("v5.channel.k8s.io", Self::V5), ("v4.channel.k8s.io", Self::V4), ("channel.k8s.io", Self::V1)];
        let has = |name: &str| offered.split(',').any(|o| o.trim() == name);
        known.into_iter().find(|(name, _)| has(name)).map(|(name, protocol)| (protocol, Some(name)))
    }
}

/// Carries bytes until the process has ended or the client has gone.
pub(super) async fn run(upgraded: Upgraded, streams: Streams, protocol: Protocol) {
    relay(TokioIo::new(upgraded), streams, protocol).await;
}

async fn relay(client: impl AsyncRead + AsyncWrite, streams: Streams, protocol: Protocol) {
    let (reader, writer) = tokio::io::split(client);
    let (frames, queue) = mpsc::channel::<Bytes>(FRAMES);
    let Streams { stdin, stdout, stderr, resize, exit } = streams;
    // Clients wait for a first message before they trust the connection.
    let lowest = if stdout.is_some() {
        STDOUT
    } else if stderr.is_some() {
        STDERR
    } else {
        STATUS
    };
    // The queue is empty, so this cannot fail.
    let _ = frames.try_send(websocket::channel(lowest, b""));
    let (to_client, last) = (frames.clone(), frames.clone());
    let said_farewell = AtomicBool::new(false);
    let output = async {
        tokio::join!(copy(stdout, STDOUT, &to_client), copy(stderr, STDERR, &to_client));
        let outcome = exit.await;
        if let Some(text) = status(protocol, &outcome) {
            // A client that is gone needs no status.
            let _ = to_client.send(websocket::channel(STATUS, text.as_bytes())).await;
        }
        said_farewell.store(true, Ordering::Relaxed);
        let _ = to_client.send(websocket::close(CloseCode::Normal)).await;
        // The queue ends with its last sender.
        drop(to_client);
    };
    let input = async {
        if receive(reader, stdin, resize, protocol, &last).await && !said_farewell.load(Ordering::Relaxed) {
            let _ = last.send(websocket::close(CloseCode::Normal)).await;
        }
        drop(last);
    };
    let mut input = std::pin::pin!(input);
    let mut send = std::pin::pin!(write(writer, queue));
    drop(frames);
    let client_is_there = tokio::select! {
        () = output => true,
        () = &mut input => false,
        // The client cannot be written to any more.
        () = &mut send => return,
    };
    // What is queued still goes out, the close frame above all. Then the client closes: a socket that is dropped
    // with bytes unread resets the connection, and a reset overtakes output that the client has not read yet.
    let farewell = async {
        if client_is_there {
            tokio::select! {
                () = &mut input => {}
                () = &mut send => return,
            }
        }
        send.await;
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

async fn copy(from: Option<impl AsyncRead + Unpin>, channel: u8, to: &mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            // A terminal whose last process has gone gives an error instead of an end.
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if to.send(websocket::channel(channel, &buffer[..n])).await.is_err() {
                    return;
                }
                // A process may write without end, and a client take it as fast: so much is a turn.
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
        if queue.is_empty() && to.flush().await.is_err() {
            return;
        }
    }
    // The peer may have closed first.
    let _ = to.shutdown().await;
}

/// Ends when the client has gone or broke the protocol; tells whether it asks for a close frame.
async fn receive(
    mut from: impl AsyncRead + Unpin,
    mut stdin: Option<runtime::Input>,
    resize: runtime::Resizer,
    protocol: Protocol,
    frames: &mpsc::Sender<Bytes>,
) -> bool {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        let message = match next_message(&mut decoder, &mut buffer, &mut from).await {
            Ok(Some(message)) => message,
            Ok(None) => return false,
            Err(e) => {
                debug!("websocket client broke the protocol: {e}");
                let _ = frames.send(websocket::close(e.close_code())).await;
                return false;
            }
        };
        match message {
            Message::Binary(data) | Message::Text(data) => {
                input(&data, &mut stdin, &resize, protocol).await;
            }
            Message::Ping(data) => {
                let _ = frames.send(websocket::pong(&data)).await;
            }
            Message::Pong => {}
            Message::Close => return true,
        }
    }
}

async fn next_message(
    decoder: &mut Decoder,
    buffer: &mut BytesMut,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Message>, FrameError> {
    loop {
        if let Some(message) = decoder.next(buffer)? {
            return Ok(Some(message));
        }
        match from.read_buf(buffer).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

async fn input(data: &Bytes, stdin: &mut Option<runtime::Input>, resize: &runtime::Resizer, protocol: Protocol) {
    let Some((&channel, payload)) = data.split_first() else { return };
    match channel {
        STDIN => {
            if let Some(open) = stdin
                && open.write_all(payload).await.is_err()
            {
                *stdin = None;
            }
        }
        RESIZE => {
            if let Some(size) = terminal_size(payload)
                && let Err(e) = resize.resize(size).await
            {
                debug!("terminal not resized: {e}");
            }
        }
        CLOSE if protocol == Protocol::V5 && payload == [STDIN] => *stdin = None,
        _ => {}
    }
}

fn terminal_size(payload: &[u8]) -> Option<TerminalSize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let size: Size = serde_json::from_slice(payload).ok()?;
    Some(TerminalSize { columns: size.width, rows: size.height })
}

/// The last word: a `Status` object, or the older protocol's text.
fn status(protocol: Protocol, outcome: &runtime::Result<i32>) -> Option<String> {
    let (status, plain) = match outcome {
        Ok(0) => (json!({ "metadata": {}, "status": "Success" }), None),
        Ok(code) => {
            let text = format!("command terminated with exit code {code}");
            let status = json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: {text}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            });
            (status, Some(text))
        }
        Err(e) => {
            let status = json!({
                "metadata": {}, "status": "Failure", "message": e.to_string(), "reason": "InternalError", "code": 500,
            });
            (status, Some(e.to_string()))
        }
    };
    match protocol {
        Protocol::V5 | Protocol::V4 => Some(status.to_string()),
        Protocol::V1 => plain,
    }
}

/// An error that ends a stream before it began.
pub(super) async fn fail(upgraded: Upgraded, protocol: Protocol, why: &str) -> io::Result<()> {
    let mut io = TokioIo::new(upgraded);
    let text = match protocol {
        Protocol::V5 | Protocol::V4 => json!({
            "metadata": {}, "status": "Failure", "message": why, "reason": "InternalError", "code": 500,
        })
        .to_string(),
        Protocol::V1 => why.to_owned(),
    };
    io.write_all(&websocket::channel(STATUS, text.as_bytes())).await?;
    io.write_all(&websocket::close(CloseCode::Normal)).await?;
    io.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_protocol_is_chosen() {
        for (offered, expected) in [
            ("v4.channel.k8s.io, v5.channel.k8s.io", Some((Protocol::V5, Some("v5.channel.k8s.io")))),
            ("v4.channel.k8s.io", Some((Protocol::V4, Some("v4.channel.k8s.io")))),
            ("", Some((Protocol::V1, None))),
            ("chat", None),
        ] {
            assert_eq!(Protocol::choose(offered), expected, "{offered}");
        }
    }

    /// A socket that is dropped with unread bytes resets its connection, output and all.
    #[tokio::test]
    async fn output_arrives_whatever_the_client_still_sends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let text = vec![b'x'; 256 * 1024];
        let streams = Streams {
            stdin: None,
            stdout: Some(Box::new(io::Cursor::new(text.clone()))),
            stderr: None,
            resize: runtime::Resizer::default(),
            exit: Box::pin(async { Ok(0) }),
        };
        let client = async move {
            // A size of a terminal that nobody reads in time: masked, as clients' messages are.
            let message = [&[0x82, 0x81, 0, 0, 0, 0][..], &[RESIZE]].concat();
            let mut received = Vec::new();
            let mut chunk = vec![0; 4096];
            loop {
                client.write_all(&message).await.unwrap();
                let n = client.read(&mut chunk).await.expect("the connection is not reset");
                received.extend_from_slice(&chunk[..n]);
                // The close frame: then the client closes.
                if received.ends_with(&websocket::close(CloseCode::Normal)) {
                    return received;
                }
                assert_ne!(n, 0, "no close frame came");
            }
        };
        let ((), received) = tokio::join!(relay(server, streams, Protocol::V5), client);
        assert_eq!(received.iter().filter(|b| **b == b'x').count(), text.len());
    }

    #[test]
    fn the_status_tells_the_exit_code() {
        assert_eq!(status(Protocol::V5, &Ok(0)).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
        let failed: serde_json::Value = serde_json::from_str(&status(Protocol::V4, &Ok(3)).unwrap()).unwrap();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status(Protocol::V1, &Ok(0)), None);
    }

    #[test]
    fn terminal_sizes_are_read() {
        let size = terminal_size(br#"{"Width":80,"Height":24}"#);
        assert_eq!(size, Some(TerminalSize { columns: 80, rows: 24 }));
        assert_eq!(terminal_size(b"x"), None);
    }
}
