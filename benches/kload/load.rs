//! Closed loops: each connection sends its next request when it has the answer to the last.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::connection::Connection;
use crate::figures::Figures;
use crate::{Context, configmap, namespace};

/// Before the window: connections, caches and the CPU's clock settle.
const WARM_UP: Duration = Duration::from_secs(1);
const SMALL: usize = 64;
const MEDIUM: usize = 1024;
const LARGE: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    List,
    Put,
    Churn,
}

impl Operation {
    /// The namespace's suffix, how many objects it begins with, and of what size.
    fn setting(self) -> (&'static str, usize, usize) {
        match self {
            Self::Get => ("get", 1, LARGE),
            Self::List => ("list", 1000, MEDIUM),
            Self::Put => ("put", 16, LARGE),
            Self::Churn => ("churn", 0, SMALL),
        }
    }
}

/// What one connection does and has seen.
struct Worker {
    operation: Operation,
    connection: Connection,
    namespace: String,
    /// Distinguishes the workers, and this run from earlier ones.
    id: usize,
    tag: u64,
    /// The resourceVersion that the next PUT replaces.
    version: Option<String>,
    window: (Instant, Instant),
    times: Vec<Duration>,
    bytes: usize,
}

pub(crate) async fn run(cx: &Context, operation: Operation, connections: usize) -> Result<Figures> {
    let (suffix, count, size) = operation.setting();
    let namespace = namespace::make(&cx.server, suffix, count, size).await?;
    let tag = u64::try_from(jiff::Timestamp::now().as_microsecond()).context("the clock is before 1970")?;
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(&cx.server).await?);
    }
    let begin = Instant::now() + WARM_UP;
    let window = (begin, begin + cx.arguments.window);
    let mut workers = JoinSet::new();
    for (id, connection) in opened.into_iter().enumerate() {
        let namespace = namespace.clone();
        let worker =
            Worker { operation, connection, namespace, id, tag, version: None, window, times: Vec::new(), bytes: 0 };
        workers.spawn(worker.run());
    }
    sleep_until(window.0).await;
    let before = cx.meter.read()?;
    sleep_until(window.1).await;
    let used = cx.meter.read()?.since(&before);

    let (mut times, mut bytes) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (worker_times, worker_bytes) = worker??;
        times.extend(worker_times);
        bytes += worker_bytes;
    }
    ensure!(!times.is_empty(), "no request ended within the window");
    let requests = times.len() as f64;
    let mut figures = Figures::default();
    figures.set("per_second", requests / used.wall.as_secs_f64());
    figures.set("body_bytes", bytes as f64 / requests);
    figures.set_times("request", &mut times);
    used.set_figures(&mut figures, requests);
    if let Some(mib) = cx.meter.resident_mib()? {
        figures.set("server_rss_mib", mib);
    }
    Ok(figures)
}

impl Worker {
    async fn run(mut self) -> Result<(Vec<Duration>, usize)> {
        let collection = configmap::collection(&self.namespace);
        while Instant::now() < self.window.1 {
            self.tag += 1;
            match self.operation {
                Operation::Get => {
                    self.request(200, "GET", &format!("{collection}/get-0"), "").await?;
                }
                Operation::List => {
                    self.request(200, "GET", &collection, "").await?;
                }
                Operation::Put => self.put(&collection).await?,
                Operation::Churn => {
                    let name = format!("c-{}-{}", self.tag, self.id);
                    let body = configmap::body(&self.namespace, &name, None, SMALL, self.tag);
                    self.request(201, "POST", &collection, &body).await?;
                    self.request(200, "DELETE", &format!("{collection}/{name}"), "").await?;
                }
            }
        }
        Ok((self.times, self.bytes))
    }

    async fn put(&mut self, collection: &str) -> Result<()> {
        let name = format!("put-{}", self.id);
        let path = format!("{collection}/{name}");
        let version = match self.version.take() {
            Some(version) => version,
            None => configmap::version(self.connection.expect(200, "GET", &path, "").await?)?.to_owned(),
        };
        let tag = self.tag.rotate_left(16) + self.id as u64;
        let body = configmap::body(&self.namespace, &name, Some(&version), LARGE, tag);
        let answer = self.request(200, "PUT", &path, &body).await?;
        self.version = Some(configmap::version(answer)?.to_owned());
        Ok(())
    }

    /// A request that counts when it lies within the window.
    async fn request(&mut self, expected: u16, method: &str, path: &str, body: &str) -> Result<&[u8]> {
        let sent = Instant::now();
        let answer = self.connection.expect(expected, method, path, body).await?;
        let received = Instant::now();
        if sent >= self.window.0 && received <= self.window.1 {
            self.times.push(received - sent);
            self.bytes += answer.len();
        }
        Ok(answer)
    }
}
