//! The paths that are not resources: discovery, version, health, metrics, OpenAPI.

use std::sync::Arc;

use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::answer::{json_response, text};
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
        [""] => Ok(json_response(&parts.headers, &json!({"paths": index(server)}))),
        ["version"] => Ok(json_response(&parts.headers, &version(server))),
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
    let mut paths: Vec<String> =
        ["/healthz", "/healthz/etcd", "/healthz/ping", "/livez", "/livez/etcd", "/livez/ping", "/metrics", "/readyz"]
            .iter()
            .chain(&[
                "/.well-known/openid-configuration",
                "/openid/v1/jwks",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz/etcd",
                "/readyz/ping",
                "/readyz/shutdown",
                "/version",
            ])
            .map(|p| (*p).to_owned())
            .collect();
    paths.extend(server.discovery.paths());
    paths.sort();
    paths
}

fn version(server: &ApiServer) -> serde_json::Value {
    let version = &server.config.version;
    let mut numbers = version.git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or(""),
        "minor": numbers.next().unwrap_or(""),
        "gitVersion": version.git_version,
        "gitCommit": version.git_commit,
        "gitTreeState": "clean",
        "buildDate": version.build_date,
        "goVersion": "",
        "compiler": "rustc",
        "platform": version.platform,
    })
}

/// A document about our tokens, which verifiers may keep for as long as upstream lets them.
fn published(content_type: &'static str, document: &serde_json::Value) -> Response {
    let mut response = text(StatusCode::OK, content_type, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
