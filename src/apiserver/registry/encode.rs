//! Between an object as a tree and its stored bytes.
//!
//! The bytes are what clients get, so the revision stands in them; but it is known only when the
//! write is committed. An object is therefore serialized with a gap that the commit fills.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use api::object::{ObjectIndex, ObjectKey, Owner};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use storage::{Codec, Content, Key};

use super::resource::{Resource, Resources};

type BoxError = Box<dyn Error + Send + Sync>;

/// Reads stored objects back and names their index terms.
pub(crate) struct ObjectCodec(pub(crate) Arc<Resources>);

impl Codec for ObjectCodec {
    type Index = Arc<ObjectIndex>;

    fn open(&self, key: &Key, revision: u64, disk: &[u8]) -> Result<Content<Arc<ObjectIndex>>, BoxError> {
        let fields = match self.0.of_collection(&key.collection) {
            Some(resource) if !resource.rules.traits().fields.is_empty() => {
                resource.rules.selectable_fields(&serde_json::from_slice(disk)?)
            }
            // Not selectable, or of a resource that is no longer served: kept, but nobody asks.
            Some(_) | None => Vec::new(),
        };
        let head: Head = serde_json::from_slice(disk)?;
        let index = Arc::new(head.metadata.index(revision, fields));
        Ok(Content { bytes: Bytes::copy_from_slice(disk), index })
    }

    fn terms(&self, _key: &Key, index: &Arc<ObjectIndex>, add: &mut dyn FnMut(&str)) {
        for owner in &index.owners {
            add(&owner_term(&owner.uid));
        }
        if let Some(node) = index.field(NODE_NAME) {
            add(&field_term(NODE_NAME, node));
        }
    }
}

/// The one field that is indexed: nodes ask for their pods all the time.
pub(super) const NODE_NAME: &str = "spec.nodeName";

pub(super) fn owner_term(uid: &str) -> String {
    format!("owner/{uid}")
}

pub(super) fn field_term(field: &str, value: &str) -> String {
    format!("field/{field}/{value}")
}

#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Box<str>,
    namespace: Box<str>,
    uid: Arc<str>,
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
    owner_references: Option<Vec<Owner>>,
    finalizers: Option<Vec<Box<str>>>,
    deletion_timestamp: Option<Value>,
}

impl Metadata {
    fn index(self, revision: u64, fields: Vec<(&'static str, Box<str>)>) -> ObjectIndex {
        ObjectIndex {
            key: ObjectKey::new(&self.namespace, &self.name),
            uid: self.uid,
            resource_version: revision,
            labels: self.labels.unwrap_or_default(),
            owners: self.owner_references.unwrap_or_default(),
            finalizers: self.finalizers.unwrap_or_default(),
            deleting: self.deletion_timestamp.is_some(),
            fields,
        }
    }
}

/// An object that is complete but for its revision.
pub(crate) struct Draft {
    bytes: Vec<u8>,
    /// Where the revision goes.
    gap: usize,
    index: ObjectIndex,
}

impl Draft {
    /// Serializes an object of the resource's stored form.
    pub(crate) fn new(resource: &Resource, object: &Value) -> serde_json::Result<Self> {
        let empty = Map::new();
        let fields = object.as_object().unwrap_or(&empty);
        let metadata = fields.get("metadata").unwrap_or(&Value::Null);
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(resource.stored.type_prefix.as_bytes());
        bytes.extend_from_slice(b"\"metadata\":{");
        for (key, value) in metadata.as_object().unwrap_or(&empty) {
            if key != "resourceVersion" {
                write_member(&mut bytes, key, value)?;
            }
        }
        let gap = bytes.len();
        bytes.push(b'}');
        for (key, value) in fields {
            if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                bytes.push(b',');
                write_member(&mut bytes, key, value)?;
                bytes.pop();
            }
        }
        bytes.push(b'}');
        let parsed = Metadata::deserialize(metadata)?;
        let index = parsed.index(0, resource.rules.selectable_fields(object));
        Ok(Self { bytes, gap, index })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The object at a revision; without one, as a dry run shows a creation.
    pub(crate) fn at(mut self, revision: Option<u64>) -> Content<Arc<ObjectIndex>> {
        let filled = match revision {
            Some(revision) => format!("\"resourceVersion\":\"{revision}\""),
            None => {
                self.drop_comma();
                String::new()
            }
        };
        let mut bytes = Vec::with_capacity(self.bytes.len() + filled.len());
        bytes.extend_from_slice(&self.bytes[..self.gap]);
        bytes.extend_from_slice(filled.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.gap..]);
        self.index.resource_version = revision.unwrap_or(0);
        Content { bytes: bytes.into(), index: Arc::new(self.index) }
    }

    /// Members before the gap end with a comma; nothing follows it when it stays empty.
    fn drop_comma(&mut self) {
        if self.bytes[self.gap - 1] == b',' {
            self.gap -= 1;
            self.bytes.remove(self.gap);
        }
    }
}

/// Where the revision stands in stored bytes: it is the last member of the metadata.
pub(super) fn revision_range(json: &[u8]) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Located<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    const MEMBER: &str = "\"resourceVersion\":\"";
    let metadata = serde_json::from_slice::<Located<'_>>(json).ok()?.metadata.get();
    let offset = metadata.as_ptr() as usize - json.as_ptr() as usize;
    let start = offset + metadata.rfind(MEMBER)? + MEMBER.len();
    Some(start..offset + metadata.len() - 2)
}

/// `"key":value,`
fn write_member(bytes: &mut Vec<u8>, key: &str, value: &Value) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    serde_json::to_writer(&mut *bytes, value)?;
    bytes.push(b',');
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_lands_in_the_metadata_and_everything_else_stays() {
        let resources = Resources::built_in();
        let pods = resources.get("", "pods").unwrap();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7", "labels": {"x": "resourceVersion"}},
            "spec": {"nodeName": "n1"}, "status": {},
        });
        let draft = Draft::new(pods, &object).unwrap();
        let content = draft.at(Some(42));
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = json!("42");
        assert_eq!(serde_json::from_slice::<Value>(&content.bytes).unwrap(), expected);
        assert!(content.bytes.starts_with(b"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{"));
        assert_eq!((content.index.resource_version, &*content.index.key.name), (42, "a"));

        let dry = Draft::new(pods, &object).unwrap().at(None);
        let dry: Value = serde_json::from_slice(&dry.bytes).unwrap();
        assert_eq!(dry["metadata"].get("resourceVersion"), None);
        assert_eq!(dry["spec"], object["spec"]);
    }

    #[test]
    fn what_was_written_reads_back_with_the_same_index() {
        let resources = Arc::new(Resources::built_in());
        let pods = resources.get("", "pods").unwrap();
        let object = json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "finalizers": ["f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "ou", "controller": true}],
                "deletionTimestamp": "2020-01-01T00:00:00Z",
            },
            "spec": {"nodeName": "n1"},
        });
        let written = Draft::new(pods, &object).unwrap().at(Some(3));
        let read = ObjectCodec(Arc::clone(&resources)).open(&Key::new("core/pods", "n/a"), 3, &written.bytes).unwrap();
        assert_eq!(read.index, written.index);
        let mut terms = Vec::new();
        ObjectCodec(Arc::clone(&resources)).terms(&Key::new("core/pods", "n/a"), &read.index, &mut |t| {
            terms.push(t.to_owned());
        });
        assert_eq!(terms, ["owner/ou", "field/spec.nodeName/n1"]);
        let moved = crate::registry::at_revision(&written.bytes, 1234);
        let mut expected: Value = serde_json::from_slice(&written.bytes).unwrap();
        expected["metadata"]["resourceVersion"] = json!("1234");
        assert_eq!(serde_json::from_slice::<Value>(&moved).unwrap(), expected);
    }
}
