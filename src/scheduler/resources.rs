//! Amounts of resources: what a pod asks for and what a node has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Container, PodCondition, PodSpec, PodStatus, ResourceRequirements};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use api::quantity::Quantity;

/// What a container that asks for nothing is taken to use when nodes are scored (upstream's
/// `DefaultMilliCPURequest` and `DefaultMemoryRequest`).
const SCORED_MILLI_CPU: i64 = 100;
const SCORED_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages.
    pub scalar: BTreeMap<Box<str>, i64>,
}

impl Resources {
    pub(crate) fn from_list(list: Option<&BTreeMap<String, Wire>>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // Quantities were validated when they were written.
            let Ok(quantity) = quantity.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => {}
                other => {
                    out.scalar.insert(other.into(), quantity.value());
                }
            }
        }
        out
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_insert(0) += amount;
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_insert(0) -= amount;
        }
    }

    fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let mine = self.scalar.entry(name.clone()).or_insert(0);
            *mine = (*amount).max(*mine);
        }
    }
}

/// What the pod asks for: the sum of its containers, or what initialising takes if that is more,
/// with sidecars counted from their start on, plus the runtime class's overhead; resources given for
/// the whole pod win.
pub(crate) fn requested(spec: &PodSpec) -> Resources {
    total(spec, |r| Resources::from_list(r.and_then(|r| r.requests.as_ref())))
}

/// The spec as the node sees it while containers are resized: each counts with the most of what it
/// asks for, was granted and has; what the node can never grant does not count.
pub(crate) fn with_held<'a>(spec: &'a PodSpec, status: Option<&PodStatus>) -> Cow<'a, PodSpec> {
    let mut spec = Cow::Borrowed(spec);
    let pending = |c: &&PodCondition| c.type_ == "PodResizePending" && c.status == "True";
    let pending = status.and_then(|s| s.conditions.iter().flatten().find(pending));
    let infeasible = pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"));
    let lists = status.map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    for status in lists.into_iter().flatten() {
        let has = status.resources.as_ref().and_then(|r| r.requests.as_ref());
        let held = most(status.allocated_resources.as_ref(), has);
        let named = |c: &Container| c.name == status.name && !held.is_empty();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let Some(c) = containers.into_iter().find(|c| named(c)) else { continue };
        let asked = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let counts = if infeasible { held.clone() } else { most(asked, Some(&held)) };
        if asked == Some(&counts) {
            continue;
        }
        let spec = spec.to_mut();
        let mut containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        if let Some(c) = containers.find(|c| named(c)) {
            c.resources.get_or_insert_default().requests = Some(counts);
        }
    }
    spec
}

/// By resource, the larger of two amounts.
fn most(a: Option<&BTreeMap<String, Wire>>, b: Option<&BTreeMap<String, Wire>>) -> BTreeMap<String, Wire> {
    let mut out = a.cloned().unwrap_or_default();
    for (name, amount) in b.into_iter().flatten() {
        if out.get(name).is_none_or(|known| Quantity::of(known) < Quantity::of(amount)) {
            out.insert(name.clone(), amount.clone());
        }
    }
    out
}

/// The same with a floor for each container, so that pods without requests spread out as well.
pub(crate) fn scored(spec: &PodSpec) -> Resources {
    total(spec, |r| {
        let requests = r.and_then(|r| r.requests.as_ref());
        let mut out = Resources::from_list(requests);
        let names = |name: &str| requests.is_some_and(|r| r.contains_key(name));
        if !names("cpu") {
            out.milli_cpu = SCORED_MILLI_CPU;
        }
        if !names("memory") {
            out.memory = SCORED_MEMORY;
        }
        out
    })
}

fn total(spec: &PodSpec, of: impl Fn(Option<&ResourceRequirements>) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container.resources.as_ref()));
    }
    // Sidecars started so far; each ordinary init container runs beside them.
    let mut sidecars = Resources::default();
    let mut initialising = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let needs = of(container.resources.as_ref());
        if is_sidecar(container) {
            sum.add(&needs);
            sidecars.add(&needs);
            initialising.max(&sidecars);
        } else {
            let mut at_once = sidecars.clone();
            at_once.add(&needs);
            initialising.max(&at_once);
        }
    }
    sum.max(&initialising);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole_amounts = Resources::from_list(Some(whole));
        if whole.contains_key("cpu") {
            sum.milli_cpu = whole_amounts.milli_cpu;
        }
        if whole.contains_key("memory") {
            sum.memory = whole_amounts.memory;
        }
    }
    sum.add(&Resources::from_list(spec.overhead.as_ref()));
    sum
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, memory: &str) -> Container {
        let requests =
            [("cpu", cpu), ("memory", memory)].into_iter().map(|(n, q)| (n.to_owned(), Wire(q.to_owned()))).collect();
        Container {
            resources: Some(ResourceRequirements { requests: Some(requests), ..Default::default() }),
            ..Default::default()
        }
    }

    fn sidecar(cpu: &str, memory: &str) -> Container {
        Container { restart_policy: Some("Always".to_owned()), ..container(cpu, memory) }
    }

    #[track_caller]
    fn check(init: Vec<Container>, main: Vec<Container>, milli_cpu: i64, memory: i64) {
        let spec = PodSpec { init_containers: Some(init), containers: main, ..Default::default() };
        let got = requested(&spec);
        assert_eq!((got.milli_cpu, got.memory), (milli_cpu, memory));
    }

    #[test]
    fn containers_add_up_and_initialisation_counts_if_it_takes_more() {
        check(vec![], vec![container("100m", "1Ki"), container("0.5", "1Ki")], 600, 2048);
        check(vec![container("2", "1Ki")], vec![container("1", "4Ki")], 2000, 4096);
    }

    #[test]
    fn sidecars_count_beside_containers_and_later_init_containers() {
        check(vec![sidecar("1", "1"), container("2", "1")], vec![container("1", "1")], 3000, 2);
        check(vec![container("2", "1"), sidecar("1", "1")], vec![container("1", "1")], 2000, 2);
    }

    #[test]
    fn a_container_without_requests_is_scored_with_a_floor() {
        let spec = PodSpec { containers: vec![Container::default()], ..Default::default() };
        assert_eq!(requested(&spec), Resources::default());
        assert_eq!(scored(&spec).milli_cpu, 100);
        assert_eq!(scored(&spec).memory, 200 << 20);
    }

    #[test]
    fn a_resize_counts_with_the_most_of_what_is_asked_and_held() {
        let named = |cpu: &str| Container { name: "a".to_owned(), ..container(cpu, "1") };
        let status = |held: &str, reason: Option<&str>| -> PodStatus {
            serde_json::from_value(serde_json::json!({
                "conditions": reason.map(|r| [serde_json::json!({"type": "PodResizePending", "status": "True", "reason": r})]),
                "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": held, "memory": "1"}}],
            }))
            .unwrap()
        };
        for (asked, held, reason, expected) in [
            ("1", "1", None, 1000),
            ("1", "2", None, 2000),
            ("2", "1", Some("Deferred"), 2000),
            ("200", "1", Some("Infeasible"), 1000),
        ] {
            let spec = PodSpec { containers: vec![named(asked)], ..Default::default() };
            let got = requested(&with_held(&spec, Some(&status(held, reason))));
            assert_eq!(got.milli_cpu, expected, "{asked} {held} {reason:?}");
        }
    }
}
