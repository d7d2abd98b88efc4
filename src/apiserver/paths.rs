//! The paths that are not resources: discovery, version, health, metrics, OpenAPI.

use std::sync::Arc;

use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::answer::{maybe_compress, text};
use crate::error::ApiError;
use crate::health::{self, Endpoint};
use crate::negotiate::JSON;
use crate::openapi;
use crate::rest::openid;
use crate::server::ApiServer;

pub(crate) async fn answer(server: &Arc<ApiServer>, parts: &Parts) -> Result<Response, ApiError> {
    let path = parts.uri.path();
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(if is_known(server, path) { ApiError::MethodNotAllowed } else { ApiError::UnknownPath });
    }
    let trimmed = path.trim_matches('/');
    let segments: Vec<&str> = trimmed.split('/').collect();
    match segments.as_slice() {
        [""] => indented(&parts.headers, &json!({"paths": index(server)})),
        ["version"] => indented(&parts.headers, &Version::of(&server.config.version)),
        ["metrics"] => server.metrics.answer(&parts.headers, &server.registry, &server.config.store),
        ["api" | "apis", ..] => server.discovery.answer(&server.config, parts, &segments),
        [".well-known", "openid-configuration"] => {
            let host = format!("{}:{}", server.config.advertise_address, server.config.secure_port);
            Ok(published(JSON, &openid::configuration(&server.auth.tokens, &host)))
        }
        ["openid", "v1", "jwks"] => Ok(published("application/jwk-set+json", &server.auth.tokens.key_set())),
        ["openapi", rest @ ..] => openapi::answer(server, parts, rest).await,
        ["healthz", rest @ ..] => Ok(health::answer(server, Endpoint::Healthz, rest, parts)),
        ["livez", rest @ ..] => Ok(health::answer(server, Endpoint::Livez, rest, parts)),
        ["readyz", rest @ ..] => Ok(health::answer(server, Endpoint::Readyz, rest, parts)),
        _ => Err(ApiError::UnknownPath),
    }
}

fn is_known(server: &ApiServer, path: &str) -> bool {
    index(server).iter().any(|known| known == path.trim_end_matches('/'))
}

/// What `/` lists.
fn index(server: &ApiServer) -> Vec<String> {
    const OTHERS: [&str; 6] =
        ["/.well-known/openid-configuration", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"];
    let mut paths: Vec<String> = OTHERS.iter().map(|path| (*path).to_owned()).chain(health::paths()).collect();
    paths.extend(server.discovery.paths());
    paths.sort();
    paths
}

/// What `/version` says, in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version<'c> {
    major: &'c str,
    minor: &'c str,
    /// The release whose behaviour this is; nothing older is emulated.
    emulation_major: &'c str,
    emulation_minor: &'c str,
    /// The oldest release whose stored objects and clients are understood: the one before.
    min_compatibility_major: &'c str,
    min_compatibility_minor: String,
    git_version: &'c str,
    git_commit: &'c str,
    git_tree_state: &'static str,
    build_date: &'c str,
    /// Clients show it, and none may be left empty: the language and its version, as upstream writes `go1.25.1`.
    go_version: &'static str,
    compiler: &'static str,
    platform: &'c str,
}

impl<'c> Version<'c> {
    fn of(config: &'c crate::config::Version) -> Self {
        let mut numbers = config.git_version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
        let before = minor.parse::<u32>().ok().and_then(|minor| minor.checked_sub(1));
        Self {
            major,
            minor,
            emulation_major: major,
            emulation_minor: minor,
            min_compatibility_major: major,
            min_compatibility_minor: before.map_or_else(String::new, |minor| minor.to_string()),
            git_version: &config.git_version,
            git_commit: &config.git_commit,
            git_tree_state: "clean",
            build_date: &config.build_date,
            go_version: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
            compiler: "rustc",
            platform: &config.platform,
        }
    }
}

/// A value for people, as upstream writes those that are no API objects.
fn indented(headers: &HeaderMap, value: &impl Serialize) -> Result<Response, ApiError> {
    Ok(maybe_compress(headers, JSON, serde_json::to_vec_pretty(value).map_err(ApiError::internal)?))
}

/// A document about our tokens, which verifiers may keep for as long as upstream lets them.
fn published(content_type: &'static str, document: &serde_json::Value) -> Response {
    let mut response = text(StatusCode::OK, content_type, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
