//! A pod's phase from its containers' statuses, as upstream's `getPhase`.

use api::k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

use crate::pod::{PodExt, Role, container_status};

#[derive(Default)]
struct Count {
    waiting: u32,
    running: u32,
    stopped: u32,
    succeeded: u32,
    unknown: u32,
    /// Stopped containers whose restart policy brings them back.
    returning: u32,
}

/// `replaced`: containers that are started anew whatever their policy, by name. `stopping`: nothing
/// is restarted any more.
pub(super) fn phase(pod: &Pod, status: &PodStatus, replaced: &[&str], stopping: bool) -> &'static str {
    let mut initializing = false;
    let app_started = any_app_started(status);
    let mut count = Count::default();
    for (role, c) in pod.containers() {
        let entry = container_status(status, &c.name);
        match role {
            Role::Init => match init_state(entry) {
                InitState::Failed(code) if !pod.restarts(role, &c, Some(code)) => return "Failed",
                InitState::Failed(_) | InitState::Pending => initializing |= !app_started,
                InitState::Done => {}
            },
            Role::Sidecar => initializing |= !app_started && entry.is_none_or(|s| s.started != Some(true)),
            Role::App => {
                count_app(&mut count, entry, |code| replaced.contains(&&*c.name) || pod.restarts(role, &c, Some(code)))
            }
            Role::Ephemeral => {}
        }
    }
    if stopping && count.running == 0 {
        // Nothing comes back: whatever did not succeed has failed.
        let unfinished = count.waiting > 0 || count.unknown > 0 || initializing;
        let all = count.stopped == count.succeeded && !unfinished;
        return if all { "Succeeded" } else { "Failed" };
    }
    if initializing || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 && count.unknown == 0 {
        return "Running";
    }
    if count.stopped > 0 && count.unknown == 0 {
        return match (count.returning, count.stopped == count.succeeded) {
            (1.., _) => "Running",
            (0, true) => "Succeeded",
            (0, false) => "Failed",
        };
    }
    "Pending"
}

enum InitState {
    Pending,
    /// With this code.
    Failed(i32),
    Done,
}

fn init_state(entry: Option<&ContainerStatus>) -> InitState {
    let Some(state) = entry.and_then(|s| s.state.as_ref()) else { return InitState::Pending };
    let last = entry.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
    match (&state.terminated, &state.waiting, last) {
        (Some(t), _, _) if t.exit_code == 0 => InitState::Done,
        (Some(t), _, _) => InitState::Failed(t.exit_code),
        (None, Some(_), Some(last)) if last.exit_code != 0 => InitState::Failed(last.exit_code),
        _ => InitState::Pending,
    }
}

fn count_app(count: &mut Count, entry: Option<&ContainerStatus>, restarts: impl Fn(i32) -> bool) {
    let Some(ContainerState { running, terminated, waiting }) = entry.and_then(|s| s.state.as_ref()) else {
        count.unknown += 1;
        return;
    };
    let last = entry.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
    let ended = terminated.as_ref().or(if waiting.is_some() { last } else { None });
    if running.is_some() {
        count.running += 1;
    } else if let Some(ended) = ended {
        count.stopped += 1;
        count.succeeded += u32::from(terminated.is_some() && ended.exit_code == 0);
        count.returning += u32::from(restarts(ended.exit_code));
    } else if waiting.is_some() {
        count.waiting += 1;
    } else {
        count.unknown += 1;
    }
}

/// An app container runs or ran: initialization is over, even if a sidecar restarts.
pub(super) fn any_app_started(status: &PodStatus) -> bool {
    status.container_statuses.iter().flatten().any(|s| {
        let has = |state: &Option<ContainerState>| {
            state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        has(&s.state) || has(&s.last_state)
    })
}
