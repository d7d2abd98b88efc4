//! Evicts pods that use more local disk than they may: an emptyDir its `sizeLimit`, a container its
//! `ephemeral-storage` limit, a pod the limits of its containers together.

use api::k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use client::EventType;
use runtime::TreeUsage;
use tracing::warn;

use super::disk_use::{DiskUse, empty_dirs};
use super::{CHECK, PATIENCE};
use crate::events;
use crate::kubelet::Kubelet;
use crate::pod::PodExt;
use crate::resources;
use crate::status::Verdict;

/// Looks at the pods that have such limits.
pub(super) async fn enforce(kubelet: &Kubelet) {
    for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active() && !e.pod.is_deleting()) {
        let pod = &entry.pod;
        if !is_limited(pod) {
            continue;
        }
        let used = DiskUse::measure(kubelet, pod, CHECK, PATIENCE).await;
        let Some(message) = exceeded(pod, &used) else { continue };
        warn!(pod = %pod.full_name(), "evicting: {message}");
        kubelet.recorder.event(&events::pod(pod), EventType::Warning, "Evicted", &message);
        entry.mailbox.condemn(Verdict { reason: "Evicted".to_owned(), message, disruption: false }, 0);
    }
}

fn is_limited(pod: &Pod) -> bool {
    empty_dirs(pod).any(|(_, source)| size_limit(source).is_some())
        || pod.spec().containers.iter().any(|c| storage_limit(c).is_some())
}

fn size_limit(source: &EmptyDirVolumeSource) -> Option<&Quantity> {
    source.size_limit.as_ref().filter(|limit| resources::whole(limit) > 0)
}

fn storage_limit(c: &Container) -> Option<&Quantity> {
    let limit = c.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage")?;
    (resources::whole(limit) > 0).then_some(limit)
}

/// Upstream's message for the first limit that the pod is over.
fn exceeded(pod: &Pod, usage: &DiskUse) -> Option<String> {
    for (name, source) in empty_dirs(pod) {
        if let Some(limit) = size_limit(source)
            && usage.empty_dirs.get(name).map_or(0, |used| bytes(*used)) > resources::whole(limit)
        {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.0));
        }
    }
    let limits: Vec<_> = pod.spec().containers.iter().filter_map(|c| Some((c, storage_limit(c)?))).collect();
    if limits.len() == pod.spec().containers.len() {
        let limit = limits.iter().map(|(_, limit)| resources::whole(limit)).fold(0, i64::saturating_add);
        if bytes(usage.total()) > limit {
            let limit = api::quantity::Quantity::from_bytes(limit);
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
        }
    }
    let (c, limit) = limits.iter().find(|(c, limit)| {
        usage.containers.get(&c.name).map_or(0, |used| bytes(used.total())) > resources::whole(limit)
    })?;
    Some(format!("Container {} exceeded its local ephemeral storage limit {:?}. ", c.name, limit.0))
}

fn bytes(used: TreeUsage) -> i64 {
    i64::try_from(used.bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::disk_use::ContainerUse;
    use super::*;
    use crate::fixtures::pod;
    use serde_json::{Value, json};

    fn limit(size: &str) -> Value {
        json!({"limits": {"ephemeral-storage": size}})
    }

    #[test]
    fn limits_of_storage_are_enforced_in_upstreams_words() {
        let empty_dir = pod(json!({
            "volumes": [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}},
                {"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}],
            "containers": [{"name": "a"}]}));
        let one = pod(json!({"containers": [{"name": "a", "resources": limit("1Mi")}, {"name": "b"}]}));
        let both = pod(json!({"volumes": [{"name": "e", "emptyDir": {}}],
            "containers": [{"name": "a", "resources": limit("1Mi")}, {"name": "b", "resources": limit("1Mi")}]}));
        let mi = 1 << 20;
        for (pod, e, a, expected) in [
            (&empty_dir, mi, 0, None),
            (&empty_dir, mi + 1, 0, Some("Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". ")),
            (&one, 0, mi, None),
            (&one, 0, mi + 1, Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")),
            (&both, mi, mi, None),
            (&both, mi, mi + 1, Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")),
            (&both, 0, mi + 1, Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")),
        ] {
            assert!(is_limited(pod));
            let of = |bytes| TreeUsage { bytes, inodes: 0 };
            let usage = DiskUse {
                empty_dirs: [("e".to_owned(), of(e))].into(),
                containers: [("a".to_owned(), ContainerUse { layer: of(a), logs: of(0) })].into(),
                ..DiskUse::default()
            };
            assert_eq!(exceeded(pod, &usage).as_deref(), expected);
        }
        assert!(!is_limited(&pod(json!({"volumes": [{"name": "e", "emptyDir": {}}], "containers": [{"name": "a"}]}))));
    }
}
