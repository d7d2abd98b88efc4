//! Making, starting, stopping and removing containers.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::Runtime;
use super::connection::{CallError, Connection};
use super::sandboxes::now_ns;
use super::state::{Container, Phase, Sandbox};
use crate::contract::protocol::{Answer, Failure, Request, START_RECORD_SINCE};
use crate::contract::records::{ContainerPaths, ContainerRecord, Exit, cgroup_path};
use crate::durable::{self, Durability};
use crate::error::{Error, IoContext, Result};
use crate::oci::spec::command_line;
use crate::oci::user::check_image_user;
use crate::types::{ContainerConfig, ContainerStatus, Event, Resources, TerminalSize};

/// A killed process that does not go away hangs in the kernel; waiting longer would not help.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;
/// As other runtimes report a process that never ran.
const NEVER_RAN: i32 = 128;

/// What is to end with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It alone: the others of its pod run on.
    Container,
    /// Its whole pod.
    Pod,
}

impl Runtime {
    /// Records a container and makes room for its own layer; returns its id.
    pub async fn create_container(&self, sandbox_uid: &str, config: ContainerConfig) -> Result<String> {
        let version = self.with_sandbox(sandbox_uid, |sandbox| sandbox.shim.as_ref().map(|s| s.connection.version))?;
        let version = version.ok_or_else(|| Error::SandboxNotReady(sandbox_uid.to_owned()))?;
        let image = self.images.get(&config.image_id).ok_or_else(|| Error::ImageNotFound(config.image_id.clone()))?;
        command_line(&config, &image.defaults)?;
        let id = new_id()?;
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_uid: sandbox_uid.to_owned(),
            config,
            created_at_ns: now_ns(),
            layer_dir: self.images.layer_dir().to_owned(),
            layers: image.layer_names(),
            defaults: image.defaults.clone(),
            bare: false,
        };
        let paths = self.sandbox_paths(sandbox_uid).container(&id);
        let (at, kept) = (paths.clone(), record.bare());
        self.blocking(sandbox_uid, move || {
            let (security, user) = (&record.config.security, &record.defaults.user);
            check_image_user(&record.layer_dir, &record.layers, security, user)?;
            write_record(&at, &record, version).inspect_err(|_| {
                // A full disk is asked again and again; what stays behind goes at the next start.
                let _ = durable::remove_tree(&at.data).and_then(|()| durable::remove_tree(&at.run));
            })
        })
        .await?;
        let entered = {
            let mut sandboxes = self.sandboxes.lock();
            let sandbox = sandboxes.get_mut(sandbox_uid);
            sandbox.map(|s| s.containers.insert(id.clone(), Container::new(kept, Phase::Created))).is_some()
        };
        if !entered {
            self.blocking(sandbox_uid, move || {
                durable::remove_tree(&paths.run)?;
                durable::remove_tree(&paths.data)
            })
            .await?;
            return Err(Error::SandboxNotFound(sandbox_uid.to_owned()));
        }
        Ok(id)
    }

    /// Starts the container's process. When it cannot be made, the container has ended with exit code
    /// 128 and says why.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let connection = self.connection(id)?;
        let started = self.start_with(id, &connection).await;
        let read = matches!(started, Ok(()) | Err(Error::Start(_)));
        if read && connection.version < START_RECORD_SINCE {
            self.strip_record(id).await;
        }
        started
    }

    async fn start_with(&self, id: &str, connection: &Connection) -> Result<()> {
        let request = Request::Start { container: id.to_owned() };
        let phase = match connection.call(request, &[]).await {
            Ok((Answer::Started { pid, at_ns }, _)) => Phase::Running { pid: pid.unsigned_abs(), started_at_ns: at_ns },
            // A daemon before us asked for it and did not live to see the answer.
            Err(CallError::Failed(Failure::AlreadyStarted)) if self.phase(id)? == Phase::Created => {
                self.phase_from_shim(id, connection).await?
            }
            Err(CallError::Failed(Failure::Start(text))) => {
                self.advance(id, Phase::Exited(never_ran(&text)));
                return Err(Error::Start(text));
            }
            other => return Err(self.unexpected(id, other)),
        };
        if self.advance(id, phase) {
            let sandbox_uid = self.uid_of(id)?;
            self.publish(Event::ContainerStarted { sandbox_uid, container_id: id.to_owned() });
        }
        Ok(())
    }

    /// Takes environment and command line off the disk, once a shim of the first version has read them there.
    async fn strip_record(&self, id: &str) {
        let Ok(record) = self.with_container(id, |container| container.record.bare()) else { return };
        let path = self.sandbox_paths(&record.sandbox_uid).container(id).record();
        let uid = record.sandbox_uid.clone();
        let written = self.blocking(&uid, move || durable::write(&path, &record, Durability::Atomic)).await;
        if let Err(error) = written {
            // The next start of the daemon tries again.
            tracing::warn!(container = id, %error, "cannot write a container's record without its environment");
        }
    }

    async fn phase_from_shim(&self, id: &str, connection: &Connection) -> Result<Phase> {
        match connection.call(Request::State, &[]).await {
            Ok((Answer::State { containers }, _)) => {
                let found = containers.into_iter().find(|container| container.id == id);
                found.map(Phase::of).ok_or_else(|| Error::AlreadyStarted(id.to_owned()))
            }
            other => Err(self.unexpected(id, other)),
        }
    }

    /// Asks the container's process to end, and kills it when it has not after `grace`, whatever became
    /// of the asking. A container that does not run is stopped already.
    pub async fn stop_container(&self, id: &str, grace: Duration, scope: Scope) -> Result<()> {
        let mut phase = self.with_container(id, |container| container.phase.subscribe())?;
        if !matches!(*phase.borrow(), Phase::Running { .. }) {
            return Ok(());
        }
        let uid = self.uid_of(id)?;
        self.known_sandbox(&uid)?;
        if self.with_sandbox(&uid, |sandbox| sandbox.shim.is_none())? {
            // Nobody is left to ask, so what a failed clean-up left behind goes at once.
            return self.release_sandbox(&uid).await;
        }
        if !grace.is_zero() {
            let signal = self.with_container(id, |container| stop_signal(&container.record))?;
            // A shim that is slow to pass it on takes from the grace period.
            let asked = async {
                if let Err(error) = self.signal(id, signal).await {
                    tracing::warn!(container = id, signal, %error, "cannot ask a container to end");
                }
                phase.wait_for(Phase::ended).await.is_ok()
            };
            if tokio::time::timeout(grace, asked).await.is_ok() {
                return Ok(());
            }
        }
        self.kill(id, phase, scope).await
    }

    /// A shim that does not answer may wait for a slow disk, or has not run since the machine was frozen: the
    /// container is then killed past it, and the others of the pod, which would end with it, run on. It is
    /// killed itself only where they are to end as well.
    async fn kill(&self, id: &str, mut phase: watch::Receiver<Phase>, scope: Scope) -> Result<()> {
        let late = || Error::StopTimeout(id.to_owned());
        let silence = self.config.shim_timeout;
        if let Ok(answered) = tokio::time::timeout(silence, self.signal(id, Signal::SIGKILL as i32)).await {
            answered?;
            let ended = tokio::time::timeout(KILL_TIMEOUT, phase.wait_for(Phase::ended)).await.is_ok();
            return ended.then_some(()).ok_or_else(late);
        }
        tracing::warn!(container = id, "the pod's shim does not answer: the container is killed past it");
        let (cgroups, path) = (self.cgroups.clone(), self.container_cgroup(id)?);
        self.blocking("", move || cgroups.signal_all(&path, Signal::SIGKILL)).await?;
        if tokio::time::timeout(silence, phase.wait_for(Phase::ended)).await.is_ok() {
            return Ok(());
        }
        match scope {
            Scope::Container => return Err(late()),
            Scope::Pod => self.kill_shim(id),
        }
        // Its end, which the connection tells, ends what it holds.
        let ended = tokio::time::timeout(KILL_TIMEOUT, phase.wait_for(Phase::ended)).await.is_ok();
        ended.then_some(()).ok_or_else(late)
    }

    /// Sends a signal to the container's first process.
    async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        let request = Request::Signal { container: id.to_owned(), exec: None, signal };
        match self.connection(id)?.call(request, &[]).await {
            // It ended in the meantime.
            Ok(_) | Err(CallError::Failed(Failure::NotRunning)) => Ok(()),
            failed => Err(self.unexpected(id, failed)),
        }
    }

    fn kill_shim(&self, id: &str) {
        let shim = self.uid_of(id).and_then(|uid| self.with_sandbox(&uid, |sandbox: &Sandbox| sandbox.shim.clone()));
        if let Some(shim) = shim.ok().flatten() {
            tracing::warn!(container = id, "the shim of a pod that is to end tells of no end: it is killed");
            // An error means that it has ended by itself.
            let _ = shim.process.fd.kill();
        }
    }

    /// Removes a container and its own layer; one that runs is killed, and one that may run stays until its
    /// sandbox is stopped. Idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(uid) = self.uid_of(id) else { return Ok(()) };
        self.known_sandbox(&uid)?;
        match self.stop_container(id, Duration::ZERO, Scope::Container).await {
            Ok(()) | Err(Error::SandboxNotReady(_)) => {}
            Err(error) => return Err(error),
        }
        if let Ok(connection) = self.connection(id) {
            // A shim that does not know it has nothing to forget.
            let _ = connection.call(Request::Forget { container: id.to_owned() }, &[]).await;
        }
        let paths = self.sandbox_paths(&uid).container(id);
        let cgroup = self.with_sandbox(&uid, |sandbox| cgroup_path(&sandbox.record.config, id))?;
        let cgroups = self.cgroups.clone();
        self.blocking(&uid, move || {
            cgroups.remove(&cgroup)?;
            durable::remove_tree(&paths.run)?;
            durable::remove_tree(&paths.data)
        })
        .await?;
        if let Some(sandbox) = self.sandboxes.lock().get_mut(&uid) {
            sandbox.containers.remove(id);
        }
        Ok(())
    }

    pub fn list_containers(&self) -> Vec<ContainerStatus> {
        let sandboxes = self.sandboxes.lock();
        sandboxes.values().flat_map(|sandbox| sandbox.containers.values()).map(Container::status).collect()
    }

    /// Those of one sandbox; none for an unknown one.
    pub fn sandbox_containers(&self, uid: &str) -> Vec<ContainerStatus> {
        let sandboxes = self.sandboxes.lock();
        sandboxes.get(uid).into_iter().flat_map(|s| s.containers.values()).map(Container::status).collect()
    }

    pub fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.with_container(id, Container::status)
    }

    /// Changes a running container's limits in place.
    pub async fn update_container_resources(&self, id: &str, resources: Resources) -> Result<()> {
        let path = self.container_cgroup(id)?;
        let cgroups = self.cgroups.clone();
        self.blocking("", move || cgroups.update(&path, &resources)).await
    }

    pub(super) async fn resize_container(&self, id: &str, size: TerminalSize) -> Result<()> {
        let request = Request::Resize { container: id.to_owned(), size };
        match self.connection(id)?.call(request, &[]).await {
            Ok(_) => Ok(()),
            failed => Err(self.unexpected(id, failed)),
        }
    }

    pub(super) fn container_cgroup(&self, id: &str) -> Result<String> {
        let uid = self.uid_of(id)?;
        self.with_sandbox(&uid, |sandbox| cgroup_path(&sandbox.record.config, id))
    }

    pub(super) fn with_container<T>(&self, id: &str, look: impl FnOnce(&Container) -> T) -> Result<T> {
        let sandboxes = self.sandboxes.lock();
        let found = sandboxes.values().find_map(|sandbox| sandbox.containers.get(id));
        found.map(look).ok_or_else(|| Error::ContainerNotFound(id.to_owned()))
    }

    fn uid_of(&self, id: &str) -> Result<String> {
        self.with_container(id, |container| container.record.sandbox_uid.clone())
    }

    fn phase(&self, id: &str) -> Result<Phase> {
        self.with_container(id, |container| container.phase.borrow().clone())
    }

    fn advance(&self, id: &str, phase: Phase) -> bool {
        self.with_container(id, |container| container.advance(phase)).unwrap_or(false)
    }

    pub(super) fn connection(&self, id: &str) -> Result<Arc<Connection>> {
        let uid = self.uid_of(id)?;
        let shim = self.with_sandbox(&uid, |sandbox: &Sandbox| sandbox.shim.clone())?;
        shim.map(|shim| shim.connection).ok_or(Error::SandboxNotReady(uid))
    }

    /// What a call's outcome other than the wanted one means to the caller.
    pub(super) fn unexpected<T: std::fmt::Debug>(&self, id: &str, outcome: Result<T, CallError>) -> Error {
        let uid = self.uid_of(id).unwrap_or_default();
        match outcome {
            Err(CallError::Gone) => Error::SandboxNotReady(uid),
            Err(CallError::Failed(failure)) => match failure {
                Failure::NotFound => Error::ContainerNotFound(id.to_owned()),
                Failure::NotRunning => Error::NotRunning(id.to_owned()),
                Failure::AlreadyStarted => Error::AlreadyStarted(id.to_owned()),
                Failure::Start(text) => Error::Start(text),
                Failure::Version => Error::Shim { uid, message: "no common version".to_owned() },
                Failure::Other(message) => Error::Shim { uid, message },
            },
            Ok(_) => Error::Shim { uid, message: "unexpected answer".to_owned() },
        }
    }
}

fn never_ran(text: &str) -> Exit {
    Exit {
        started_at_ns: None,
        finished_at_ns: now_ns(),
        code: NEVER_RAN,
        signal: None,
        oom_killed: false,
        error: Some(text.to_owned()),
    }
}

/// The record on disk outlives the machine's life, so it holds nothing secret; the shim gets the whole of
/// it below the run directory, which is in memory. Shims of the first version only know the former.
fn write_record(paths: &ContainerPaths, record: &ContainerRecord, version: u32) -> Result<()> {
    for dir in [&paths.data, &paths.upper(), &paths.work()] {
        fs::create_dir_all(dir).at("create", dir)?;
    }
    // The root of the container's own root.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(paths.upper(), open).at("open", &paths.upper())?;
    if version < START_RECORD_SINCE {
        return durable::write_for_shim(&paths.record(), record);
    }
    durable::private_dir(&paths.run)?;
    durable::write_for_shim(&paths.start_record(), record)?;
    durable::write(&paths.record(), &record.bare(), Durability::Atomic)
}

/// 64 random hex digits.
fn new_id() -> Result<String> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).at("read", source)?;
    Ok(hex::encode(bytes))
}

/// The pod's wish, else the image's, else SIGTERM; by name, with or without `SIG`, or by number.
fn stop_signal(record: &ContainerRecord) -> i32 {
    let wish = record.config.stop_signal.as_deref().or(record.defaults.stop_signal.as_deref());
    wish.and_then(parse_signal).unwrap_or(Signal::SIGTERM as i32)
}

fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The C library keeps the first two real-time signals to itself, and names none of them.
    let real_time = |from: i32, offset: &str, sign: i32| match offset {
        "" => Some(from),
        offset => offset.parse::<i32>().ok().map(|offset| from + sign * offset),
    };
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, offset.trim_start_matches('+'), 1).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, offset.trim_start_matches('-'), -1).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_known_by_name_and_number() {
        for (text, expected) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("sigrtmax", Some(64)),
            ("SIGRTMAX-14", Some(50)),
            ("SIGRTMIN+31", None),
            ("SIGRTMAX-x", None),
            ("SIGIOT", Some(6)),
            ("SIGCLD", Some(17)),
            ("SIGPOLL", Some(29)),
            ("SIGNOPE", None),
            ("99", None),
        ] {
            assert_eq!(parse_signal(text), expected, "{text}");
        }
    }

    #[test]
    fn what_may_be_secret_stays_off_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let config = ContainerConfig {
            name: "main".to_owned(),
            env: vec![("PW".to_owned(), "hunter2".to_owned())],
            args: vec!["--password=hunter2".to_owned()],
            ..ContainerConfig::default()
        };
        let record = ContainerRecord {
            id: "c".to_owned(),
            sandbox_uid: "p".to_owned(),
            config,
            created_at_ns: 1,
            layer_dir: "/layers".into(),
            layers: vec![],
            defaults: Default::default(),
            bare: false,
        };
        let paths =
            |name: &str| ContainerPaths { data: dir.path().join(name).join("data"), run: dir.path().join(name) };
        let (new, old) = (paths("new"), paths("old"));
        write_record(&new, &record, START_RECORD_SINCE).unwrap();
        write_record(&old, &record, 1).unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(!text(&new.record()).contains("hunter2") && text(&new.start_record()).contains("hunter2"));
        assert!(text(&old.record()).contains("hunter2"), "a shim of the first version reads nothing else");
        for (path, mode) in
            [(new.start_record(), 0o600), (new.record(), 0o600), (new.run.clone(), 0o700), (new.upper(), 0o755)]
        {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        assert!(!text(&old.record()).contains("checksum") && !text(&new.start_record()).contains("checksum"));
        assert!(text(&new.record()).contains("checksum"));
        let kept = durable::read::<ContainerRecord>(&new.record()).unwrap();
        assert_eq!((kept.bare, kept.config.name.as_str(), kept.config.args.len()), (true, "main", 0));
    }

    #[test]
    fn ids_are_long_and_differ() {
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
    }
}
