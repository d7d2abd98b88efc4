//! A log over WebSocket: its bytes as messages, binary or in base64, and a close frame at its end.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::websocket::{self, CloseCode, Decoder, Message};

const CHUNK: usize = 4096;
const FAREWELL: Duration = Duration::from_secs(5);

/// How a log's bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    /// The best of those that a client offers; one that offers none gets the first.
    pub(super) fn choose(offered: &str) -> Option<(Self, Option<&'static str>)> {
        if offered.trim().is_empty() {
            return Some((Self::Binary, None));
        }
        let known = [("binary.k8s.io", Self::Binary), ("base64.binary.k8s.io", Self::Base64)];
        let of = |offer: &str| known.into_iter().find(|(name, _)| *name == offer.trim());
        offered.split(',').find_map(of).map(|(name, encoding)| (encoding, Some(name)))
    }

    fn message(self, data: &[u8]) -> Bytes {
        match self {
            Self::Binary => websocket::binary(data),
            Self::Base64 => websocket::text(STANDARD.encode(data).as_bytes()),
        }
    }
}

/// Carries the log until it ends or the client has gone.
pub(super) async fn run(
    client: impl AsyncRead + AsyncWrite,
    mut log: impl Stream<Item = io::Result<Frame<Bytes>>> + Unpin,
    encoding: Encoding,
) {
    let (reader, mut writer) = tokio::io::split(client);
    let send = async {
        // Clients wait for a first message before they trust the connection.
        writer.write_all(&encoding.message(b"")).await?;
        writer.flush().await?;
        while let Some(frame) = log.next().await {
            if let Ok(chunk) = frame?.into_data() {
                writer.write_all(&encoding.message(&chunk)).await?;
                writer.flush().await?;
            }
        }
        writer.write_all(&websocket::close(CloseCode::Normal)).await?;
        writer.flush().await
    };
    let mut gone = std::pin::pin!(until_closed(reader));
    let sent = tokio::select! {
        result = send => result.is_ok(),
        () = &mut gone => false,
    };
    // The client closes first, so that nothing it has not read yet is lost to a reset.
    if sent {
        let _ = tokio::time::timeout(FAREWELL, gone).await;
    }
    // The peer may have closed already.
    let _ = writer.shutdown().await;
}

/// What a reader of a log sends is of no interest, but for its leaving.
async fn until_closed(mut from: impl AsyncRead + Unpin) {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(Message::Close)) | Err(_) => return,
            Ok(Some(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong)) => continue,
            Ok(None) => {}
        }
        if !matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offer_that_is_known_is_taken() {
        for (offered, expected) in [
            ("", Some((Encoding::Binary, None))),
            ("binary.k8s.io", Some((Encoding::Binary, Some("binary.k8s.io")))),
            ("x, base64.binary.k8s.io", Some((Encoding::Base64, Some("base64.binary.k8s.io")))),
            ("v5.channel.k8s.io", None),
        ] {
            assert_eq!(Encoding::choose(offered), expected, "{offered}");
        }
    }

    #[tokio::test]
    async fn a_log_is_sent_whole_and_then_closed() {
        for (encoding, expected) in [
            (Encoding::Binary, [&[0x82, 0, 0x82, 2][..], b"hi", &[0x88, 2, 3, 0xe8]].concat()),
            (Encoding::Base64, [&[0x81, 0, 0x81, 4][..], b"aGk=", &[0x88, 2, 3, 0xe8]].concat()),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            let log = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"hi")))]);
            let mut got = vec![0; expected.len()];
            let read = async {
                client.read_exact(&mut got).await.unwrap();
                // A masked, empty close frame.
                client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
            };
            tokio::join!(run(server, log, encoding), read);
            assert_eq!(got, expected, "{encoding:?}");
        }
    }
}
