//! What the daemon knows of sandboxes and containers, and the statuses that it gives out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::connection::{Connection, ShimProcess};
use crate::contract::protocol::ContainerNow;
use crate::contract::records::{ContainerRecord, Exit, SandboxRecord};
use crate::types::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

#[derive(Debug)]
pub(super) struct Sandbox {
    pub record: SandboxRecord,
    /// Present while the shim lives.
    pub shim: Option<Shim>,
    /// Why nobody can say what runs of it: then it is left alone.
    pub unknown: Option<String>,
    /// The connection that broke, while it is found out whether its shim lives: so long it is left alone, too.
    pub lost: Option<Arc<Connection>>,
    pub containers: BTreeMap<String, Container>,
}

#[derive(Clone, Debug)]
pub(super) struct Shim {
    pub process: Arc<ShimProcess>,
    pub connection: Arc<Connection>,
}

#[derive(Debug)]
pub(super) struct Container {
    pub record: Arc<ContainerRecord>,
    pub phase: watch::Sender<Phase>,
}

/// A container's life: `Created → Running → Exited`, from `Created` to `Exited` when it cannot be
/// started, and to `Lost` when the shim died first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running { pid: u32, started_at_ns: i64 },
    Exited(Exit),
    Lost,
}

impl Phase {
    pub(super) fn ended(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Lost)
    }

    pub(super) fn of(now: ContainerNow) -> Self {
        match now.exit {
            Some(exit) => Self::Exited(exit),
            None => Self::Running { pid: now.pid.unsigned_abs(), started_at_ns: now.started_at_ns },
        }
    }
}

impl Container {
    pub(super) fn new(record: ContainerRecord, phase: Phase) -> Self {
        Self { record: Arc::new(record), phase: watch::Sender::new(phase) }
    }

    /// Moves on, never back: an exit may be told before the start's answer is seen.
    pub(super) fn advance(&self, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let allowed = match (&*phase, &next) {
                (Phase::Exited(_) | Phase::Lost, _)
                | (Phase::Running { .. }, Phase::Created | Phase::Running { .. }) => false,
                (Phase::Created | Phase::Running { .. }, _) => true,
            };
            if allowed {
                *phase = next;
            }
            allowed
        })
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let ContainerRecord { id, sandbox_uid, config, created_at_ns, .. } = &*self.record;
        let phase = self.phase.borrow();
        let mut status = ContainerStatus {
            id: id.clone(),
            sandbox_uid: sandbox_uid.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: ContainerState::Created,
            pid: None,
            image: config.image.clone(),
            image_id: config.image_id.clone(),
            created_at_ns: *created_at_ns,
            started_at_ns: None,
            finished_at_ns: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            error: None,
            log_path: config.log_path.clone(),
            labels: config.labels.clone(),
        };
        match &*phase {
            Phase::Created => {}
            Phase::Running { pid, started_at_ns } => {
                status.state = ContainerState::Running;
                status.pid = Some(*pid);
                status.started_at_ns = Some(*started_at_ns);
            }
            Phase::Exited(exit) => {
                status.state = ContainerState::Exited;
                status.started_at_ns = exit.started_at_ns;
                status.finished_at_ns = Some(exit.finished_at_ns);
                status.exit_code = Some(exit.code);
                status.signal = exit.signal;
                status.oom_killed = exit.oom_killed;
                status.error.clone_from(&exit.error);
            }
            Phase::Lost => status.state = ContainerState::Unknown,
        }
        status
    }
}

impl Sandbox {
    /// Without a shim and containers.
    pub(super) fn new(record: SandboxRecord) -> Self {
        Self { record, shim: None, unknown: None, lost: None, containers: BTreeMap::new() }
    }

    pub(super) fn attach(&mut self, shim: Shim) {
        self.shim = Some(shim);
        self.unknown = None;
        self.lost = None;
    }

    /// The connection to its shim broke; false when it is not the one that counts.
    pub(super) fn lose(&mut self, connection: &Arc<Connection>) -> bool {
        if !self.shim.as_ref().is_some_and(|shim| Arc::ptr_eq(&shim.connection, connection)) {
            return false;
        }
        self.shim = None;
        self.unknown = Some("the connection to its shim broke".to_owned());
        self.lost = Some(Arc::clone(connection));
        true
    }

    /// Whether it is still to be found out what the loss of this connection means.
    pub(super) fn misses(&self, connection: &Arc<Connection>) -> bool {
        self.lost.as_ref().is_some_and(|lost| Arc::ptr_eq(lost, connection))
    }

    /// Nothing is asked of a sandbox that is left alone, so none of its containers counts as running:
    /// otherwise their ends would be waited for that nobody tells.
    pub(super) fn leave_alone(&mut self, reason: String) {
        self.lost = None;
        self.unknown = Some(reason);
        for container in self.containers.values() {
            container.advance(Phase::Lost);
        }
    }

    /// What runs of it is known again: nothing.
    pub(super) fn clear_doubt(&mut self) {
        self.lost = None;
        self.unknown = None;
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let SandboxRecord { config, created_at_ns, .. } = &self.record;
        SandboxStatus {
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            state: match (&self.shim, &self.unknown) {
                (Some(_), _) => SandboxState::Ready,
                (None, Some(_)) => SandboxState::Unknown,
                (None, None) => SandboxState::NotReady,
            },
            created_at_ns: *created_at_ns,
            shim_pid: self.shim.as_ref().map_or(0, |shim| shim.process.pid),
            labels: config.labels.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Phase {
        Phase::Exited(Exit {
            started_at_ns: Some(1),
            finished_at_ns: 2,
            code,
            signal: None,
            oom_killed: false,
            error: None,
        })
    }

    #[test]
    fn phases_never_go_back() {
        let running = Phase::Running { pid: 7, started_at_ns: 1 };
        for (from, to, allowed) in [
            (Phase::Created, running.clone(), true),
            (Phase::Created, exit(128), true),
            (running.clone(), exit(0), true),
            (running.clone(), Phase::Lost, true),
            (running.clone(), running.clone(), false),
            (exit(0), running.clone(), false),
            (exit(0), Phase::Lost, false),
        ] {
            let record = ContainerRecord {
                id: String::new(),
                sandbox_uid: String::new(),
                config: Default::default(),
                created_at_ns: 0,
                layer_dir: Default::default(),
                layers: vec![],
                defaults: Default::default(),
                bare: false,
            };
            let container = Container::new(record, from.clone());
            assert_eq!(container.advance(to.clone()), allowed, "{from:?} to {to:?}");
            assert_eq!(*container.phase.borrow(), if allowed { to } else { from });
        }
    }
}
