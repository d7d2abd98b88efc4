//! What the pods on a node refer to: their service accounts, secrets, config maps and volumes.
//!
//! A pod is decoded when a question first needs it and again only when it has changed and the answer
//! would otherwise be no; its references do not shrink while it lives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Volume,
};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::Mutex;

use crate::registry::Registry;

/// The kinds of object that a node reaches through its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Referent {
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    Volume,
    Attachment,
}

type References = HashSet<(Referent, Box<str>)>;

/// By the pod's uid: the revision that was read and what it refers to in its namespace.
type PodsOfNode = HashMap<Arc<str>, (u64, References)>;

#[derive(Debug, Default)]
pub(super) struct NodeReferences {
    nodes: Mutex<HashMap<Box<str>, PodsOfNode>>,
}

impl NodeReferences {
    pub(super) fn refers(&self, registry: &Registry, node: &str, kind: Referent, key: &ObjectKey) -> bool {
        match kind {
            Referent::Secret
            | Referent::ConfigMap
            | Referent::ServiceAccount
            | Referent::Claim
            | Referent::ResourceClaim => {
                self.pods_refer(registry, node, kind, key)
                    || kind == Referent::Secret && self.volumes_refer(registry, node, key)
            }
            Referent::Volume => self
                .claim_of(registry, &key.name)
                .is_some_and(|claim| self.pods_refer(registry, node, Referent::Claim, &claim)),
            Referent::Attachment => registry
                .get(&GroupResource::new("storage.k8s.io", "volumeattachments"), key)
                .and_then(|o| o.decode::<VolumeAttachment>().ok())
                .is_some_and(|a| a.spec.node_name == node),
        }
    }

    fn pods_refer(&self, registry: &Registry, node: &str, kind: Referent, key: &ObjectKey) -> bool {
        let pods = registry.by_field(&GroupResource::new("", "pods"), "spec.nodeName", node);
        let wanted = (kind, Box::from(&*key.name));
        let mut nodes = self.nodes.lock();
        let known = nodes.entry(node.into()).or_default();
        if known.len() > pods.len() {
            let alive: HashSet<&str> = pods.iter().map(|p| &*p.index.uid).collect();
            known.retain(|uid, _| alive.contains(&**uid));
        }
        let here = || pods.iter().filter(|p| p.index.key.namespace == key.namespace);
        let remembered = |p: &Object| known.get(&p.index.uid).is_some_and(|(_, refs)| refs.contains(&wanted));
        if here().any(remembered) {
            return true;
        }
        for pod in here() {
            let revision = pod.index.resource_version;
            if known.get(&pod.index.uid).is_some_and(|(seen, _)| *seen == revision) {
                continue;
            }
            let references = pod.decode::<Pod>().map(|p| references_of(&p)).unwrap_or_default();
            let found = references.contains(&wanted);
            known.insert(Arc::clone(&pod.index.uid), (revision, references));
            if found {
                return true;
            }
        }
        false
    }

    /// The claim that a volume is bound to.
    fn claim_of(&self, registry: &Registry, volume: &str) -> Option<ObjectKey> {
        let key = ObjectKey::new("", volume);
        let volume: PersistentVolume =
            registry.get(&GroupResource::new("", "persistentvolumes"), &key)?.decode().ok()?;
        let claim = volume.spec?.claim_ref?;
        Some(ObjectKey::new(claim.namespace.as_deref()?, claim.name.as_deref()?))
    }

    /// Whether a volume that a pod on the node has claimed needs the secret to be mounted.
    fn volumes_refer(&self, registry: &Registry, node: &str, secret: &ObjectKey) -> bool {
        let claims: Vec<ObjectKey> = {
            let nodes = self.nodes.lock();
            let pods = registry.by_field(&GroupResource::new("", "pods"), "spec.nodeName", node);
            let known = nodes.get(node);
            pods.iter()
                .filter_map(|p| Some((p, &known?.get(&p.index.uid)?.1)))
                .flat_map(|(p, refs)| {
                    let claims = refs.iter().filter(|(kind, _)| *kind == Referent::Claim);
                    claims.map(|(_, name)| ObjectKey::new(&p.index.key.namespace, name)).collect::<Vec<_>>()
                })
                .collect()
        };
        claims.iter().any(|claim| {
            let volume = registry
                .get(&GroupResource::new("", "persistentvolumeclaims"), claim)
                .and_then(|o| o.decode::<PersistentVolumeClaim>().ok())
                .and_then(|c| c.spec?.volume_name)
                .and_then(|name| registry.get(&GroupResource::new("", "persistentvolumes"), &ObjectKey::new("", &name)))
                .and_then(|o| o.decode::<PersistentVolume>().ok());
            volume.is_some_and(|v| volume_secrets(&v).any(|s| s == *secret))
        })
    }
}

fn volume_secrets(volume: &PersistentVolume) -> impl Iterator<Item = ObjectKey> {
    let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
    let references = csi.map(|csi| {
        [&csi.node_publish_secret_ref, &csi.node_stage_secret_ref, &csi.node_expand_secret_ref]
            .into_iter()
            .flatten()
            .filter_map(|r| Some(ObjectKey::new(r.namespace.as_deref()?, r.name.as_deref()?)))
            .collect::<Vec<_>>()
    });
    references.into_iter().flatten()
}

fn references_of(pod: &Pod) -> References {
    let mut found = References::new();
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    // A mirror pod was made by the node itself: it must not widen what the node may read.
    let Some(spec) = pod.spec.as_ref().filter(|_| !mirror) else { return found };
    let mut add = |kind, name: Option<&str>| {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            found.insert((kind, name.into()));
        }
    };
    add(Referent::ServiceAccount, spec.service_account_name.as_deref());
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Referent::Secret, Some(&secret.name));
    }
    visit_environment(spec, &mut add);
    for volume in spec.volumes.iter().flatten() {
        visit_volume(volume, pod.metadata.name.as_deref().unwrap_or_default(), &mut add);
    }
    let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    for claim in statuses {
        add(Referent::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    found
}

fn visit_environment(spec: &PodSpec, add: &mut impl FnMut(Referent, Option<&str>)) {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let sources = containers
        .map(|Container { env, env_from, .. }| (env, env_from))
        .chain(spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from)));
    for (env, env_from) in sources {
        for EnvVar { value_from, .. } in env.iter().flatten() {
            let source = value_from.as_ref();
            add(Referent::Secret, source.and_then(|s| Some(s.secret_key_ref.as_ref()?.name.as_str())));
            add(Referent::ConfigMap, source.and_then(|s| Some(s.config_map_key_ref.as_ref()?.name.as_str())));
        }
        for EnvFromSource { secret_ref, config_map_ref, .. } in env_from.iter().flatten() {
            add(Referent::Secret, secret_ref.as_ref().map(|r| r.name.as_str()));
            add(Referent::ConfigMap, config_map_ref.as_ref().map(|r| r.name.as_str()));
        }
    }
}

fn visit_volume(volume: &Volume, pod: &str, add: &mut impl FnMut(Referent, Option<&str>)) {
    add(Referent::Secret, volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
    add(Referent::ConfigMap, volume.config_map.as_ref().map(|c| c.name.as_str()));
    add(Referent::Claim, volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str()));
    if volume.ephemeral.is_some() {
        add(Referent::Claim, Some(&format!("{pod}-{}", volume.name)));
    }
    let csi = volume.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref());
    add(Referent::Secret, csi.map(|r| r.name.as_str()));
    add(Referent::Secret, volume.iscsi.as_ref().and_then(|i| Some(i.secret_ref.as_ref()?.name.as_str())));
    let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    for source in projected {
        add(Referent::Secret, source.secret.as_ref().map(|s| s.name.as_str()));
        add(Referent::ConfigMap, source.config_map.as_ref().map(|c| c.name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(mirror: bool) -> Pod {
        let annotations = if mirror { json!({"kubernetes.io/config.mirror": "x"}) } else { json!({}) };
        serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": annotations},
            "spec": {
                "serviceAccountName": "sa",
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from-map"}}]}],
                "containers": [{"name": "c", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}}]}],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "vol-secret"}},
                    {"name": "v2", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "v3", "ephemeral": {}},
                    {"name": "v4", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}
                ]
            }
        }))
        .unwrap()
    }

    #[test]
    fn every_place_of_a_reference_is_found() {
        let mut found: Vec<String> =
            references_of(&pod(false)).into_iter().map(|(kind, name)| format!("{kind:?} {name}")).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "Claim claim",
                "Claim web-v3",
                "ConfigMap from-map",
                "ConfigMap kube-root-ca.crt",
                "Secret env-secret",
                "Secret pull",
                "Secret vol-secret",
                "ServiceAccount sa",
            ]
        );
    }

    #[test]
    fn a_mirror_pod_opens_nothing() {
        assert!(references_of(&pod(true)).is_empty());
    }
}
