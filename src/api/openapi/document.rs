//! The documents, written piece by piece.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use super::ResourceDoc;
use super::dialect::Dialect;
use super::gnostic;
use super::paths::{self, PathItem};
use super::schemas::Schemas;

/// Rises when the documents change though the rows do not.
const FORMAT: u32 = 3;

/// The index of the v3 documents of these rows. Upstream has one for each group version, and one for each path
/// that belongs to none.
#[must_use]
pub fn v3_index(release: &str, rows: &[ResourceDoc<'_>]) -> Vec<u8> {
    let mut versions: BTreeMap<(&str, &str), Vec<ResourceDoc<'_>>> = BTreeMap::new();
    for row in rows {
        versions.entry((row.group, row.version)).or_default().push(row.clone());
    }
    let of_versions = versions.iter().map(|((group, version), rows)| {
        let path = paths::prefix(group, version);
        (path.trim_start_matches('/').to_owned(), v3_hash(release, rows))
    });
    let roots = paths::roots(&groups(rows));
    let of_roots = roots.iter().map(|item| (root_name(item).to_owned(), v3_hash(release, &[])));
    let entry = |(name, hash): (String, String)| {
        let url = format!("/openapi/v3/{name}?hash={hash}");
        (name, json!({"serverRelativeURL": url}))
    };
    let paths: Map<String, Value> = of_versions.chain(of_roots).map(entry).collect();
    json!({ "paths": paths }).to_string().into_bytes()
}

/// The name of the document that describes a path of the server itself.
fn root_name<'p>(item: &'p PathItem<'_>) -> &'p str {
    item.path.trim_matches('/')
}

/// The v3 document of a path that belongs to no group version, such as `apis` or `version`; `groups` are those
/// that are served. None if there is no such path.
#[must_use]
pub fn v3_root(name: &str, release: &str, groups: &[&str]) -> Option<Vec<u8>> {
    let roots = paths::roots(groups);
    let item = roots.iter().find(|item| root_name(item) == name)?;
    Some(v3(release, &[item], &Schemas::of_roots()))
}

/// A tag for the document of a group version, without building it.
#[must_use]
pub fn v3_hash(release: &str, rows: &[ResourceDoc<'_>]) -> String {
    let mut hasher = DefaultHasher::new();
    (FORMAT, release, rows).hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

/// The v3 document of one group version; `rows` are its resources.
#[must_use]
pub fn v3_document(group: &str, version: &str, release: &str, rows: &[ResourceDoc<'_>]) -> Vec<u8> {
    let tag = paths::tag(group, version);
    let schemas = Schemas::of(rows, Dialect::V3);
    let resources = rows.iter().flat_map(|row| paths::of(row, &tag));
    let items: Vec<_> = [paths::resource_list(group, version, &tag)].into_iter().chain(resources).collect();
    v3(release, &items.iter().collect::<Vec<_>>(), &schemas)
}

fn v3(release: &str, items: &[&PathItem<'_>], schemas: &Schemas<'_>) -> Vec<u8> {
    let mut out = Object::open();
    out.member("openapi", &"3.0.0".into());
    out.member("info", &info(release));
    out.object("paths", |out| {
        for item in items {
            out.member(&item.path, &item.render(Dialect::V3));
        }
    });
    out.object("components", |out| {
        out.object("schemas", |out| {
            for (name, schema) in schemas.all() {
                out.member(name, &schema);
            }
        });
        out.member("securitySchemes", &security());
    });
    out.close()
}

/// The v2 document of all resources.
#[must_use]
pub fn v2_document(release: &str, rows: &[ResourceDoc<'_>]) -> Vec<u8> {
    let mut out = Object::open();
    out.member("swagger", &"2.0".into());
    out.member("info", &info(release));
    out.object("paths", |out| {
        for_each_path(rows, |item| out.member(&item.path, &item.render(Dialect::V2)));
    });
    out.object("definitions", |out| {
        for (name, schema) in Schemas::of(rows, Dialect::V2).all() {
            out.member(name, &schema);
        }
    });
    out.member("securityDefinitions", &security());
    out.member("security", &json!([{"BearerToken": []}]));
    out.close()
}

/// The v2 document as the protobuf message that kubectl asks for.
#[must_use]
pub fn v2_protobuf(release: &str, rows: &[ResourceDoc<'_>]) -> Vec<u8> {
    let mut document = gnostic::Document::new(&info(release));
    let mut items = Vec::new();
    for_each_path(rows, |item| gnostic::put_path(&mut items, &item.path, &item.render(Dialect::V2)));
    document.paths(&items);
    let mut definitions = Vec::new();
    for (name, schema) in Schemas::of(rows, Dialect::V2).all() {
        gnostic::put_definition(&mut definitions, name, &schema);
    }
    document.definitions(&definitions);
    document.security(&security());
    document.finish()
}

/// Every path, of the server and of the rows; each group version's list of resources comes with its first row.
fn for_each_path(rows: &[ResourceDoc<'_>], mut put: impl FnMut(&PathItem<'_>)) {
    paths::roots(&groups(rows)).iter().for_each(&mut put);
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let tag = paths::tag(row.group, row.version);
        if !seen.contains(&(row.group, row.version)) {
            seen.push((row.group, row.version));
            put(&paths::resource_list(row.group, row.version, &tag));
        }
        paths::of(row, &tag).iter().for_each(&mut put);
    }
}

/// The groups of the rows, each once.
#[must_use]
pub fn groups<'a>(rows: &[ResourceDoc<'a>]) -> Vec<&'a str> {
    let mut groups: Vec<&str> = rows.iter().map(|row| row.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn info(release: &str) -> Value {
    json!({"title": "Kubernetes", "version": release})
}

fn security() -> Value {
    json!({"BearerToken": {
        "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
    }})
}

/// A JSON object that is written as it grows.
struct Object {
    out: Vec<u8>,
}

impl Object {
    fn open() -> Self {
        Self { out: b"{".to_vec() }
    }

    fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(Value::from(key).to_string().as_bytes());
        self.out.push(b':');
    }

    fn member(&mut self, key: &str, value: &Value) {
        self.key(key);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push(b'{');
        fill(self);
        self.out.push(b'}');
    }

    fn close(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}
