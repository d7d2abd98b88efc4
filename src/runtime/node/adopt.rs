//! After a start: finds the sandboxes on disk, takes over the shims that still run, and clears away
//! what is left of the others.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::connection::Connection;
use super::records::{ContainerRecord, SandboxPaths, SandboxRecord};
use super::state::{Container, Phase, Sandbox};
use super::{Runtime, blocking};
use crate::durable;
use crate::error::{IoContext, Result};
use crate::shim::protocol::{Answer, ContainerNow, Request};
use crate::sys::mount;

impl Runtime {
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<()> {
        let root = self.config.data_dir.join("sandboxes");
        for uid in directories(&root)? {
            let paths = self.sandbox_paths(&uid);
            match durable::read_optional::<SandboxRecord>(&paths.record()) {
                Ok(Some(record)) => {
                    // One pod that resists, such as by a process that hangs in the kernel, is no reason
                    // to leave the others alone: the kubelet tries again.
                    if let Err(error) = self.adopt_sandbox(&uid, &paths, record).await {
                        tracing::warn!(sandbox = uid, %error, "cannot clean up after a pod's shim");
                    }
                }
                Ok(None) => discard_or_tell(&paths, &uid).await,
                Err(error) => {
                    // A power cut may leave a record empty; the kubelet makes the pod anew.
                    tracing::warn!(sandbox = uid, %error, "dropping a sandbox whose record is damaged");
                    discard_or_tell(&paths, &uid).await;
                }
            }
        }
        for uid in directories(&self.config.run_dir.join("sandboxes"))? {
            if !self.sandboxes.lock().contains_key(&uid) {
                discard_or_tell(&self.sandbox_paths(&uid), &uid).await;
            }
        }
        Ok(())
    }

    async fn adopt_sandbox(self: &Arc<Self>, uid: &str, paths: &SandboxPaths, record: SandboxRecord) -> Result<()> {
        let shim = Connection::open(&paths.socket()).await.ok();
        let (mut running, reader) = match shim {
            Some((connection, pid)) => {
                // The answer is read by hand: no task listens yet.
                let state = state_of(&connection).await;
                (state, Some((connection, pid)))
            }
            None => (HashMap::new(), None),
        };
        let mut containers = BTreeMap::new();
        for id in directories(&paths.data)? {
            let Ok(Some(container)) = durable::read_optional::<ContainerRecord>(&paths.container(&id).record()) else {
                durable::remove_tree(&paths.container(&id).data)?;
                continue;
            };
            let phase = match (running.remove(&id), durable::read_optional(&paths.container(&id).exit())) {
                (Some(now), _) => Phase::of(now),
                (None, Ok(Some(exit))) => Phase::Exited(exit),
                (None, Ok(None) | Err(_)) if reader.is_some() => Phase::Created,
                (None, Ok(None) | Err(_)) => Phase::Lost,
            };
            containers.insert(id, Container::new(container, phase));
        }
        self.sandboxes.lock().insert(uid.to_owned(), Sandbox { record, shim: None, containers });
        match reader {
            Some((connection, pid)) => {
                self.attach_shim(uid, connection, pid);
                Ok(())
            }
            None => self.release_sandbox(uid).await,
        }
    }

    /// Layers that neither an image nor a container needs, such as a crash leaves them.
    pub(super) fn remove_unused_layers(&self) -> Result<()> {
        self.images.remove_unused_layers(&self.layers_in_use())
    }
}

async fn state_of(connection: &Arc<Connection>) -> HashMap<String, ContainerNow> {
    let call = connection.call(Request::State, &[]);
    tokio::pin!(call);
    loop {
        tokio::select! {
            answer = &mut call => return match answer {
                Ok((Answer::State { containers }, _)) => containers.into_iter().map(|c| (c.id.clone(), c)).collect(),
                Ok(_) | Err(_) => HashMap::new(),
            },
            // An exit that is told in between is also in the state.
            exit = connection.next_exit() => if exit.is_none() { return HashMap::new() },
        }
    }
}

/// What stays behind is tried again at the next start.
async fn discard_or_tell(paths: &SandboxPaths, uid: &str) {
    if let Err(error) = discard(paths).await {
        tracing::warn!(sandbox = uid, %error, "cannot remove what is left of a sandbox");
    }
}

/// Ends and removes a sandbox that nothing is known of.
async fn discard(paths: &SandboxPaths) -> Result<()> {
    if let Ok((connection, _)) = Connection::open(&paths.socket()).await {
        let farewell = connection.call(Request::Shutdown, &[]);
        tokio::select! {
            _ = farewell => {}
            _ = connection.next_exit() => {}
        }
    }
    let paths = paths.clone();
    blocking(move || {
        mount::detach_below(&paths.run).at("unmount", &paths.run)?;
        durable::remove_tree(&paths.run)?;
        durable::remove_tree(&paths.data)
    })
    .await
}

/// Names of the directories in `root`.
fn directories(root: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(root).at("list", root)?;
    let is_dir = |path: &PathBuf| path.is_dir();
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_dir);
    Ok(paths.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
}
