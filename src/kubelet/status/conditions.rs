//! The pod's conditions, with upstream's reasons and messages.

use api::k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Inputs, phase};
use crate::pod::{PodExt, Role, container_status};

const RESIZE_PENDING: &str = "PodResizePending";
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions that are there only while they hold.
pub(super) const PASSING: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];

/// What a condition says, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Says {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes() -> Self {
        Self { status: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason: Some(reason), message: (!message.is_empty()).then_some(message) }
    }
}

/// Conditions that others own are kept as they are; the kubelet's get a new transition time only
/// when their status changes.
pub(super) fn conditions(cx: &Inputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let containers_ready = containers_ready(cx, status);
    let ready = pod_ready(cx, &containers_ready);
    let has_sandbox = cx.observed.sandbox_ready() && (cx.pod.host_network() || !cx.observed.ips.is_empty());
    let to_start = Says { status: has_sandbox, reason: None, message: None };
    let mut own = vec![
        ("PodReadyToStartContainers", to_start),
        ("Initialized", initialized(cx, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Says::yes()),
    ];
    if let Some(verdict) = cx.verdict.filter(|v| v.disruption) {
        let says = Says { status: true, reason: Some("TerminationByKubelet"), message: Some(verdict.message.clone()) };
        own.insert(0, ("DisruptionTarget", says));
    }
    if let Some((reason, message)) = &cx.resize.pending {
        own.push((RESIZE_PENDING, Says { status: true, reason: Some(reason), message: Some(message.clone()) }));
    }
    if let Some(error) = &cx.resize.in_progress {
        let failed = !error.is_empty();
        let says = Says { status: true, reason: failed.then_some("Error"), message: failed.then(|| error.clone()) };
        own.push((RESIZE_IN_PROGRESS, says));
    }
    let old = cx.old.conditions.as_deref().unwrap_or_default();
    let foreign = cx.pod.status().conditions.iter().flatten();
    let mut out: Vec<PodCondition> = Vec::new();
    for (name, says) in &own {
        out.push(finish(cx, old.iter().find(|c| c.type_ == *name), name, says));
    }
    for condition in foreign.chain(old) {
        let over = PASSING.contains(&condition.type_.as_str());
        if !over && !out.iter().any(|c| c.type_ == condition.type_) {
            out.push(condition.clone());
        }
    }
    out
}

fn finish(cx: &Inputs<'_>, old: Option<&PodCondition>, name: &str, says: &Says) -> PodCondition {
    let status = if says.status { "True" } else { "False" };
    let since = old.filter(|o| o.status == status).and_then(|o| o.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: says.reason.map(str::to_owned),
        message: says.message.clone(),
        last_transition_time: since.or(Some(Time(cx.now))),
        observed_generation: cx.pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// Go prints a list of strings as `[a b]`.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn complaints(unknown: &[&str], other: &[&str], what: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !other.is_empty() {
        parts.push(format!("containers with {what} status: {}", list(other)));
    }
    parts.join(", ")
}

fn terminal(status: &PodStatus) -> Option<&'static str> {
    match status.phase.as_deref() {
        Some("Succeeded") => Some("PodCompleted"),
        Some("Failed") => Some("PodFailed"),
        _ => None,
    }
}

fn containers_ready(cx: &Inputs<'_>, status: &PodStatus) -> Says {
    if let Some(reason) = terminal(status) {
        return Says::no(reason, String::new());
    }
    let containers = cx.pod.containers();
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (_, c) in containers.iter().filter(|(r, _)| matches!(r, Role::Sidecar | Role::App)) {
        match container_status(status, &c.name) {
            None => unknown.push(&*c.name),
            Some(s) if !s.ready => unready.push(&*c.name),
            Some(_) => {}
        }
    }
    let message = complaints(&unknown, &unready, "unready");
    if message.is_empty() { Says::yes() } else { Says::no("ContainersNotReady", message) }
}

fn pod_ready(cx: &Inputs<'_>, containers: &Says) -> Says {
    if !containers.status {
        return containers.clone();
    }
    let current = cx.pod.status().conditions.as_deref().unwrap_or_default();
    let missing: Vec<String> = cx
        .pod
        .spec()
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| match current.iter().find(|c| c.type_ == gate.condition_type) {
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => Some(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, c.status
            )),
            Some(_) => None,
        })
        .collect();
    if missing.is_empty() { Says::yes() } else { Says::no("ReadinessGatesNotReady", missing.join(", ")) }
}

fn initialized(cx: &Inputs<'_>, status: &PodStatus) -> Says {
    let containers = cx.pod.containers();
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for (role, c) in containers.iter().filter(|(r, _)| matches!(r, Role::Init | Role::Sidecar)) {
        let done = |s: &ContainerStatus| match role {
            Role::Sidecar => s.started == Some(true),
            Role::Init | Role::App | Role::Ephemeral => s.ready,
        };
        match container_status(status, &c.name) {
            None => unknown.push(&*c.name),
            Some(s) if !done(s) => incomplete.push(&*c.name),
            Some(_) => {}
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Says { status: true, reason: Some("PodCompleted"), message: None };
    }
    if phase::any_app_started(status) {
        return Says::yes();
    }
    let message = complaints(&unknown, &incomplete, "incomplete");
    if message.is_empty() { Says::yes() } else { Says::no("ContainersNotInitialized", message) }
}
