//! What to do next for a pod that should run: upstream's `computePodActions`. Pure: from the pod,
//! what the runtime knows and the history of failures to a list of steps and a time to look again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, Pod};
use jiff::Timestamp;
use runtime::{ContainerState, ContainerStatus, SandboxState};

use crate::failures::{Failures, go_seconds};
use crate::observed::{Observed, container_hash, has_ended, is_running, label, succeeded};
use crate::pod::{PodExt, RestartPolicy, Role};
use crate::status::{Health, Waiting};

/// How long the status says how a container ended before it says that it waits for its back-off.
/// Upstream's says so until it looks at the pod again.
const END_SHOWN: Duration = Duration::from_secs(2);

/// A probe that asks for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    Liveness,
    Startup,
}

pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    /// By container id.
    pub(crate) health: &'a HashMap<String, Health>,
    /// Container ids whose probe failed for good.
    pub(crate) unhealthy: &'a HashMap<String, Unhealthy>,
    /// Crashes by [`backoff_key`].
    pub(crate) crashes: &'a HashMap<String, Failures>,
    /// The container that is being started, by name.
    pub(crate) starting: Option<&'a str>,
    /// Containers whose start failed, and when to try again.
    pub(crate) held: &'a HashMap<String, Timestamp>,
    /// Container ids that are restarted for other resources.
    pub(crate) outgrown: &'a HashSet<String>,
    /// Container ids that were stopped to be started anew.
    pub(crate) replaced: &'a HashSet<String>,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SandboxPlan {
    Keep,
    /// There is none any more, and no container comes back: the pod ends.
    Over,
    /// Nobody can say what runs of it: that is to be found out before anything else is done.
    Recover,
    /// `changed`: there was one before.
    Create {
        attempt: u32,
        changed: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The event's text.
    pub(crate) message: String,
    pub(crate) why: Option<Unhealthy>,
    /// It is started anew afterwards, whatever its restart policy.
    pub(crate) replace: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sandbox: SandboxPlan,
    pub(crate) kill: Vec<Kill>,
    /// Names, in order.
    pub(crate) start: Vec<String>,
    /// Containers that wait for their back-off.
    pub(crate) crash_looping: BTreeMap<String, Waiting>,
    /// Containers that ended and are to be started again, at once or later.
    pub(crate) returning: Vec<String>,
    pub(crate) look_again: Option<Timestamp>,
}

/// What comes before a pod's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groundwork {
    Done,
    /// The sandbox is looked for again. Volumes can wait for ever, for a Secret or for a server that is gone.
    Recover,
    /// Volumes, and the sandbox where one is to be made.
    SetUp,
}

impl Plan {
    pub(crate) fn groundwork(&self, mounted: bool) -> Groundwork {
        match self.sandbox {
            SandboxPlan::Recover => Groundwork::Recover,
            SandboxPlan::Over => Groundwork::Done,
            SandboxPlan::Keep if mounted => Groundwork::Done,
            SandboxPlan::Keep | SandboxPlan::Create { .. } => Groundwork::SetUp,
        }
    }
}

/// The next steps. The pod is not being stopped and its phase is not final.
pub(crate) fn plan(cx: &Inputs<'_>) -> Plan {
    let mut planner = Planner {
        cx,
        plan: Plan {
            sandbox: SandboxPlan::Keep,
            kill: Vec::new(),
            start: Vec::new(),
            crash_looping: BTreeMap::new(),
            returning: Vec::new(),
            look_again: None,
        },
    };
    match cx.observed.sandbox.as_ref().map(|sandbox| sandbox.state) {
        Some(SandboxState::Ready) => planner.containers(),
        Some(SandboxState::NotReady) | None => planner.new_sandbox(),
        Some(SandboxState::Unknown) => planner.plan.sandbox = SandboxPlan::Recover,
    }
    planner.plan
}

/// What a container's crashes are counted under: a changed definition starts anew.
pub(crate) fn backoff_key(c: &Container) -> String {
    format!("{} {}", c.name, container_hash(c))
}

struct Planner<'a> {
    cx: &'a Inputs<'a>,
    plan: Plan,
}

impl Planner<'_> {
    /// Whatever still runs outside of a sandbox is stopped; the containers follow once there is one.
    fn new_sandbox(&mut self) {
        let changed = self.cx.observed.sandbox.is_some();
        if changed && !self.cx.pod.containers().iter().any(|(role, c)| self.is_wanted(*role, c)) {
            self.plan.sandbox = SandboxPlan::Over;
            return;
        }
        let attempt = if changed { self.cx.observed.sandbox_attempt() + 1 } else { 0 };
        self.plan.sandbox = SandboxPlan::Create { attempt, changed };
        for c in self.cx.observed.running() {
            self.plan.kill.push(Kill {
                id: c.id.clone(),
                name: c.name.clone(),
                message: format!("Stopping container {}", c.name),
                why: None,
                replace: false,
            });
        }
        for (role, c) in self.cx.pod.containers() {
            let ended = self.cx.observed.latest(&c.name).is_some_and(has_ended);
            if ended && role != Role::Ephemeral {
                self.plan.returning.push(c.name.clone());
            }
        }
    }

    /// Whether a sandbox is made for this container's sake. All others serve the app containers.
    fn is_wanted(&self, role: Role, c: &Container) -> bool {
        let Some(status) = self.cx.observed.latest(&c.name).filter(|_| role == Role::App) else {
            return role == Role::App;
        };
        match status.state {
            ContainerState::Created | ContainerState::Running => true,
            ContainerState::Exited | ContainerState::Unknown => {
                self.comes_back(role, c, status) || self.cx.replaced.contains(&status.id)
            }
        }
    }

    fn containers(&mut self) {
        let pod = self.cx.pod;
        let containers = pod.containers();
        let initialized =
            containers.iter().any(|(role, c)| *role == Role::App && self.cx.observed.latest_here(&c.name).is_some());
        let mut open = true;
        for (role, c) in &containers {
            match role {
                Role::Init if initialized => {}
                Role::Init => open = open && self.init(c),
                Role::Sidecar if initialized => {
                    self.keep(*role, c);
                }
                Role::Sidecar => open = open && self.keep(*role, c) && self.is_started(&c.name),
                Role::App if open => {
                    self.keep(*role, c);
                }
                Role::App => {}
                Role::Ephemeral => {
                    if self.cx.observed.latest(&c.name).is_none() {
                        self.start(&c.name);
                    }
                }
            }
        }
    }

    /// Returns whether the next container may follow.
    fn init(&mut self, c: &Container) -> bool {
        match self.cx.observed.latest_here(&c.name) {
            Some(status) if succeeded(status) => true,
            Some(status) if is_running(status) => false,
            _ => {
                self.keep(Role::Init, c);
                false
            }
        }
    }

    fn is_started(&self, name: &str) -> bool {
        let id = self.cx.observed.latest_here(name).filter(|s| is_running(s)).map(|s| &s.id);
        id.and_then(|id| self.cx.health.get(id)).is_some_and(|h| h.started)
    }

    /// Sees to it that the container runs, as far as its restart policy goes.
    fn keep(&mut self, role: Role, c: &Container) -> bool {
        let Some(status) = self.cx.observed.latest(&c.name) else {
            self.start(&c.name);
            return true;
        };
        match status.state {
            ContainerState::Running => self.check_running(role, c, status),
            // The kubelet ended between making it and starting it.
            ContainerState::Created => self.start(&c.name),
            ContainerState::Exited | ContainerState::Unknown => self.restart(role, c, status),
        }
        true
    }

    fn check_running(&mut self, role: Role, c: &Container, status: &ContainerStatus) {
        let changed = status.labels.get(label::HASH).is_some_and(|h| *h != container_hash(c));
        let why = self.cx.unhealthy.get(&status.id).copied();
        let what = match why {
            _ if changed => "definition changed",
            Some(Unhealthy::Liveness) => "failed liveness probe",
            Some(Unhealthy::Startup) => "failed startup probe",
            None if self.cx.outgrown.contains(&status.id) => "resize requires restart",
            None => return,
        };
        let outgrown = !changed && why.is_none();
        let returns = changed || self.cx.pod.restart_policy() != RestartPolicy::Never;
        let message = match role {
            Role::Sidecar => format!("Init container {} {what}", c.name),
            Role::App if returns && !outgrown => format!("Container {} {what}, will be restarted", c.name),
            Role::App | Role::Init | Role::Ephemeral => format!("Container {} {what}", c.name),
        };
        self.plan.kill.push(Kill {
            id: status.id.clone(),
            name: c.name.clone(),
            message,
            why: why.filter(|_| !changed),
            replace: changed || outgrown,
        });
    }

    /// As far as its restart policy goes.
    fn comes_back(&self, role: Role, c: &Container, status: &ContainerStatus) -> bool {
        let code = if succeeded(status) { Some(0) } else { status.exit_code.filter(|&code| code != 0) };
        self.cx.pod.restarts(role, c, code)
    }

    fn restart(&mut self, role: Role, c: &Container, status: &ContainerStatus) {
        let comes_back = self.comes_back(role, c, status);
        // In a new sandbox an init container runs again even though it had succeeded.
        let again = role == Role::Init && self.cx.observed.latest_here(&c.name).is_none();
        let anew = self.cx.replaced.contains(&status.id);
        if !comes_back && !again && !anew {
            return;
        }
        self.plan.returning.push(c.name.clone());
        if anew {
            self.start(&c.name);
            return;
        }
        let finished = status.finished_at_ns.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
        let hold = match (self.cx.crashes.get(&backoff_key(c)), finished) {
            // Its last end is counted already, for the time after this start.
            _ if self.cx.starting == Some(&*c.name) => None,
            (Some(crashes), Some(finished)) => crashes.hold(finished, self.cx.now),
            _ => None,
        };
        let Some((delay, until)) = hold else {
            self.start(&c.name);
            return;
        };
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_seconds(delay),
            c.name,
            self.cx.pod.full_name()
        );
        match finished.and_then(|finished| finished.checked_add(END_SHOWN).ok()) {
            Some(shown) if self.cx.now < shown => self.look_at(shown),
            _ => {
                self.plan.crash_looping.insert(c.name.clone(), Waiting::new("CrashLoopBackOff", message));
            }
        }
        self.look_at(until);
    }

    /// Starts it, unless its last try failed a moment ago.
    fn start(&mut self, name: &str) {
        match self.cx.held.get(name) {
            Some(&until) if until > self.cx.now => self.look_at(until),
            _ => self.plan.start.push(name.to_owned()),
        }
    }

    fn look_at(&mut self, at: Timestamp) {
        self.plan.look_again = Some(self.plan.look_again.map_or(at, |old| old.min(at)));
    }
}

#[cfg(test)]
mod tests;
