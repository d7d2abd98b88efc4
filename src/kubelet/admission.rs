//! The node's own check of a pod that was bound to it: what the scheduler checked may have changed
//! since, and not every pod comes from a scheduler. Pure.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use network::HostPort;

use crate::pod::PodExt;
use crate::pod_workers::host_ports;
use crate::resources::{Allocatable, PodTotal};
use crate::sysctls;

/// Why a pod is not run: its status' reason, and the message of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Checks `pod` against this node and the pods that use it already.
pub(crate) fn admit(pod: &Pod, others: &[&Pod], node: Option<&Node>, allocatable: &Allocatable) -> Result<(), Refusal> {
    sysctls::check(pod).map_err(|message| Refusal { reason: "SysctlForbidden".to_owned(), message })?;
    check_resources(pod, others, allocatable)?;
    if let Some(node) = node {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if !selectors_match(pod, name, &labels) {
            return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
        }
        if let Some(taint) = untolerated(pod, node) {
            return Err(predicate("TaintToleration", &format!("node(s) had untolerated taint {taint}")));
        }
    }
    let wanted = host_ports(pod);
    let taken: Vec<HostPort> = others.iter().flat_map(|p| host_ports(p)).collect();
    if wanted.iter().any(|w| taken.iter().any(|t| conflict(w, t))) {
        return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

fn predicate(name: &str, why: &str) -> Refusal {
    Refusal { reason: name.to_owned(), message: format!("Predicate {name} failed: {why}") }
}

pub(crate) fn check_resources(pod: &Pod, others: &[&Pod], allocatable: &Allocatable) -> Result<(), Refusal> {
    let out_of = |resource: &str, requested: i64, used: i64, capacity: i64| Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > i64::from(allocatable.pods) {
        return Err(out_of("pods", 1, count, i64::from(allocatable.pods)));
    }
    let total = PodTotal::of(pod);
    let used: Vec<PodTotal> = others.iter().map(|p| PodTotal::of(p)).collect();
    let sum = |read: fn(&PodTotal) -> i64| used.iter().map(read).fold(0, i64::saturating_add);
    for (name, read, capacity) in [
        ("cpu", (|t: &PodTotal| t.cpu_request) as fn(&PodTotal) -> i64, allocatable.cpu_milli),
        ("memory", |t| t.memory_request, allocatable.memory),
        ("ephemeral-storage", |t| t.storage_request, allocatable.ephemeral_storage),
    ] {
        let (requested, used) = (read(&total), sum(read));
        if requested > 0 && used.saturating_add(requested) > capacity {
            return Err(out_of(name, requested, used, capacity));
        }
    }
    Ok(())
}

fn selectors_match(pod: &Pod, node: &str, labels: &BTreeMap<String, String>) -> bool {
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
fn untolerated(pod: &Pod, node: &Node) -> Option<String> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let taint = taints.iter().filter(|t| t.effect == "NoExecute").find(|taint| {
        !tolerations.iter().any(|t| tolerates(t, &taint.key, taint.value.as_deref().unwrap_or_default()))
    })?;
    Some(format!("{{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default()))
}

fn tolerates(t: &Toleration, key: &str, value: &str) -> bool {
    let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute");
    let own_key = t.key.as_deref().unwrap_or_default();
    let exists = t.operator.as_deref() == Some("Exists");
    effect
        && (own_key.is_empty() && exists || own_key == key)
        && (exists || t.value.as_deref().unwrap_or_default() == value)
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let any = |p: &HostPort| p.host_ip.is_none_or(|ip| ip.is_unspecified());
    a.host_port == b.host_port && a.protocol == b.protocol && (any(a) || any(b) || a.host_ip == b.host_ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::{Value, json};

    fn allocatable() -> Allocatable {
        Allocatable { cpu_milli: 1000, memory: 1 << 30, pods: 3, ephemeral_storage: 1 << 30, ..Allocatable::default() }
    }

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "n": "5"}},
            "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"},
                {"key": "s", "effect": "NoSchedule"}]}}))
        .unwrap()
    }

    #[track_caller]
    fn check(spec: Value, expected: Result<(), (&str, &str)>) {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "a"}]);
        }
        if spec.get("tolerations").is_none() {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
        }
        let there = pod(json!({"containers": [{"name": "x", "resources": {"requests": {"cpu": "600m"}},
            "ports": [{"containerPort": 1, "hostPort": 80}]}]}));
        let got = admit(&pod(spec), &[&there], Some(&node()), &allocatable());
        let expected = expected.map_err(|(r, m)| Refusal { reason: r.to_owned(), message: m.to_owned() });
        assert_eq!(got, expected);
    }

    fn requests(name: &str, amount: &str) -> Value {
        json!({"containers": [{"name": "a", "resources": {"requests": {name: amount}}}]})
    }

    #[test]
    fn resources_must_fit() {
        check(requests("cpu", "400m"), Ok(()));
        check(
            requests("cpu", "500m"),
            Err(("OutOfcpu", "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000")),
        );
        check(
            requests("memory", "2Gi"),
            Err((
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
            )),
        );
    }

    #[test]
    fn selectors_and_affinity_must_match() {
        let affinity = |expr: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [expr]}]}}}})
        };
        let no =
            Err(("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"));
        check(json!({"nodeSelector": {"disk": "ssd"}}), Ok(()));
        check(json!({"nodeSelector": {"disk": "hdd"}}), no);
        check(affinity(json!({"key": "disk", "operator": "In", "values": ["ssd"]})), Ok(()));
        check(affinity(json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]})), no);
        check(affinity(json!({"key": "n", "operator": "Gt", "values": ["4"]})), Ok(()));
        check(affinity(json!({"key": "n", "operator": "Lt", "values": ["4"]})), no);
        check(affinity(json!({"key": "other", "operator": "DoesNotExist"})), Ok(()));
    }

    #[test]
    fn sysctls_that_reach_beyond_the_pod_are_refused() {
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        let spec = json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
        check(spec, Err(("SysctlForbidden", message)));
    }

    #[test]
    fn host_ports_and_taints_count() {
        let port = |ip: Value| json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        let no = Err((
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
        check(port(json!("10.0.0.1")), no);
        check(json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 81}]}]}), Ok(()));
        check(json!({"tolerations": [{"key": "k", "value": "v"}]}), Ok(()));
        check(
            json!({"tolerations": []}),
            Err(("TaintToleration", "Predicate TaintToleration failed: node(s) had untolerated taint {k: v}")),
        );
    }
}
