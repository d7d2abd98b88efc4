//! Questions over TCP: few clients need it, so few connections are kept, and a new one takes the place
//! of the oldest of the client that has the most. A client that opens many takes them from nobody else.

use std::net::SocketAddr;
use std::time::Duration;

use client::Places;
use futures::StreamExt;
use hickory_resolver::net::runtime::TokioTime;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::tcp::TcpStream;
use hickory_resolver::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandle, TimeoutStream};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::debug;

use crate::handler::Handler;

pub(crate) const MAX_CONNECTIONS: usize = 64;
pub(crate) const MAX_CONNECTIONS_OF_CLIENT: usize = 16;
/// A client that is silent for this long is disconnected.
const SILENCE: Duration = Duration::from_secs(5);
/// A question, its options and their padding (RFC 8467) are smaller; records in it are read before anybody
/// knows that they are of no use.
const QUESTION: usize = 4096;
/// Responses waiting for one client to read.
const RESPONSES: usize = 32;
/// After an error that may last, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever; dropping the future ends its connections.
pub(crate) async fn serve(listener: TcpListener, handler: Handler) {
    let mut connections = JoinSet::new();
    let places = Places::new(MAX_CONNECTIONS);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                debug!("cannot accept a DNS connection: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if !handler.serves(from.ip()) {
            continue;
        }
        let place = places.take(from.ip().to_canonical(), MAX_CONNECTIONS_OF_CLIENT);
        let handler = handler.clone();
        connections.spawn(async move {
            tokio::select! {
                () = place.lost() => {}
                () = converse(stream, from, handler) => {}
            }
        });
    }
}

/// One question after another, until the client leaves, is silent, or says what is no question.
async fn converse(stream: tokio::net::TcpStream, from: SocketAddr, handler: Handler) {
    let (stream, responses) = TcpStream::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), from, RESPONSES);
    let mut messages = TimeoutStream::new(stream, SILENCE);
    while let Some(Ok(message)) = messages.next().await {
        let (bytes, _) = message.into_parts();
        if bytes.len() > QUESTION {
            return;
        }
        let Ok(request) = Request::from_bytes(bytes, from, Protocol::Tcp) else { return };
        let response = ResponseHandle::new(from, responses.clone(), Protocol::Tcp);
        handler.handle_request::<_, TokioTime>(&request, response).await;
        // Questions may come faster than they are answered: each is a turn.
        tokio::task::yield_now().await;
    }
}
