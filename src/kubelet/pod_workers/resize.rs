//! Changes of CPU and memory while a pod runs: first the node grants them, then the containers get
//! them, in place or by a restart as the pod asks.

use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use client::EventType;
use jiff::Timestamp;
use runtime::{ContainerStatus, Resources};
use serde_json::json;

use super::worker::{Done, Op, Worker};
use crate::allocation::{self, Allocation, Pending};
use crate::events;
use crate::kubelet::Kubelet;
use crate::observed::{Observed, has_ended};
use crate::pod::{PodExt, Role};
use crate::resources;
use crate::status::Resize;

/// A resize that has to wait, or that the runtime refused, is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);

/// How far the pod's containers are.
#[derive(Default)]
pub(super) struct Progress {
    /// The node has not granted what the pod asks for.
    pending: Option<Pending>,
    /// Some container does not have what it was granted.
    under_way: bool,
    error: Option<String>,
    retry: Option<Timestamp>,
}

impl Progress {
    pub(super) fn retry_mut(&mut self) -> &mut Option<Timestamp> {
        &mut self.retry
    }

    /// What the pod's status says of it.
    pub(super) fn report(&self) -> Resize {
        Resize {
            pending: self.pending.as_ref().map(|p| (p.reason(), p.message().to_owned())),
            in_progress: self.under_way.then(|| self.error.clone().unwrap_or_default()),
        }
    }
}

/// What a step of a resize reached, even if it failed then.
#[derive(Default)]
pub(super) struct Applied {
    containers: Vec<(String, ResourceRequirements)>,
    pod: Option<Resources>,
}

#[derive(Default)]
struct Difference {
    changes: Vec<Change>,
    /// By id.
    restarts: Vec<String>,
}

/// One container's step.
struct Change {
    id: String,
    container: Container,
    from: ResourceRequirements,
}

impl Worker {
    /// Takes what the API server says of the pod, with what the pod was granted so far.
    pub(super) fn accept(&mut self, pod: Arc<Pod>) {
        self.pod = self.allocation.of(&pod);
        self.asked = pod;
        self.resize.retry = None;
    }

    /// Asks the node for what the pod now wants. Returns when to ask again.
    pub(super) fn allocate(&mut self, now: Timestamp) -> Option<Timestamp> {
        let wanted = Allocation::wanted(&self.asked);
        if self.state.is_ending() || wanted.same_as(&self.allocation) {
            self.resize.pending = None;
            return None;
        }
        let allocatable = &self.kubelet.allocatable;
        let granted =
            self.kubelet.pods.grant(&self.asked, |others| allocation::judge(&self.asked, others, allocatable));
        match granted {
            Ok(()) => {
                self.allocation = wanted;
                self.pod = self.asked.clone();
                self.resize = Progress { under_way: true, ..Progress::default() };
                self.say(EventType::Normal, "ResizeStarted", "Pod resize started", None);
                None
            }
            Err(pending) => {
                if self.resize.pending.as_ref() != Some(&pending) {
                    let (reason, text) = match &pending {
                        Pending::Deferred(_) => ("ResizeDeferred", "Pod resize Deferred"),
                        Pending::Infeasible(_) => ("ResizeInfeasible", "Pod resize Infeasible"),
                    };
                    self.say(EventType::Warning, reason, text, Some(pending.message()));
                }
                let again = matches!(pending, Pending::Deferred(_)).then(|| later(now));
                self.resize.pending = Some(pending);
                again
            }
        }
    }

    /// Brings the pod's cgroup and its running containers to what was granted. Returns when to try again.
    pub(super) fn actuate(&mut self, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
        let Difference { changes, restarts } = self.difference(observed);
        let target = resources::pod_resources(&self.pod, self.kubelet.cfg.pod_pids_limit);
        let room = widest(&self.pod_limits, &target);
        let done = changes.is_empty() && restarts.is_empty() && self.pod_limits == target && !self.busy.resize;
        if done && std::mem::take(&mut self.resize.under_way) {
            self.resize.error = None;
            self.say(EventType::Normal, "ResizeCompleted", "Pod resize completed", None);
        }
        self.resize.under_way |= !done;
        if done || self.busy.resize {
            return None;
        }
        if let Some(retry) = self.resize.retry.filter(|&t| t > now) {
            return Some(retry);
        }
        // The pod's own limits grow before those of its containers and shrink after them.
        if self.pod_limits != room {
            self.resize_step(Some(room), Vec::new());
        } else if !changes.is_empty() || !restarts.is_empty() {
            self.outgrown.extend(restarts);
            if !changes.is_empty() {
                self.resize_step(None, changes);
            }
        } else {
            self.resize_step(Some(target), Vec::new());
        }
        None
    }

    /// What containers have to get: in place, or by a restart.
    fn difference(&mut self, observed: &Observed) -> Difference {
        let mut out = Difference::default();
        for c in observed.running() {
            let Some((Role::App | Role::Sidecar, container)) = self.pod.container(&c.name) else { continue };
            let to = container.resources.clone().unwrap_or_default();
            let known = || allocation::known(&self.asked, &c.name, &c.id).unwrap_or_else(|| to.clone());
            let from = self.applied.entry(c.id.clone()).or_insert_with(known).clone();
            if allocation::same(&from, &to) {
                continue;
            }
            if allocation::needs_restart(container.resize_policy.as_deref(), &from, &to) {
                out.restarts.push(c.id.clone());
            } else {
                out.changes.push(Change { id: c.id.clone(), container: container.into_owned(), from });
            }
        }
        self.applied.retain(|id, _| observed.running().any(|c| c.id == *id));
        self.outgrown.retain(|id| observed.containers.iter().any(|c| c.id == *id));
        // Stopped, and not started again yet.
        let latest = |c: &ContainerStatus| observed.latest(&c.name).is_some_and(|latest| latest.id == c.id);
        let between = observed.containers.iter().filter(|c| has_ended(c) && latest(c) && self.outgrown.contains(&c.id));
        out.restarts.extend(between.map(|c| c.id.clone()));
        out
    }

    fn resize_step(&mut self, limits: Option<Resources>, changes: Vec<Change>) {
        self.busy.resize = true;
        let (kubelet, uid) = (self.kubelet.clone(), self.pod.uid().to_owned());
        self.spawn(Op::Resize, async move {
            let mut applied = Applied::default();
            let error = apply(&kubelet, &uid, limits, changes, &mut applied).await.err();
            Done::Resized { applied, error }
        });
    }

    pub(super) fn note_resized(&mut self, applied: Applied, error: Option<String>) {
        self.busy.resize = false;
        self.applied.extend(applied.containers);
        if let Some(limits) = applied.pod {
            self.pod_limits = limits;
        }
        if let Some(error) = &error {
            self.resize.retry = Some(later(Timestamp::now()));
            if self.resize.error.as_ref() != Some(error) {
                self.say(EventType::Warning, "ResizeError", "Pod resize error", Some(error));
            }
        }
        self.resize.error = error;
    }

    fn say(&self, kind: EventType, reason: &'static str, text: &str, error: Option<&str>) {
        let containers = Allocation::wanted(&self.asked).listed();
        let mut about = json!({"containers": containers, "generation": self.asked.metadata.generation});
        if let Some(error) = error {
            about["error"] = json!(error);
        }
        self.kubelet.recorder.event(&events::pod(&self.pod), kind, reason, &format!("{text}: {about}"));
    }
}

fn later(now: Timestamp) -> Timestamp {
    now.checked_add(RETRY).unwrap_or(now)
}

async fn apply(
    kubelet: &Kubelet,
    uid: &str,
    limits: Option<Resources>,
    changes: Vec<Change>,
    applied: &mut Applied,
) -> Result<(), String> {
    let runtime = &kubelet.runtime;
    if let Some(limits) = limits {
        runtime.update_sandbox_resources(uid, limits.clone()).await.map_err(|e| e.to_string())?;
        applied.pod = Some(limits);
    }
    for change in &changes {
        check_usage(kubelet, change).await?;
    }
    for Change { id, container, .. } in changes {
        let wanted = resources::container_resources(&container);
        runtime.update_container_resources(&id, wanted).await.map_err(|e| e.to_string())?;
        applied.containers.push((id, container.resources.unwrap_or_default()));
    }
    Ok(())
}

/// Limits under which both fit.
fn widest(a: &Resources, b: &Resources) -> Resources {
    // A quota is of a period that never changes.
    let unlimited = a.cpu_quota_us.is_none() || b.cpu_quota_us.is_none();
    Resources {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota_us: a.cpu_quota_us.max(b.cpu_quota_us).filter(|_| !unlimited),
        cpu_period_us: b.cpu_period_us.filter(|_| !unlimited),
        memory_limit_bytes: a.memory_limit_bytes.zip(b.memory_limit_bytes).map(|(a, b)| a.max(b)),
        ..b.clone()
    }
}

/// A limit below what is in use would only have the kernel kill the container.
async fn check_usage(kubelet: &Kubelet, change: &Change) -> Result<(), String> {
    let Some(limit) = resources::container_resources(&change.container).memory_limit_bytes else { return Ok(()) };
    let before = change.from.limits.as_ref().and_then(|l| l.get("memory")).map_or(i64::MAX, resources::whole);
    if limit >= before {
        return Ok(());
    }
    let stats = kubelet.runtime.container_stats(&change.id).await.map_err(|e| e.to_string())?;
    let usage = stats.memory_usage_bytes;
    if u64::try_from(limit).is_ok_and(|limit| limit < usage) {
        let name = &change.container.name;
        return Err(format!(
            "cannot decrease memory limits: attempting to set container {name:?} memory limit ({limit}) below current \
             usage ({usage})"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_give_way_before_they_close_in() {
        let limits = |shares, quota: Option<i64>, memory| Resources {
            cpu_shares: Some(shares),
            cpu_quota_us: quota,
            cpu_period_us: quota.map(|_| 100_000),
            memory_limit_bytes: memory,
            ..Resources::default()
        };
        for (a, b, expected) in [
            (limits(2, Some(10), Some(7)), limits(4, Some(5), Some(9)), limits(4, Some(10), Some(9))),
            (limits(2, None, Some(7)), limits(2, Some(5), None), limits(2, None, None)),
        ] {
            assert_eq!(widest(&a, &b), expected);
            assert_eq!(widest(&b, &a), expected);
        }
    }
}
