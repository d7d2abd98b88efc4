//! The status entry of every container.

use api::k8s_openapi::api::core::v1 as core;
use api::k8s_openapi::api::core::v1::{
    Container, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerUser,
    LinuxContainerUser, VolumeMountStatus,
};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;
use runtime::{ContainerState, ContainerStatus};

use super::{Inputs, Waiting, phase};
use crate::observed::{has_ended, label, succeeded};
use crate::pod::{PodExt, Role, container_status};

/// How a container's id is written in the API.
pub(crate) const ID_PREFIX: &str = "coracle://";

/// Upstream's limit of all termination messages of a pod.
const MESSAGES_MAX: usize = 12 * 1024;

#[derive(Default)]
pub(super) struct Listed {
    pub(super) init: Vec<core::ContainerStatus>,
    pub(super) apps: Vec<core::ContainerStatus>,
    pub(super) ephemeral: Vec<core::ContainerStatus>,
}

pub(super) fn statuses(cx: &Inputs<'_>) -> Listed {
    let mut out = Listed::default();
    for (role, c) in cx.pod.containers() {
        let status = match cx.observed.latest(&c.name) {
            Some(latest) => from_runtime(cx, role, &c, latest),
            None => without_runtime(cx, role, &c),
        };
        match role {
            Role::Init | Role::Sidecar => out.init.push(status),
            Role::App => out.apps.push(status),
            Role::Ephemeral => out.ephemeral.push(status),
        }
    }
    out.apps.sort_by(|a, b| a.name.cmp(&b.name));
    out.ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn from_runtime(cx: &Inputs<'_>, role: Role, c: &Container, latest: &ContainerStatus) -> core::ContainerStatus {
    let health = cx.health.get(&latest.id).copied().unwrap_or_default();
    let mut status = core::ContainerStatus {
        name: c.name.clone(),
        container_id: Some(format!("{ID_PREFIX}{}", latest.id)),
        image: latest.labels.get(label::IMAGE).cloned().unwrap_or_else(|| latest.image.clone()),
        image_id: latest.labels.get(label::IMAGE_REF).cloned().unwrap_or_else(|| latest.image_id.clone()),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        last_state: cx.observed.ended_before(&c.name, &latest.id).map(|ended| terminated(cx, ended)),
        volume_mounts: mount_statuses(c),
        user: cx
            .users
            .get(&latest.id)
            .or_else(|| remembered_user(cx, c, latest))
            .map(|user| ContainerUser { linux: Some(user.clone()) }),
        started: Some(false),
        ..core::ContainerStatus::default()
    };
    match latest.state {
        ContainerState::Running => {
            status.state = Some(running(latest));
            status.started = Some(health.started);
            status.ready = health.ready && role != Role::Init;
            status.allocated_resources = c.resources.as_ref().and_then(|r| r.requests.clone());
            let own = || c.resources.clone().unwrap_or_default();
            status.resources = Some(cx.applied.get(&latest.id).cloned().unwrap_or_else(own));
        }
        ContainerState::Created => {
            let why = cx.waiting.get(&c.name).cloned().unwrap_or_else(|| default_waiting(cx));
            status.state = Some(waiting(&why));
        }
        ContainerState::Exited | ContainerState::Unknown => {
            status.state = Some(terminated(cx, latest));
            status.ready = role == Role::Init && succeeded(latest);
        }
    }
    let between = || cx.replaced.contains(&latest.id).then(|| default_waiting(cx));
    if has_ended(latest)
        && !cx.stopping
        && let Some(why) = cx.waiting.get(&c.name).cloned().or_else(between)
    {
        // It will be started again: the end becomes history.
        status.last_state = status.state.take();
        status.state = Some(waiting(&why));
    }
    if status.last_state.is_none() {
        status.last_state = Some(remembered_end(cx, c, latest));
    }
    status
}

/// The user of a container that ended before this kubelet started.
fn remembered_user<'a>(cx: &Inputs<'a>, c: &Container, latest: &ContainerStatus) -> Option<&'a LinuxContainerUser> {
    let old = container_status(cx.old, &c.name)?;
    let same = old.container_id.as_deref()?.strip_prefix(ID_PREFIX) == Some(&*latest.id);
    old.user.as_ref().filter(|_| same)?.linux.as_ref()
}

/// The end of the container before, as the API server remembers it, once the runtime has forgotten.
fn remembered_end(cx: &Inputs<'_>, c: &Container, latest: &ContainerStatus) -> core::ContainerState {
    let own_id = format!("{ID_PREFIX}{}", latest.id);
    let Some(old) = container_status(cx.old, &c.name) else { return core::ContainerState::default() };
    let before = if old.container_id.as_deref() == Some(&own_id) { &old.last_state } else { &old.state };
    match before {
        Some(core::ContainerState { terminated: Some(t), .. }) if t.container_id.as_deref() != Some(&own_id) => {
            core::ContainerState { terminated: Some(t.clone()), ..core::ContainerState::default() }
        }
        _ => core::ContainerState::default(),
    }
}

/// The runtime holds nothing of it: not started yet, or lost.
fn without_runtime(cx: &Inputs<'_>, role: Role, c: &Container) -> core::ContainerStatus {
    let old = container_status(cx.old, &c.name);
    let mut status = core::ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        restart_count: old.map_or(0, |o| o.restart_count),
        last_state: Some(old.and_then(|o| o.last_state.clone()).unwrap_or_default()),
        volume_mounts: mount_statuses(c),
        started: Some(false),
        ..core::ContainerStatus::default()
    };
    let old_state = old.and_then(|o| o.state.as_ref());
    let was_running = old_state.is_some_and(|s| s.running.is_some());
    let ended = match old_state {
        Some(state) if state.terminated.is_some() => Some(state.clone()),
        Some(_) if was_running => Some(lost(cx, old)),
        _ => None,
    };
    let Some(ended) = ended else {
        let why = cx.waiting.get(&c.name).cloned().unwrap_or_else(|| default_waiting(cx));
        status.state = Some(waiting(&why));
        return status;
    };
    let code = ended.terminated.as_ref().map(|t| t.exit_code);
    let ok = code == Some(0);
    let stays = cx.stopping || !cx.pod.restarts(role, c, code);
    if let Some(old) = old {
        status.container_id.clone_from(&old.container_id);
        status.image.clone_from(&old.image);
        status.image_id.clone_from(&old.image_id);
        status.user.clone_from(&old.user);
    }
    if stays {
        status.ready = role == Role::Init && ok;
        status.state = Some(ended);
    } else {
        let why = cx.waiting.get(&c.name).cloned().unwrap_or_else(|| default_waiting(cx));
        status.state = Some(waiting(&why));
        status.last_state = Some(ended);
    }
    status
}

/// The containers of a pod share what their last words may take.
pub(super) fn limit_messages(status: &mut core::PodStatus) {
    let lists =
        [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    let count: usize = lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)).sum();
    let share = MESSAGES_MAX / count.max(1);
    for entry in lists.into_iter().flatten().flatten() {
        let ends = [&mut entry.state, &mut entry.last_state].into_iter().flatten();
        for message in ends.filter_map(|s| s.terminated.as_mut()?.message.as_mut()) {
            message.truncate(message.floor_char_boundary(share));
        }
    }
}

/// It ran when the API server last heard of it and left no trace.
fn lost(cx: &Inputs<'_>, old: Option<&core::ContainerStatus>) -> core::ContainerState {
    let when = if cx.stopping { "deleted" } else { "terminated" };
    core::ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: old.and_then(|o| o.container_id.clone()),
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(format!("The container could not be located when the pod was {when}")),
            started_at: old.and_then(|o| o.state.as_ref()?.running.as_ref()?.started_at.clone()),
            finished_at: Some(Time(cx.now)),
            ..ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    }
}

/// At the end of a pod every container has ended: whose end is not known counts as failed. Of a pod
/// that was not initialized yet, what never started stays as it is.
pub(super) fn end_all(status: &mut core::PodStatus) {
    let no_init = status.init_container_statuses.as_ref().is_none_or(Vec::is_empty);
    let last_init_done = status.init_container_statuses.iter().flatten().next_back().is_some_and(|s| {
        let done = |t: &ContainerStateTerminated| t.exit_code == 0;
        s.started == Some(true) || s.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(done)
    });
    if no_init || last_init_done || phase::any_app_started(status) {
        status.container_statuses.iter_mut().flatten().for_each(end);
    }
    if let Some(init) = &mut status.init_container_statuses {
        let tried = |s: &core::ContainerStatus| {
            let has_waited = s.state.as_ref().is_some_and(|s| s.waiting.is_some());
            !has_waited || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
        };
        let last_tried = init.iter().rposition(tried).unwrap_or(0);
        init.iter_mut().take(last_tried + 1).for_each(end);
    }
}

fn end(status: &mut core::ContainerStatus) {
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        return;
    }
    status.state = Some(core::ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    });
}

fn default_waiting(cx: &Inputs<'_>) -> Waiting {
    let has_init = cx.pod.spec().init_containers.as_ref().is_some_and(|i| !i.is_empty());
    Waiting::new(if has_init { "PodInitializing" } else { "ContainerCreating" }, "")
}

fn waiting(why: &Waiting) -> core::ContainerState {
    core::ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(why.reason.to_owned()),
            message: (!why.message.is_empty()).then(|| why.message.clone()),
        }),
        ..core::ContainerState::default()
    }
}

fn running(c: &ContainerStatus) -> core::ContainerState {
    core::ContainerState {
        running: Some(ContainerStateRunning { started_at: c.started_at_ns.and_then(time) }),
        ..core::ContainerState::default()
    }
}

fn terminated(cx: &Inputs<'_>, c: &ContainerStatus) -> core::ContainerState {
    let (reason, exit_code) = end_of(c);
    let told = told(cx, c);
    let message = cx.messages.get(&c.id).filter(|m| !m.is_empty()).cloned().or_else(|| c.error.clone());
    // Of a container that was lost, such as by a power cut, the runtime knows neither time.
    let lost = c.state == ContainerState::Unknown;
    let started = c.started_at_ns.and_then(time).or_else(|| told.started.filter(|_| lost));
    // What never ran has started at the epoch, as with upstream's runtimes.
    let started = started.or_else(|| time(if lost { c.created_at_ns } else { 0 }));
    let found = || lost.then(|| told.finished.unwrap_or(Time(cx.now)));
    core::ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{ID_PREFIX}{}", c.id)),
            exit_code,
            reason: Some(reason.to_owned()),
            message: message.or(told.message),
            signal: None,
            started_at: started,
            finished_at: c.finished_at_ns.and_then(time).or_else(found),
        }),
        ..core::ContainerState::default()
    }
}

/// What was said of this very container before.
#[derive(Default)]
struct Told {
    message: Option<String>,
    started: Option<Time>,
    finished: Option<Time>,
}

fn told(cx: &Inputs<'_>, c: &ContainerStatus) -> Told {
    let Some(old) = container_status(cx.old, &c.name) else { return Told::default() };
    let id = format!("{ID_PREFIX}{}", c.id);
    let ends = [&old.state, &old.last_state].into_iter().filter_map(|s| s.as_ref()?.terminated.as_ref());
    if let Some(end) = ends.clone().find(|t| t.container_id.as_deref() == Some(&id)) {
        let ContainerStateTerminated { message, started_at, finished_at, .. } = end.clone();
        return Told { message, started: started_at, finished: finished_at };
    }
    let same = old.container_id.as_deref() == Some(&id);
    let running = old.state.as_ref().and_then(|s| s.running.as_ref()).filter(|_| same);
    Told { started: running.and_then(|r| r.started_at.clone()), ..Told::default() }
}

/// Reason and exit code of a container that ended.
pub(crate) fn end_of(c: &ContainerStatus) -> (&'static str, i32) {
    if c.state == ContainerState::Unknown {
        return ("Unknown", 255);
    }
    if c.error.is_some() && c.started_at_ns.is_none() {
        return ("StartError", c.exit_code.unwrap_or(128));
    }
    match c.exit_code.unwrap_or(255) {
        code if c.oom_killed => ("OOMKilled", code),
        0 => ("Completed", 0),
        code => ("Error", code),
    }
}

fn time(ns: i64) -> Option<Time> {
    Timestamp::from_nanosecond(i128::from(ns)).ok().map(Time)
}

fn mount_statuses(c: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<_> = c
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| {
            let read_only = m.read_only == Some(true);
            VolumeMountStatus {
                name: m.name.clone(),
                mount_path: m.mount_path.clone(),
                read_only: read_only.then_some(true),
                recursive_read_only: read_only
                    .then(|| if asks_recursive(m) { "Enabled" } else { "Disabled" }.to_owned()),
                ..VolumeMountStatus::default()
            }
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

/// `Disabled` is the default.
pub(crate) fn asks_recursive(m: &core::VolumeMount) -> bool {
    matches!(m.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
}
