//! The documents, written piece by piece.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use super::ResourceDoc;
use super::dialect::Dialect;
use super::gnostic;
use super::paths::{self, PathItem};
use super::schemas::Schemas;

/// Rises when the documents change though the rows do not.
const FORMAT: u32 = 2;

/// The index of the v3 documents: group, version and hash of each.
#[must_use]
pub fn v3_index(documents: &[(&str, &str, &str)]) -> Vec<u8> {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(group, version, hash)| {
            let path = paths::prefix(group, version);
            let url = format!("/openapi/v3{path}?hash={hash}");
            (path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({ "paths": paths }).to_string().into_bytes()
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
    let mut out = Object::open();
    out.member("openapi", &"3.0.0".into());
    out.member("info", &info(release));
    out.object("paths", |out| {
        let items = [paths::resource_list(group, version, &tag)].into_iter();
        for item in items.chain(rows.iter().flat_map(|row| paths::of(row, &tag))) {
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
    let mut groups: Vec<&str> = rows.iter().map(|row| row.group).collect();
    groups.sort_unstable();
    groups.dedup();
    paths::roots(&groups).iter().for_each(&mut put);
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
