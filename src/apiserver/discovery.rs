//! What the server serves, told to clients: group lists, resource lists and the aggregated document.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::answer::{maybe_compress, negotiated};
use crate::config::Config;
use crate::error::ApiError;
use crate::registry::{Resource, Resources, Row};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups in the order in which upstream lists them; the core group is apart.
const ORDER: [&str; 19] = [
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// A document that never changes while the server runs.
#[derive(Debug)]
struct Document {
    json: Vec<u8>,
    etag: HeaderValue,
}

/// Discovery, made once at start.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// Versions of each group and the resources of each version.
    groups: Vec<Group>,
    core: Document,
    named: Document,
}

#[derive(Debug)]
struct Group {
    name: &'static str,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    name: &'static str,
    resources: Value,
}

impl Discovery {
    pub(crate) fn new(resources: &Resources) -> Self {
        let mut by_group: BTreeMap<&'static str, Vec<&Resource>> = BTreeMap::new();
        for resource in resources.all() {
            by_group.entry(resource.row.group).or_default().push(resource);
        }
        let rank = |name: &str| ORDER.iter().position(|o| *o == name).map_or(usize::MAX, |p| p + 1);
        let mut names: Vec<_> = by_group.keys().copied().collect();
        names.sort_by_key(|name| if name.is_empty() { 0 } else { rank(name) });
        let aggregated = |core: bool| {
            let chosen = names.iter().filter(|n| n.is_empty() == core);
            document(&chosen.map(|name| aggregated_group(name, &by_group[name])).collect::<Vec<_>>())
        };
        let groups = names.iter().map(|name| Group::new(name, &by_group[name])).collect();
        Self { groups, core: aggregated(true), named: aggregated(false) }
    }

    /// The paths of all group versions.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        for group in &self.groups {
            let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            paths.extend(group.versions.iter().map(|v| format!("{base}/{}", v.name)));
            if !group.name.is_empty() {
                paths.push(base);
            }
        }
        paths
    }

    /// Answers a path under `/api` or `/apis`.
    pub(crate) fn answer(&self, config: &Config, parts: &Parts, path: &[&str]) -> Result<Response, ApiError> {
        let aggregated = wants_aggregated(parts);
        let found = match path {
            ["api"] if aggregated => return Ok(self.core.answer(parts)),
            ["apis"] if aggregated => return Ok(self.named.answer(parts)),
            ["api"] => Some(self.core_versions(config)),
            ["apis"] => Some(self.group_list()),
            ["api", version] => self.resource_list("", version),
            ["apis", group] => self.group(group).map(|g| g.describe(true)),
            ["apis", group, version] => self.resource_list(group, version),
            _ => None,
        };
        negotiated(parts, &found.ok_or(ApiError::UnknownPath)?)
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name && !name.is_empty())
    }

    fn core_versions(&self, config: &Config) -> Value {
        let address = format!("{}:{}", config.advertise_address, config.secure_port);
        json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        })
    }

    fn group_list(&self) -> Value {
        let groups: Vec<_> = self.groups.iter().filter(|g| !g.name.is_empty()).map(|g| g.describe(false)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let group = self.groups.iter().find(|g| g.name == group)?;
        let version = group.versions.iter().find(|v| v.name == version)?;
        Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": group_version(group.name, version.name),
            "resources": version.resources,
        }))
    }
}

fn wants_aggregated(parts: &Parts) -> bool {
    let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    accept.split(',').any(|clause| {
        let has = |part: &str| clause.split(';').any(|p| p.trim() == part);
        has("application/json") && has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Group {
    fn new(name: &'static str, resources: &[&Resource]) -> Self {
        let versions = versions(resources);
        Self {
            name,
            versions: versions.into_iter().map(|v| Version { name: v, resources: plain(resources, v) }).collect(),
        }
    }

    fn describe(&self, alone: bool) -> Value {
        let version = |v: &Version| json!({"groupVersion": group_version(self.name, v.name), "version": v.name});
        let mut group = json!({
            "name": self.name,
            "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            "preferredVersion": self.versions.first().map(version),
        });
        if alone {
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
        }
        group
    }
}

/// All versions of a group, preferred ones first.
fn versions(resources: &[&Resource]) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for version in resources.iter().flat_map(|r| r.row.versions) {
        if !versions.contains(version) {
            versions.push(*version);
        }
    }
    versions
}

fn plain(resources: &[&Resource], version: &str) -> Value {
    let mut list = Vec::new();
    for row in resources.iter().map(|r| r.row).filter(|r| r.versions.contains(&version)) {
        let mut resource = json!({
            "name": row.resource, "singularName": row.singular, "namespaced": row.namespaced,
            "kind": row.kind, "verbs": row.verbs,
        });
        if !row.short_names.is_empty() {
            resource["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            resource["categories"] = json!(row.categories);
        }
        if row.stored {
            resource["storageVersionHash"] = json!(storage_version_hash(row));
        }
        list.push(resource);
        for sub in row.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", row.resource, sub.name), "singularName": "",
                "namespaced": row.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if let Some((group, version)) = sub.group_version {
                resource["group"] = json!(group);
                resource["version"] = json!(version);
            }
            list.push(resource);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Value::Array(list)
}

/// What tells clients that the stored version of a resource changed: upstream's hash of its name.
fn storage_version_hash(row: &Row) -> String {
    let group = row.stored_in.unwrap_or(row.group);
    let digest = Sha256::digest(format!("{group}/{}/{}", row.stored_version, row.kind));
    BASE64.encode(&digest[..8])
}

fn aggregated_group(name: &str, resources: &[&Resource]) -> Value {
    let versions = versions(resources).into_iter().map(|version| {
        let rows = resources.iter().map(|r| r.row).filter(|r| r.versions.contains(&version));
        let mut list: Vec<_> = rows.map(|row| aggregated_resource(row, version)).collect();
        list.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
        json!({"version": version, "resources": list, "freshness": "Current"})
    });
    let versions: Vec<_> = versions.collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(row: &'static Row, version: &str) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": row.resource,
        "responseKind": kind(row.group, version, row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        resource["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        resource["categories"] = json!(row.categories);
    }
    let subs: Vec<_> = row
        .subresources
        .iter()
        .map(|sub| {
            let (group, version) = sub.group_version.unwrap_or((row.group, version));
            json!({"subresource": sub.name, "responseKind": kind(group, version, sub.kind), "verbs": sub.verbs})
        })
        .collect();
    if !subs.is_empty() {
        resource["subresources"] = json!(subs);
    }
    resource
}

fn document(groups: &[Value]) -> Document {
    let value = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups,
    });
    let mut json = serde_json::to_vec(&value).expect("invariant: a value serializes");
    let mut tag = String::from("\"");
    for byte in Sha512::digest(&json) {
        write!(tag, "{byte:02X}").expect("invariant: writing to a string succeeds");
    }
    tag.push('"');
    json.push(b'\n');
    Document { json, etag: HeaderValue::from_str(&tag).expect("invariant: hexadecimal digits fit a header") }
}

impl Document {
    fn answer(&self, parts: &Parts) -> Response {
        let unchanged = parts.headers.get(IF_NONE_MATCH) == Some(&self.etag);
        let mut response =
            maybe_compress(&parts.headers, AGGREGATED, if unchanged { Vec::new() } else { self.json.clone() });
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response.headers_mut().insert(ETAG, self.etag.clone());
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        response
    }
}
