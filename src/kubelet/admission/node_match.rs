//! Whether a node's labels and taints let a pod run there. Pure.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::pod::PodExt;

pub(super) fn node_affinity_matches(pod: &Pod, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = pod.spec();
    let by_labels = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node, labels)))
}

/// A term without requirements matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, (r.key == "metadata.name").then_some(node)))
}

fn requirement_matches(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|x| x == v));
    let compare = |test: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|b| b.parse().ok());
        matches!((value.and_then(|v| v.parse().ok()), bound), (Some(v), Some(b)) if test(v, b))
    };
    match r.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|v, b| v > b),
        "Lt" => compare(|v, b| v < b),
        _ => false,
    }
}

/// Only NoExecute taints concern a node's own check: they would drive the pod out again.
pub(super) fn tolerates_no_execute(pod: &Pod, node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|t| t.effect == "NoExecute").all(|t| tolerated(pod, t))
}

/// The taint that comes with a pressure condition, such as `memory-pressure`.
pub(super) fn tolerates_pressure(pod: &Pod, name: &str) -> bool {
    let key = format!("node.kubernetes.io/{name}");
    tolerated(pod, &Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() })
}

fn tolerated(pod: &Pod, taint: &Taint) -> bool {
    pod.spec().tolerations.iter().flatten().any(|t| tolerates(t, taint))
}

fn tolerates(t: &Toleration, taint: &Taint) -> bool {
    let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
    let own_key = t.key.as_deref().unwrap_or_default();
    let exists = t.operator.as_deref() == Some("Exists");
    effect
        && (own_key.is_empty() && exists || own_key == taint.key)
        && (exists || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}
