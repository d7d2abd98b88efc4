//! Connections of the kubelet's API over TLS, and which of them are kept.
//!
//! A client is a stranger until one of its requests was let in. Strangers have places of their own, a
//! share for each address, and little time: a connection that shows no certificate is closed when it
//! does not send a good token soon, and every refusal closes it. So nobody without rights holds what
//! others need.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::Places;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wire::Paced;

use super::gate::{Credential, Gate};
use super::respond::Reply;

/// A client that is let in may be silent for this long between its requests.
const IDLE: Duration = Duration::from_secs(120);
/// The head of a request: the arguments of an exec stand in its query.
const MAX_HEAD: usize = 128 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections of strangers. One in its handshake costs about 30 KB.
    pub(super) strangers: usize,
    /// Those from one address; the API server opens as many at once when many logs are asked for.
    pub(super) strangers_of_address: usize,
    /// A stranger gets this long for its TLS handshake and a request that is let in.
    pub(super) patience: Duration,
    /// Connections of clients that were let in.
    pub(super) known: usize,
    /// Those of one user, except of the API server, which speaks for many.
    pub(super) known_of_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers: 512,
            strangers_of_address: 256,
            patience: Duration::from_secs(10),
            known: 512,
            known_of_user: 64,
        }
    }
}

/// Serves requests that the gate lets in, by `answer`.
pub(super) struct Listener<A> {
    gate: Gate,
    tls: TlsAcceptor,
    answer: A,
    limits: Limits,
    strangers: Places<IpAddr>,
    known: Places<String>,
}

/// Whether a connection's client was let in, and as whom first.
struct Standing {
    credential: Credential,
    user: OnceLock<String>,
    admitted: CancellationToken,
}

impl Standing {
    fn new(credential: Credential) -> Self {
        let standing = Self { credential, user: OnceLock::new(), admitted: CancellationToken::new() };
        if let Credential::Trusted(name) = &standing.credential {
            standing.admit(name.clone());
        }
        standing
    }

    fn admit(&self, user: String) {
        self.user.get_or_init(|| user);
        self.admitted.cancel();
    }
}

impl<A, F> Listener<A>
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    pub(super) fn new(gate: Gate, tls: Arc<rustls::ServerConfig>, limits: Limits, answer: A) -> Arc<Self> {
        let (strangers, known) = (Places::new(limits.strangers), Places::new(limits.known));
        Arc::new(Self { gate, tls: TlsAcceptor::from(tls), answer, limits, strangers, known })
    }

    /// Serves until `token` is cancelled.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, token: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        connections.spawn(Arc::clone(&self).serve(stream, from.ip().to_canonical()));
                    }
                    Err(e) => {
                        warn!("kubelet API: accept: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, from: IpAddr) {
        let deadline = Instant::now() + self.limits.patience;
        let place = self.strangers.take(from, self.limits.strangers_of_address);
        // Interactive sessions send single keys.
        if let Err(e) = stream.set_nodelay(true) {
            debug!("kubelet API: nodelay: {e}");
        }
        let stream = tokio::select! {
            () = place.lost() => return,
            done = timeout_at(deadline, self.tls.accept(Paced::turns(stream))) => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => return debug!("kubelet API: handshake: {e}"),
                Err(_) => return,
            }
        };
        let standing = Arc::new(Standing::new(self.credential(&stream)));
        let service = service_fn({
            let (listener, standing) = (Arc::clone(&self), Arc::clone(&standing));
            move |request| {
                let (listener, standing) = (Arc::clone(&listener), Arc::clone(&standing));
                async move { Ok::<_, Infallible>(listener.respond(&standing, request).await) }
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Paced::turns(stream)), service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            biased;
            () = standing.admitted.cancelled() => {}
            ended = connection.as_mut() => return tell(ended),
            () = place.lost() => return,
            () = sleep_until(deadline) => return,
        }
        drop(place);
        let place = self.known.take(standing.user.get().cloned().unwrap_or_default(), self.share(&standing));
        tokio::select! {
            ended = connection => tell(ended),
            () = place.lost() => debug!("kubelet API: a connection gave way to a newer one"),
        }
    }

    fn credential(&self, stream: &TlsStream<Paced<TcpStream>>) -> Credential {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        certificate.map_or(Credential::Nothing, |der| self.gate.credential(der))
    }

    fn share(&self, standing: &Standing) -> usize {
        match standing.credential {
            Credential::Trusted(_) => self.limits.known,
            Credential::Certificate(_) | Credential::Nothing => self.limits.known_of_user,
        }
    }

    async fn respond(&self, standing: &Standing, request: Request<Incoming>) -> Reply {
        let (method, path) = (request.method(), request.uri().path());
        match self.gate.admit(&standing.credential, method, path, request.headers()).await {
            Ok(user) => standing.admit(user),
            Err(refusal) => return refusal.reply(),
        }
        (self.answer)(request).await
    }
}

fn tell(ended: Result<(), hyper::Error>) {
    if let Err(e) = ended {
        debug!("kubelet API: connection: {e}");
    }
}

#[cfg(test)]
mod tests;
