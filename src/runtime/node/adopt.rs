//! After a start: finds the sandboxes on disk, takes over the shims that still run, and clears away
//! what is left of the others. Decisions are `findings`'.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::connection::{Connection, OpenError, ShimProcess};
use super::findings::{ContainerFiles, Finding, Known, OnDisk, Reading, Told, find, placeholder};
use super::living::{self, Living};
use super::state::{Container, Phase, Sandbox};
use super::{Runtime, RuntimeConfig, blocking};
use crate::contract::held::HeldRecords;
use crate::contract::protocol::{Answer, Request};
use crate::contract::records::{ContainerRecord, Exit, SandboxPaths, SandboxRecord, SandboxVerdict};
use crate::disk::DiskRoom;
use crate::durable::{self, Durability, Record};
use crate::error::{Error, IoContext, Result};
use crate::sys::mount;

/// What a container gets between the request to end and the end, when nobody knows its own grace period.
const UNKNOWN_GRACE: Duration = Duration::from_secs(10);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Processes of unknown sandboxes are looked for again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Sandboxes that are taken over at a time, as many as the disk room has threads for: each may wait for a
/// shim that waits for the disk.
const ADOPTED_AT_ONCE: usize = 16;

/// Fails, before anything is touched, when a newer release has written what lies here.
pub(super) fn refuse_newer(config: &RuntimeConfig) -> Result<()> {
    let root = config.data_dir.join("sandboxes");
    for uid in directories(&root)? {
        let paths = SandboxPaths { data: root.join(&uid), run: PathBuf::new() };
        durable::refuse_newer::<SandboxRecord>(&paths.record())?;
        durable::refuse_newer::<SandboxVerdict>(&paths.verdict())?;
        for id in directories(&paths.data)? {
            durable::refuse_newer::<ContainerRecord>(&paths.container(&id).record())?;
            durable::refuse_newer::<Exit>(&paths.container(&id).exit())?;
        }
    }
    Ok(())
}

impl Runtime {
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<()> {
        let roots = [self.config.data_dir.join("sandboxes"), self.config.run_dir.join("sandboxes")];
        let mut uids = BTreeSet::new();
        for root in roots {
            uids.extend(self.blocking("", move || directories(&root)).await?);
        }
        // Once for all of them: after a reboot there are many sandboxes and no shim. Where they cannot be listed,
        // each is looked for.
        let shims = self.blocking("", living::data_dirs).await.ok();
        let may_live = |uid: &str| shims.as_ref().is_none_or(|dirs| dirs.contains(&self.sandbox_paths(uid).data));
        let jobs = uids.into_iter().map(|uid| (may_live(&uid), uid));
        let jobs = jobs.map(|(may_live, uid)| self.adopt_or_leave(uid, may_live)).collect::<Vec<_>>();
        futures::stream::iter(jobs).for_each_concurrent(ADOPTED_AT_ONCE, |job| job).await;
        Ok(())
    }

    /// One pod that resists, such as by a process that hangs in the kernel, is no reason to leave the others
    /// alone: the kubelet tries again.
    async fn adopt_or_leave(self: &Arc<Self>, uid: String, may_live: bool) {
        if let Err(error) = self.adopt_sandbox(&uid, may_live).await {
            tracing::warn!(sandbox = uid, %error, "cannot take over a sandbox");
            let unknown = || Sandbox { unknown: Some(error.to_string()), ..Sandbox::new(placeholder(&uid)) };
            self.sandboxes.lock().entry(uid.clone()).or_insert_with(unknown);
        }
    }

    /// Tries to find out what a sandbox is that was left alone.
    pub async fn recover_sandbox(self: &Arc<Self>, uid: &str) -> Result<()> {
        // Where a connection has just broken, somebody is at it.
        loop {
            let mut found_out = std::pin::pin!(self.found_out.notified());
            found_out.as_mut().enable();
            if self.with_sandbox(uid, |sandbox| sandbox.lost.is_none())? {
                break;
            }
            found_out.await;
        }
        if self.with_sandbox(uid, |sandbox| sandbox.unknown.is_none())? {
            return Ok(());
        }
        self.adopt_sandbox(uid, true).await?;
        match self.known_sandbox(uid) {
            Err(Error::SandboxNotFound(_)) => Ok(()),
            known => known,
        }
    }

    /// Fails for a sandbox that is left alone.
    pub(super) fn known_sandbox(&self, uid: &str) -> Result<()> {
        match self.with_sandbox(uid, |sandbox| sandbox.unknown.clone())? {
            Some(reason) => Err(Error::SandboxUnknown { uid: uid.to_owned(), reason }),
            None => Ok(()),
        }
    }

    /// `may_live`: a process of its shim's has been seen, or was not looked for.
    async fn adopt_sandbox(self: &Arc<Self>, uid: &str, may_live: bool) -> Result<()> {
        let paths = self.sandbox_paths(uid);
        let opened = match Connection::open(&paths.socket(), self.config.shim_timeout).await {
            Err(OpenError::Gone) if may_live => Err(self.look_for_shim(&paths).await),
            opened => opened,
        };
        let (told, shim) = ask_shim(&self.disk, &paths, opened).await;
        // Afterwards: a shim that ends meanwhile has written by then how its containers ended.
        let at = paths.clone();
        let found = self.blocking(uid, move || read_disk(&at)).await?;
        let doubtful = matches!(told, Told::Gone) && !matches!(found.sandbox, Reading::There(_));
        let at = paths.clone();
        // Where they cannot be counted, there may be some.
        let living = self.blocking("", move || living::processes(&at));
        let lives = doubtful && !living.await.is_ok_and(|found| found.is_empty());
        let (known, unknown) = match find(found, told, lives) {
            Finding::Nothing => {
                self.sandboxes.lock().remove(uid);
                tracing::warn!(sandbox = uid, "removing a sandbox of which nothing runs and nothing is known");
                return discard(&self.disk, uid, &paths, shim).await;
            }
            Finding::Known(known) => (known, None),
            Finding::Unknown { reason, known } => (known, Some(reason)),
        };
        for complaint in &known.complaints {
            tracing::warn!(sandbox = uid, "damaged: {complaint}");
        }
        if let Some(reason) = &unknown {
            tracing::error!(sandbox = uid, "leaving a pod alone that may run: {reason}");
        }
        heal(&self.disk, &paths, uid, &known).await;
        let unfinished = known.unfinished.clone();
        let lost = known.containers.values().filter(|(_, phase)| *phase == Phase::Lost).count();
        self.enter(uid, known, unknown.clone());
        match (shim, unknown) {
            (Some((connection, process)), None) => {
                self.attach_shim(uid, connection, process);
            }
            (None, None) => {
                if lost > 0 {
                    tracing::warn!(sandbox = uid, lost, "the pod's shim is gone, and how its containers ended");
                }
                self.release_sandbox(uid).await?;
            }
            (_, Some(_)) => return Ok(()),
        }
        let remove = move || unfinished.iter().try_for_each(|id| durable::remove_tree(&paths.container(id).data));
        self.blocking(uid, remove).await
    }

    /// Connects to a pod's shim.
    pub(super) async fn open_shim(
        &self,
        paths: &SandboxPaths,
    ) -> std::result::Result<(Arc<Connection>, ShimProcess), OpenError> {
        match Connection::open(&paths.socket(), self.config.shim_timeout).await {
            Err(OpenError::Gone) => Err(self.look_for_shim(paths).await),
            opened => opened,
        }
    }

    /// What it means that nobody listens at a shim's socket: somebody may have removed the file, and the shim
    /// and its containers run on.
    async fn look_for_shim(&self, paths: &SandboxPaths) -> OpenError {
        let at = paths.clone();
        match self.blocking("", move || living::shim(&at)).await {
            Ok(None) => OpenError::Gone,
            Ok(Some((_, shim))) if shim.is_ending().await => OpenError::Gone,
            Ok(Some((pid, _))) => OpenError::Unclear(std::io::Error::other(format!(
                "process {pid} lives and does not listen at {}; delete the pod to have it ended",
                paths.socket().display()
            ))),
            Err(error) => OpenError::Unclear(std::io::Error::other(error)),
        }
    }

    fn enter(&self, uid: &str, known: Known, unknown: Option<String>) {
        let containers = known.containers.into_iter();
        let containers = containers.map(|(id, (record, phase))| (id, Container::new(record, phase))).collect();
        let record = known.record.unwrap_or_else(|| placeholder(uid));
        self.sandboxes.lock().insert(uid.to_owned(), Sandbox { record, shim: None, unknown, lost: None, containers });
    }

    /// Ends whatever /proc shows of a sandbox that was left alone.
    pub(super) async fn end_unknown(&self, uid: &str) -> Result<()> {
        let paths = self.sandbox_paths(uid);
        let mut parent = String::new();
        for (signal, patience) in [(libc::SIGTERM, UNKNOWN_GRACE), (libc::SIGKILL, KILL_TIMEOUT)] {
            let end = tokio::time::Instant::now() + patience;
            let mut asked = false;
            loop {
                let at = paths.clone();
                let living = self.blocking("", move || living::processes(&at)).await?;
                if let Some(found) = living.iter().find_map(|process| process.cgroup.clone()) {
                    parent = found;
                }
                // Shims take no part in the asking: they go last.
                let concerned = |process: &&Living| signal == libc::SIGKILL || process.cgroup.is_some();
                let left = living.iter().filter(concerned).collect::<Vec<_>>();
                if left.is_empty() || tokio::time::Instant::now() >= end {
                    break;
                }
                if !asked || signal == libc::SIGKILL {
                    // An error means that it has ended by itself.
                    left.iter().for_each(|process| drop(process.fd.signal(signal)));
                    asked = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        let at = paths.clone();
        if !self.blocking("", move || living::processes(&at)).await?.is_empty() {
            let reason = "its processes do not end".to_owned();
            if let Some(sandbox) = self.sandboxes.lock().get_mut(uid) {
                sandbox.leave_alone(reason.clone());
            }
            return Err(Error::SandboxUnknown { uid: uid.to_owned(), reason });
        }
        if let Some(sandbox) = self.sandboxes.lock().get_mut(uid) {
            sandbox.clear_doubt();
            if sandbox.record.config.cgroup_parent.is_empty() {
                sandbox.record.config.cgroup_parent = parent;
            }
        }
        Ok(())
    }

    /// Layers that neither an image nor a container needs, such as a crash leaves them.
    pub(super) async fn remove_unused_layers(&self) -> Result<()> {
        let (images, in_use) = (Arc::clone(&self.images), self.layers_in_use().await?);
        self.blocking("", move || images.clean_up(&in_use)).await
    }
}

/// What the shim says, and the connection to one that is to be kept.
async fn ask_shim(
    disk: &DiskRoom,
    paths: &SandboxPaths,
    opened: std::result::Result<(Arc<Connection>, ShimProcess), OpenError>,
) -> (Told, Option<(Arc<Connection>, ShimProcess)>) {
    let (connection, process) = match opened {
        Ok(opened) => opened,
        Err(OpenError::Gone) => return (Told::Gone, None),
        Err(error @ OpenError::Unclear(_)) => return (Told::Unclear(error.to_string()), None),
    };
    let knows = |request: &Request| request.since() <= connection.version;
    let request = Some(Request::Records).filter(knows).unwrap_or(Request::State);
    let told = match connection.ask(request).await {
        Ok((Answer::State { containers }, _)) => Told::State(containers),
        Ok((Answer::Records, fds)) => match fds.into_iter().next() {
            Some(fd) => {
                let socket = paths.socket();
                let held = blocking(disk, "", move || HeldRecords::receive(fd, &socket)).await;
                held.map_or_else(|error| Told::Unclear(error.to_string()), |held| Told::Records(Box::new(held)))
            }
            None => Told::Unclear("its shim gave no records".to_owned()),
        },
        Ok(_) => Told::Unclear("its shim gave an unexpected answer".to_owned()),
        Err(_) if process.fd.is_ending().await => Told::Gone,
        Err(error) => Told::Unclear(format!("its shim cannot be asked: {error}")),
    };
    match told {
        Told::Gone => (Told::Gone, None),
        told => (told, Some((connection, process))),
    }
}

/// A record that an earlier release wrote gets its seal, unless a shim of that release may still want it.
fn reading<T: Record>(path: &Path, is_only_ours: impl FnOnce(&T) -> bool) -> Reading<T> {
    match durable::read_optional(path) {
        Ok(Some(value)) => {
            if is_only_ours(&value)
                && let Err(error) = durable::renew(path, &value, Durability::Atomic)
            {
                // It says as much without a checksum, and the next start tries again.
                tracing::warn!(%error, "cannot write a record again");
            }
            Reading::There(value)
        }
        Ok(None) => Reading::Absent,
        Err(error) => Reading::Damaged(error.to_string()),
    }
}

fn read_disk(paths: &SandboxPaths) -> Result<OnDisk> {
    let mut containers = BTreeMap::new();
    for id in directories(&paths.data)? {
        let files = paths.container(&id);
        let record = reading(&files.record(), |record: &ContainerRecord| record.bare);
        containers.insert(id, ContainerFiles { record, exit: reading(&files.exit(), |_| true) });
    }
    Ok(OnDisk { sandbox: reading(&paths.record(), |_| true), containers })
}

/// Writes again what the shim knew better than the disk, and without its secrets what an earlier release wrote.
async fn heal(disk: &DiskRoom, paths: &SandboxPaths, uid: &str, known: &Known) {
    let sandbox = known.record.clone().filter(|_| known.heal_sandbox);
    let containers = known.heal.iter().filter_map(|id| known.containers.get(id)).map(|(record, _)| record.clone());
    let containers = containers.collect::<Vec<_>>();
    let at = paths.clone();
    let healed = blocking(disk, uid, move || -> Result<()> {
        if let Some(record) = sandbox {
            durable::private_dir(&at.data)?;
            durable::write(&at.record(), &record, Durability::Atomic)?;
        }
        for record in containers {
            let files = at.container(&record.id);
            durable::private_dir(&files.data)?;
            durable::write(&files.record(), &record.bare(), Durability::Atomic)?;
        }
        Ok(())
    });
    if let Err(error) = healed.await {
        // The next start of the daemon tries again.
        tracing::warn!(sandbox = uid, %error, "cannot write a record again");
    }
}

/// Removes a sandbox of which nothing runs; a shim that has nothing to do is sent home.
async fn discard(
    disk: &DiskRoom,
    uid: &str,
    paths: &SandboxPaths,
    shim: Option<(Arc<Connection>, ShimProcess)>,
) -> Result<()> {
    if let Some((connection, process)) = shim {
        // It may end before it answers.
        let _ = connection.ask(Request::Shutdown).await;
        process.fd.ended(KILL_TIMEOUT).await;
    }
    let paths = paths.clone();
    blocking(disk, uid, move || {
        mount::detach_below(&paths.run).at("unmount", &paths.run)?;
        durable::remove_tree(&paths.run)?;
        durable::remove_tree(&paths.data)
    })
    .await
}

/// Names of the directories in `root`; none where it is not there.
fn directories(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.at("list", root)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.at("list", root)?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
