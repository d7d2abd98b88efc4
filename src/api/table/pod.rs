//! Pods: one word for the state of all of a pod's containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use serde_json::{Value, json};

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{NONE, or, plain};
use crate::meta::duration;

pub(super) fn row_condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod.pointer("/status/phase")?.as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

impl Printed for Pod {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Ready", "How many of the pod's containers are ready."),
        Column::text("Status", "The state of the pod's containers, summed up."),
        Column::text("Restarts", "How often containers of the pod were restarted, and when last."),
        AGE,
        Column::text("IP", "The pod's first address.").wide(),
        Column::text("Node", "The node that the pod is bound to.").wide(),
        Column::text("Nominated Node", "The node where other pods were evicted to make room for this one.").wide(),
        Column::text("Readiness Gates", "How many of the pod's readiness gates are passed.").wide(),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let summary = Summary::of(spec, status);
        let reason = match phase_while_terminating(self, status) {
            Some(reason) => reason.to_owned(),
            None => summary.reason,
        };
        let ip = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.as_str());
        row![
            self.name(),
            format!("{}/{}", summary.ready, container_count(spec)),
            reason,
            summary.restarts.text(now),
            self.age(now),
            or(ip.or(status.pod_ip.as_deref()), NONE),
            or(spec.node_name.as_deref(), NONE),
            or(status.nominated_node_name.as_deref(), NONE),
            readiness_gates(spec, status),
        ]
    }
}

/// What a deleted pod shows instead of its containers' state.
fn phase_while_terminating(pod: &Pod, status: &PodStatus) -> Option<&'static str> {
    if !pod.is_terminating() {
        None
    } else if status.reason.as_deref() == Some("NodeLost") {
        Some("Unknown")
    } else if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        None
    } else {
        Some("Terminating")
    }
}

/// Sidecars run beside the containers, so they count with them.
fn container_count(spec: &PodSpec) -> usize {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.len() + sidecars.count()
}

fn is_sidecar(spec: &PodSpec, name: &str) -> bool {
    spec.init_containers.iter().flatten().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
}

fn has_condition(status: &PodStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).is_some_and(|c| c.status == "True")
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let passed = gates.iter().filter(|gate| has_condition(status, &gate.condition_type)).count();
    format!("{passed}/{}", gates.len())
}

/// How often containers were restarted, and the end of the run before the newest restart.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += i64::from(container.restart_count);
        let previous = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        self.last = self.last.max(previous.and_then(|run| run.finished_at.as_ref()).map(|time| time.0));
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, duration::age(Some(last), now))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    reason: String,
    ready: usize,
    restarts: Restarts,
}

impl Summary {
    fn of(spec: &PodSpec, status: &PodStatus) -> Self {
        let mut summary = Self { reason: reason_of_pod(status), ready: 0, restarts: Restarts::default() };
        let sidecar_restarts = summary.initialize(spec, status);
        // Restarts of finished init containers are of no interest once the pod runs.
        if let Some(restarts) = sidecar_restarts {
            summary.restarts = restarts;
            summary.run(status);
        }
        summary
    }

    /// Looks at the init containers up to the first that is not done. Returns the restarts of the
    /// sidecars if the pod got past its initialization.
    fn initialize(&mut self, spec: &PodSpec, status: &PodStatus) -> Option<Restarts> {
        let mut sidecars = Restarts::default();
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            self.restarts.add(container);
            let sidecar = is_sidecar(spec, &container.name);
            if sidecar {
                sidecars.add(container);
            }
            let terminated = container.state.as_ref().and_then(|state| state.terminated.as_ref());
            if terminated.is_some_and(|run| run.exit_code == 0) {
                continue;
            }
            if sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            self.reason = format!("Init:{}", init_reason(container, index, spec));
            return has_condition(status, "Initialized").then_some(sidecars);
        }
        Some(sidecars)
    }

    /// The first container that is not running gives the pod's state.
    fn run(&mut self, status: &PodStatus) {
        let mut running = false;
        let mut failure = None;
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts.add(container);
            let no_state = ContainerState::default();
            let state = container.state.as_ref().unwrap_or(&no_state);
            let waiting = state.waiting.as_ref().map_or("", |waiting| plain(waiting.reason.as_ref()));
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(run) = &state.terminated {
                self.reason = end_of_run(run);
                if run.exit_code != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if container.ready && state.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // One container that is done does not make the pod done.
        if self.reason == "Completed" {
            match failure {
                _ if running && has_condition(status, "Ready") => "Running".clone_into(&mut self.reason),
                Some(failure) => self.reason = failure,
                None if running => "NotReady".clone_into(&mut self.reason),
                None => {}
            }
        }
    }
}

/// What the pod says of itself, before its containers are looked at.
fn reason_of_pod(status: &PodStatus) -> String {
    const GATED: &str = "SchedulingGated";
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some(GATED)) {
        return GATED.to_owned();
    }
    or(status.reason.as_deref(), plain(status.phase.as_ref())).to_owned()
}

fn init_reason(container: &ContainerStatus, index: usize, spec: &PodSpec) -> String {
    let state = container.state.as_ref();
    if let Some(run) = state.and_then(|state| state.terminated.as_ref()) {
        return end_of_run(run);
    }
    let waiting = state.and_then(|state| state.waiting.as_ref()).map_or("", |waiting| plain(waiting.reason.as_ref()));
    match waiting {
        "" | "PodInitializing" => format!("{index}/{}", spec.init_containers.as_ref().map_or(0, Vec::len)),
        reason => reason.to_owned(),
    }
}

fn end_of_run(run: &ContainerStateTerminated) -> String {
    match (run.reason.as_deref(), run.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", run.exit_code),
    }
}
