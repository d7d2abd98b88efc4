//! Evicts pods that use more local disk than they may: an emptyDir its `sizeLimit`, a container its
//! `ephemeral-storage` limit, a pod the limits of its containers together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use client::EventType;
use tracing::warn;

use crate::container_config::pod_log_dir;
use crate::events;
use crate::kubelet::Kubelet;
use crate::observed::is_running;
use crate::pod::PodExt;
use crate::resources;
use crate::status::Verdict;
use crate::volumes;

/// Bytes on disk by name.
#[derive(Debug, Default)]
struct Usage {
    empty_dirs: BTreeMap<String, i64>,
    /// Writable layer and logs.
    containers: BTreeMap<String, i64>,
}

/// Looks at the pods that have such limits.
pub(super) async fn enforce(kubelet: &Kubelet) {
    for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active() && !e.pod.is_deleting()) {
        let pod = &entry.pod;
        if !is_limited(pod) {
            continue;
        }
        let Some(message) = exceeded(pod, &measure(kubelet, pod).await) else { continue };
        warn!(pod = %pod.full_name(), "evicting: {message}");
        kubelet.recorder.event(&events::pod(pod), EventType::Warning, "Evicted", &message);
        entry.mailbox.condemn(Verdict { reason: "Evicted".to_owned(), message, disruption: false }, 0);
    }
}

fn is_limited(pod: &Pod) -> bool {
    empty_dirs(pod).any(|(_, source)| size_limit(source).is_some())
        || pod.spec().containers.iter().any(|c| storage_limit(c).is_some())
}

/// Those on disk; the kernel keeps the ones in memory within their size.
fn empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    let volumes = pod.spec().volumes.iter().flatten();
    let sources = volumes.filter_map(|v| Some((&*v.name, v.empty_dir.as_ref()?)));
    sources.filter(|(_, source)| source.medium.as_deref().unwrap_or_default().is_empty())
}

fn size_limit(source: &EmptyDirVolumeSource) -> Option<&Quantity> {
    source.size_limit.as_ref().filter(|limit| resources::whole(limit) > 0)
}

fn storage_limit(c: &Container) -> Option<&Quantity> {
    let limit = c.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage")?;
    (resources::whole(limit) > 0).then_some(limit)
}

/// Upstream's message for the first limit that the pod is over.
fn exceeded(pod: &Pod, usage: &Usage) -> Option<String> {
    let used = |by: &BTreeMap<String, i64>, name: &str| by.get(name).copied().unwrap_or(0);
    for (name, source) in empty_dirs(pod) {
        if let Some(limit) = size_limit(source)
            && used(&usage.empty_dirs, name) > resources::whole(limit)
        {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.0));
        }
    }
    let limits: Vec<_> = pod.spec().containers.iter().filter_map(|c| Some((c, storage_limit(c)?))).collect();
    if limits.len() == pod.spec().containers.len() {
        let limit = limits.iter().map(|(_, limit)| resources::whole(limit)).fold(0, i64::saturating_add);
        let total =
            usage.containers.values().chain(usage.empty_dirs.values()).fold(0, |a: i64, n| a.saturating_add(*n));
        if total > limit {
            let limit = api::quantity::Quantity::from_bytes(limit);
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
        }
    }
    let (c, limit) = limits.iter().find(|(c, limit)| used(&usage.containers, &c.name) > resources::whole(limit))?;
    Some(format!("Container {} exceeded its local ephemeral storage limit {:?}. ", c.name, limit.0))
}

async fn measure(kubelet: &Kubelet, pod: &Pod) -> Usage {
    let mut usage = Usage::default();
    let pod_dir = kubelet.cfg.pod_dir(pod.uid());
    for (name, _) in empty_dirs(pod) {
        usage.empty_dirs.insert(name.to_owned(), disk_usage(volumes::empty_dir_path(&pod_dir, name)).await);
    }
    let logs = pod_log_dir(&kubelet.cfg.log_dir, pod);
    for c in kubelet.runtime.sandbox_containers(pod.uid()).into_iter().filter(is_running) {
        // What ended while it was asked about uses nothing.
        let Ok(stats) = kubelet.runtime.container_stats(&c.id).await else { continue };
        let layer = i64::try_from(stats.rootfs_used_bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        let used = layer.saturating_add(disk_usage(logs.join(&c.name)).await);
        usage.containers.insert(c.name, used);
    }
    usage
}

async fn disk_usage(dir: PathBuf) -> i64 {
    let used = tokio::task::spawn_blocking(move || runtime::disk_usage(&dir)).await;
    // A panic there has been reported; the pod is looked at again soon.
    used.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::{Value, json};

    fn limit(size: &str) -> Value {
        json!({"limits": {"ephemeral-storage": size}})
    }

    #[test]
    fn messages_are_upstreams() {
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
            let usage = Usage { empty_dirs: [("e".to_owned(), e)].into(), containers: [("a".to_owned(), a)].into() };
            assert_eq!(exceeded(pod, &usage).as_deref(), expected);
        }
        assert!(!is_limited(&pod(json!({"volumes": [{"name": "e", "emptyDir": {}}], "containers": [{"name": "a"}]}))));
    }
}
