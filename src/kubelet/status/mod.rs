//! A pod's status, computed whole from the pod, what the runtime knows, probe results and the
//! kubelet's own reasons. Nothing here is incremental and nothing does I/O.

mod conditions;
mod containers;
mod diff;
mod phase;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, ResourceRequirements};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use containers::{ID_PREFIX, asks_recursive, end_of};
pub(crate) use writer::{StatusWriter, Urgency};

use crate::observed::Observed;
use crate::pod::{PodExt, is_terminal_phase};
use crate::resources::QosClass;

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Waiting {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What probes say of one running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

/// How far a change of the pod's resources is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resize {
    /// Reason and message while the node has not granted it.
    pub(crate) pending: Option<(&'static str, String)>,
    /// The error that keeps the containers from getting it; empty when there is none.
    pub(crate) in_progress: Option<String>,
}

/// The kubelet's own verdict over the whole pod, such as `Evicted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// `DisruptionTarget` is set with reason `TerminationByKubelet`.
    pub(crate) disruption: bool,
}

/// Everything that a status follows from.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    /// The status that was computed last, or the API server's after a start of the kubelet.
    pub(crate) old: &'a PodStatus,
    pub(crate) observed: &'a Observed,
    /// By container name.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// By container id.
    pub(crate) health: &'a HashMap<String, Health>,
    /// Termination messages by container id.
    pub(crate) messages: &'a HashMap<String, String>,
    /// By container id, of those that ran.
    pub(crate) users: &'a HashMap<String, LinuxContainerUser>,
    /// By container id, what running containers have.
    pub(crate) applied: &'a HashMap<String, ResourceRequirements>,
    pub(crate) resize: &'a Resize,
    /// Container ids that were stopped to be started anew.
    pub(crate) replaced: &'a HashSet<String>,
    pub(crate) verdict: Option<&'a Verdict>,
    /// The pod is being stopped or was: a container that ended is not started again.
    pub(crate) stopping: bool,
    /// Nothing of the pod runs any more, for good: no start is under way either.
    pub(crate) ended: bool,
    pub(crate) host_ips: &'a [IpAddr],
    pub(crate) now: Timestamp,
}

/// What a status says, and what it does not say yet.
#[derive(Debug)]
pub(crate) struct Computed {
    /// What the API server should show.
    pub(crate) status: PodStatus,
    /// The pod's phase will be final as soon as nothing of it runs any more.
    pub(crate) finished: bool,
}

/// The status that follows from everything that is known. A phase is final only once nothing runs or can
/// start: others take a finished pod's share of the node, its volumes and its place in a set. What is seen of
/// containers does not decide that, for one that is being started is not seen.
pub(crate) fn compute(cx: &Inputs<'_>) -> Computed {
    let pod = cx.pod;
    let listed = containers::statuses(cx);
    let generation = pod.metadata.generation;
    let pod_ips: Vec<IpAddr> = if pod.host_network() { cx.host_ips.to_vec() } else { known_pod_ips(cx) };
    let mut status = PodStatus {
        container_statuses: Some(listed.apps),
        init_container_statuses: some_if_any(listed.init),
        ephemeral_container_statuses: some_if_any(listed.ephemeral),
        host_ip: cx.host_ips.first().map(IpAddr::to_string),
        host_ips: some_if_any(cx.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: pod_ips.first().map(IpAddr::to_string),
        pod_ips: some_if_any(pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        start_time: cx.old.start_time.clone().or(Some(Time(cx.now))),
        qos_class: Some(QosClass::of(pod).as_str().to_owned()),
        observed_generation: generation,
        // Others write these.
        nominated_node_name: pod.status().nominated_node_name.clone(),
        resource_claim_statuses: pod.status().resource_claim_statuses.clone(),
        extended_resource_claim_status: pod.status().extended_resource_claim_status.clone(),
        reason: cx.old.reason.clone(),
        message: cx.old.message.clone(),
        ..PodStatus::default()
    };
    let computed = phase::phase(pod, &status, &replaced(cx), cx.stopping);
    if cx.ended {
        containers::end_all(&mut status);
    }
    let old_phase = cx.old.phase.as_deref();
    let due = match cx.verdict {
        _ if is_terminal_phase(old_phase) => old_phase.unwrap_or_default(),
        Some(_) => "Failed",
        None => computed,
    };
    let finished = is_terminal_phase(Some(due));
    if finished && !cx.ended && !is_terminal_phase(old_phase) {
        status.phase = Some(old_phase.unwrap_or("Pending").to_owned());
    } else {
        status.phase = Some(due.to_owned());
        if let Some(verdict) = cx.verdict.filter(|_| !is_terminal_phase(old_phase)) {
            status.reason = Some(verdict.reason.clone());
            status.message = Some(verdict.message.clone());
        }
    }
    containers::limit_messages(&mut status);
    status.conditions = Some(conditions::conditions(cx, &status));
    Computed { status, finished }
}

/// Names of containers that are between two lives.
fn replaced<'a>(cx: &'a Inputs<'_>) -> Vec<&'a str> {
    let containers = &cx.observed.containers;
    containers.iter().filter(|c| cx.replaced.contains(&c.id)).map(|c| c.name.as_str()).collect()
}

/// The status of a pod that this node refuses to run.
pub(crate) fn rejected(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        start_time: Some(Time(now)),
        qos_class: Some(QosClass::of(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        conditions: pod.status().conditions.clone(),
        ..PodStatus::default()
    }
}

/// A pod keeps its last addresses in its status after its sandbox has gone.
fn known_pod_ips(cx: &Inputs<'_>) -> Vec<IpAddr> {
    if !cx.observed.ips.is_empty() || !cx.stopping {
        return cx.observed.ips.clone();
    }
    cx.old.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect()
}

fn some_if_any<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
