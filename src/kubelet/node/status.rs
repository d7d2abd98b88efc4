//! The Node object's status, and which patch brings it there. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use api::quantity;
use jiff::Timestamp;
use runtime::ImageStatus;
use serde_json::{Map, Value, json};

use super::machine::Machine;
use crate::config::Config;
use crate::resources::Allocatable;
use crate::runtime_class::HANDLERS;

/// Images listed at most, the largest first, as upstream.
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;
/// An unchanged status is posted this often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(300);

/// What runs short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

pub(super) struct Inputs<'a> {
    pub(super) cfg: &'a Config,
    pub(super) machine: &'a Machine,
    pub(super) allocatable: &'a Allocatable,
    pub(super) images: Vec<ImageStatus>,
    pub(super) pressure: Pressure,
    /// Transition times are kept from it.
    pub(super) old: &'a NodeStatus,
    pub(super) now: Timestamp,
}

pub(super) fn compute(cx: Inputs<'_>) -> NodeStatus {
    let Inputs { cfg, machine, allocatable, .. } = cx;
    let port = cfg.server.as_ref().map(|s| i32::from(s.listen.port()));
    NodeStatus {
        addresses: Some(addresses(cfg)),
        capacity: Some(amounts(&Allocatable {
            cpu_milli: machine.cpus * 1000,
            memory: machine.memory_bytes,
            ephemeral_storage: machine.disk_bytes,
            hugepages: machine.hugepages.clone(),
            pods: cfg.max_pods,
        })),
        allocatable: Some(amounts(allocatable)),
        conditions: Some(conditions(cx.pressure, cx.old, cx.now)),
        daemon_endpoints: port.map(|port| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        images: Some(images(cx.images)),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: cfg.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: cfg.kubelet_version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: Some(NodeSwapStatus { capacity: Some(machine.swap_bytes) }),
            system_uuid: machine.system_uuid.clone(),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        runtime_handlers: Some([""].into_iter().chain(HANDLERS).map(handler).collect()),
        ..NodeStatus::default()
    }
}

/// The default handler has no name.
fn handler(name: &str) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(name.to_owned()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(true),
            user_namespaces: Some(false),
        }),
    }
}

fn addresses(cfg: &Config) -> Vec<NodeAddress> {
    let mut list: Vec<_> =
        cfg.node_ips.iter().map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() }).collect();
    list.push(NodeAddress { type_: "Hostname".to_owned(), address: cfg.node_name.clone() });
    list
}

fn amounts(a: &Allocatable) -> BTreeMap<String, Quantity> {
    let mut out = BTreeMap::from([
        ("cpu".to_owned(), quantity::Quantity::from_milli(a.cpu_milli).to_wire()),
        ("memory".to_owned(), quantity::Quantity::from_bytes(a.memory).to_wire()),
        ("ephemeral-storage".to_owned(), quantity::Quantity::from_bytes(a.ephemeral_storage).to_wire()),
        ("pods".to_owned(), quantity::Quantity::from_int(i64::from(a.pods)).to_wire()),
    ]);
    for (name, &bytes) in &a.hugepages {
        out.insert(name.clone(), quantity::Quantity::from_bytes(bytes).to_wire());
    }
    out
}

fn images(mut list: Vec<ImageStatus>) -> Vec<ContainerImage> {
    list.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    list.into_iter()
        .take(MAX_IMAGES)
        .map(|image| {
            let mut names: Vec<String> = image.digests.into_iter().chain(image.tags).collect();
            names.truncate(MAX_NAMES);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size_bytes).ok() }
        })
        .collect()
}

fn conditions(pressure: Pressure, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let say = |bad: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if bad { yes } else { no };
        (if bad { "True" } else { "False" }, reason, message)
    };
    let memory = say(
        pressure.memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let disk = say(
        pressure.disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let pids = say(
        pressure.pids,
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    );
    let ready = ("True", "KubeletReady", "kubelet is posting ready status");
    [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pids), ("Ready", ready)]
        .into_iter()
        .map(|(type_, (status, reason, message))| {
            let before = old.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == status);
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            }
        })
        .collect()
}

/// The strategic merge patch from one status to another; `None` when only heartbeats differ and the
/// last one is young.
pub(super) fn patch(from: &NodeStatus, to: &NodeStatus, heartbeat_due: bool) -> Option<Value> {
    let (old, new) = (object(from), object(to));
    let mut fields: Map<String, Value> = new
        .iter()
        .filter(|(k, v)| *k != "conditions" && old.get(*k) != Some(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    // Others may have added conditions of their own; the patch leaves those alone.
    let own: Vec<&str> = to.conditions.iter().flatten().map(|c| c.type_.as_str()).collect();
    let conditions = |s: &NodeStatus| {
        let list = s.conditions.iter().flatten().filter(|c| own.contains(&c.type_.as_str()));
        list.map(|c| NodeCondition { last_heartbeat_time: None, ..c.clone() }).collect::<Vec<_>>()
    };
    if heartbeat_due || !fields.is_empty() || conditions(from) != conditions(to) {
        fields.insert("conditions".to_owned(), new["conditions"].clone());
    }
    // The addresses are a list that merges by type, of which there may be two of one.
    if let Some(Value::Array(list)) = fields.get_mut("addresses") {
        list.insert(0, json!({ "$patch": "replace" }));
    }
    (!fields.is_empty()).then(|| json!({ "status": fields }))
}

fn object(status: &NodeStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Reasons of the events that tell which conditions changed.
pub(super) fn condition_events(from: &NodeStatus, to: &NodeStatus) -> Vec<&'static str> {
    let mut out = Vec::new();
    for condition in to.conditions.iter().flatten() {
        let before = from.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        if before.is_some_and(|b| b.status == condition.status) {
            continue;
        }
        out.push(match (condition.type_.as_str(), condition.status.as_str()) {
            ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
            ("MemoryPressure", _) => "NodeHasSufficientMemory",
            ("DiskPressure", "True") => "NodeHasDiskPressure",
            ("DiskPressure", _) => "NodeHasNoDiskPressure",
            ("PIDPressure", "True") => "NodeHasInsufficientPID",
            ("PIDPressure", _) => "NodeHasSufficientPID",
            ("Ready", "True") => "NodeReady",
            _ => continue,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(pressure: Pressure, old: &NodeStatus, now: i64) -> NodeStatus {
        NodeStatus { conditions: Some(conditions(pressure, old, at(now))), ..NodeStatus::default() }
    }

    #[test]
    fn heartbeats_alone_are_sent_when_they_are_due() {
        let first = status(Pressure::default(), &NodeStatus::default(), 0);
        let second = status(Pressure::default(), &first, 10);
        assert_eq!(patch(&first, &second, false), None);
        assert!(patch(&first, &second, true).is_some());
        let mut others = first.clone();
        let condition = NodeCondition { type_: "PartFailed".into(), status: "True".into(), ..NodeCondition::default() };
        others.conditions.get_or_insert_default().push(condition);
        assert_eq!(patch(&others, &second, false), None, "somebody else's condition is no difference");
        let pressed = status(Pressure { memory: true, ..Pressure::default() }, &second, 20);
        assert!(patch(&second, &pressed, false).is_some());
    }

    #[test]
    fn conditions_keep_their_transition_times_and_cause_events() {
        let first = status(Pressure::default(), &NodeStatus::default(), 0);
        assert_eq!(
            condition_events(&NodeStatus::default(), &first),
            ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
        );
        let pressed = status(Pressure { disk: true, ..Pressure::default() }, &first, 60);
        assert_eq!(condition_events(&first, &pressed), ["NodeHasDiskPressure"]);
        let times: Vec<_> =
            pressed.conditions.unwrap().into_iter().map(|c| c.last_transition_time.unwrap().0.as_second()).collect();
        assert_eq!(times, [0, 60, 0, 0]);
    }

    #[test]
    fn amounts_are_written_as_upstream_writes_them() {
        let a = Allocatable { cpu_milli: 1500, memory: 1 << 30, pods: 110, ..Allocatable::default() };
        let got = amounts(&a);
        assert_eq!((got["cpu"].0.as_str(), got["memory"].0.as_str(), got["pods"].0.as_str()), ("1500m", "1Gi", "110"));
    }
}
