//! `/healthz`, `/livez` and `/readyz`, whole and by check.
//!
//! The checks have upstream's names, which monitoring and installers ask for. Those named
//! `poststarthook/…` are work that is done before the first request is answered; hooks of parts that do
//! not exist here are not listed.

use axum::response::Response;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use storage::Health;

use crate::answer::{error_response, text};
use crate::error::ApiError;
use crate::request::query_pairs;
use crate::server::ApiServer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Healthz,
    Livez,
    Readyz,
}

/// What every endpoint asks, in upstream's order; the store stands where monitoring expects etcd.
const ALIVE: [&str; 3] = ["ping", "log", "etcd"];
/// What stands between them and the hooks, for readiness alone.
const READY: [&str; 2] = ["etcd-readiness", "informer-sync"];
const HOOKS: [&str; 5] = [
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
];
const SHUTDOWN: &str = "shutdown";

impl Endpoint {
    const ALL: [Self; 3] = [Self::Healthz, Self::Livez, Self::Readyz];

    fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    fn checks(self) -> Vec<&'static str> {
        match self {
            Self::Healthz | Self::Livez => [&ALIVE[..], &HOOKS].concat(),
            Self::Readyz => [&ALIVE[..], &READY, &HOOKS, &[SHUTDOWN]].concat(),
        }
    }
}

/// The paths of all endpoints and checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    Endpoint::ALL.into_iter().flat_map(|endpoint| {
        let whole = format!("/{}", endpoint.name());
        let single = endpoint.checks().into_iter().map(move |check| format!("/{}/{check}", endpoint.name()));
        std::iter::once(whole).chain(single)
    })
}

/// Why a check fails.
fn failure(server: &ApiServer, endpoint: Endpoint, check: &str) -> Option<&'static str> {
    match check {
        "etcd" | "etcd-readiness" => match server.registry.storage().health() {
            Health::Good => None,
            // It lives, but is of no use to who wants to write.
            Health::Full => (endpoint == Endpoint::Readyz).then_some("the disk is full"),
            Health::Failing => (endpoint == Endpoint::Readyz).then_some("the store cannot be written"),
            Health::AtLimit => (endpoint == Endpoint::Readyz).then_some("the store has reached its limit"),
            Health::Closed => Some("the store is closed"),
        },
        SHUTDOWN if server.shutdown.is_cancelled() => Some("process is shutting down"),
        _ => None,
    }
}

pub(crate) fn answer(server: &ApiServer, endpoint: Endpoint, rest: &[&str], parts: &Parts) -> Response {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let plain = |code: StatusCode, body: String| {
        let mut response = text(code, PLAIN, body);
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    };
    if !rest.is_empty() {
        let check = rest.join("/");
        if !endpoint.checks().contains(&check.as_str()) {
            return error_response(&ApiError::UnknownPath);
        }
        return match failure(server, endpoint, &check) {
            None => plain(StatusCode::OK, "ok".to_owned()),
            Some(why) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        };
    }
    let query = parts.uri.query().unwrap_or("");
    let excluded: Vec<String> = query_pairs(query).filter(|(k, _)| k == "exclude").map(|(_, v)| v).collect();
    let verbose = query_pairs(query).any(|(k, _)| k == "verbose");
    let (report, failed) = report(endpoint, &excluded, |check| failure(server, endpoint, check).is_none());
    match (failed, verbose) {
        (true, _) => plain(StatusCode::INTERNAL_SERVER_ERROR, report),
        (false, true) => plain(StatusCode::OK, report),
        (false, false) => plain(StatusCode::OK, "ok".to_owned()),
    }
}

/// A line for each check, and whether one that counts failed.
fn report(endpoint: Endpoint, excluded: &[String], outcome: impl Fn(&str) -> bool) -> (String, bool) {
    let mut lines = String::new();
    let mut failed = false;
    let checks = endpoint.checks();
    for check in &checks {
        if excluded.iter().any(|e| e == check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if outcome(check) {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    let unknown: Vec<String> =
        excluded.iter().filter(|e| !checks.contains(&e.as_str())).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    let word = if failed { "failed" } else { "passed" };
    lines.push_str(&format!("{} check {word}\n", endpoint.name()));
    (lines, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_check() {
        let (text, failed) = report(Endpoint::Livez, &["etcd".into()], |_| true);
        assert!(
            !failed && text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n[+]poststarthook/"),
            "{text}"
        );
        assert!(
            text.ends_with("[+]poststarthook/start-kubernetes-service-cidr-controller ok\nlivez check passed\n"),
            "{text}"
        );
        let (text, failed) = report(Endpoint::Readyz, &[], |check| check != "shutdown");
        assert!(failed);
        assert!(text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n"));
        assert!(text.contains("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{text}");
        let (text, _) = report(Endpoint::Healthz, &["a".into(), "b".into()], |_| true);
        assert!(text.contains("warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\n"), "{text}");
    }
}
