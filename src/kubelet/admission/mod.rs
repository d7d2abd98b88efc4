//! The node's own checks of a pod that was bound to it, in upstream's order: what the scheduler
//! checked may have changed since, and not every pod comes from a scheduler. Pure.

mod node_match;
mod unsupported;

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Node, Pod};
use network::HostPort;

use crate::node::Pressure;
use crate::pod::PodExt;
use crate::pod_workers::host_ports;
use crate::resources::{self, Allocatable, PodTotal, QosClass};
use crate::sysctls;
use node_match::{node_affinity_matches, tolerates_no_execute, tolerates_pressure};
pub(crate) use unsupported::{Modules, before_sandbox};

/// What every node is labelled with, and what a pod may say of itself.
const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Why a pod is not run: its status' reason, and the message of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Refusal {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What a pod is checked against.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    /// The pods that use the node already.
    pub(crate) others: &'a [&'a Pod],
    pub(crate) node: Option<&'a Node>,
    pub(crate) allocatable: &'a Allocatable,
    pub(crate) pressure: Pressure,
    pub(crate) modules: Modules,
    /// What the node itself listens on, and what load balancers have of its addresses.
    pub(crate) own_ports: &'a [HostPort],
}

/// # Errors
/// With the first check that the pod fails.
pub(crate) fn admit(cx: &Inputs<'_>) -> Result<(), Refusal> {
    check_pressure(cx.pod, cx.pressure)?;
    sysctls::check(cx.pod).map_err(|message| Refusal::new("SysctlForbidden", message))?;
    check_os(cx.pod)?;
    check_resources(cx.pod, cx.others, cx.allocatable)?;
    check_limits(cx.pod)?;
    let labels: BTreeMap<_, _> = cx.node.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
    if let Some(node) = cx.node
        && !node_affinity_matches(cx.pod, node.metadata.name.as_deref().unwrap_or_default(), &labels)
    {
        return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let wanted = host_ports(cx.pod);
    let taken = cx.others.iter().flat_map(|p| host_ports(p)).chain(cx.own_ports.iter().copied()).collect::<Vec<_>>();
    if wanted.iter().any(|w| taken.iter().any(|t| w.conflicts_with(t))) {
        return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    if cx.node.is_some_and(|node| !tolerates_no_execute(cx.pod, node)) {
        return Err(predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    unsupported::check_app_armor(cx.pod, cx.modules).map_err(|message| Refusal::new("AppArmor", message))
}

/// A node that evicts takes no pod that it would evict next.
fn check_pressure(pod: &Pod, pressure: Pressure) -> Result<(), Refusal> {
    let conditions: Vec<&str> =
        [("MemoryPressure", pressure.memory), ("DiskPressure", pressure.disk), ("PIDPressure", pressure.pids)]
            .into_iter()
            .filter_map(|(name, holds)| holds.then_some(name))
            .collect();
    if conditions.is_empty() || resources::is_critical(pod) {
        return Ok(());
    }
    let memory_alone = conditions == ["MemoryPressure"];
    let spared = QosClass::of(pod) != QosClass::BestEffort || tolerates_pressure(pod, "memory-pressure");
    if memory_alone && spared {
        return Ok(());
    }
    Err(Refusal::new("Evicted", format!("The node had condition: [{}]. ", conditions.join(" "))))
}

fn check_os(pod: &Pod) -> Result<(), Refusal> {
    if pod.metadata.labels.as_ref().and_then(|l| l.get(OS_LABEL)).is_some_and(|os| os != OS) {
        let message = format!("Failed to admit pod as the `{OS_LABEL}` label doesn't match node label");
        return Err(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if pod.spec().os.as_ref().is_some_and(|os| os.name != OS) {
        return Err(Refusal::new("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
    }
    Ok(())
}

/// A limit that the kernel has no number for would fail at every start.
fn check_limits(pod: &Pod) -> Result<(), Refusal> {
    for (_, c) in pod.containers() {
        let limits = c.resources.as_ref().and_then(|r| r.limits.as_ref());
        if let Some(cpu) = limits.and_then(|l| l.get("cpu")).filter(|cpu| resources::exceeds_kernel(cpu)) {
            let message = format!("CPU limit {} of container {} is more than the kernel can set", cpu.0, c.name);
            return Err(Refusal::new("UnexpectedAdmissionError", message));
        }
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
    let pages: Vec<_> = others.iter().map(|p| resources::hugepage_requests(p)).collect();
    for (name, requested) in resources::hugepage_requests(pod) {
        let used = pages.iter().filter_map(|p| p.get(&name)).fold(0, |a: i64, n| a.saturating_add(*n));
        let capacity = allocatable.hugepages.get(&name).copied().unwrap_or(0);
        if requested > 0 && used.saturating_add(requested) > capacity {
            return Err(out_of(&name, requested, used, capacity));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use network::Protocol;
    use serde_json::{Value, json};

    fn allocatable() -> Allocatable {
        let hugepages = [("hugepages-2Mi".to_owned(), 4 << 20)].into();
        Allocatable { cpu_milli: 1000, memory: 1 << 30, pods: 3, ephemeral_storage: 1 << 30, hugepages }
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
        let own = HostPort { host_ip: None, host_port: 6443, container_port: 6443, protocol: Protocol::Tcp };
        let got = admit(&Inputs {
            pod: &pod(spec),
            others: &[&there],
            node: Some(&node()),
            allocatable: &allocatable(),
            pressure: Pressure::default(),
            modules: Modules::default(),
            own_ports: &[own],
        });
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
    fn huge_pages_must_fit() {
        let wanted = |n: &str| json!({"containers": [{"name": "a", "resources": {"limits": {"hugepages-2Mi": n}, "requests": {"hugepages-2Mi": n}}}]});
        check(wanted("2Mi"), Ok(()));
        check(
            wanted("6Mi"),
            Err((
                "OutOfhugepages-2Mi",
                "Node didn't have enough resource: hugepages-2Mi, requested: 6291456, used: 0, capacity: 4194304",
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
            Err((
                "TaintToleration",
                "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
            )),
        );
        // Ports come before taints.
        let mut both = port(json!(null));
        both["tolerations"] = json!([]);
        check(both, no);
    }

    #[test]
    fn ports_of_the_node_itself_are_taken() {
        let port = |number: u16, protocol: &str| json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": number, "protocol": protocol}]}]});
        let no = Err((
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
        check(port(6443, "TCP"), no);
        check(port(6443, "UDP"), Ok(()));
        check(port(6444, "TCP"), Ok(()));
    }

    #[test]
    fn pods_of_another_system_are_refused() {
        check(json!({"os": {"name": "linux"}}), Ok(()));
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        check(json!({"os": {"name": "windows"}}), Err(("PodOSNotSupported", message)));
        let mut labelled = pod(json!({"containers": [{"name": "a"}]}));
        labelled.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        assert_eq!(check_os(&labelled), Err(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", message)));
    }

    #[test]
    fn limits_that_the_kernel_cannot_set_are_refused() {
        let limit = |cpu: &str| json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": cpu}}}]});
        check(limit("100000000"), Ok(()));
        check(
            limit("200000000"),
            Err(("UnexpectedAdmissionError", "CPU limit 200000000 of container a is more than the kernel can set")),
        );
    }

    #[test]
    fn a_node_that_evicts_takes_only_what_it_would_keep() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let disk = Pressure { disk: true, ..Pressure::default() };
        let both = Pressure { memory: true, disk: true, ..Pressure::default() };
        let plain = json!({"containers": [{"name": "a"}]});
        let burstable = requests("cpu", "1m");
        let critical = json!({"priority": 2_000_000_000, "containers": [{"name": "a"}]});
        let tolerant = json!({"containers": [{"name": "a"}], "tolerations":
            [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]});
        for (spec, pressure, refused) in [
            (&plain, Pressure::default(), None),
            (&plain, memory, Some("The node had condition: [MemoryPressure]. ")),
            (&burstable, memory, None),
            (&tolerant, memory, None),
            (&burstable, disk, Some("The node had condition: [DiskPressure]. ")),
            (&tolerant, both, Some("The node had condition: [MemoryPressure DiskPressure]. ")),
            (&critical, both, None),
        ] {
            let got = check_pressure(&pod(spec.clone()), pressure);
            assert_eq!(got, refused.map_or(Ok(()), |m| Err(Refusal::new("Evicted", m))), "{spec}");
        }
    }
}
