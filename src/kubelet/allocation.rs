//! What a pod was granted of its node. A pod asks for more or less of CPU and memory while it runs;
//! until the node grants it, the pod is run, counted and shown with what it had. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s_openapi::api::core::v1::{Container, ContainerResizePolicy, Pod, ResourceRequirements};
use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::admission;
use crate::pod::{PodExt, Role, init_role};
use crate::resources::{Allocatable, PodTotal};
use crate::status::ID_PREFIX;

/// Resources by container, of those containers that can be resized.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocation(BTreeMap<String, ResourceRequirements>);

/// Why a resize has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Until other pods leave room for it.
    Deferred(String),
    /// For ever: the node is too small.
    Infeasible(String),
}

impl Pending {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Deferred(_) => "Deferred",
            Self::Infeasible(_) => "Infeasible",
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Deferred(message) | Self::Infeasible(message) => message,
        }
    }
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| init_role(c) == Role::Sidecar);
    sidecars.chain(&spec.containers)
}

impl Allocation {
    /// What the pod asks for.
    pub(crate) fn wanted(pod: &Pod) -> Self {
        Self(resizable(pod).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect())
    }

    /// What a pod had when the API server last heard of it; what it asks for, if it never ran.
    pub(crate) fn remembered(pod: &Pod) -> Self {
        let mut out = Self::wanted(pod);
        for (name, resources) in &mut out.0 {
            let Some(status) = pod.known_status(name).filter(|s| s.allocated_resources.is_some()) else { continue };
            let limits = status.resources.as_ref().and_then(|r| r.limits.clone());
            resources.requests.clone_from(&status.allocated_resources);
            resources.limits = limits.or_else(|| resources.limits.take());
        }
        out
    }

    /// The pod as it is run: what it was granted in the place of what it asks for.
    pub(crate) fn of(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.same_as(&Self::wanted(pod)) {
            return pod.clone();
        }
        let mut granted = Pod::clone(pod);
        let spec = granted.spec.get_or_insert_default();
        let sidecars = spec.init_containers.iter_mut().flatten().filter(|c| init_role(c) == Role::Sidecar);
        for c in sidecars.chain(&mut spec.containers) {
            if let Some(own) = self.0.get(&c.name) {
                c.resources = Some(own.clone());
            }
        }
        Arc::new(granted)
    }

    /// As events list it.
    pub(crate) fn listed(&self) -> Vec<Value> {
        self.0.iter().map(|(name, resources)| json!({"name": name, "resources": resources})).collect()
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((a, own), (b, others))| a == b && same(own, others))
    }
}

/// Equal amounts, however they are written.
pub(crate) fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    changed(a, b).next().is_none()
}

fn changed<'a>(a: &'a ResourceRequirements, b: &'a ResourceRequirements) -> impl Iterator<Item = &'a str> {
    let lists = [(&a.requests, &b.requests), (&a.limits, &b.limits)];
    lists.into_iter().flat_map(|(a, b)| {
        let of = |list: &'a Option<BTreeMap<String, _>>, name: &str| {
            list.as_ref().and_then(|l| l.get(name)).map(Quantity::of)
        };
        let names = a.iter().flatten().chain(b.iter().flatten()).map(|(name, _)| name.as_str());
        names.filter(move |name| of(a, name) != of(b, name))
    })
}

/// Whether going from one to the other is to restart the container.
pub(crate) fn needs_restart(
    policy: Option<&[ContainerResizePolicy]>,
    from: &ResourceRequirements,
    to: &ResourceRequirements,
) -> bool {
    let policies = policy.unwrap_or_default();
    changed(from, to)
        .any(|name| policies.iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer"))
}

/// The resources that the API server was told of for this very container.
pub(crate) fn known(pod: &Pod, name: &str, id: &str) -> Option<ResourceRequirements> {
    let status = pod.known_status(name)?;
    let same = status.container_id.as_deref()?.strip_prefix(ID_PREFIX) == Some(id);
    status.resources.clone().filter(|_| same)
}

/// Whether the node can grant `pod` what it asks for, beside `others`.
pub(crate) fn judge(pod: &Pod, others: &[&Pod], allocatable: &Allocatable) -> Result<(), Pending> {
    let total = PodTotal::of(pod);
    for (name, requested, capacity) in
        [("memory", total.memory_request, allocatable.memory), ("cpu", total.cpu_request, allocatable.cpu_milli)]
    {
        if requested > capacity {
            return Err(Pending::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            )));
        }
    }
    admission::check_resources(pod, others, allocatable).map_err(|refusal| Pending::Deferred(refusal.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;

    fn resources(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
    }

    fn one(resources: &Value) -> Arc<Pod> {
        Arc::new(pod(json!({"containers": [{"name": "a", "resources": resources}]})))
    }

    fn requirements(value: &Value) -> ResourceRequirements {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn a_pod_runs_with_what_it_was_granted() {
        let granted = Allocation::wanted(&one(&resources("100m", "10Mi")));
        assert!(granted.same_as(&Allocation::wanted(&one(&resources("0.1", "10240Ki")))));
        let asks = one(&resources("2", "10Mi"));
        assert!(!granted.same_as(&Allocation::wanted(&asks)));
        let run = granted.of(&asks);
        assert_eq!(run.spec().containers[0].resources, Some(requirements(&resources("100m", "10Mi"))));
    }

    #[test]
    fn the_api_server_remembers_what_was_granted() {
        let mut asks = Pod::clone(&one(&resources("2", "10Mi")));
        asks.status = serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "containerID": "coracle://x", "resources": resources("1", "10Mi"),
            "allocatedResources": {"cpu": "1", "memory": "10Mi"}}]}))
        .unwrap();
        let before = Allocation::wanted(&one(&resources("1", "10Mi")));
        assert!(Allocation::remembered(&asks).same_as(&before));
        assert_eq!(known(&asks, "a", "x"), Some(requirements(&resources("1", "10Mi"))));
        assert_eq!(known(&asks, "a", "y"), None);
    }

    #[test]
    fn restarts_follow_the_policy_of_what_changed() {
        let policy: Vec<ContainerResizePolicy> = serde_json::from_value(json!([
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]))
        .unwrap();
        let from = requirements(&resources("1", "10Mi"));
        for (to, expected) in [(resources("2", "10Mi"), false), (resources("1", "20Mi"), true)] {
            assert_eq!(needs_restart(Some(&policy), &from, &requirements(&to)), expected, "{to}");
            assert!(!needs_restart(None, &from, &requirements(&to)));
        }
    }

    #[test]
    fn what_does_not_fit_waits_and_what_never_will_is_infeasible() {
        let allocatable =
            Allocatable { cpu_milli: 1000, memory: 1 << 30, pods: 10, ephemeral_storage: 1, ..Allocatable::default() };
        let other = one(&resources("600m", "1Mi"));
        for (cpu, expected) in [
            ("400m", Ok(())),
            (
                "500m",
                Err(Pending::Deferred(
                    "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000".to_owned(),
                )),
            ),
            (
                "2",
                Err(Pending::Infeasible(
                    "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1000".to_owned(),
                )),
            ),
        ] {
            assert_eq!(judge(&one(&resources(cpu, "1Mi")), &[&other], &allocatable), expected, "{cpu}");
        }
    }
}
