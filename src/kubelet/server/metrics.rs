//! `/metrics` and `/metrics/resource` in Prometheus' text format.

use std::fmt::Write as _;

use super::machine_use::MachineUse;
use super::stats::{PodUse, pod_use};
use super::summary::{ClaimUse, claims};
use crate::kubelet::Kubelet;
use crate::observed::is_running;
use crate::pod::PodExt;

#[expect(clippy::cast_precision_loss, reason = "seconds in a metric need no more precision")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The kubelet's own figures.
pub(super) async fn own(kubelet: &Kubelet) -> String {
    let pods = kubelet.pods.all();
    let active = pods.iter().filter(|e| e.is_active()).count();
    let containers = kubelet.runtime.list_containers();
    let running = containers.iter().filter(|c| is_running(c)).count();
    let ephemeral: usize = pods.iter().map(|e| e.pod.spec().ephemeral_containers.as_ref().map_or(0, Vec::len)).sum();
    let mut out = String::new();
    gauge(&mut out, "kubelet_running_pods", "Number of pods that have a running pod sandbox", active);
    head(&mut out, "kubelet_running_containers", "Number of containers currently running", "gauge");
    let _ = writeln!(out, "kubelet_running_containers{{container_state=\"running\"}} {running}");
    let _ = writeln!(out, "kubelet_running_containers{{container_state=\"exited\"}} {}", containers.len() - running);
    for (name, help, value) in [
        ("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run", pods.len()),
        ("kubelet_active_pods", "The number of pods the kubelet considers active", active),
    ] {
        head(&mut out, name, help, "gauge");
        let _ = writeln!(out, "{name}{{static=\"\"}} {value}");
    }
    let help = "Current number of ephemeral containers in pods managed by this kubelet.";
    gauge(&mut out, "kubelet_managed_ephemeral_containers", help, ephemeral);
    head(&mut out, "kubelet_node_name", "The node's name. The count is always 1.", "gauge");
    let _ = writeln!(out, "kubelet_node_name{{node={:?}}} 1", kubelet.cfg.node_name);
    out.push_str(&kubelet.metrics.render());
    render_claims(&mut out, &claims(kubelet).await);
    out
}

/// What the file systems behind claims have, one figure after the other.
fn render_claims(out: &mut String, claims: &[ClaimUse]) {
    let Some(first) = claims.first() else { return };
    for (n, (figure, _)) in first.figures.iter().enumerate() {
        let name = format!("kubelet_volume_stats_{figure}");
        head(out, &name, &format!("The volume's {}", figure.replace('_', " ")), "gauge");
        for ClaimUse { namespace, name: claim, figures } in claims {
            let (_, value) = figures[n];
            let _ = writeln!(out, "{name}{{namespace={namespace:?},persistentvolumeclaim={claim:?}}} {value}");
        }
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(out: &mut String, name: &str, help: &str, value: usize) {
    head(out, name, help, "gauge");
    let _ = writeln!(out, "{name} {value}");
}

/// What the metrics server collects.
pub(super) async fn resource(kubelet: &Kubelet) -> String {
    render(
        &MachineUse::read(),
        kubelet.machine.memory_bytes,
        &pod_use(kubelet).await,
        jiff::Timestamp::now().as_millisecond(),
    )
}

fn render(node: &MachineUse, memory_bytes: i64, pods: &[PodUse], now_ms: i64) -> String {
    let mut out = String::new();
    let of_container = |used: &PodUse, name: &str| {
        format!("{{container={name:?},namespace={:?},pod={:?}}}", used.pod.namespace(), used.pod.name())
    };
    let of_pod = |used: &PodUse| format!("{{namespace={:?},pod={:?}}}", used.pod.namespace(), used.pod.name());

    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
        "counter",
    );
    for used in pods {
        for (name, _, stats) in &used.containers {
            let (labels, value) = (of_container(used, name), seconds(stats.cpu_usage_ns));
            let _ =
                writeln!(out, "container_cpu_usage_seconds_total{labels} {value} {}", stats.timestamp_ns / 1_000_000);
        }
    }
    head(&mut out, "container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge");
    for used in pods {
        for (name, _, stats) in &used.containers {
            let (labels, value) = (of_container(used, name), stats.memory_working_set_bytes);
            let _ =
                writeln!(out, "container_memory_working_set_bytes{labels} {value} {}", stats.timestamp_ns / 1_000_000);
        }
    }
    head(&mut out, "container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge");
    for used in pods {
        for (name, started, _) in &used.containers {
            let value = seconds(started.and_then(|s| u64::try_from(s).ok()).unwrap_or(0));
            let _ = writeln!(out, "container_start_time_seconds{} {value}", of_container(used, name));
        }
    }
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the node in core-seconds",
        "counter",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {} {now_ms}", seconds(node.cpu_ns));
    head(&mut out, "node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge");
    let _ = writeln!(out, "node_memory_working_set_bytes {} {now_ms}", memory_bytes - node.memory_available);
    head(&mut out, "pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter");
    for used in pods {
        let value = seconds(used.total.cpu_usage_ns);
        let _ = writeln!(out, "pod_cpu_usage_seconds_total{} {value} {now_ms}", of_pod(used));
    }
    head(&mut out, "pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge");
    for used in pods {
        let value = used.total.memory_working_set_bytes;
        let _ = writeln!(out, "pod_memory_working_set_bytes{} {value} {now_ms}", of_pod(used));
    }
    head(
        &mut out,
        "resource_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
        "gauge",
    );
    out.push_str("resource_scrape_error 0\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use runtime::Stats;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn resources_are_written_as_the_metrics_server_reads_them() {
        let stats = Stats {
            timestamp_ns: 2_000_000_000,
            cpu_usage_ns: 1_500_000_000,
            memory_working_set_bytes: 7,
            ..Stats::default()
        };
        let used = PodUse {
            pod: Arc::new(pod(json!({"containers": []}))),
            status: Arc::default(),
            total: stats.clone(),
            containers: vec![("a".to_owned(), Some(1_000_000_000), stats)],
        };
        let node = MachineUse { cpu_ns: 10_000_000_000, memory_available: 40, ..MachineUse::default() };
        let text = render(&node, 100, &[used], 3000);
        for line in [
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"prod\",pod=\"web\"} 1.5 2000",
            "container_memory_working_set_bytes{container=\"a\",namespace=\"prod\",pod=\"web\"} 7 2000",
            "container_start_time_seconds{container=\"a\",namespace=\"prod\",pod=\"web\"} 1",
            "node_cpu_usage_seconds_total 10 3000",
            "node_memory_working_set_bytes 60 3000",
            "pod_memory_working_set_bytes{namespace=\"prod\",pod=\"web\"} 7 3000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn claims_are_told_figure_by_figure() {
        let claim = |name: &str, used| ClaimUse {
            namespace: "prod".to_owned(),
            name: name.to_owned(),
            figures: [
                ("available_bytes", 1),
                ("capacity_bytes", 2),
                ("inodes", 3),
                ("inodes_free", 4),
                ("inodes_used", 5),
                ("used_bytes", used),
            ],
        };
        let mut text = String::new();
        render_claims(&mut text, &[claim("a", 6), claim("b", 7)]);
        let used: Vec<&str> = text.lines().filter(|l| l.starts_with("kubelet_volume_stats_used_bytes{")).collect();
        assert_eq!(
            used,
            [
                "kubelet_volume_stats_used_bytes{namespace=\"prod\",persistentvolumeclaim=\"a\"} 6",
                "kubelet_volume_stats_used_bytes{namespace=\"prod\",persistentvolumeclaim=\"b\"} 7",
            ]
        );
        assert_eq!(text.lines().filter(|l| l.starts_with("# TYPE ")).count(), 6);
    }
}
