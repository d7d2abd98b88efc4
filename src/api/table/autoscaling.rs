//! Horizontal pod autoscalers, and the scale subresource.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{NONE, UNKNOWN, UNSET};

/// How many metrics a cell shows.
const SHOWN: usize = 2;

impl Printed for Scale {
    const COLUMNS: &'static [Column] = &[
        // Upstream does not mark it as the name of an object.
        Column { format: "", ..NAME },
        Column::integer("Desired", "How many pods there should be."),
        Column::integer("Available", "How many pods there are."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let desired = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        row![self.name(), desired, self.status.as_ref().map_or(0, |status| status.replicas), self.age(now)]
    }
}

impl Printed for HorizontalPodAutoscaler {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Each metric's value now and its target."),
        Column::text("MinPods", "The fewest pods it scales to."),
        Column::text("MaxPods", "The most pods it scales to."),
        Column::text("Replicas", "How many pods there are."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let no_status = HorizontalPodAutoscalerStatus::default();
        let spec = &self.spec;
        let status = self.status.as_ref().unwrap_or(&no_status);
        row![
            self.name(),
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name),
            metrics(spec.metrics.as_deref().unwrap_or_default(), status.current_metrics.as_deref().unwrap_or_default()),
            spec.min_replicas.map_or_else(|| UNSET.to_owned(), |replicas| replicas.to_string()),
            spec.max_replicas,
            status.current_replicas.unwrap_or_default(),
            self.age(now),
        ]
    }
}

fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let shown: Vec<String> =
        specs.iter().take(SHOWN).enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    if let Some(external) = &spec.external {
        return amount(&external.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current));
    }
    if let Some(object) = &spec.object {
        return amount(&object.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current));
    }
    if let Some(pods) = &spec.pods {
        let current = status.and_then(|s| s.pods.as_ref()).map(|s| &s.current);
        return format!("{}/{}", average(current), quantity(pods.target.average_value.as_ref()));
    }
    if let Some(resource) = &spec.resource {
        let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
        return format!("{}: {}", resource.name, usage(&resource.target, current));
    }
    if let Some(resource) = &spec.container_resource {
        let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
        return format!("{}: {}", resource.name, usage(&resource.target, current));
    }
    "<unknown type>".to_owned()
}

/// A metric of an object or of something outside the cluster: a total, or an average over the pods.
fn amount(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(goal) = &target.average_value {
        return format!("{}/{} (avg)", average(current), goal.0);
    }
    let now = current.map_or(UNKNOWN, |current| quantity(current.value.as_ref()));
    format!("{now}/{}", quantity(target.value.as_ref()))
}

/// A resource of the pods: an average amount, or a share of what they request.
fn usage(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(goal) = &target.average_value {
        return format!("{}/{}", average(current), goal.0);
    }
    let percent = |share: Option<i32>, missing: &str| share.map_or(missing.to_owned(), |share| format!("{share}%"));
    let now = percent(current.and_then(|current| current.average_utilization), UNKNOWN);
    format!("{now}/{}", percent(target.average_utilization, "<auto>"))
}

fn average(current: Option<&MetricValueStatus>) -> &str {
    current.and_then(|current| current.average_value.as_ref()).map_or(UNKNOWN, |value| value.0.as_str())
}

fn quantity(value: Option<&Quantity>) -> &str {
    value.map_or("<nil>", |value| value.0.as_str())
}
