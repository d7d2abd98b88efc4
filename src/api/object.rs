//! One stored object as the whole process shares it: canonical JSON bytes and the small index that
//! was made when it was written.
//!
//! The API server builds these at write time; informers, listers and watches hand them out by
//! reference count. Nobody keeps a decoded copy at rest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::codec::Decode;

/// Group and plural name of a resource, such as `apps` and `deployments`; the core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    pub group: Arc<str>,
    pub resource: Arc<str>,
}

impl GroupResource {
    #[must_use]
    pub fn new(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }

    /// The resource of a typed kind.
    #[must_use]
    pub fn of<K: k8s_openapi::Resource>() -> Self {
        Self::new(K::GROUP, K::URL_PATH_SEGMENT)
    }
}

impl fmt::Display for GroupResource {
    /// `pods`, or `deployments.apps`, as upstream's messages print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}", self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// Namespace and name; the namespace of a cluster-scoped object is `""`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Arc<str>,
    #[serde(default)]
    pub controller: bool,
    #[serde(default)]
    pub block_owner_deletion: bool,
}

/// What selectors, owners' look-ups and the garbage collector ask of an object without decoding it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectIndex {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub resource_version: u64,
    pub labels: BTreeMap<Box<str>, Box<str>>,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<Box<str>>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The fields that this kind may be selected by, for example `spec.nodeName` of a pod.
    pub fields: Vec<(&'static str, Box<str>)>,
}

impl ObjectIndex {
    /// The owner reference that is marked as the managing controller.
    #[must_use]
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|o| o.controller)
    }

    /// The value of a selectable field, if this kind indexes it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| &**v)
    }
}

/// An object at one revision. Cloning costs two reference counts.
#[derive(Clone, Debug)]
pub struct Object {
    pub json: Bytes,
    pub index: Arc<ObjectIndex>,
}

impl Object {
    /// Decodes the stored bytes; they were checked against the schema when they were written, so a
    /// failure means that the caller asks for the wrong kind.
    ///
    /// # Errors
    /// When the bytes are not a `K`.
    pub fn decode<K: Decode>(&self) -> serde_json::Result<K> {
        // As text, which is what kube's clients read from too: a second source would double the code of every type.
        let json = std::str::from_utf8(&self.json).map_err(serde::de::Error::custom)?;
        K::from_text(json)
    }
}
