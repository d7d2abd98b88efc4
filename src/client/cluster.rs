//! The handle that every component is given: where to read and how to write.

use std::sync::Arc;

use api::codec::Decode;
use api::object::{GroupResource, Object, ObjectKey};

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
    ///
    /// # Errors
    /// When it is there, or may be, and cannot be read: nobody acts as if it were absent.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> kube::Result<Option<K>> {
        let (resource, key) = (GroupResource::of::<K>(), ObjectKey::new(namespace, name));
        match self.source.get(&resource, &key) {
            Some(object) => object.decode().map(Some).map_err(|e| unreadable(&resource, &key, &e.to_string())),
            None if self.source.is_unreadable(&resource, &key) => {
                Err(unreadable(&resource, &key, "it is damaged in the store"))
            }
            None => Ok(None),
        }
    }

    /// Whether an object is there, readable or not.
    #[must_use]
    pub fn may_be_there<K: Kind>(&self, namespace: &str, name: &str) -> bool {
        let (resource, key) = (GroupResource::of::<K>(), ObjectKey::new(namespace, name));
        self.source.get(&resource, &key).is_some() || self.source.is_unreadable(&resource, &key)
    }

    /// The decoded objects, in the order of keys.
    ///
    /// # Errors
    /// When one of them does not decode.
    pub fn list<K: Kind>(&self, query: &Query<'_>) -> kube::Result<Vec<K>> {
        decode_all(&self.source.list(&GroupResource::of::<K>(), query))
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
pub fn decode_all<'a, K: Decode>(objects: impl IntoIterator<Item = &'a Object>) -> kube::Result<Vec<K>> {
    objects.into_iter().map(Object::decode).collect::<Result<_, _>>().map_err(kube::Error::SerdeError)
}

fn unreadable(resource: &GroupResource, key: &ObjectKey, why: &str) -> kube::Error {
    kube::Error::Service(format!("{resource} {key} cannot be read: {why}").into())
}

#[cfg(test)]
mod tests {
    use api::object::ObjectIndex;
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    /// One node that is damaged in the store, one that does not decode, and one that is fine.
    struct Damaged;

    impl ObjectSource for Damaged {
        fn get(&self, _: &GroupResource, key: &ObjectKey) -> Option<Object> {
            let json = match &*key.name {
                "fine" => r#"{"metadata": {"name": "fine"}}"#,
                "odd" => r#"{"spec": {"podCIDR": 1}}"#,
                _ => return None,
            };
            Some(Object { json: json.to_owned().into(), index: Arc::new(ObjectIndex::default()) })
        }

        fn list(&self, resource: &GroupResource, _: &Query<'_>) -> Vec<Object> {
            ["fine", "odd"].iter().filter_map(|name| self.get(resource, &ObjectKey::new("", name))).collect()
        }

        fn is_unreadable(&self, _: &GroupResource, key: &ObjectKey) -> bool {
            &*key.name == "damaged"
        }

        fn revision(&self, _: &GroupResource) -> u64 {
            0
        }

        fn subscribe(&self, _: &GroupResource) -> Subscription {
            Subscription::new(futures::stream::empty())
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_absent() {
        let cluster = Cluster::new(Arc::new(Damaged), |_| unreachable!("nothing is written"));
        assert!(cluster.get::<Node>("", "fine").unwrap().is_some());
        assert!(cluster.get::<Node>("", "gone").unwrap().is_none());
        for (name, said) in [("odd", "nodes odd cannot be read: "), ("damaged", "it is damaged in the store")] {
            let error = cluster.get::<Node>("", name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(cluster.may_be_there::<Node>("", name), "{name}");
        }
        assert!(!cluster.may_be_there::<Node>("", "gone"));
        assert!(cluster.list::<Node>(&Query::ALL).is_err());
    }

    #[test]
    fn one_object_that_cannot_be_read_fails_them_all() {
        let object = |json: &str| Object { json: json.to_owned().into(), index: Arc::new(ObjectIndex::default()) };
        let objects = [object(r#"{"metadata": {"name": "a"}}"#), object(r#"{"spec": {"podCIDR": 1}}"#)];
        let nodes: Vec<Node> = decode_all(&objects[..1]).unwrap();
        assert_eq!(nodes[0].metadata.name.as_deref(), Some("a"));
        assert!(matches!(decode_all::<Node>(&objects), Err(kube::Error::SerdeError(_))));
    }
}
