//! `/pods` and `/stats/summary`.

use std::sync::Arc;

use api::k8s_openapi::List;
use api::k8s_openapi::api::core::v1::Pod;
use jiff::Timestamp;
use runtime::Stats;
use serde_json::{Value, json};

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
        out.push(PodUse { pod: entry.pod, total, containers: list });
    }
    out
}

fn time(ns: i64) -> Value {
    Timestamp::from_nanosecond(i128::from(ns)).map_or(Value::Null, |t| json!(t.to_string()))
}

fn cpu(stats: &Stats) -> Value {
    json!({ "time": time(stats.timestamp_ns), "usageCoreNanoSeconds": stats.cpu_usage_ns })
}

fn memory(stats: &Stats) -> Value {
    json!({
        "time": time(stats.timestamp_ns),
        "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes,
    })
}

pub(super) async fn summary(kubelet: &Kubelet) -> Value {
    let pods: Vec<Value> = pod_use(kubelet)
        .await
        .into_iter()
        .map(|used| {
            let containers: Vec<Value> = used
                .containers
                .iter()
                .map(|(name, started, stats)| {
                    json!({
                        "name": name,
                        "startTime": started.map(time),
                        "cpu": cpu(stats),
                        "memory": memory(stats),
                    })
                })
                .collect();
            json!({
                "podRef": { "name": used.pod.name(), "namespace": used.pod.namespace(), "uid": used.pod.uid() },
                "startTime": used.pod.status().start_time,
                "containers": containers,
                "cpu": cpu(&used.total),
                "memory": memory(&used.total),
                "process_stats": { "process_count": used.total.pids },
            })
        })
        .collect();
    let node = super::metrics::NodeUse::read(kubelet);
    let now = Timestamp::now().to_string();
    json!({
        "node": {
            "nodeName": kubelet.cfg.node_name,
            "cpu": { "time": now, "usageCoreNanoSeconds": node.cpu_ns },
            "memory": {
                "time": now,
                "availableBytes": node.memory_available,
                "usageBytes": kubelet.machine.memory_bytes - node.memory_free,
                "workingSetBytes": kubelet.machine.memory_bytes - node.memory_available,
            },
        },
        "pods": pods,
    })
}
