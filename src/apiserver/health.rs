//! `/healthz`, `/livez` and `/readyz`, whole and by check.

use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
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

impl Endpoint {
    fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    /// Upstream's names; the store stands where monitoring expects etcd.
    fn checks(self) -> &'static [&'static str] {
        match self {
            Self::Healthz | Self::Livez => &["ping", "etcd"],
            Self::Readyz => &["ping", "etcd", "shutdown"],
        }
    }
}

fn passes(server: &ApiServer, endpoint: Endpoint, check: &str) -> bool {
    match check {
        "etcd" => match server.registry.storage().health() {
            Health::Good => true,
            // It lives, but is of no use to who wants to write.
            Health::Full => endpoint != Endpoint::Readyz,
            Health::Closed => false,
        },
        "shutdown" => !server.shutdown.is_cancelled(),
        _ => true,
    }
}

pub(crate) fn answer(server: &ApiServer, endpoint: Endpoint, rest: &[&str], parts: &Parts) -> Response {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let query = parts.uri.query().unwrap_or("");
    let excluded: Vec<String> = query_pairs(query).filter(|(k, _)| k == "exclude").map(|(_, v)| v).collect();
    let verbose = query_pairs(query).any(|(k, _)| k == "verbose");
    if let [one, deeper @ ..] = rest {
        if !endpoint.checks().contains(one) || !deeper.is_empty() {
            return error_response(&ApiError::UnknownPath);
        }
        return match passes(server, endpoint, one) {
            true => text(StatusCode::OK, PLAIN, "ok".into()),
            false => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("internal server error: {one}\n")),
        };
    }
    let outcome = |check: &str| passes(server, endpoint, check);
    let (report, failed) = report(endpoint, &excluded, outcome);
    match (failed, verbose) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, report),
        (false, true) => text(StatusCode::OK, PLAIN, report),
        (false, false) => text(StatusCode::OK, PLAIN, "ok".into()),
    }
}

/// A line for each check, and whether one that counts failed.
fn report(endpoint: Endpoint, excluded: &[String], outcome: impl Fn(&str) -> bool) -> (String, bool) {
    let mut lines = String::new();
    let mut failed = false;
    for check in endpoint.checks() {
        if excluded.iter().any(|e| e == check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if outcome(check) {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    for unknown in excluded.iter().filter(|e| !endpoint.checks().contains(&e.as_str())) {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown:?}\n"));
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
        assert_eq!((text.as_str(), failed), ("[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n", false));
        let (text, failed) = report(Endpoint::Readyz, &[], |check| check != "shutdown");
        assert!(failed);
        assert!(text.contains("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{text}");
    }
}
