//! `/openapi/v2` and `/openapi/v3`: the schemas and paths of what is served, for kubectl and generators.
//!
//! The documents are made when they are asked for and not kept: they are megabytes, and clients keep
//! them by their tags.

use std::collections::BTreeMap;

use api::openapi::{self, ResourceDoc, SubresourceDoc};
use axum::response::Response;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use crate::answer::maybe_compress;
use crate::error::ApiError;
use crate::negotiate::JSON;
use crate::registry::{Resources, Row, Subresource};
use crate::request::query_pairs;
use crate::server::ApiServer;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path under `/openapi`.
pub(crate) fn answer(server: &ApiServer, parts: &Parts, path: &[&str]) -> Result<Response, ApiError> {
    let release = &server.config.version.git_version;
    let resources = server.registry.resources();
    match path {
        ["v2"] => Ok(v2(release, parts, &rows(resources, |_, _| true))),
        ["v3"] => Ok(index(release, resources, parts)),
        ["v3", "api", version] => v3(release, resources, parts, "", version),
        ["v3", "apis", group, version] => v3(release, resources, parts, group, version),
        _ => Err(ApiError::UnknownPath),
    }
}

fn v2(release: &str, parts: &Parts, rows: &[ResourceDoc<'_>]) -> Response {
    let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let tag = openapi::v3_hash(release, rows);
    if accept.contains(V2_PROTOBUF) || accept.contains(V2_PROTOBUF_OLD) {
        return tagged(parts, V2_PROTOBUF_OLD, &tag, || openapi::v2_protobuf(release, rows));
    }
    tagged(parts, JSON, &tag, || openapi::v2_document(release, rows))
}

fn v3(release: &str, resources: &Resources, parts: &Parts, group: &str, version: &str) -> Result<Response, ApiError> {
    let rows = rows(resources, |row, v| row.group == group && v == version);
    if rows.is_empty() {
        return Err(ApiError::UnknownPath);
    }
    let tag = openapi::v3_hash(release, &rows);
    let mut response = tagged(parts, JSON, &tag, || openapi::v3_document(group, version, release, &rows));
    let query = parts.uri.query().unwrap_or("");
    if query_pairs(query).any(|(k, v)| k == "hash" && v == tag) {
        // The address names the content: it can be kept for ever.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}

fn index(release: &str, resources: &Resources, parts: &Parts) -> Response {
    let mut documents: BTreeMap<(&str, &str), Vec<ResourceDoc<'_>>> = BTreeMap::new();
    for row in rows(resources, |_, _| true) {
        documents.entry((row.group, row.version)).or_default().push(row);
    }
    let tags: Vec<_> = documents.iter().map(|(gv, rows)| (*gv, openapi::v3_hash(release, rows))).collect();
    let listed: Vec<_> = tags.iter().map(|((group, version), tag)| (*group, *version, tag.as_str())).collect();
    maybe_compress(&parts.headers, JSON, openapi::v3_index(&listed))
}

fn tagged(parts: &Parts, content_type: &'static str, tag: &str, make: impl FnOnce() -> Vec<u8>) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("invariant: hexadecimal digits fit a header");
    let unchanged = parts.headers.get(IF_NONE_MATCH) == Some(&tag);
    let mut response = maybe_compress(&parts.headers, content_type, if unchanged { Vec::new() } else { make() });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response
}

fn rows(resources: &Resources, wanted: impl Fn(&Row, &str) -> bool) -> Vec<ResourceDoc<'static>> {
    let rows = resources.all().iter().map(|r| r.row);
    rows.flat_map(|row| row.versions.iter().map(move |version| (row, *version)))
        .filter(|(row, version)| wanted(row, version))
        .map(|(row, version)| ResourceDoc {
            group: row.group,
            version,
            kind: row.kind,
            plural: row.resource,
            namespaced: row.namespaced,
            verbs: row.verbs,
            subresources: row.subresources.iter().map(|sub| subresource(row, version, sub)).collect(),
        })
        .collect()
}

fn subresource(row: &'static Row, version: &'static str, sub: &'static Subresource) -> SubresourceDoc<'static> {
    let (group, version) = sub.group_version.unwrap_or((row.group, version));
    let connect = sub.special && sub.kind.ends_with("Options");
    SubresourceDoc { name: sub.name, group, version, kind: sub.kind, verbs: sub.verbs, connect }
}
