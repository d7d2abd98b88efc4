//! Counts and latencies of requests, and sizes of the store, under upstream's names.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Exposition;

use crate::answer::text;
use crate::error::ApiError;
use crate::registry::{Registry, Resources, Store};
use crate::request::RequestInfo;

/// Upstream's buckets for request latencies, thinned.
const LATENCY_BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Every label is one of the server's own words, so that the number of series is bounded by what the
/// server serves, whatever clients ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

/// What tells most series apart is enough to find one: this is done twice for each request.
impl Hash for RequestLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.resource, self.verb, self.subresource.len()).hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

/// The API server's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<CountLabels, Counter>,
    latencies: Family<RequestLabels, Histogram, fn() -> Histogram>,
    inflight: Family<InflightLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        Self {
            requests: Family::default(),
            latencies: Family::new_with_constructor(histogram),
            inflight: Family::default(),
        }
    }
}

/// A request that is being answered.
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn begin(&self, info: &RequestInfo) -> Running {
        let reads = matches!(&*info.verb, "get" | "list" | "watch");
        let request_kind = if reads { "readOnly" } else { "mutating" };
        let gauge = self.inflight.get_or_create(&InflightLabels { request_kind }).clone();
        gauge.inc();
        Running(gauge)
    }

    pub(crate) fn observe(&self, info: &RequestInfo, resources: &Resources, code: StatusCode, took: Duration) {
        let request = labels(info, resources);
        if info.verb != "watch" {
            self.latencies.get_or_create(&request).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&CountLabels { request, code: reported_code(code) }).inc();
    }

    /// The text exposition of everything: OpenMetrics for those who ask for it, else Prometheus' older form.
    pub(crate) fn answer(&self, headers: &HeaderMap, registry: &Registry, store: &Store) -> Result<Response, ApiError> {
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
        let mut exposition = Exposition::default();
        exposition.register("apiserver_request", "Requests by verb, resource and code", self.requests.clone());
        let help = "Response latency in seconds by verb and resource";
        exposition.register("apiserver_request_duration_seconds", help, self.latencies.clone());
        let help = "Requests that are being answered";
        exposition.register("apiserver_current_inflight_requests", help, self.inflight.clone());
        register_sizes(&mut exposition, registry, store);
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &exposition).map_err(ApiError::internal)?;
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        if accept.contains("application/openmetrics-text") {
            return Ok(text(StatusCode::OK, OPEN_METRICS, out));
        }
        Ok(text(StatusCode::OK, PLAIN, plain_text(&out)))
    }
}

/// OpenMetrics names a counter without the `_total` of its samples; the older form names it as they are.
fn plain_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                out.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The labels of a request. Those for nothing that is served share one series for each verb.
fn labels(info: &RequestInfo, resources: &Resources) -> RequestLabels {
    let verb = reported_verb(&info.verb);
    let unknown = RequestLabels { verb, component: "apiserver", ..RequestLabels::default() };
    if !info.is_resource {
        return unknown;
    }
    let resource = resources.get(&info.group, &info.resource);
    let found = resource.and_then(|resource| {
        let subresource = match info.subresource.as_str() {
            "" => "",
            name => resource.row.subresources.iter().find(|s| s.name == name)?.name,
        };
        Some((resource.row, resource.served(&info.version)?.version, subresource))
    });
    let Some((row, version, subresource)) = found else { return unknown };
    RequestLabels { group: row.group, version, resource: row.resource, subresource, scope: scope(info), ..unknown }
}

/// Upstream's dashboards and alerts know writes by their HTTP methods, and reads by their verbs.
fn reported_verb(verb: &str) -> &'static str {
    match verb {
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "delete" | "deletecollection" => "DELETE",
        "patch" => "PATCH",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "head" => "HEAD",
        "options" => "OPTIONS",
        "connect" => "CONNECT",
        // Upstream's word for methods that are not HTTP's own.
        _ => "other",
    }
}

/// A proxied server may answer with any number: those that mean nothing count as the first of their class.
fn reported_code(code: StatusCode) -> u16 {
    if code.canonical_reason().is_some() { code.as_u16() } else { code.as_u16() / 100 * 100 }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.name.is_empty(), info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    }
}

fn register_sizes(exposition: &mut Exposition, registry: &Registry, store: &Store) {
    let stats = registry.storage().stats();
    let objects = Family::<ResourceLabels, Gauge>::default();
    let bytes = Family::<ResourceLabels, Gauge>::default();
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    for collection in &stats.collections {
        let labels = || ResourceLabels { resource: metric_name(&collection.collection) };
        objects.get_or_create(&labels()).set(gauge(collection.entries));
        bytes.get_or_create(&labels()).set(gauge(collection.bytes));
    }
    exposition.register("apiserver_storage_objects", "Stored objects by resource", objects);
    exposition.register("coracle_watch_cache_bytes", "Bytes of the newest versions by resource", bytes);
    let ring: Gauge = Gauge::default();
    ring.set(gauge(stats.ring_bytes));
    exposition.register("coracle_watch_ring_bytes", "Bytes of the recent changes", ring);
    if let Store::File { database, .. } = store
        && let Ok(metadata) = std::fs::metadata(database)
    {
        let size: Gauge = Gauge::default();
        size.set(i64::try_from(metadata.len()).unwrap_or(i64::MAX));
        exposition.register("apiserver_storage_size_bytes", "Size of the database file", size);
    }
}

/// `deployments.apps`, as upstream labels stored resources.
fn metric_name(collection: &Arc<str>) -> String {
    match collection.split_once('/') {
        Some(("core", resource)) => resource.to_owned(),
        Some((group, resource)) => format!("{resource}.{group}"),
        None => collection.to_string(),
    }
}
