//! The ConfigMaps and Secrets that a pod takes its files, variables and credentials from.
//!
//! To decode one takes up to ten milliseconds, and a pod may name one of a megabyte forty thousand times. So each is
//! decoded once for the variables of a container, what is decoded is bounded, and others have their turn after each.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use api::k8s_openapi::api::core::v1::{ConfigMap, Container, Secret};
use api::object::{GroupResource, ObjectKey};
use client::{Cluster, Kind};

/// The objects of one container's variables. Of most of them a few keys are kept.
const OF_CONTAINER: usize = 32 << 20;
/// Those of which every key becomes a variable: about what the kernel takes of all variables.
const WHOLE_OF_CONTAINER: usize = 8 << 20;

/// The bytes that an object has in the store; none when it is not there.
pub(crate) fn object_bytes<K: Kind>(cluster: &Cluster, namespace: &str, name: &str) -> usize {
    let found = cluster.source().get(&GroupResource::of::<K>(), &ObjectKey::new(namespace, name));
    found.map_or(0, |object| object.json.len())
}

/// How many bytes of objects may still be decoded.
pub(crate) struct ObjectBytes {
    left: usize,
    most: usize,
}

impl ObjectBytes {
    pub(crate) fn new(most: usize) -> Self {
        Self { left: most, most }
    }

    /// The object, if it is there.
    ///
    /// # Errors
    /// When it cannot be read, or is too much.
    pub(crate) async fn read<K: Kind>(
        &mut self,
        cluster: &Cluster,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, String> {
        tokio::task::yield_now().await;
        self.take(object_bytes::<K>(cluster, namespace, name))?;
        cluster.get(namespace, name).map_err(|e| e.to_string())
    }

    fn taken(&self) -> usize {
        self.most - self.left
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let most = self.most >> 20;
        let left = self.left.checked_sub(bytes);
        self.left =
            left.ok_or_else(|| format!("the ConfigMaps and Secrets that are named take more than {most} MiB"))?;
        Ok(())
    }
}

type Found<K> = Result<Option<K>, String>;

/// What the variables of one container come from.
#[derive(Default)]
pub(crate) struct Sources {
    config_maps: BTreeMap<String, Found<ConfigMap>>,
    secrets: BTreeMap<String, Found<Secret>>,
}

/// The objects of one kind that a container names, and the keys of them that it names.
type Named<'a> = BTreeMap<&'a str, Keys<'a>>;

enum Keys<'a> {
    All,
    These(BTreeSet<&'a str>),
}

fn named<'a>(all: impl Iterator<Item = &'a str>, one: impl Iterator<Item = (&'a str, &'a str)>) -> Named<'a> {
    let mut named = Named::new();
    for (name, key) in one {
        if let Keys::These(keys) = named.entry(name).or_insert_with(|| Keys::These(BTreeSet::new())) {
            keys.insert(key);
        }
    }
    named.extend(all.map(|name| (name, Keys::All)));
    named
}

fn named_config_maps(container: &Container) -> Named<'_> {
    let all = container.env_from.iter().flatten().filter_map(|from| from.config_map_ref.as_ref());
    let from = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let one = from.filter_map(|from| from.config_map_key_ref.as_ref());
    named(all.map(|map| map.name.as_str()), one.map(|map| (map.name.as_str(), map.key.as_str())))
}

fn named_secrets(container: &Container) -> Named<'_> {
    let all = container.env_from.iter().flatten().filter_map(|from| from.secret_ref.as_ref());
    let from = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let one = from.filter_map(|from| from.secret_key_ref.as_ref());
    named(all.map(|secret| secret.name.as_str()), one.map(|secret| (secret.name.as_str(), secret.key.as_str())))
}

impl Keys<'_> {
    fn keep_of<V>(&self, data: Option<&mut BTreeMap<String, V>>) {
        if let (Self::These(keys), Some(data)) = (self, data) {
            data.retain(|key, _| keys.contains(key.as_str()));
        }
    }
}

impl Sources {
    /// About as many bytes as they take in the store.
    ///
    /// # Errors
    /// When they are too much: whoever asks for that is not to have others wait.
    pub(crate) fn bytes(cluster: &Cluster, namespace: &str, container: &Container) -> Result<usize, String> {
        let (mut all, mut whole) = (ObjectBytes::new(OF_CONTAINER), ObjectBytes::new(WHOLE_OF_CONTAINER));
        let mut take = |keys: &Keys<'_>, bytes: usize| match keys {
            Keys::All => whole.take(bytes),
            Keys::These(_) => all.take(bytes),
        };
        for (name, keys) in named_config_maps(container) {
            take(&keys, object_bytes::<ConfigMap>(cluster, namespace, name))?;
        }
        for (name, keys) in named_secrets(container) {
            take(&keys, object_bytes::<Secret>(cluster, namespace, name))?;
        }
        Ok(all.taken() + whole.taken())
    }

    pub(crate) async fn of(cluster: &Cluster, namespace: &str, container: &Container) -> Self {
        let mut sources = Self::default();
        // They may have grown since they were counted.
        let mut left = ObjectBytes::new(OF_CONTAINER + WHOLE_OF_CONTAINER);
        for (name, keys) in named_config_maps(container) {
            let mut found = left.read::<ConfigMap>(cluster, namespace, name).await;
            if let Ok(Some(map)) = &mut found {
                map.binary_data = None;
                keys.keep_of(map.data.as_mut());
            }
            sources.config_maps.insert(name.to_owned(), found);
        }
        for (name, keys) in named_secrets(container) {
            let mut found = left.read::<Secret>(cluster, namespace, name).await;
            if let Ok(Some(secret)) = &mut found {
                keys.keep_of(secret.data.as_mut());
            }
            sources.secrets.insert(name.to_owned(), found);
        }
        sources
    }

    pub(crate) fn config_map(&self, name: &str) -> Result<Option<Cow<'_, ConfigMap>>, String> {
        known(&self.config_maps, name)
    }

    pub(crate) fn secret(&self, name: &str) -> Result<Option<Cow<'_, Secret>>, String> {
        known(&self.secrets, name)
    }
}

fn known<'a, K: Clone>(all: &'a BTreeMap<String, Found<K>>, name: &str) -> Result<Option<Cow<'a, K>>, String> {
    match all.get(name) {
        Some(Ok(found)) => Ok(found.as_ref().map(Cow::Borrowed)),
        Some(Err(why)) => Err(why.clone()),
        None => Err("it was not read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_bounded() {
        let mut left = ObjectBytes::new(32 << 20);
        for _ in 0..32 {
            assert_eq!(left.take(1 << 20), Ok(()));
        }
        let over = "the ConfigMaps and Secrets that are named take more than 32 MiB";
        assert_eq!(left.take(1), Err(over.to_owned()));
    }

    #[test]
    fn of_an_object_only_the_named_keys_are_kept_unless_all_are() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c",
            "envFrom": [{"secretRef": {"name": "all"}}],
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "one", "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "one", "key": "b"}}},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "all", "key": "a"}}},
                {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "a"}}}
            ]
        }))
        .unwrap();
        let kept = |keys: &Keys<'_>| {
            let mut data: BTreeMap<String, ()> = ["a", "b", "c"].into_iter().map(|k| (k.to_owned(), ())).collect();
            keys.keep_of(Some(&mut data));
            data.into_keys().collect::<String>()
        };
        let of =
            |named: Named<'_>| named.iter().map(|(name, keys)| format!("{name}:{}", kept(keys))).collect::<Vec<_>>();
        assert_eq!(of(named_secrets(&container)), ["all:abc", "one:ab"]);
        assert_eq!(of(named_config_maps(&container)), ["map:a"]);
    }
}
