//! Which pods of this node refer to which ConfigMaps and Secrets, so that a change of one finds
//! its readers.

use std::collections::{BTreeSet, HashMap};

use api::k8s_openapi::api::core::v1::{Pod, Volume};
use api::object::ObjectKey;
use parking_lot::Mutex;

use crate::pod::PodExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Referenced {
    ConfigMap,
    Secret,
}

type Key = (Referenced, ObjectKey);

/// The index from objects to the UIDs of pods.
#[derive(Default)]
pub(crate) struct References(Mutex<HashMap<Key, BTreeSet<String>>>);

impl References {
    pub(crate) fn add(&self, pod: &Pod) {
        let mut index = self.0.lock();
        for key in of(pod) {
            index.entry(key).or_default().insert(pod.uid().to_owned());
        }
    }

    pub(crate) fn remove(&self, pod: &Pod) {
        let mut index = self.0.lock();
        for key in of(pod) {
            if let Some(uids) = index.get_mut(&key) {
                uids.remove(pod.uid());
                if uids.is_empty() {
                    index.remove(&key);
                }
            }
        }
    }

    pub(crate) fn readers(&self, kind: Referenced, object: &ObjectKey) -> Vec<String> {
        self.0.lock().get(&(kind, object.clone())).into_iter().flatten().cloned().collect()
    }
}

fn of(pod: &Pod) -> BTreeSet<Key> {
    let mut names: BTreeSet<(Referenced, &str)> = BTreeSet::new();
    let spec = pod.spec();
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut names);
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        names.insert((Referenced::Secret, &secret.name));
    }
    let containers = pod.containers();
    for (_, c) in &containers {
        for from in c.env_from.iter().flatten() {
            names.extend(from.config_map_ref.iter().map(|r| (Referenced::ConfigMap, &*r.name)));
            names.extend(from.secret_ref.iter().map(|r| (Referenced::Secret, &*r.name)));
        }
        for from in c.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
            names.extend(from.config_map_key_ref.iter().map(|r| (Referenced::ConfigMap, &*r.name)));
            names.extend(from.secret_key_ref.iter().map(|r| (Referenced::Secret, &*r.name)));
        }
    }
    names.into_iter().map(|(kind, name)| (kind, ObjectKey::new(pod.namespace(), name))).collect()
}

fn of_volume<'a>(volume: &'a Volume, names: &mut BTreeSet<(Referenced, &'a str)>) {
    names.extend(volume.config_map.iter().map(|s| (Referenced::ConfigMap, &*s.name)));
    names.extend(volume.secret.iter().filter_map(|s| Some((Referenced::Secret, s.secret_name.as_deref()?))));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        names.extend(source.config_map.iter().map(|s| (Referenced::ConfigMap, &*s.name)));
        names.extend(source.secret.iter().map(|s| (Referenced::Secret, &*s.name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    #[test]
    fn every_kind_of_reference_is_found_and_forgotten() {
        let pod = pod(json!({
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "cm"}}, {"name": "b", "secret": {"secretName": "s"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "p"}}, {"secret": {"name": "ps"}}]}}],
            "containers": [{"name": "x", "envFrom": [{"configMapRef": {"name": "ef"}}],
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "es", "key": "k"}}}]}],
        }));
        let index = References::default();
        index.add(&pod);
        let key = |name: &str| ObjectKey::new("prod", name);
        for (kind, name) in [
            (Referenced::Secret, "pull"),
            (Referenced::ConfigMap, "cm"),
            (Referenced::Secret, "s"),
            (Referenced::ConfigMap, "p"),
            (Referenced::Secret, "ps"),
            (Referenced::ConfigMap, "ef"),
            (Referenced::Secret, "es"),
        ] {
            assert_eq!(index.readers(kind, &key(name)), ["u1"], "{name}");
        }
        assert!(index.readers(Referenced::Secret, &key("cm")).is_empty());
        index.remove(&pod);
        assert!(index.0.lock().is_empty());
    }
}
