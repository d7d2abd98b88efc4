//! `/openapi/v2` and `/openapi/v3`: the schemas and paths of what is served, for kubectl and generators.
//!
//! A document is megabytes: it is made once when it is first asked for, shared by all who ask, and
//! forgotten when nobody has for a while. Clients keep documents by their tags.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::openapi::{self, ResourceDoc, SubresourceDoc};
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use crate::answer::{GZIP_FROM, accepts_gzip, describe, gzip};
use crate::error::ApiError;
use crate::negotiate::JSON;
use crate::registry::{Resources, Row, Subresource};
use crate::request::query_pairs;
use crate::server::ApiServer;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A document that nobody asked for in this time is forgotten.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Which document, in which form. There are as many as there are group versions, and a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    name: Name,
    gzip: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    V2,
    V2Protobuf,
    V3Index,
    V3 {
        group: &'static str,
        version: &'static str,
    },
    /// Of a path that belongs to no group version.
    V3Root(Root),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Root {
    Fixed(&'static str),
    Group(&'static str),
}

/// The paths beside those of groups that have a document of their own.
const ROOTS: [&str; 5] = [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"];

/// A document as it is sent.
#[derive(Debug)]
struct Document {
    /// Quoted, as the header has it; none for the index.
    tag: Option<HeaderValue>,
    bytes: Bytes,
    is_compressed: bool,
}

/// The documents in memory.
#[derive(Debug)]
pub(crate) struct Documents {
    known: Mutex<HashMap<Key, Known>>,
    /// Documents are made one after the other: each takes several times its own size while it is made.
    making: Semaphore,
}

#[derive(Debug)]
struct Known {
    document: Arc<OnceCell<Document>>,
    asked: Instant,
}

impl Default for Documents {
    fn default() -> Self {
        Self { known: Mutex::default(), making: Semaphore::new(1) }
    }
}

impl Documents {
    /// The document, made if nobody asked for it before.
    async fn get(
        &self,
        key: Key,
        make: impl FnOnce() -> Document + Send + 'static,
    ) -> Result<Arc<OnceCell<Document>>, ApiError> {
        let cell = {
            let mut known = self.known.lock();
            let asked = Instant::now();
            let entry = known.entry(key).or_insert_with(|| Known { document: Arc::default(), asked });
            entry.asked = asked;
            Arc::clone(&entry.document)
        };
        let made = async {
            let _turn = self.making.acquire().await.map_err(ApiError::internal)?;
            tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)
        };
        cell.get_or_try_init(|| made).await?;
        Ok(cell)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.lock().len()
    }

    pub(crate) fn forget_unused(&self, now: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, known| now.duration_since(known.asked) < KEPT_FOR);
        if known.is_empty() {
            known.shrink_to_fit();
        }
    }
}

/// Answers a path under `/openapi`.
pub(crate) async fn answer(server: &ApiServer, parts: &Parts, path: &[&str]) -> Result<Response, ApiError> {
    let resources = server.registry.resources();
    let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let name = match path {
        ["v2"] if accept.contains(V2_PROTOBUF) || accept.contains(V2_PROTOBUF_OLD) => Name::V2Protobuf,
        ["v2"] => Name::V2,
        ["v3"] => Name::V3Index,
        ["v3", "api", version] => v3_name(resources, "", version)?,
        ["v3", "apis", group] => Name::V3Root(Root::Group(group_of(resources, group)?)),
        ["v3", "apis", group, version] => v3_name(resources, group, version)?,
        ["v3", rest @ ..] => {
            let rest = rest.join("/");
            let root = ROOTS.into_iter().find(|root| **root == *rest).ok_or(ApiError::UnknownPath)?;
            Name::V3Root(Root::Fixed(root))
        }
        _ => return Err(ApiError::UnknownPath),
    };
    let release = server.config.version.git_version.clone();
    let key = Key { name, gzip: accepts_gzip(&parts.headers) };
    let rows = rows(resources, |row, version| match name {
        Name::V2 | Name::V2Protobuf | Name::V3Index => true,
        Name::V3Root(root) => root == Root::Group(row.group),
        Name::V3 { group, version: wanted } => row.group == group && version == wanted,
    });
    let cell = server.openapi.get(key, move || make(key, &release, &rows)).await?;
    let document = cell.get().ok_or_else(|| ApiError::internal("an OpenAPI document was not made"))?;
    Ok(sent(document, parts, name))
}

fn v3_name(resources: &Resources, group: &str, version: &str) -> Result<Name, ApiError> {
    let rows = resources.all().iter().map(|r| r.row);
    let mut served = rows.flat_map(|row| row.versions.iter().map(move |version| (row.group, *version)));
    let found = served.find(|(g, v)| *g == group && *v == version);
    let (group, version) = found.ok_or(ApiError::UnknownPath)?;
    Ok(Name::V3 { group, version })
}

fn group_of(resources: &Resources, group: &str) -> Result<&'static str, ApiError> {
    let mut groups = resources.all().iter().map(|r| r.row.group);
    groups.find(|g| *g == group && !g.is_empty()).ok_or(ApiError::UnknownPath)
}

fn make(key: Key, release: &str, rows: &[ResourceDoc<'_>]) -> Document {
    let (bytes, tag) = match key.name {
        Name::V2 => (openapi::v2_document(release, rows), Some(openapi::v3_hash(release, rows))),
        Name::V2Protobuf => (openapi::v2_protobuf(release, rows), Some(openapi::v3_hash(release, rows))),
        Name::V3 { group, version } => {
            (openapi::v3_document(group, version, release, rows), Some(openapi::v3_hash(release, rows)))
        }
        Name::V3Root(root) => {
            let name = match root {
                Root::Fixed(name) => name.to_owned(),
                Root::Group(group) => format!("apis/{group}"),
            };
            let document = openapi::v3_root(&name, release, &openapi::groups(rows));
            (document.expect("invariant: each root that has a name is described"), Some(openapi::v3_hash(release, &[])))
        }
        Name::V3Index => (openapi::v3_index(release, rows), None),
    };
    let tag = tag
        .map(|tag| HeaderValue::from_str(&format!("\"{tag}\"")).expect("invariant: hexadecimal digits fit a header"));
    let compressed = if key.gzip && bytes.len() >= GZIP_FROM { gzip(&bytes) } else { None };
    let is_compressed = compressed.is_some();
    let mut bytes = compressed.unwrap_or(bytes);
    bytes.shrink_to_fit();
    Document { tag, bytes: bytes.into(), is_compressed }
}

fn sent(document: &Document, parts: &Parts, name: Name) -> Response {
    let content_type = if name == Name::V2Protobuf { V2_PROTOBUF_OLD } else { JSON };
    let mut response = Response::new(Body::empty());
    describe(&mut response, content_type, document.is_compressed);
    let Some(tag) = &document.tag else {
        *response.body_mut() = Body::from(document.bytes.clone());
        return response;
    };
    if parts.headers.get(IF_NONE_MATCH) == Some(tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    } else {
        *response.body_mut() = Body::from(document.bytes.clone());
    }
    response.headers_mut().insert(ETAG, tag.clone());
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    let asked = query_pairs(parts.uri.query().unwrap_or("")).find(|(key, _)| key == "hash");
    let is_named = asked.is_some_and(|(_, hash)| tag.as_bytes() == format!("\"{hash}\"").as_bytes());
    if matches!(name, Name::V3 { .. } | Name::V3Root(_)) && is_named {
        // The address names the content: it can be kept for ever.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
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
