//! What the kubelet counts, under upstream's names. Labels come from closed sets: reasons and kinds of
//! containers and operations, never from what a pod says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pod::Role;

/// Upstream's buckets of runtime operations: 5 ms, each two and a half times the one before.
const BUCKETS: usize = 14;

fn bound(bucket: usize) -> f64 {
    (0..bucket).fold(0.005, |bound, _| bound * 2.5)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    StartedPods,
    StartedPodsErrors,
    RestartedPods,
    StartedContainers,
    StartedContainersErrors,
    TerminatedContainers,
    Evictions,
    ImageGarbageCollected,
}

impl Counter {
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::StartedPods => ("kubelet_started_pods_total", "Cumulative number of pods started"),
            Self::StartedPodsErrors => {
                ("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods")
            }
            Self::RestartedPods => ("kubelet_restarted_pods_total", "Number of pods whose sandbox was made anew"),
            Self::StartedContainers => ("kubelet_started_containers_total", "Cumulative number of containers started"),
            Self::StartedContainersErrors => {
                ("kubelet_started_containers_errors_total", "Cumulative number of errors when starting containers")
            }
            Self::TerminatedContainers => {
                ("kubelet_terminated_containers_total", "Cumulative number of containers that ended")
            }
            Self::Evictions => ("kubelet_evictions", "Cumulative number of pod evictions by eviction signal"),
            Self::ImageGarbageCollected => {
                ("kubelet_image_garbage_collected_total", "Total number of images removed because the disk filled")
            }
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Operation {
    count: u64,
    errors: u64,
    seconds: f64,
    buckets: [u64; BUCKETS],
}

#[derive(Default)]
pub(crate) struct Metrics {
    counters: Mutex<BTreeMap<(Counter, String), u64>>,
    operations: Mutex<BTreeMap<&'static str, Operation>>,
}

/// As upstream's labels name a kind of container.
pub(crate) fn container_type(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "init_container",
        Role::App => "container",
        Role::Ephemeral => "ephemeral_container",
    }
}

impl Metrics {
    pub(crate) fn count(&self, counter: Counter, labels: &[(&str, &str)]) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        *self.counters.lock().entry((counter, labels)).or_default() += 1;
    }

    /// Counts and times an operation of the runtime by the name that CRI gives it.
    pub(crate) async fn time<T, E>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let result = work.await;
        self.note(name, began.elapsed(), result.is_err());
        result
    }

    fn note(&self, name: &'static str, took: Duration, failed: bool) {
        let mut operations = self.operations.lock();
        let operation = operations.entry(name).or_default();
        let seconds = took.as_secs_f64();
        operation.count += 1;
        operation.errors += u64::from(failed);
        operation.seconds += seconds;
        for (n, bucket) in operation.buckets.iter_mut().enumerate() {
            *bucket += u64::from(seconds <= bound(n));
        }
    }

    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let mut last = None;
        for ((counter, labels), value) in &*self.counters.lock() {
            let (name, help) = counter.describe();
            if last.replace(*counter) != Some(*counter) {
                head(&mut out, name, help, "counter");
            }
            let _ = writeln!(out, "{name}{labels} {value}");
        }
        let operations = self.operations.lock();
        let count = "Cumulative number of runtime operations by operation type.";
        head(&mut out, "kubelet_runtime_operations_total", count, "counter");
        for (name, operation) in &*operations {
            let _ = writeln!(out, "kubelet_runtime_operations_total{{operation_type={name:?}}} {}", operation.count);
        }
        let errors = "Cumulative number of runtime operation errors by operation type.";
        head(&mut out, "kubelet_runtime_operations_errors_total", errors, "counter");
        for (name, operation) in operations.iter().filter(|(_, o)| o.errors > 0) {
            let metric = "kubelet_runtime_operations_errors_total";
            let _ = writeln!(out, "{metric}{{operation_type={name:?}}} {}", operation.errors);
        }
        let metric = "kubelet_runtime_operations_duration_seconds";
        let help = "Duration in seconds of runtime operations. Broken down by operation type.";
        head(&mut out, metric, help, "histogram");
        for (name, operation) in &*operations {
            for (n, value) in operation.buckets.iter().enumerate() {
                let le = bound(n);
                let _ = writeln!(out, "{metric}_bucket{{operation_type={name:?},le=\"{le}\"}} {value}");
            }
            let count = operation.count;
            let _ = writeln!(out, "{metric}_bucket{{operation_type={name:?},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{metric}_sum{{operation_type={name:?}}} {}", operation.seconds);
            let _ = writeln!(out, "{metric}_count{{operation_type={name:?}}} {count}");
        }
        out
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counters_and_operations_have_upstreams_names() {
        let metrics = Metrics::default();
        metrics.count(Counter::StartedPods, &[]);
        for reason in ["Error", "Completed", "Error"] {
            let labels = [("container_type", "container"), ("exit_code", "1"), ("reason", reason)];
            metrics.count(Counter::TerminatedContainers, &labels);
        }
        let slow = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>(())
        };
        metrics.time("start_container", slow).await.unwrap();
        metrics.time("start_container", async { Err::<(), _>(()) }).await.unwrap_err();
        let text = metrics.render();
        for line in [
            "kubelet_started_pods_total 1",
            "kubelet_terminated_containers_total{container_type=\"container\",exit_code=\"1\",reason=\"Error\"} 2",
            "kubelet_runtime_operations_total{operation_type=\"start_container\"} 2",
            "kubelet_runtime_operations_errors_total{operation_type=\"start_container\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"start_container\",le=\"0.0125\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"start_container\",le=\"+Inf\"} 2",
            "kubelet_runtime_operations_duration_seconds_sum{operation_type=\"start_container\"} 0.02",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
