//! The kubelet's HTTPS API on port 10250: logs, exec, attach, pods, statistics.
//!
//! `listener` keeps the connections, `gate` lets requests in: those of the API server, and those of
//! clients to whom the API server grants the node's subresource.

mod cache;
mod gate;
mod listener;
pub(crate) mod log_files;
mod log_query;
mod log_reader;
mod log_socket;
mod machine_use;
mod metrics;
mod rates;
mod respond;
mod reviews;
mod stats;
mod streams;
mod summary;
mod websocket;

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use gate::Gate;
use listener::{Limits, Listener};
use log_query::{LogQuery, truth};
pub(crate) use rates::Rates;
use respond::{Reply, json, text};
use reviews::Reviews;

use crate::config::ServerConfig;
use crate::kubelet::Kubelet;

/// Serves until `token` is cancelled. While something else has the port, pods are looked after
/// nevertheless.
pub(crate) async fn run(kubelet: Arc<Kubelet>, cfg: ServerConfig, token: CancellationToken) {
    let bind = || async move {
        let bound = TcpListener::bind(cfg.listen).await;
        bound.map_err(|e| format!("the kubelet API cannot listen on {}: {e}", cfg.listen))
    };
    let Some(listener) = cfg.parts.keep_trying("kubelet-api", &token, bind).await else { return };
    info!(address = %cfg.listen, "kubelet API");
    let reviews = Reviews::new(kubelet.client.clone(), kubelet.cfg.node_name.clone());
    let gate = Gate::new(cfg.client_name, reviews);
    let answer = move |request| answer(Arc::clone(&kubelet), request);
    Listener::new(gate, cfg.tls, Limits::default(), answer).run(listener, token).await;
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Pods,
    Metrics,
    ResourceMetrics,
    Summary,
    Logs { namespace: &'a str, pod: &'a str, container: &'a str },
    Exec { namespace: &'a str, pod: &'a str, container: &'a str },
    Attach { namespace: &'a str, pod: &'a str, container: &'a str },
    PortForward,
    Unknown,
}

fn route(path: &str) -> Route<'_> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["healthz"] | ["healthz", _] => Route::Health,
        ["pods"] => Route::Pods,
        ["metrics"] => Route::Metrics,
        ["metrics", "resource"] => Route::ResourceMetrics,
        ["stats", "summary"] => Route::Summary,
        ["containerLogs", namespace, pod, container] => Route::Logs { namespace, pod, container },
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            Route::Exec { namespace, pod, container }
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            Route::Attach { namespace, pod, container }
        }
        ["portForward", ..] => Route::PortForward,
        _ => Route::Unknown,
    }
}

async fn answer(kubelet: Arc<Kubelet>, mut request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let query = parse_query(request.uri().query().unwrap_or_default());
    let reading = request.method() == Method::GET;
    match route(&path) {
        Route::Health => text(StatusCode::OK, "ok"),
        Route::Pods => json(&stats::pod_list(&kubelet)),
        Route::Metrics => text(StatusCode::OK, &metrics::own(&kubelet).await),
        Route::ResourceMetrics => text(StatusCode::OK, &metrics::resource(&kubelet).await),
        Route::Summary => json(&summary::summary(&kubelet).await),
        Route::Logs { namespace, pod, container } if reading => match logs(&kubelet, namespace, pod, container, &query)
        {
            Ok(log) if respond::asks_for_upgrade(request.headers()) => {
                respond::log_over_websocket(&kubelet, &mut request, log)
            }
            Ok(log) => respond::log_stream(&kubelet, log),
            Err(reply) => *reply,
        },
        Route::Exec { namespace, pod, container } => {
            respond::process(kubelet, request, respond::Kind::Exec, namespace, pod, container, &query).await
        }
        Route::Attach { namespace, pod, container } => {
            respond::process(kubelet, request, respond::Kind::Attach, namespace, pod, container, &query).await
        }
        Route::PortForward => text(StatusCode::NOT_IMPLEMENTED, "port forwarding is not served"),
        Route::Logs { .. } => text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
        Route::Unknown => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// The log that a request is about, or what is wrong with the request.
fn logs(
    kubelet: &Kubelet,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &[(String, String)],
) -> Result<respond::Log, Box<Reply>> {
    use crate::pod::PodExt as _;
    let no = |status, why: &str| Err(Box::new(text(status, why)));
    let Some(entry) = kubelet.pods.find(namespace, pod) else {
        return no(StatusCode::NOT_FOUND, &format!("pod does not exist: {namespace}/{pod}"));
    };
    let Some((_, spec)) = entry.pod.container(container) else {
        return no(StatusCode::NOT_FOUND, &format!("container {container:?} not found in pod {pod:?}\n"));
    };
    let query = match LogQuery::parse(query, jiff::Timestamp::now()) {
        Ok(query) => query,
        Err(why) => return no(StatusCode::UNPROCESSABLE_ENTITY, &why),
    };
    let id = match log_query::container_id(&entry.status, &spec, pod, query.previous) {
        Ok(id) => id,
        Err(why) => return no(StatusCode::BAD_REQUEST, &why),
    };
    match kubelet.runtime.container_status(&id) {
        Ok(status) => Ok(respond::Log { container_id: id, file: status.log_path, query }),
        Err(_) => {
            let prefix = crate::status::ID_PREFIX;
            no(StatusCode::OK, &format!("unable to retrieve container logs for {prefix}{id}"))
        }
    }
}

/// Names and values of a query, decoded.
fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let escape = text.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
            match (bytes[at], escape) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    at += 2;
                }
                (b'+', _) => out.push(b' '),
                (byte, _) => out.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Whether a switch is on under any of its names.
fn switch(query: &[(String, String)], names: [&str; 2]) -> bool {
    query.iter().any(|(name, value)| names.contains(&name.as_str()) && truth(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_routes() {
        let container = ("ns", "p", "c");
        let (namespace, pod, name) = container;
        for (path, expected) in [
            ("/healthz", Route::Health),
            ("/healthz/ping", Route::Health),
            ("/metrics/resource", Route::ResourceMetrics),
            ("/containerLogs/ns/p/c", Route::Logs { namespace, pod, container: name }),
            ("/exec/ns/p/c", Route::Exec { namespace, pod, container: name }),
            ("/exec/ns/p/uid/c", Route::Exec { namespace, pod, container: name }),
            ("/attach/ns/p/c", Route::Attach { namespace, pod, container: name }),
            ("/portForward/ns/p", Route::PortForward),
            ("/run/ns/p/c", Route::Unknown),
            ("/", Route::Unknown),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let got = parse_query("command=sh&command=-c&command=echo%20a%26b+c&input=1&tty");
        let pairs: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [("command", "sh"), ("command", "-c"), ("command", "echo a&b c"), ("input", "1"), ("tty", "")]
        );
        assert!(
            switch(&got, ["input", "stdin"]) && switch(&got, ["tty", "tty"]) && !switch(&got, ["output", "stdout"])
        );
    }
}
