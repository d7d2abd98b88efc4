//! A server in memory and a client that is its administrator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::auth::User;
use crate::auth::user::act_as;
use crate::config::{Config, Store, Version};
use crate::server::ApiServer;

pub(crate) fn config() -> Config {
    Config {
        store: Store::Memory,
        store_limit: u64::MAX,
        version: Version {
            git_version: "v1.36.2+coracle.1".into(),
            git_commit: "0000".into(),
            build_date: "2026-01-01T00:00:00Z".into(),
            platform: "linux/amd64".into(),
        },
        advertise_address: "192.0.2.1".parse().unwrap(),
        secure_port: 6443,
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_dns: "10.96.0.10".parse().unwrap(),
        auth: crate::auth::Config::default(),
        rest: crate::rest::Config::default(),
    }
}

/// What the work gives, and how many turns another task had meanwhile that is always ready.
pub(crate) async fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> (T, usize) {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    tasks.spawn(std::future::poll_fn(move |cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    let done = tasks.join_next().await.unwrap().unwrap();
    (done, turns.load(Ordering::Relaxed))
}

pub(super) struct Client {
    pub(super) server: Arc<ApiServer>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Self { code: parts.status, headers: parts.headers, body }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body, if the code is as expected.
    #[track_caller]
    pub(super) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Code, reason and message of a failure.
    pub(super) fn failure(&self) -> (u16, String, String) {
        let status = self.json();
        let text = |field: &str| status[field].as_str().unwrap_or("").to_owned();
        (self.code.as_u16(), text("reason"), text("message"))
    }

    pub(super) fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).collect()
    }
}

impl Client {
    pub(super) async fn new() -> Self {
        Self::with(Store::Memory).await
    }

    pub(super) async fn with(store: Store) -> Self {
        Self { server: ApiServer::new(Config { store, ..config() }).await.unwrap() }
    }

    pub(super) async fn open(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
        self.open_as(admin, request.body(Body::from(body)).unwrap()).await
    }

    async fn open_as(&self, user: User, mut request: Request<Body>) -> Response {
        act_as(request.extensions_mut(), Arc::new(user));
        let router = self.server.router();
        tower::ServiceExt::oneshot(router, request).await.unwrap()
    }

    pub(super) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        Answer::of(self.open(method, path, headers, body).await).await
    }

    pub(super) async fn post_as(&self, user: User, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        Answer::of(self.open_as(user, request.body(body.to_string().into()).unwrap()).await).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub(super) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(super) async fn patch(&self, path: &str, form: &str, body: &Value) -> Answer {
        let content_type = format!("application/{form}+json");
        self.send(Method::PATCH, path, &[("content-type", &content_type)], body.to_string().into()).await
    }

    pub(super) async fn delete(&self, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into() };
        self.send(Method::DELETE, path, &[("content-type", "application/json")], body).await
    }

    /// Creates a config map with a label `n` and returns it.
    pub(super) async fn config_map(&self, name: &str, label: &str) -> Value {
        self.post(CONFIG_MAPS, &config_map(name, label)).await.expect(201)
    }

    pub(super) async fn watch(&self, path: &str) -> Events {
        let response = self.open(Method::GET, path, &[], Vec::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }
}

pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(super) fn config_map(name: &str, label: &str) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"n": label}}, "data": {"k": label},
    })
}

pub(super) fn deployment(name: &str) -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    })
}

/// The events of a watch, one by one.
pub(super) struct Events {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.rest.extend_from_slice(&self.body.next().await?.unwrap());
        }
    }

    /// Type and name of the next event.
    pub(super) async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        (text("/type"), text("/object/metadata/name"))
    }
}
