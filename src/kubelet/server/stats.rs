//! `/pods`, and what the pods of this node use.

use std::sync::Arc;

use api::k8s_openapi::List;
use api::k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::Stats;

use crate::kubelet::Kubelet;
use crate::observed::is_running;
use crate::pod::PodExt;

/// The pods of this node with the newest status.
pub(super) fn pod_list(kubelet: &Kubelet) -> List<Pod> {
    let items = kubelet.pods.all().into_iter().map(|entry| {
        let mut pod = (*entry.pod).clone();
        pod.status = Some((*entry.status).clone());
        pod
    });
    List { items: items.collect(), ..List::default() }
}

/// One pod's use, container by container.
pub(super) struct PodUse {
    pub(super) pod: Arc<Pod>,
    pub(super) status: Arc<PodStatus>,
    pub(super) total: Stats,
    /// With the time of its start.
    pub(super) containers: Vec<(String, Option<i64>, Stats)>,
}

pub(super) async fn pod_use(kubelet: &Kubelet) -> Vec<PodUse> {
    let mut out = Vec::new();
    for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active()) {
        // What ended while it was asked about is left out.
        let Ok(total) = kubelet.runtime.sandbox_stats(entry.pod.uid()).await else { continue };
        let mut list = Vec::new();
        for c in kubelet.runtime.sandbox_containers(entry.pod.uid()).into_iter().filter(is_running) {
            if let Ok(stats) = kubelet.runtime.container_stats(&c.id).await {
                list.push((c.name, c.started_at_ns, stats));
            }
        }
        out.push(PodUse { pod: entry.pod, status: entry.status, total, containers: list });
    }
    out
}
