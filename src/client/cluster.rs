//! The handle that every component is given: where to read and how to write.

use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use serde::de::DeserializeOwned;
use tracing::error;

use crate::Kind;
use crate::source::{ObjectSource, Query, Subscription};

/// Who a component is to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

/// Reads from a source, writes under an identity. Cloning is cheap.
#[derive(Clone)]
pub struct Cluster {
    source: Arc<dyn ObjectSource>,
    connect: Arc<dyn Fn(Identity) -> kube::Client + Send + Sync>,
}

impl Cluster {
    /// `connect` makes a client that acts as the given identity; how it proves that is its affair.
    pub fn new(
        source: Arc<dyn ObjectSource>,
        connect: impl Fn(Identity) -> kube::Client + Send + Sync + 'static,
    ) -> Self {
        Self { source, connect: Arc::new(connect) }
    }

    #[must_use]
    pub fn source(&self) -> &Arc<dyn ObjectSource> {
        &self.source
    }

    /// A client that acts as this user; `system:authenticated` is added to the groups.
    #[must_use]
    pub fn as_user(&self, name: &str, groups: &[&str]) -> kube::Client {
        let mut groups: Vec<String> = groups.iter().map(|&g| g.to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        (self.connect)(Identity { name: name.to_owned(), groups })
    }

    /// A client that acts as a service account, with the groups that its token would carry.
    #[must_use]
    pub fn as_service_account(&self, namespace: &str, name: &str) -> kube::Client {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let group = format!("system:serviceaccounts:{namespace}");
        self.as_user(&user, &["system:serviceaccounts", &group])
    }

    /// The decoded object, if it is there.
    #[must_use]
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        let object = self.source.get(&GroupResource::of::<K>(), &ObjectKey::new(namespace, name))?;
        decode(&object)
    }

    /// The decoded objects, in the order of keys.
    #[must_use]
    pub fn list<K: Kind>(&self, query: &Query<'_>) -> Vec<K> {
        self.source.list(&GroupResource::of::<K>(), query).iter().filter_map(decode).collect()
    }

    /// The same without decoding.
    #[must_use]
    pub fn objects<K: Kind>(&self, query: &Query<'_>) -> Vec<Object> {
        self.source.list(&GroupResource::of::<K>(), query)
    }

    #[must_use]
    pub fn subscribe<K: Kind>(&self) -> Subscription {
        self.source.subscribe(&GroupResource::of::<K>())
    }
}

/// All of these objects, decoded: for decisions that an object which is left out would turn round.
///
/// # Errors
/// When one of them cannot be read.
pub fn decode_all<'a, K: DeserializeOwned>(objects: impl IntoIterator<Item = &'a Object>) -> kube::Result<Vec<K>> {
    objects.into_iter().map(Object::decode).collect::<Result<_, _>>().map_err(kube::Error::SerdeError)
}

/// Stored bytes passed the schema when they were written; what does not decode is a fault of the
/// store and is left out rather than taking the component down.
fn decode<K: Kind>(object: &Object) -> Option<K> {
    object
        .decode()
        .inspect_err(|e| error!(kind = K::KIND, key = %object.index.key, "stored object does not decode: {e}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use api::object::ObjectIndex;
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    #[test]
    fn one_object_that_cannot_be_read_fails_them_all() {
        let object = |json: &str| Object { json: json.to_owned().into(), index: Arc::new(ObjectIndex::default()) };
        let objects = [object(r#"{"metadata": {"name": "a"}}"#), object(r#"{"spec": {"podCIDR": 1}}"#)];
        let nodes: Vec<Node> = decode_all(&objects[..1]).unwrap();
        assert_eq!(nodes[0].metadata.name.as_deref(), Some("a"));
        assert!(matches!(decode_all::<Node>(&objects), Err(kube::Error::SerdeError(_))));
    }
}
