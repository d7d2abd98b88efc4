//! What the pods on a node refer to: their service accounts, secrets, config maps and volumes.
//!
//! A pod is decoded when a question first needs it and again only when it has changed and the answer
//! would otherwise be no; its references do not shrink while it lives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::Mutex;

use super::pod_references::{References, Referent, references_of};
use crate::registry::Registry;

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
            | Referent::ResourceClaim
            | Referent::TrustBundle => {
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
            let references = pod.decode::<Pod>().map(|p| opened_by(&p)).unwrap_or_default();
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

/// What a pod opens to its node. A mirror pod was made by the node itself: it must not widen what the
/// node may read.
fn opened_by(pod: &Pod) -> References {
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    if mirror { References::new() } else { references_of(pod) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mirror_pod_opens_nothing() {
        let pod = |annotations: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "web", "annotations": annotations},
                "spec": {"containers": [], "serviceAccountName": "sa"}}))
            .unwrap()
        };
        assert_eq!(opened_by(&pod(json!({}))).len(), 1);
        assert!(opened_by(&pod(json!({"kubernetes.io/config.mirror": "x"}))).is_empty());
    }
}
