//! Requests and limits as cgroup settings: CPU shares and quota, memory and pids limits, the QoS
//! class, the pod's cgroup and the OOM score, with upstream's formulas.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Container, Pod};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::Resources;

use crate::pod::{PodExt, Role};

type Amounts = BTreeMap<String, Quantity>;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const QUOTA_PERIOD_US: i64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;
/// The kernel shifts a quota by 20 bits and takes no more than 44.
const MAX_QUOTA_US: i64 = (1 << 44) - 1;
/// Scheduling priority from which a pod is critical for its node.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What pods may use of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocatable {
    pub(crate) cpu_milli: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    pub(crate) hugepages: BTreeMap<String, i64>,
    pub(crate) pods: u32,
}

impl Allocatable {
    /// In thousandths, as [`milli`] counts.
    pub(crate) fn milli(&self, resource: &str) -> Option<i128> {
        match resource {
            "cpu" => Some(i128::from(self.cpu_milli)),
            "memory" => Some(i128::from(self.memory) * 1000),
            "ephemeral-storage" => Some(i128::from(self.ephemeral_storage) * 1000),
            other => self.hugepages.get(other).map(|&v| i128::from(v) * 1000),
        }
    }
}

/// A quantity in thousandths, rounded up.
pub(crate) fn milli(q: &Quantity) -> i128 {
    i128::from(api::quantity::Quantity::of(q).milli_value())
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole(q: &Quantity) -> i64 {
    api::quantity::Quantity::of(q).value()
}

fn milli_of(list: Option<&Amounts>, name: &str) -> i64 {
    let m = list.and_then(|l| l.get(name)).map_or(0, milli);
    i64::try_from(m).unwrap_or(i64::MAX)
}

fn whole_of(list: Option<&Amounts>, name: &str) -> i64 {
    list.and_then(|l| l.get(name)).map_or(0, whole)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The class that the API server recorded, else the one that follows from the spec.
    pub(crate) fn of(pod: &Pod) -> Self {
        match pod.status().qos_class.as_deref() {
            Some("Guaranteed") => Self::Guaranteed,
            Some("Burstable") => Self::Burstable,
            Some("BestEffort") => Self::BestEffort,
            _ => Self::compute(pod),
        }
    }

    fn compute(pod: &Pod) -> Self {
        let positive = |list: Option<&Amounts>, name: &str| milli_of(list, name) > 0;
        let spec = pod.spec();
        if let Some(own) = &spec.resources {
            return Self::judge(&[(own.requests.as_ref(), own.limits.as_ref())], positive);
        }
        let lists: Vec<_> = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .map(|c| (requests(c), limits(c)))
            .collect();
        Self::judge(&lists, positive)
    }

    fn judge(
        lists: &[(Option<&Amounts>, Option<&Amounts>)],
        positive: impl Fn(Option<&Amounts>, &str) -> bool,
    ) -> Self {
        let any = lists.iter().any(|&(r, l)| ["cpu", "memory"].iter().any(|n| positive(r, n) || positive(l, n)));
        if !any {
            return Self::BestEffort;
        }
        let guaranteed = lists.iter().all(|&(r, l)| {
            ["cpu", "memory"].iter().all(|n| {
                let request = if positive(r, n) { milli_of(r, n) } else { milli_of(l, n) };
                positive(l, n) && request == milli_of(l, n)
            })
        });
        if guaranteed { Self::Guaranteed } else { Self::Burstable }
    }
}

fn requests(c: &Container) -> Option<&Amounts> {
    c.resources.as_ref().and_then(|r| r.requests.as_ref())
}

fn limits(c: &Container) -> Option<&Amounts> {
    c.resources.as_ref().and_then(|r| r.limits.as_ref())
}

/// The pod's cgroup below each hierarchy's root.
pub(crate) fn cgroup_parent(pod: &Pod) -> String {
    let uid = pod.uid();
    match QosClass::of(pod) {
        QosClass::Guaranteed => format!("kubepods/pod{uid}"),
        QosClass::Burstable => format!("kubepods/burstable/pod{uid}"),
        QosClass::BestEffort => format!("kubepods/besteffort/pod{uid}"),
    }
}

fn shares(milli_cpu: i64) -> u64 {
    let shares = u64::try_from(milli_cpu).unwrap_or(0).saturating_mul(1024) / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(QUOTA_PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

/// A CPU limit that the kernel has no number for.
pub(crate) fn exceeds_kernel(cpu: &Quantity) -> bool {
    milli(cpu).saturating_mul(i128::from(QUOTA_PERIOD_US)) / 1000 > i128::from(MAX_QUOTA_US)
}

/// Its priority says that the node needs it.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    pod.spec().priority.is_some_and(|p| p >= CRITICAL_PRIORITY)
}

/// CPU shares of the burstable pods together.
pub(crate) fn burstable_shares<'a>(pods: impl Iterator<Item = &'a Pod>) -> u64 {
    let burstable = pods.filter(|p| QosClass::of(p) == QosClass::Burstable);
    shares(burstable.map(|p| PodTotal::of(p).cpu_request).fold(0, i64::saturating_add))
}

fn hugepage_limits(limits: Option<&Amounts>) -> BTreeMap<String, u64> {
    limits
        .into_iter()
        .flatten()
        .filter_map(|(name, q)| {
            let size = name.strip_prefix("hugepages-")?;
            // The kernel names sizes 2MB and 1GB where Kubernetes says 2Mi and 1Gi.
            Some((size.replace('i', "B"), u64::try_from(whole(q)).unwrap_or(0)))
        })
        .collect()
}

/// Settings of one container's cgroup.
pub(crate) fn container_resources(c: &Container) -> Resources {
    let (requests, limits) = (requests(c), limits(c));
    let (cpu_request, cpu_limit) = (milli_of(requests, "cpu"), milli_of(limits, "cpu"));
    let memory = whole_of(limits, "memory");
    let for_shares = if cpu_request == 0 && cpu_limit > 0 { cpu_limit } else { cpu_request };
    Resources {
        cpu_shares: Some(shares(for_shares)),
        cpu_quota_us: (cpu_limit > 0).then(|| quota(cpu_limit)),
        cpu_period_us: (cpu_limit > 0).then_some(QUOTA_PERIOD_US.unsigned_abs()),
        memory_limit_bytes: (memory > 0).then_some(memory),
        pids_limit: None,
        hugepage_limits: hugepage_limits(limits),
    }
}

/// Settings of the pod's own cgroup.
pub(crate) fn pod_resources(pod: &Pod, pids_limit: Option<i64>) -> Resources {
    let total = PodTotal::of(pod);
    let qos = QosClass::of(pod);
    let mut out = Resources { pids_limit, hugepage_limits: total.hugepages.clone(), ..Resources::default() };
    if qos == QosClass::BestEffort {
        out.cpu_shares = Some(MIN_SHARES);
        return out;
    }
    out.cpu_shares = Some(shares(total.cpu_request));
    if let Some(cpu) = total.cpu_limit {
        out.cpu_quota_us = Some(quota(cpu));
        out.cpu_period_us = Some(QUOTA_PERIOD_US.unsigned_abs());
    }
    out.memory_limit_bytes = total.memory_limit;
    out
}

/// What a pod asks for as a whole, init containers, sidecars and overhead counted as the scheduler does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodTotal {
    pub(crate) cpu_request: i64,
    pub(crate) memory_request: i64,
    pub(crate) storage_request: i64,
    /// Absent unless every container has one.
    cpu_limit: Option<i64>,
    memory_limit: Option<i64>,
    hugepages: BTreeMap<String, u64>,
}

impl PodTotal {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec();
        let overhead = spec.overhead.as_ref();
        let own = spec.resources.as_ref();
        let request = |name: &str, read: fn(Option<&Amounts>, &str) -> i64| {
            let from_pod = read(own.and_then(|r| r.requests.as_ref()), name);
            let base = if from_pod > 0 { from_pod } else { aggregate(pod, |c| read(requests(c), name)) };
            base.saturating_add(read(overhead, name))
        };
        let limit = |name: &str, read: fn(Option<&Amounts>, &str) -> i64| {
            let from_pod = read(own.and_then(|r| r.limits.as_ref()), name);
            if from_pod > 0 {
                return Some(from_pod.saturating_add(read(overhead, name)));
            }
            let every =
                pod.containers().iter().filter(|(r, _)| *r != Role::Ephemeral).all(|(_, c)| read(limits(c), name) > 0);
            every.then(|| aggregate(pod, |c| read(limits(c), name)).saturating_add(read(overhead, name)))
        };
        let mut hugepages = BTreeMap::new();
        for c in &spec.containers {
            for (size, n) in hugepage_limits(limits(c)) {
                *hugepages.entry(size).or_default() += n;
            }
        }
        Self {
            cpu_request: request("cpu", milli_of),
            memory_request: request("memory", whole_of),
            storage_request: request("ephemeral-storage", whole_of),
            cpu_limit: limit("cpu", milli_of),
            memory_limit: limit("memory", whole_of),
            hugepages,
        }
    }
}

/// Huge pages that a pod asks for, by resource name.
pub(crate) fn hugepage_requests(pod: &Pod) -> BTreeMap<String, i64> {
    let own = pod.spec().resources.as_ref().and_then(|r| r.requests.as_ref());
    let containers = pod.containers();
    let named = containers.iter().filter_map(|(_, c)| requests(c)).chain(own).flat_map(|list| list.keys());
    let of = |name: &String| match whole_of(own, name) {
        0 => aggregate(pod, |c| whole_of(requests(c), name)),
        whole => whole,
    };
    named.filter(|name| name.starts_with("hugepages-")).map(|name| (name.clone(), of(name))).collect()
}

/// Containers and sidecars run together; an init container runs beside the sidecars before it.
fn aggregate(pod: &Pod, amount: impl Fn(&Container) -> i64) -> i64 {
    let (mut running, mut peak) = (0_i64, 0_i64);
    for (role, c) in pod.containers() {
        match role {
            Role::Init => peak = peak.max(running.saturating_add(amount(&c))),
            Role::Sidecar | Role::App => running = running.saturating_add(amount(&c)),
            Role::Ephemeral => {}
        }
    }
    peak.max(running)
}

/// How likely the kernel is to choose this container when memory runs out.
pub(crate) fn oom_score_adj(pod: &Pod, role: Role, c: &Container, memory_capacity: i64) -> i32 {
    if is_critical(pod) {
        return -997;
    }
    match QosClass::of(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let own = burstable_score(c, memory_capacity);
            if role != Role::Sidecar {
                return own;
            }
            // A sidecar must outlive the containers that it serves.
            let least = pod.spec().containers.iter().map(|c| burstable_score(c, memory_capacity)).min();
            least.map_or(own, |least| own.min(least))
        }
    }
}

fn burstable_score(c: &Container, memory_capacity: i64) -> i32 {
    let request = whole_of(requests(c), "memory");
    let score = 1000 - (i128::from(request) * 1000 / i128::from(memory_capacity.max(1)));
    i32::try_from(score.clamp(3, 999)).expect("invariant: clamped to 3..=999")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}})).unwrap()
    }

    fn one(resources: &serde_json::Value) -> Pod {
        pod(&json!([{"name": "c", "resources": resources}]))
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        for (resources, expected, cgroup) in [
            (json!({}), QosClass::BestEffort, "kubepods/besteffort/podu"),
            (json!({"requests": {"cpu": "1"}}), QosClass::Burstable, "kubepods/burstable/podu"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed, "kubepods/podu"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                QosClass::Burstable,
                "kubepods/burstable/podu",
            ),
            (json!({"requests": {"nvidia.com/gpu": "1"}}), QosClass::BestEffort, "kubepods/besteffort/podu"),
        ] {
            let pod = one(&resources);
            assert_eq!((QosClass::of(&pod), cgroup_parent(&pod).as_str()), (expected, cgroup), "{resources}");
        }
    }

    #[test]
    fn cpu_and_memory_become_cgroup_settings() {
        for (resources, shares, quota, memory) in [
            (json!({}), 2, None, None),
            (json!({"requests": {"cpu": "100m"}}), 102, None, None),
            (json!({"limits": {"cpu": "500m", "memory": "128Mi"}}), 512, Some(50_000), Some(134_217_728)),
            (json!({"limits": {"cpu": "1m"}}), 2, Some(1000), None),
            (json!({"requests": {"cpu": "1000"}}), 262_144, None, None),
        ] {
            let got = container_resources(&one(&resources).spec().containers[0]);
            assert_eq!(
                (got.cpu_shares, got.cpu_quota_us, got.memory_limit_bytes),
                (Some(shares), quota, memory),
                "{resources}"
            );
        }
    }

    #[test]
    fn pod_limits_need_every_container_to_have_one() {
        let both = pod(&json!([
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]));
        let one = pod(&json!([{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]));
        let (both, one) = (pod_resources(&both, Some(100)), pod_resources(&one, None));
        assert_eq!(
            (both.cpu_quota_us, both.memory_limit_bytes, both.pids_limit),
            (Some(150_000), Some(2 << 30), Some(100))
        );
        assert_eq!((one.cpu_quota_us, one.memory_limit_bytes), (None, None));
    }

    #[test]
    fn oom_scores_are_upstreams() {
        let capacity = 8 << 30;
        for (resources, expected) in [
            (json!({}), 1000),
            (json!({"requests": {"memory": "4Gi"}}), 500),
            (json!({"requests": {"cpu": "1"}}), 999),
            (json!({"requests": {"memory": "8Gi"}}), 3),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
        ] {
            let pod = one(&resources);
            assert_eq!(oom_score_adj(&pod, Role::App, &pod.spec().containers[0], capacity), expected, "{resources}");
        }
    }
}
