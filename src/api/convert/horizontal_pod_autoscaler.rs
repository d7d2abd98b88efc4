//! Autoscalers: v1 knows CPU use only. What else v2 says travels in annotations, as upstream's do, so
//! that a client of v1 gives back what it was given.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::{v1, v2};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metrics::Metric;
use crate::autoscaling::horizontal_pod_autoscaler::cpu_metric;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Notes a value beside the object; nothing when there is nothing to note.
fn note<T: Serialize>(meta: &mut ObjectMeta, key: &str, value: Option<&T>) {
    if let Some(text) = value.and_then(|v| serde_json::to_string(v).ok()) {
        meta.annotations.get_or_insert_default().insert(key.to_owned(), text);
    }
}

/// Takes a note back. One that a client has spoilt counts as none, as upstream has it.
fn take<T: DeserializeOwned>(annotations: &mut BTreeMap<String, String>, key: &str) -> Option<T> {
    annotations.remove(key).and_then(|text| serde_json::from_str(&text).ok())
}

fn cpu_percent(metric: &v2::MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|r| metric.type_ == "Resource" && r.name == "cpu")?;
    resource.target.average_utilization
}

fn current_cpu_percent(metric: &v2::MetricStatus) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|r| metric.type_ == "Resource" && r.name == "cpu")?;
    resource.current.average_utilization
}

pub(super) fn to_v1(obj: Value) -> Option<Value> {
    let new = v2::HorizontalPodAutoscaler::deserialize(with_version(obj, "autoscaling/v2")).ok()?;
    let (mut meta, spec) = (new.metadata, new.spec);
    let wanted = spec.metrics.unwrap_or_default();
    let cpu = wanted.iter().position(|m| cpu_percent(m).is_some());
    let rest: Vec<Metric> = others(&wanted, cpu).map(Metric::from).collect();
    note(&mut meta, METRICS, Some(&rest).filter(|r| !r.is_empty()));
    note(&mut meta, BEHAVIOR, spec.behavior.as_ref());
    let status = new.status.map(|status| {
        let now = status.current_metrics.unwrap_or_default();
        let used = now.iter().position(|m| current_cpu_percent(m).is_some());
        let rest: Vec<Metric> = others(&now, used).map(Metric::from).collect();
        note(&mut meta, CURRENT, Some(&rest).filter(|r| !r.is_empty()));
        note(&mut meta, CONDITIONS, status.conditions.as_ref().filter(|c| !c.is_empty()));
        v1::HorizontalPodAutoscalerStatus {
            current_cpu_utilization_percentage: used.and_then(|i| current_cpu_percent(&now[i])),
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }
    });
    let target = spec.scale_target_ref;
    let old = v1::HorizontalPodAutoscaler {
        metadata: meta,
        spec: v1::HorizontalPodAutoscalerSpec {
            max_replicas: spec.max_replicas,
            min_replicas: spec.min_replicas,
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
            target_cpu_utilization_percentage: cpu.and_then(|i| cpu_percent(&wanted[i])),
        },
        status,
    };
    serde_json::to_value(old).ok()
}

fn others<T>(list: &[T], except: Option<usize>) -> impl Iterator<Item = &T> {
    list.iter().enumerate().filter(move |(i, _)| Some(*i) != except).map(|(_, item)| item)
}

pub(super) fn to_v2(obj: Value) -> Option<Value> {
    let old = v1::HorizontalPodAutoscaler::deserialize(with_version(obj, "autoscaling/v1")).ok()?;
    let (mut meta, spec) = (old.metadata, old.spec);
    let mut notes = meta.annotations.take().unwrap_or_default();
    let mut metrics: Vec<v2::MetricSpec> = spec.target_cpu_utilization_percentage.map(cpu_metric).into_iter().collect();
    metrics.extend(take::<Vec<Metric>>(&mut notes, METRICS).into_iter().flatten().map(Into::into));
    let behavior = take(&mut notes, BEHAVIOR);
    let noted: Option<Vec<Metric>> = take(&mut notes, CURRENT);
    let conditions = take(&mut notes, CONDITIONS);
    meta.annotations = Some(notes).filter(|n| !n.is_empty());
    let status = old.status.map(|status| {
        let mut current: Vec<v2::MetricStatus> =
            status.current_cpu_utilization_percentage.map(current_cpu).into_iter().collect();
        current.extend(noted.into_iter().flatten().map(Into::into));
        v2::HorizontalPodAutoscalerStatus {
            conditions,
            current_metrics: Some(current).filter(|c| !c.is_empty()),
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }
    });
    let target = spec.scale_target_ref;
    let new = v2::HorizontalPodAutoscaler {
        metadata: meta,
        spec: v2::HorizontalPodAutoscalerSpec {
            behavior,
            max_replicas: spec.max_replicas,
            metrics: Some(metrics).filter(|m| !m.is_empty()),
            min_replicas: spec.min_replicas,
            scale_target_ref: v2::CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
        },
        status,
    };
    serde_json::to_value(new).ok()
}

fn current_cpu(percent: i32) -> v2::MetricStatus {
    v2::MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: v2::MetricValueStatus { average_utilization: Some(percent), ..Default::default() },
        }),
        ..v2::MetricStatus::default()
    }
}

/// The typed structs insist on their own version.
fn with_version(mut obj: Value, version: &str) -> Value {
    if let Some(map) = obj.as_object_mut() {
        map.insert("apiVersion".to_owned(), version.into());
        map.insert("kind".to_owned(), "HorizontalPodAutoscaler".into());
    }
    obj
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_v1_autoscaler_becomes_v2_and_back() {
        let old = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"maxReplicas": 5, "minReplicas": 1, "targetCPUUtilizationPercentage": 80,
                     "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
            "status": {"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 90},
        });
        let new = to_v2(old.clone()).unwrap();
        assert_eq!(new["apiVersion"], "autoscaling/v2");
        assert_eq!(
            new["spec"]["metrics"],
            json!([{"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
        );
        assert_eq!(to_v1(new).unwrap(), old);
    }

    #[test]
    fn what_v1_cannot_say_survives_the_round_trip() {
        let new = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "annotations": {"mine": "1"}},
            "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "behavior": {"scaleUp": {"selectPolicy": "Max"}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}},
                        "target": {"type": "Value", "value": "30"}}},
                ]},
            "status": {"desiredReplicas": 1, "currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let old = to_v1(new.clone()).unwrap();
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        let noted: Value = serde_json::from_str(old["metadata"]["annotations"][METRICS].as_str().unwrap()).unwrap();
        assert_eq!(noted[0], json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "10"}}));
        assert_eq!(to_v2(old).unwrap(), new);
    }
}
