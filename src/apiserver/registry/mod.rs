//! Objects in the store: read, create, change and remove them by resource and key.
//!
//! What goes through here passes no authorization, no admission and no rules: that is the handlers'
//! work, and theirs alone who answer for a whole subresource.

mod durability;
mod encode;
mod purpose;
mod resource;
mod row;
mod rows;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectIndex, ObjectKey};
use serde_json::{Value, json};
use storage::{
    Action, Backend, Codec, Entry, Expect, Gone, Key, Options, Purpose, Scope, Storage, Watch, Write, WriteError,
};

use crate::error::ApiError;

pub(crate) use encode::{Draft, ObjectCodec};
pub(crate) use resource::{Resource, Resources, Served};
pub use row::{Row, Subresource};

/// etcd's limit on a request; what clients of upstream can rely on fits.
const OBJECT_LIMIT: usize = 1536 * 1024;
/// The limit of etcd's client on a message: larger objects fail with another text.
const MESSAGE_LIMIT: usize = 2 * 1024 * 1024;
/// Lost races before a change of one object is given up: each means that another writer succeeded.
pub(crate) const ATTEMPTS: usize = 100;

pub(crate) type ObjectEntry = Entry<Arc<ObjectIndex>>;

/// Where the objects live.
#[derive(Clone, Debug)]
pub enum Store {
    File {
        database: PathBuf,
        /// Two files of this name, ending in `-a` and `-b`, tell a store that is gone from one that
        /// never was.
        marker: Option<PathBuf>,
    },
    Memory,
}

/// The objects of all resources.
#[derive(Clone, Debug)]
pub struct Registry {
    storage: Storage<ObjectCodec>,
    resources: Arc<Resources>,
}

/// Why an object was not written.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It exists, is gone, or has another revision than expected.
    Raced,
    Failed(ApiError),
}

impl Registry {
    /// Opens the store, which may grow up to so many bytes, and reads everything in it. Blocks.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(store: &Store, limit: u64) -> Result<Self, storage::OpenError> {
        let resources = Arc::new(Resources::built_in());
        let backend = match store {
            Store::File { database, marker } => Backend::File { database: database.clone(), marker: marker.clone() },
            Store::Memory => Backend::Memory,
        };
        let storage = Storage::open(&Options { limit, ..Options::new(backend) }, ObjectCodec(Arc::clone(&resources)))?;
        Ok(Self { storage, resources })
    }

    /// Writes what is not on disk yet; later writes fail.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn close(&self) -> Result<(), ApiError> {
        self.storage.close().await.map_err(|e| ApiError::Unknown(e.to_string()))
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(crate) fn storage(&self) -> &Storage<ObjectCodec> {
        &self.storage
    }

    fn resource(&self, name: &GroupResource) -> Option<&Resource> {
        self.resources.get(&name.group, &name.resource)
    }

    /// The object at its newest revision.
    #[must_use]
    pub fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Option<Object> {
        let resource = self.resource(resource)?;
        self.entry(resource, &key.namespace, &key.name).map(|e| object_of(&e))
    }

    /// Whether an object is in the store and cannot be read.
    #[must_use]
    pub fn is_unreadable(&self, resource: &GroupResource, key: &ObjectKey) -> bool {
        let Some(resource) = self.resource(resource) else { return false };
        self.storage.is_set_aside(&resource.collection, &resource.item(&key.namespace, &key.name))
    }

    pub(crate) fn entry(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<ObjectEntry>> {
        self.storage.get(&resource.collection, &resource.item(namespace, name))
    }

    /// The size of an object, of nothing if it is not there.
    pub(crate) fn object_bytes(&self, resource: &Resource, namespace: &str, name: &str) -> usize {
        self.entry(resource, namespace, name).map_or(0, |entry| entry.bytes.len())
    }

    /// All objects of a resource, of one namespace if given, in key order.
    #[must_use]
    pub fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Object> {
        let mut objects = Vec::new();
        let Some(resource) = self.resource(resource) else { return objects };
        let prefix = namespace.map(|n| format!("{n}/")).unwrap_or_default();
        let scope = Scope { collection: &resource.collection, prefix: &prefix, start: "" };
        let scan = self.storage.scan(scope, None, |entry| {
            objects.push(object_of(entry));
            ControlFlow::Continue(())
        });
        debug_assert!(scan.is_ok(), "invariant: the present is always known");
        objects
    }

    /// An object of a resource that is there and cannot be read, or the names between which some may be lost;
    /// of one namespace if given.
    pub(crate) fn set_aside_of(&self, resource: &GroupResource, namespace: Option<&str>) -> Option<String> {
        self.set_aside_in(self.resource(resource)?, namespace)
    }

    /// The same of a resource that is at hand.
    pub(crate) fn set_aside_in(&self, resource: &Resource, namespace: Option<&str>) -> Option<String> {
        if self.storage.is_whole() {
            return None;
        }
        let start = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
        let name = Key::new(&resource.collection, &start).to_string();
        let named = self.storage.set_aside().into_iter().map(|entry| entry.name).find(|n| n.starts_with(&name));
        named.or_else(|| {
            let gap = self.storage.gap_in(&resource.collection, &start)?;
            Some(format!("perhaps one of the {gap}"))
        })
    }

    /// The objects that name an owner by its UID.
    #[must_use]
    pub fn by_owner(&self, resource: &GroupResource, uid: &str) -> Vec<Object> {
        self.by_term(resource, &encode::owner_term(uid))
    }

    /// The objects whose selectable field has this value.
    #[must_use]
    pub fn by_field(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Object> {
        if field == encode::NODE_NAME {
            return self.by_term(resource, &encode::field_term(field, value));
        }
        let mut objects = self.list(resource, None);
        objects.retain(|o| field_of(&o.index, field) == Some(value));
        objects
    }

    fn by_term(&self, resource: &GroupResource, term: &str) -> Vec<Object> {
        let Some(resource) = self.resource(resource) else { return Vec::new() };
        self.storage.by_term(&resource.collection, term).iter().map(|e| object_of(e)).collect()
    }

    /// The highest revision at which an object of this resource changed.
    #[must_use]
    pub fn revision(&self, resource: &GroupResource) -> u64 {
        self.resource(resource).map_or(0, |r| self.storage.collection_revision(&r.collection))
    }

    /// All objects of a resource, and the changes after that state; `None` if it is not served.
    pub(crate) fn list_and_watch(&self, resource: &GroupResource) -> Option<(Vec<Object>, Watch<Arc<ObjectIndex>>)> {
        let resource = self.resource(resource)?;
        loop {
            let mut objects = Vec::new();
            let scope = Scope { collection: &resource.collection, prefix: "", start: "" };
            let revision = self.storage.scan(scope, None, |entry| {
                objects.push(object_of(entry));
                ControlFlow::Continue(())
            });
            // Only a ring that is too small for the changes between the two lines makes this fail.
            if let Ok(watch) = revision.and_then(|revision| self.watch(resource, revision)) {
                return Some((objects, watch));
            }
        }
    }

    pub(crate) fn watch(&self, resource: &Resource, after: u64) -> Result<Watch<Arc<ObjectIndex>>, Gone> {
        self.storage.watch(&resource.collection, after)
    }

    /// Stores a complete object of the stored version, whose uid and creation time are set here if
    /// they are absent.
    ///
    /// # Errors
    /// `AlreadyExists`, or a failure of the store.
    pub async fn create(&self, resource: &GroupResource, mut object: Value) -> Result<Object, ApiError> {
        let resource = self.resource(resource).ok_or(ApiError::UnknownPath)?;
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(timestamp(jiff::Timestamp::now()));
        }
        let name = text(&object, "name").to_owned();
        self.put(resource, &object, None).await.map_err(|refusal| match refusal {
            Refusal::Raced => ApiError::AlreadyExists { resource: resource.name.clone(), name },
            Refusal::Failed(error) => error,
        })
    }

    /// Reads, changes and writes one object, again from the start if it was written meanwhile.
    ///
    /// # Errors
    /// `NotFound`, what `change` returns, or a failure of the store.
    pub async fn update<F>(&self, resource: &GroupResource, key: &ObjectKey, mut change: F) -> Result<Object, ApiError>
    where
        F: FnMut(&mut Value) -> Result<(), ApiError> + Send,
    {
        let resource = self.resource(resource).ok_or(ApiError::UnknownPath)?;
        for _ in 0..ATTEMPTS {
            let Some(current) = self.entry(resource, &key.namespace, &key.name) else {
                return Err(ApiError::not_found(&resource.name, &key.name));
            };
            let old: Value = serde_json::from_slice(&current.bytes).map_err(ApiError::internal)?;
            let mut new = old.clone();
            change(&mut new)?;
            if new == old {
                return Ok(object_of(&current));
            }
            match self.put(resource, &new, Some((&old, current.revision))).await {
                Ok(object) => return Ok(object),
                Err(Refusal::Raced) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(ApiError::modified(&resource.name, &key.name))
    }

    /// Removes one object at once, whatever its finalizers say.
    ///
    /// # Errors
    /// `NotFound`, or a failure of the store.
    pub async fn remove(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Object, ApiError> {
        let resource = self.resource(resource).ok_or(ApiError::UnknownPath)?;
        self.delete(resource, &key.namespace, &key.name, None).await.map_err(|refusal| match refusal {
            Refusal::Raced => ApiError::not_found(&resource.name, &key.name),
            Refusal::Failed(error) => error,
        })
    }

    /// Writes a whole object: over the given version, or as a new one. Neither is needed while the store
    /// writes.
    pub(crate) fn put<'r>(
        &'r self,
        resource: &Resource,
        object: &Value,
        over: Option<(&Value, u64)>,
    ) -> impl Future<Output = Result<Object, Refusal>> + Send + use<'r> {
        let prepared = prepare(resource, object, over);
        async move {
            let (write, durability) = prepared?;
            self.write(write, durability).await
        }
    }

    /// Removes an object, of the given revision if one is given.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        revision: Option<u64>,
    ) -> Result<Object, Refusal> {
        let write = Write {
            key: Key::new(&resource.collection, &resource.item(namespace, name)),
            expect: revision.map_or(Expect::Present, Expect::Revision),
            action: Action::Delete(Box::new(|revision, old: &ObjectEntry| {
                let index = Arc::new(ObjectIndex { resource_version: revision, ..(*old.index).clone() });
                storage::Content { bytes: at_revision(&old.bytes, revision), index }
            })),
            purpose: Purpose::Removal,
        };
        self.write(write, durability::of_delete(resource)).await
    }

    async fn write(&self, write: Write<Arc<ObjectIndex>>, durability: storage::Durability) -> Result<Object, Refusal> {
        match self.storage.write(vec![write], durability).await {
            Ok(entries) => Ok(object_of(&entries[0])),
            Err(WriteError::Failed { .. }) => Err(Refusal::Raced),
            // The store has said so once.
            Err(error @ (WriteError::Full | WriteError::AtLimit)) => {
                Err(Refusal::Failed(ApiError::Unknown(error.to_string())))
            }
            Err(error) => {
                tracing::warn!(%error, "the store refused a write");
                Err(Refusal::Failed(ApiError::Unknown(error.to_string())))
            }
        }
    }
}

/// The write of a whole object, and how durable it has to be.
fn prepare(
    resource: &Resource,
    object: &Value,
    over: Option<(&Value, u64)>,
) -> Result<(Write<Arc<ObjectIndex>>, storage::Durability), Refusal> {
    let draft = Draft::new(resource, object).map_err(|e| Refusal::Failed(ApiError::internal(e)))?;
    too_large(draft.len()).map_err(Refusal::Failed)?;
    let write = Write {
        key: Key::new(&resource.collection, &resource.item(text(object, "namespace"), text(object, "name"))),
        expect: over.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision)),
        action: Action::Put(Box::new(|revision| draft.at(Some(revision)))),
        purpose: purpose::of_write(resource, object, over.map(|(old, _)| old)),
    };
    Ok((write, durability::of_write(resource, object, over.map(|(old, _)| old))))
}

/// Whether a server has a store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreUse {
    Closed,
    Open,
}

/// Looks at a store, and changes nothing; `None` when a server wrote to it all the while.
///
/// # Errors
/// What would keep a server from opening it.
pub fn check_store(
    database: &Path,
    marker: &Path,
    used: StoreUse,
) -> Result<Option<storage::Report>, storage::OpenError> {
    let codec = ObjectCodec(Arc::new(Resources::built_in()));
    let load = |key: Key, revision, bytes: &[u8]| codec.open(&key, revision, bytes).map(drop);
    match used {
        StoreUse::Closed => storage::check(database, Some(marker), load).map(Some),
        StoreUse::Open => storage::check_in_use(database, Some(marker), load),
    }
}

pub(crate) fn object_of(entry: &ObjectEntry) -> Object {
    Object { json: entry.bytes.clone(), index: Arc::clone(&entry.index) }
}

/// A field that every object can be selected by, or one of its kind's.
pub(crate) fn field_of<'i>(index: &'i ObjectIndex, field: &str) -> Option<&'i str> {
    match field {
        "metadata.name" => Some(&index.key.name),
        "metadata.namespace" => Some(&index.key.namespace),
        _ => index.field(field),
    }
}

fn too_large(bytes: usize) -> Result<(), ApiError> {
    if bytes > MESSAGE_LIMIT {
        return Err(ApiError::Unknown(format!(
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max ({bytes} vs. \
             {MESSAGE_LIMIT})"
        )));
    }
    if bytes > OBJECT_LIMIT {
        return Err(ApiError::Unknown("etcdserver: request is too large".into()));
    }
    Ok(())
}

/// A text field of an object's metadata; empty if it is absent.
pub(crate) fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// A time as `metav1.Time` prints it.
pub(crate) fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The same stored object with another revision in its metadata.
pub(crate) fn at_revision(json: &bytes::Bytes, revision: u64) -> bytes::Bytes {
    // The encoder writes the revision as the last member of the metadata, which follows the type.
    let Some(range) = encode::revision_range(json) else { return json.clone() };
    let mut bytes = Vec::with_capacity(json.len() + 8);
    bytes.extend_from_slice(&json[..range.start]);
    bytes.extend_from_slice(revision.to_string().as_bytes());
    bytes.extend_from_slice(&json[range.end..]);
    bytes.into()
}
