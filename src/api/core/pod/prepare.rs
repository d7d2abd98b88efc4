//! What the server writes into a new pod: phase, quality of service, conditions, selectors of label keys.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::qos::qos_class;

pub(super) fn prepare_create(pod: &mut Pod) {
    let generation = pod.metadata.generation;
    let spec = pod.spec.get_or_insert_default();
    let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(qos_class(spec).as_str().to_owned()),
        conditions: gated.then(|| vec![gated_condition(generation)]),
        ..PodStatus::default()
    });
    if let Some(labels) = pod.metadata.labels.as_ref() {
        merge_label_keys(spec, labels);
    }
}

fn gated_condition(generation: Option<i64>) -> PodCondition {
    PodCondition {
        observed_generation: generation,
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }
}

/// `matchLabelKeys` stand for the pod's own values of these labels: they become part of the selector.
fn merge_label_keys(spec: &mut PodSpec, labels: &BTreeMap<String, String>) {
    if let Some(affinity) = spec.affinity.as_mut() {
        if let Some(pods) = affinity.pod_affinity.as_mut() {
            let required = pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            required.chain(preferred.map(|w| &mut w.pod_affinity_term)).for_each(|t| merge_term(t, labels));
        }
        if let Some(pods) = affinity.pod_anti_affinity.as_mut() {
            let required = pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            required.chain(preferred.map(|w| &mut w.pod_affinity_term)).for_each(|t| merge_term(t, labels));
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        if let Some(selector) = constraint.label_selector.as_mut() {
            merge(selector, keys, "In", labels);
        }
    }
}

fn merge_term(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    if let Some(selector) = term.label_selector.as_mut() {
        merge(selector, term.match_label_keys.as_deref().unwrap_or_default(), "In", labels);
        merge(selector, term.mismatch_label_keys.as_deref().unwrap_or_default(), "NotIn", labels);
    }
}

fn merge(selector: &mut LabelSelector, keys: &[String], operator: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in keys.iter().filter_map(|key| labels.get(key).map(|value| (key, value))) {
        let requirement = LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        };
        selector.match_expressions.get_or_insert_default().push(requirement);
    }
}
