//! Health check ports of load balancers: does this node have endpoints of the Service?
//!
//! A balancer in front of the cluster asks each node, and sends traffic under the policy `Local` only
//! to nodes that say yes (200); the others answer 503.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use api::object::ObjectKey;
use client::{Owned, Places};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use wire::Paced;

/// A balancer has a handful of probers, of which each asks now and then; more connections than this are
/// somebody else's.
const MAX_CONNECTIONS: usize = 32;
const MAX_CONNECTIONS_OF_ADDRESS: usize = 8;
/// A prober that has not finished by then asks again.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Between attempts to bind a port that somebody else has.
const BIND_INTERVAL: Duration = Duration::from_secs(30);

/// What one port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    pub(crate) service: ObjectKey,
    pub(crate) local_endpoints: usize,
}

impl HealthCheck {
    fn status(&self) -> StatusCode {
        if self.local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn body(&self) -> String {
        let value = serde_json::json!({
            "service": { "namespace": self.service.namespace, "name": self.service.name },
            "localEndpoints": self.local_endpoints,
            "serviceProxyHealthy": true,
        });
        value.to_string()
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
        headers.insert("x-load-balancing-endpoint-weight", http::HeaderValue::from(self.local_endpoints));
        response
    }
}

/// A server for each port; dropping this ends them.
pub(crate) struct HealthServers {
    address: Ipv4Addr,
    servers: BTreeMap<u16, Server>,
}

struct Server {
    answer: watch::Sender<HealthCheck>,
    _task: Owned,
}

impl HealthServers {
    pub(crate) fn new(address: Ipv4Addr) -> Self {
        Self { address, servers: BTreeMap::new() }
    }

    /// Serves these ports and no others.
    pub(crate) fn serve(&mut self, checks: BTreeMap<u16, HealthCheck>) {
        self.servers.retain(|port, _| checks.contains_key(port));
        for (port, check) in checks {
            if let Some(server) = self.servers.get(&port) {
                server.answer.send_if_modified(|old| {
                    let changed = *old != check;
                    *old = check;
                    changed
                });
                continue;
            }
            let (answer, current) = watch::channel(check);
            let task = Owned::spawn(listen(SocketAddrV4::new(self.address, port), current));
            self.servers.insert(port, Server { answer, _task: task });
        }
    }
}

async fn listen(at: SocketAddrV4, answer: watch::Receiver<HealthCheck>) {
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(e) => warn!(%at, "cannot serve a health check port: {e}"),
        }
        tokio::time::sleep(BIND_INTERVAL).await;
    };
    serve(at, listener, answer).await;
}

async fn serve(at: SocketAddrV4, listener: TcpListener, answer: watch::Receiver<HealthCheck>) {
    let places = Places::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let place = places.take(from.ip(), MAX_CONNECTIONS_OF_ADDRESS);
                let answer = answer.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = place.lost() => {}
                        () = respond(stream, answer) => {}
                    }
                });
            }
            Err(e) => {
                debug!(%at, "cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn respond(stream: TcpStream, answer: watch::Receiver<HealthCheck>) {
    let service = service_fn(move |_: Request<Incoming>| {
        let response = answer.borrow().response();
        async move { Ok::<_, Infallible>(response) }
    });
    let connection =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(Paced::turns(stream)), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) | Err(_) => (),
        Ok(Err(e)) => debug!("a health check connection failed: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn silent_strangers_do_not_keep_a_balancer_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(at) = listener.local_addr().unwrap() else { unreachable!("bound to IPv4") };
        let (_answer, current) =
            watch::channel(HealthCheck { service: ObjectKey::new("shop", "web"), local_endpoints: 1 });
        let _server = Owned::spawn(serve(at, listener, current));
        let connect = async |from: u8| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
            socket.connect(at.into()).await.unwrap()
        };
        let mut balancer = connect(2).await;
        let mut silent = Vec::new();
        for n in 0..2 * MAX_CONNECTIONS {
            silent.push(connect(3 + u8::try_from(n % 5).unwrap()).await);
        }
        for stream in [&mut balancer, &mut connect(2).await] {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    }

    #[test]
    fn a_node_without_endpoints_says_no() {
        #[track_caller]
        fn check(local_endpoints: usize, status: u16, body: &str) {
            let check = HealthCheck { service: ObjectKey::new("shop", "web"), local_endpoints };
            assert_eq!(check.status().as_u16(), status);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&check.body()).unwrap(), {
                serde_json::from_str::<serde_json::Value>(body).unwrap()
            });
            assert_eq!(check.response().headers()["x-load-balancing-endpoint-weight"], local_endpoints.to_string());
        }
        check(2, 200, r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#);
        check(0, 503, r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}"#);
    }
}
