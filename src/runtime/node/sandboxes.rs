//! Making, ending and removing sandboxes.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::connection::{Connection, OpenError, ShimProcess};
use super::containers::Scope;
use super::state::{Phase, Sandbox, Shim};
use super::{Runtime, blocking};
use crate::contract::protocol::{Answer, Request};
use crate::contract::records::{Exit, SandboxPaths, SandboxRecord, cgroup_path};
use crate::durable::{self, Durability};
use crate::error::{Error, IoContext, Result};
use crate::sys::mount;
use crate::types::{Event, SandboxConfig, SandboxState, SandboxStatus};

/// A shim that was told to end and does not is left to the kernel.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

impl Runtime {
    /// Starts a pod's shim, and with it its namespaces. A sandbox that is ready is left as it is; one
    /// whose shim has gone gets a new one and keeps its containers' records.
    pub async fn run_sandbox(self: &Arc<Self>, config: SandboxConfig) -> Result<SandboxStatus> {
        let uid = config.uid.clone();
        if uid.is_empty() || uid.starts_with('.') || uid.contains('/') {
            return Err(Error::Invalid(format!("sandbox uid {uid:?} cannot name a directory")));
        }
        if let Ok(status) = self.sandbox_status(&uid) {
            match status.state {
                SandboxState::Ready => return Ok(status),
                SandboxState::NotReady => {}
                SandboxState::Unknown => {
                    let reason = self.with_sandbox(&uid, |sandbox| sandbox.unknown.clone())?.unwrap_or_default();
                    return Err(Error::SandboxUnknown { uid, reason });
                }
            }
            // An earlier clean-up may have failed half-way; nothing of it may run beside what comes.
            self.release_sandbox(&uid).await?;
        }
        let record = SandboxRecord { config, created_at_ns: now_ns(), log_limit: self.config.log_limit };
        {
            let mut sandboxes = self.sandboxes.lock();
            let fresh = || Sandbox::new(record.clone());
            sandboxes.entry(uid.clone()).or_insert_with(fresh).record = record.clone();
        }
        match self.start_shim(record).await {
            Ok((connection, process)) => Ok(self.attach_shim(&uid, connection, process)),
            Err(error) => {
                // A shim that does not even end is left alone.
                if self.known_sandbox(&uid).is_ok() {
                    self.release_sandbox(&uid).await?;
                }
                Err(error)
            }
        }
    }

    async fn start_shim(&self, record: SandboxRecord) -> Result<(Arc<Connection>, ShimProcess)> {
        let paths = self.sandbox_paths(&record.config.uid);
        let (cgroups, exe) = (self.cgroups.clone(), self.config.exe.clone());
        let (at, uid) = (paths.clone(), record.config.uid.clone());
        self.blocking(&record.config.uid.clone(), move || {
            prepare_directories(&at, &record)?;
            cgroups.create(&record.config.cgroup_parent, &record.config.resources)?;
            spawn_shim(&exe, &at, &record.config.uid)
        })
        .await?;
        match Connection::open(&paths.socket(), self.config.shim_timeout).await {
            Ok(opened) => Ok(opened),
            Err(error) => {
                // Nothing runs in it yet, and it would live on beside the next one.
                self.end_unknown(&uid).await?;
                Err(Error::Shim { uid, message: error.to_string() })
            }
        }
    }

    /// Records a live shim and starts the task that listens to it.
    pub(super) fn attach_shim(
        self: &Arc<Self>,
        uid: &str,
        connection: Arc<Connection>,
        process: ShimProcess,
    ) -> SandboxStatus {
        let status = {
            let mut sandboxes = self.sandboxes.lock();
            let sandbox = sandboxes.get_mut(uid).expect("invariant: the caller has entered the sandbox");
            sandbox.attach(Shim { process: Arc::new(process), connection: Arc::clone(&connection) });
            sandbox.status()
        };
        self.listen_to(uid, connection);
        status
    }

    fn listen_to(self: &Arc<Self>, uid: &str, connection: Arc<Connection>) {
        let mut readers = self.readers.lock();
        while readers.try_join_next().is_some() {}
        readers.spawn(listen(Arc::downgrade(self), uid.to_owned(), connection));
    }

    fn on_exit(&self, uid: &str, container: &str, exit: Exit) {
        let advanced = {
            let sandboxes = self.sandboxes.lock();
            let known = sandboxes.get(uid).and_then(|sandbox| sandbox.containers.get(container));
            known.is_some_and(|known| known.advance(Phase::Exited(exit)))
        };
        if advanced {
            self.publish(Event::ContainerExited { sandbox_uid: uid.to_owned(), container_id: container.to_owned() });
        }
    }

    async fn on_gone(self: &Arc<Self>, uid: &str, broken: &Arc<Connection>) {
        self.find_out(uid, broken).await;
        self.found_out.notify_waiters();
    }

    /// A connection broke without our doing. Where the shim is gone, nothing can be known of its containers
    /// any more, so they are ended; where that is not certain, the pod is left alone.
    async fn find_out(self: &Arc<Self>, uid: &str, broken: &Arc<Connection>) {
        let ours = self.sandboxes.lock().get_mut(uid).is_some_and(|sandbox| sandbox.lose(broken));
        if !ours {
            return;
        }
        match self.open_shim(&self.sandbox_paths(uid)).await {
            Ok((connection, process)) => {
                let shim = Shim { process: Arc::new(process), connection: Arc::clone(&connection) };
                if self.if_missing(uid, broken, |sandbox| sandbox.attach(shim)) {
                    self.listen_to(uid, Arc::clone(&connection));
                    self.catch_up(uid, &connection).await;
                }
                return;
            }
            Err(OpenError::Gone) => {
                if !self.if_missing(uid, broken, |_| ()) {
                    return;
                }
                tracing::warn!(sandbox = uid, "the pod's shim is gone");
                if let Err(error) = self.release_sandbox(uid).await {
                    tracing::warn!(sandbox = uid, %error, "cannot clean up after the pod's shim");
                }
                self.if_missing(uid, broken, Sandbox::clear_doubt);
            }
            Err(error @ OpenError::Unclear(_)) => {
                if !self.if_missing(uid, broken, |sandbox| sandbox.leave_alone(error.to_string())) {
                    return;
                }
                tracing::error!(sandbox = uid, "leaving a pod alone that may run: {error}");
            }
        }
        self.publish(Event::SandboxGone { sandbox_uid: uid.to_owned() });
    }

    /// False when the sandbox was ended or found again since its connection broke.
    fn if_missing(&self, uid: &str, broken: &Arc<Connection>, act: impl FnOnce(&mut Sandbox)) -> bool {
        let mut sandboxes = self.sandboxes.lock();
        sandboxes.get_mut(uid).filter(|sandbox| sandbox.misses(broken)).map(act).is_some()
    }

    /// Takes in the ends that were told while there was no connection.
    async fn catch_up(&self, uid: &str, connection: &Connection) {
        // A connection that is lost again is noticed by its own listener.
        let Ok((Answer::State { containers }, _)) = connection.call(Request::State, &[]).await else { return };
        for container in containers {
            if let Some(exit) = container.exit {
                self.on_exit(uid, &container.id, exit);
            }
        }
    }

    /// Ends what is left of a sandbox without a shim: processes, mounts, sockets. Its records stay.
    /// Idempotent; its containers have ended once their processes have, whatever fails afterwards.
    pub(super) async fn release_sandbox(&self, uid: &str) -> Result<()> {
        let paths = self.sandbox_paths(uid);
        let (parent, ids) = {
            let sandboxes = self.sandboxes.lock();
            let Some(sandbox) = sandboxes.get(uid) else { return Ok(()) };
            (sandbox.record.config.cgroup_parent.clone(), sandbox.containers.keys().cloned().collect::<Vec<_>>())
        };
        let cgroups = self.cgroups.clone();
        let at = paths.clone();
        let exits = self
            .blocking(uid, move || -> Result<Vec<(String, Option<Exit>)>> {
                // Nobody knows the cgroup of some that were left alone; these have been ended otherwise.
                if !parent.is_empty() {
                    cgroups.signal_all(&parent, Signal::SIGKILL)?;
                    cgroups.remove(&parent)?;
                }
                // An exit code that cannot be read is lost, and so the container is.
                let exit = |id: &str| {
                    durable::read_optional(&at.container(id).exit()).unwrap_or_else(|error| {
                        tracing::warn!(container = id, %error, "it is not known how a container ended");
                        None
                    })
                };
                Ok(ids.into_iter().map(|id| (id.clone(), exit(&id))).collect())
            })
            .await?;
        for (id, exit) in exits {
            self.settle(uid, &id, exit);
        }
        self.blocking(uid, move || {
            mount::detach_below(&paths.run).at("unmount", &paths.run)?;
            durable::remove_tree(&paths.run)
        })
        .await
    }

    /// Gives a container of a dead sandbox its last phase.
    fn settle(&self, uid: &str, id: &str, exit: Option<Exit>) {
        let advanced = {
            let sandboxes = self.sandboxes.lock();
            let container = sandboxes.get(uid).and_then(|sandbox| sandbox.containers.get(id));
            container.is_some_and(|container| container.advance(exit.map_or(Phase::Lost, Phase::Exited)))
        };
        if advanced {
            self.publish(Event::ContainerExited { sandbox_uid: uid.to_owned(), container_id: id.to_owned() });
        }
    }

    /// Kills the sandbox's containers and ends its shim. Idempotent; an unknown sandbox is stopped.
    pub async fn stop_sandbox(&self, uid: &str) -> Result<()> {
        let (shim, running) = {
            let sandboxes = self.sandboxes.lock();
            let Some(sandbox) = sandboxes.get(uid) else { return Ok(()) };
            let running = |phase: &Phase| matches!(phase, Phase::Running { .. });
            let containers = sandbox.containers.iter().filter(|(_, container)| running(&container.phase.borrow()));
            let containers = containers.map(|(id, _)| id.clone()).collect::<Vec<_>>();
            (sandbox.shim.clone(), containers)
        };
        let Some(shim) = shim else {
            if self.with_sandbox(uid, |sandbox| sandbox.unknown.is_some())? {
                self.end_unknown(uid).await?;
            }
            return self.release_sandbox(uid).await;
        };
        for id in running {
            if let Err(error) = self.stop_container(&id, Duration::ZERO, Scope::Pod).await {
                // The shim's end takes care of it, also when it is the shim that hangs.
                tracing::debug!(container = id, %error, "a container outlasts its stop");
            }
        }
        if let Some(sandbox) = self.sandboxes.lock().get_mut(uid) {
            // From here on its end is expected.
            sandbox.shim = None;
        }
        let farewell = shim.connection.call(Request::Shutdown, &[]);
        // A shim that hangs is killed below with whatever else it left.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, farewell).await;
        // An error means that it has ended by itself.
        let _ = shim.process.fd.kill();
        // Its network namespace goes with it: taking the pod's link away is cheap only then.
        shim.process.fd.ended(SHUTDOWN_TIMEOUT).await;
        self.release_sandbox(uid).await
    }

    /// Stops the sandbox and removes it with all its containers. Idempotent.
    pub async fn remove_sandbox(&self, uid: &str) -> Result<()> {
        self.stop_sandbox(uid).await?;
        let paths = self.sandbox_paths(uid);
        self.blocking(uid, move || durable::remove_tree(&paths.data)).await?;
        self.sandboxes.lock().remove(uid);
        Ok(())
    }

    pub fn list_sandboxes(&self) -> Vec<SandboxStatus> {
        self.sandboxes.lock().values().map(Sandbox::status).collect()
    }

    pub fn sandbox_status(&self, uid: &str) -> Result<SandboxStatus> {
        let sandboxes = self.sandboxes.lock();
        sandboxes.get(uid).map(Sandbox::status).ok_or_else(|| Error::SandboxNotFound(uid.to_owned()))
    }

    /// The network namespace of a pod that has one of its own, held open for the caller.
    pub fn network_namespace(&self, uid: &str) -> Result<File> {
        let shim = self.with_sandbox(uid, |sandbox| sandbox.shim.clone())?;
        let shim = shim.ok_or_else(|| Error::SandboxNotReady(uid.to_owned()))?;
        shim.process.network_namespace().map_err(|_| Error::SandboxNotReady(uid.to_owned()))
    }

    /// Changes the limits of a pod's own cgroup.
    pub async fn update_sandbox_resources(&self, uid: &str, resources: crate::Resources) -> Result<()> {
        let parent = self.with_sandbox(uid, |sandbox| sandbox.record.config.cgroup_parent.clone())?;
        self.ensure_cgroup(&parent, resources).await
    }

    /// Makes any cgroup, such as a QoS class's, or changes its limits.
    pub async fn ensure_cgroup(&self, path: &str, resources: crate::Resources) -> Result<()> {
        let (cgroups, path) = (self.cgroups.clone(), path.to_owned());
        self.blocking("", move || cgroups.create(&path, &resources)).await
    }

    pub(super) fn with_sandbox<T>(&self, uid: &str, look: impl FnOnce(&Sandbox) -> T) -> Result<T> {
        let sandboxes = self.sandboxes.lock();
        sandboxes.get(uid).map(look).ok_or_else(|| Error::SandboxNotFound(uid.to_owned()))
    }
}

/// Listens to one shim until it is gone. Holds the runtime only while something happens.
async fn listen(runtime: Weak<Runtime>, uid: String, connection: Arc<Connection>) {
    while let Some((container, exit)) = connection.next_exit().await {
        let Some(runtime) = runtime.upgrade() else { return };
        runtime.on_exit(&uid, &container, exit);
        let parent = runtime.with_sandbox(&uid, |sandbox| cgroup_path(&sandbox.record.config, &container));
        let (cgroups, disk) = (runtime.cgroups.clone(), Arc::clone(&runtime.disk));
        drop(runtime);
        if let Ok(path) = parent {
            let removed = blocking(&disk, &uid, move || cgroups.remove(&path)).await;
            if let Err(error) = removed {
                tracing::warn!(container, %error, "cannot remove the cgroup of a container that has ended");
            }
        }
    }
    if let Some(runtime) = runtime.upgrade() {
        runtime.on_gone(&uid, &connection).await;
    }
}

fn prepare_directories(paths: &SandboxPaths, record: &SandboxRecord) -> Result<()> {
    mount::detach_below(&paths.run).at("unmount", &paths.run)?;
    durable::remove_tree(&paths.run)?;
    for dir in [&paths.data, &paths.run, &paths.state_root(), &paths.shm()] {
        durable::private_dir(dir)?;
    }
    if !record.config.host_ipc {
        mount::shm(&paths.shm()).at("mount", &paths.shm())?;
    }
    durable::write(&paths.record(), record, Durability::Atomic)
}

#[expect(clippy::disallowed_methods, reason = "starts this very binary as a pod's shim")]
fn spawn_shim(exe: &Path, paths: &SandboxPaths, uid: &str) -> Result<()> {
    let output = Command::new(exe)
        .arg("shim")
        .args([&paths.data, &paths.run])
        // Neither the daemon's secrets nor systemd's descriptors are for containers.
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .at("run", exe)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Shim { uid: uid.to_owned(), message })
}

pub(super) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
