//! The older notation of metrics, in which `autoscaling/v1` keeps what its fields cannot hold.
//!
//! It is v2's, flatter: the target's value, average and utilization are fields of the source itself.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricSource,
    ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus, ResourceMetricSource,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

/// One metric, with what it should be or what it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metric {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container_resource: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pods: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external: Option<Source>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<CrossVersionObjectReference>,
    /// External metrics name the same thing differently.
    #[serde(default, alias = "metricSelector", skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_value: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_average_value: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_value: Option<Quantity>,
}

impl Source {
    fn named(name: &str, container: Option<&str>) -> Self {
        Self { name: Some(name.to_owned()), container: container.map(str::to_owned), ..Self::default() }
    }

    fn identified(metric: &MetricIdentifier) -> Self {
        Self { metric_name: Some(metric.name.clone()), selector: metric.selector.clone(), ..Self::default() }
    }

    fn wanting(self, target: &MetricTarget) -> Self {
        Self {
            target_average_utilization: target.average_utilization,
            target_average_value: target.average_value.clone(),
            target_value: target.value.clone(),
            ..self
        }
    }

    fn having(self, current: &MetricValueStatus) -> Self {
        Self {
            current_average_utilization: current.average_utilization,
            current_average_value: current.average_value.clone(),
            current_value: current.value.clone(),
            ..self
        }
    }

    fn metric(&self) -> MetricIdentifier {
        MetricIdentifier { name: self.metric_name.clone().unwrap_or_default(), selector: self.selector.clone() }
    }

    fn wanted(&self) -> MetricTarget {
        let kind = match (self.target_average_utilization, self.target_average_value.as_ref()) {
            (Some(_), _) => "Utilization",
            (None, Some(_)) => "AverageValue",
            (None, None) => "Value",
        };
        MetricTarget {
            type_: kind.to_owned(),
            average_utilization: self.target_average_utilization,
            average_value: self.target_average_value.clone(),
            value: self.target_value.clone(),
        }
    }

    fn current(&self) -> MetricValueStatus {
        MetricValueStatus {
            average_utilization: self.current_average_utilization,
            average_value: self.current_average_value.clone(),
            value: self.current_value.clone(),
        }
    }
}

impl From<&MetricSpec> for Metric {
    fn from(spec: &MetricSpec) -> Self {
        let contained =
            |r: &ContainerResourceMetricSource| Source::named(&r.name, Some(&r.container)).wanting(&r.target);
        let object = |o: &ObjectMetricSource| Source {
            target: Some(o.described_object.clone()),
            ..Source::identified(&o.metric).wanting(&o.target)
        };
        Self {
            kind: spec.type_.clone(),
            resource: spec.resource.as_ref().map(|r| Source::named(&r.name, None).wanting(&r.target)),
            container_resource: spec.container_resource.as_ref().map(contained),
            pods: spec.pods.as_ref().map(|p| Source::identified(&p.metric).wanting(&p.target)),
            object: spec.object.as_ref().map(object),
            external: spec.external.as_ref().map(|e| Source::identified(&e.metric).wanting(&e.target)),
        }
    }
}

impl From<Metric> for MetricSpec {
    fn from(old: Metric) -> Self {
        let named = |s: &Source| s.name.clone().unwrap_or_default();
        Self {
            type_: old.kind,
            resource: old.resource.map(|s| ResourceMetricSource { name: named(&s), target: s.wanted() }),
            container_resource: old.container_resource.map(|s| ContainerResourceMetricSource {
                name: named(&s),
                container: s.container.clone().unwrap_or_default(),
                target: s.wanted(),
            }),
            pods: old.pods.map(|s| PodsMetricSource { metric: s.metric(), target: s.wanted() }),
            object: old.object.map(|s| ObjectMetricSource {
                described_object: s.target.clone().unwrap_or_default(),
                metric: s.metric(),
                target: s.wanted(),
            }),
            external: old.external.map(|s| ExternalMetricSource { metric: s.metric(), target: s.wanted() }),
        }
    }
}

impl From<&MetricStatus> for Metric {
    fn from(status: &MetricStatus) -> Self {
        let contained =
            |r: &ContainerResourceMetricStatus| Source::named(&r.name, Some(&r.container)).having(&r.current);
        let object = |o: &ObjectMetricStatus| Source {
            target: Some(o.described_object.clone()),
            ..Source::identified(&o.metric).having(&o.current)
        };
        Self {
            kind: status.type_.clone(),
            resource: status.resource.as_ref().map(|r| Source::named(&r.name, None).having(&r.current)),
            container_resource: status.container_resource.as_ref().map(contained),
            pods: status.pods.as_ref().map(|p| Source::identified(&p.metric).having(&p.current)),
            object: status.object.as_ref().map(object),
            external: status.external.as_ref().map(|e| Source::identified(&e.metric).having(&e.current)),
        }
    }
}

impl From<Metric> for MetricStatus {
    fn from(old: Metric) -> Self {
        let named = |s: &Source| s.name.clone().unwrap_or_default();
        Self {
            type_: old.kind,
            resource: old.resource.map(|s| ResourceMetricStatus { name: named(&s), current: s.current() }),
            container_resource: old.container_resource.map(|s| ContainerResourceMetricStatus {
                name: named(&s),
                container: s.container.clone().unwrap_or_default(),
                current: s.current(),
            }),
            pods: old.pods.map(|s| PodsMetricStatus { metric: s.metric(), current: s.current() }),
            object: old.object.map(|s| ObjectMetricStatus {
                described_object: s.target.clone().unwrap_or_default(),
                metric: s.metric(),
                current: s.current(),
            }),
            external: old.external.map(|s| ExternalMetricStatus { metric: s.metric(), current: s.current() }),
        }
    }
}
