//! Horizontal pod autoscalers, as v2; v1 is converted to it first.

use k8s_openapi::api::autoscaling::v2 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;
use crate::quantity::Quantity;

const PERCENT_OF_CPU: i32 = 80;
const WINDOW_MAX: i32 = 3600;
const PERIOD_MAX: i32 = 1800;
const METRIC_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(crate) struct HorizontalPodAutoscaler;

impl Kind for HorizontalPodAutoscaler {
    type Object = api::HorizontalPodAutoscaler;

    fn default(&self, obj: &mut api::HorizontalPodAutoscaler) {
        let spec = &mut obj.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu_metric(PERCENT_OF_CPU)]);
        }
        if let Some(behavior) = spec.behavior.as_mut() {
            default_behavior(behavior);
        }
    }

    fn validate(&self, obj: &api::HorizontalPodAutoscaler, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let spec = &obj.spec;
        let min = spec.min_replicas.unwrap_or(1);
        if min < 1 {
            errs.push(field::invalid(&path.child("minReplicas"), &min, "must be greater than or equal to 1"));
        }
        if spec.max_replicas < 1 {
            errs.push(field::invalid(&path.child("maxReplicas"), &spec.max_replicas, "must be greater than 0"));
        }
        if spec.max_replicas < min {
            let why = "must be greater than or equal to `minReplicas`";
            errs.push(field::invalid(&path.child("maxReplicas"), &spec.max_replicas, why));
        }
        let at = path.child("scaleTargetRef");
        for (name, value) in [("kind", &spec.scale_target_ref.kind), ("name", &spec.scale_target_ref.name)] {
            if value.is_empty() {
                errs.push(field::required(&at.child(name), ""));
            } else {
                field::invalid_each(&at.child(name), value, format::path_segment(value), errs);
            }
        }
        let at = path.child("metrics");
        for (i, metric) in spec.metrics.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_metric(metric, &at.index(i), errs);
        }
        if let Some(behavior) = spec.behavior.as_ref() {
            let at = path.child("behavior");
            for (name, rules) in [("scaleUp", behavior.scale_up.as_ref()), ("scaleDown", behavior.scale_down.as_ref())]
            {
                if let Some(rules) = rules {
                    validate_rules(rules, &at.child(name), errs);
                }
            }
        }
    }
}

/// Average CPU use of all pods, in percent of what they request.
pub(crate) fn cpu_metric(percent: i32) -> api::MetricSpec {
    api::MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(api::ResourceMetricSource {
            name: "cpu".to_owned(),
            target: api::MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..api::MetricTarget::default()
            },
        }),
        ..api::MetricSpec::default()
    }
}

fn default_behavior(behavior: &mut api::HorizontalPodAutoscalerBehavior) {
    let policy =
        |kind: &str, value, period_seconds| api::HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds };
    let up = behavior.scale_up.get_or_insert_default();
    up.stabilization_window_seconds.get_or_insert(0);
    up.select_policy.get_or_insert_with(|| "Max".to_owned());
    up.policies.get_or_insert_with(|| vec![policy("Pods", 4, 15), policy("Percent", 100, 15)]);
    let down = behavior.scale_down.get_or_insert_default();
    down.select_policy.get_or_insert_with(|| "Max".to_owned());
    down.policies.get_or_insert_with(|| vec![policy("Percent", 100, 15)]);
}

fn validate_rules(rules: &api::HPAScalingRules, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(window) = rules.stabilization_window_seconds {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errs.push(field::invalid(&at, &window, "must be greater than or equal to zero"));
        }
        if window > WINDOW_MAX {
            errs.push(field::invalid(&at, &window, format!("must be less than or equal to {WINDOW_MAX}")));
        }
    }
    const SELECT: &[&str] = &["Disabled", "Max", "Min"];
    if let Some(policy) = rules.select_policy.as_deref().filter(|p| !SELECT.contains(p)) {
        errs.push(field::not_supported(&path.child("selectPolicy"), policy, SELECT));
    }
    let at = path.child("policies");
    if rules.policies.as_deref().unwrap_or_default().is_empty() {
        errs.push(field::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in rules.policies.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = at.index(i);
        if !["Pods", "Percent"].contains(&policy.type_.as_str()) {
            errs.push(field::not_supported(&at.child("type"), &policy.type_, &["Percent", "Pods"]));
        }
        if policy.value <= 0 {
            errs.push(field::invalid(&at.child("value"), &policy.value, "must be greater than zero"));
        }
        if policy.period_seconds <= 0 {
            errs.push(field::invalid(&at.child("periodSeconds"), &policy.period_seconds, "must be greater than zero"));
        }
        if policy.period_seconds > PERIOD_MAX {
            let why = format!("must be less than or equal to {PERIOD_MAX}");
            errs.push(field::invalid(&at.child("periodSeconds"), &policy.period_seconds, why));
        }
    }
}

fn validate_metric(metric: &api::MetricSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let sources = [
        ("Object", "object", metric.object.as_ref().map(|m| &m.target)),
        ("Pods", "pods", metric.pods.as_ref().map(|m| &m.target)),
        ("Resource", "resource", metric.resource.as_ref().map(|m| &m.target)),
        ("ContainerResource", "containerResource", metric.container_resource.as_ref().map(|m| &m.target)),
        ("External", "external", metric.external.as_ref().map(|m| &m.target)),
    ];
    if metric.type_.is_empty() {
        errs.push(field::required(&path.child("type"), "must specify a metric source type"));
    } else if !METRIC_TYPES.contains(&metric.type_.as_str()) {
        errs.push(field::not_supported(&path.child("type"), &metric.type_, METRIC_TYPES));
    }
    let mut set = sources.iter().filter_map(|(kind, name, target)| target.map(|t| (*kind, *name, t)));
    let Some((kind, name, target)) = set.next() else {
        if let Some((_, name, _)) = sources.iter().find(|(kind, _, _)| *kind == metric.type_) {
            let why = "must populate information for the given metric source";
            errs.push(field::required(&path.child(name), why));
        }
        return;
    };
    for (_, name, _) in set {
        let why = "must populate the given metric source only";
        errs.push(field::forbidden(&path.child(name), why));
    }
    if kind != metric.type_ {
        if let Some((_, name, _)) = sources.iter().find(|(kind, _, _)| *kind == metric.type_) {
            let why = "must populate information for the given metric source";
            errs.push(field::required(&path.child(name), why));
        }
        return;
    }
    validate_target(target, &path.child(name).child("target"), errs);
}

fn validate_target(target: &api::MetricTarget, path: &Path<'_>, errs: &mut ErrorList) {
    const TYPES: &[&str] = &["AverageValue", "Utilization", "Value"];
    if target.type_.is_empty() {
        errs.push(field::required(&path.child("type"), "must specify a metric target type"));
    } else if !TYPES.contains(&target.type_.as_str()) {
        errs.push(field::not_supported(&path.child("type"), &target.type_, TYPES));
    }
    for (name, value) in [("value", target.value.as_ref()), ("averageValue", target.average_value.as_ref())] {
        if let Some(value) = value.filter(|v| Quantity::of(v).sign() != 1) {
            errs.push(field::invalid(&path.child(name), value, "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|p| *p < 1) {
        errs.push(field::invalid(&path.child("averageUtilization"), &percent, "must be greater than 0"));
    }
}
