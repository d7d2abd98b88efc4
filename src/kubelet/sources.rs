//! The ConfigMaps and Secrets that a pod takes its files, variables and credentials from.
//!
//! To decode one takes up to ten milliseconds, and a pod may name one of a megabyte forty thousand times. So each is
//! decoded once for the variables of a container, what is decoded is bounded, and others have their turn after each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{ConfigMap, Container, Secret};
use api::object::{GroupResource, ObjectKey};
use client::{Cluster, Kind};

/// The objects of one container's variables: a few times what the kernel takes of all its variables.
const OF_CONTAINER: usize = 32 << 20;

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
        let found = cluster.source().get(&GroupResource::of::<K>(), &ObjectKey::new(namespace, name));
        self.take(found.map_or(0, |object| object.json.len()))?;
        cluster.get(namespace, name).map_err(|e| e.to_string())
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

impl Sources {
    pub(crate) async fn of(cluster: &Cluster, namespace: &str, container: &Container) -> Self {
        let mut sources = Self::default();
        let mut left = ObjectBytes::new(OF_CONTAINER);
        let all = || container.env_from.iter().flatten();
        let one = || container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
        let maps = all().filter_map(|from| from.config_map_ref.as_ref()).map(|map| &map.name);
        for name in maps.chain(one().filter_map(|from| from.config_map_key_ref.as_ref()).map(|map| &map.name)) {
            if !sources.config_maps.contains_key(name) {
                sources.config_maps.insert(name.clone(), left.read(cluster, namespace, name).await);
            }
        }
        let secrets = all().filter_map(|from| from.secret_ref.as_ref()).map(|secret| &secret.name);
        for name in secrets.chain(one().filter_map(|from| from.secret_key_ref.as_ref()).map(|secret| &secret.name)) {
            if !sources.secrets.contains_key(name) {
                sources.secrets.insert(name.clone(), left.read(cluster, namespace, name).await);
            }
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
}
