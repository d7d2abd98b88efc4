//! Serving over TLS: HTTP/1.1 and HTTP/2 on one port, with optional client certificates.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use wire::{Gated, Paced};

use crate::allowance::Toll;
use crate::auth::PeerCertificate;
use crate::connections::{Connection, Connections, Limits, Stale};
use crate::server::ApiServer;
use crate::streams::Streams;

/// Upstream's limit per connection.
const STREAMS: u32 = 250;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HEADERS_WITHIN: Duration = Duration::from_secs(32);
/// Requests that are under way at the end may finish within this.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(30);
/// After a failure to accept (out of file descriptors), connections get time to end.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often documents that nobody asks for any more are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Where a request came from, for those that it is passed on to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Where the requests of one connection come from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: ClientAddress,
    pub(crate) connection: Arc<Connection>,
    pub(crate) certificate: Option<PeerCertificate>,
}

impl ApiServer {
    /// Serves until cancelled, then lets running requests finish.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) {
        self.serve_within(Limits::DEFAULT, listener, tls, cancel).await;
    }

    pub(crate) async fn serve_within(
        self: Arc<Self>,
        limits: Limits,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let places = Connections::new(limits, cancel.clone());
        let mut connections = JoinSet::new();
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (stream, peer) = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = accept(&listener) => accepted,
                _ = tidy.tick() => {
                    self.openapi.forget_unused(Instant::now());
                    continue;
                }
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended
                        && !error.is_cancelled()
                    {
                        tracing::error!(%error, "a connection's task failed");
                    }
                    continue;
                }
            };
            let place = places.enter(peer, Instant::now());
            let serving =
                Arc::clone(&self).connection(stream, ClientAddress(peer), Arc::clone(&place), acceptor.clone());
            place.is_served_by(connections.spawn(serving));
        }
        drop(listener);
        self.shutdown.cancel();
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            tracing::warn!("connections were cut at shutdown");
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        client: ClientAddress,
        place: Arc<Connection>,
        acceptor: TlsAcceptor,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(Paced::turns(stream))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        };
        let chain = stream.get_ref().1.peer_certificates();
        let certificate =
            chain.map(|chain| PeerCertificate::new(chain.iter().cloned().map(CertificateDer::into_owned).collect()));
        self.converse(stream, Origin { address: client, connection: place, certificate }).await;
    }

    /// Answers what is asked on a connection after its handshake, until that ends.
    pub(crate) async fn converse<S>(self: Arc<Self>, stream: S, origin: Origin)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (place, client) = (Arc::clone(&origin.connection), origin.address);
        let origin = Arc::new(origin);
        let service = service_fn(move |request: Request<Incoming>| {
            // Here and not in the task of the request: its body is read meanwhile.
            let arrival = origin.connection.arrive();
            let (server, origin) = (Arc::clone(&self), Arc::clone(&origin));
            async move { Ok::<_, Infallible>(server.serve_request(&origin, arrival, request.map(Body::new)).await) }
        });
        let builder = builder();
        let stream = Gated::new(Paced::turns(stream), Toll(Arc::clone(&place)));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // What else there is to wait for is asked each time that anything moves here: it is little.
        let stale = tokio::select! {
            biased;
            ended = connection.as_mut() => return report(ended),
            () = place.finish.cancelled() => None,
            stale = place.stale() => Some(stale),
        };
        if stale == Some(Stale::Stalled) {
            return tracing::debug!(client = %client.0, "a client took nothing");
        }
        connection.as_mut().graceful_shutdown();
        // The end is announced, but it is not left to the client: answers have their time to be taken.
        tokio::select! {
            ended = connection => report(ended),
            () = place.drained() => tracing::debug!(client = %client.0, "a connection was cut"),
        }
    }
}

fn report(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

fn builder() -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_EVERY);
    builder
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}
