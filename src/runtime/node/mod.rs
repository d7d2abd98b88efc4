//! The runtime as the kubelet sees it: sandboxes, containers, images.

mod adopt;
mod connection;
mod containers;
mod exec;
mod findings;
mod images;
mod living;
mod sandboxes;
mod state;
mod stats;
mod stopping;
mod streams;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

pub use containers::Scope;
pub use streams::{Input, Output, Resizer, Streams};

use crate::cgroup::Cgroups;
use crate::contract::records::SandboxPaths;
use crate::disk::{DiskRoom, Lane};
use crate::durable;
use crate::error::{IoContext, Result};
use crate::image::registries::Registries;
use crate::image::{pull::Puller, room::PullRoom, store::ImageStore};
use crate::sys::mount;
use crate::types::{Event, LogLimit};
use state::Sandbox;

/// A shim answers at once unless it waits for the disk, where it writes logs and exit codes.
pub const SHIM_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that a slow reader may be behind: a node has a few hundred containers, each with a few
/// events in a burst.
const EVENTS_MAX: usize = 1024;
/// To remove a container's layer, millions of files maybe, takes minutes on a slow card.
const DISK_DEADLINE: Duration = Duration::from_secs(600);

const IMAGES: &str = "imagestore";

/// Where the runtime keeps things and how it reaches registries.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Survives reboots: images, containers' records and their own layers.
    pub data_dir: PathBuf,
    /// Sockets and mount points; a tmpfs is mounted below it.
    pub run_dir: PathBuf,
    /// This binary, which is run again as each pod's shim.
    pub exe: PathBuf,
    pub registries: Registries,
    pub log_limit: LogLimit,
    /// How long a shim is waited for that takes a connection, lives through a start of the daemon, or is to
    /// kill a container.
    pub shim_timeout: Duration,
}

/// Makes the directories and reads the record of images.
fn prepare(config: &RuntimeConfig) -> Result<(Cgroups, ImageStore)> {
    let (data_dir, run_dir) = (&config.data_dir, &config.run_dir);
    let images = data_dir.join(IMAGES);
    adopt::refuse_newer(config)?;
    ImageStore::refuse_newer(&images)?;
    for dir in [data_dir, run_dir, &data_dir.join("sandboxes"), &run_dir.join("sandboxes")] {
        durable::private_dir(dir)?;
    }
    let private = run_dir.join("sandboxes");
    mount::private_tmpfs(&private).at("mount a tmpfs at", &private)?;
    // One that an earlier release mounted is as open as it made it.
    durable::private_dir(&private)?;
    let cgroups = Cgroups::detect()?;
    cgroups.prepare()?;
    Ok((cgroups, ImageStore::open(&images)?))
}

/// Sandboxes, containers and images of one node.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    cgroups: Cgroups,
    disk: Arc<DiskRoom>,
    images: Arc<ImageStore>,
    /// Ids of images that are kept though nothing uses them.
    pinned: Mutex<BTreeSet<String>>,
    puller: Arc<Puller>,
    pulls: PullRoom,
    sandboxes: Mutex<HashMap<String, Sandbox>>,
    events: broadcast::Sender<Event>,
    /// It is found out what the loss of some connection means.
    found_out: Notify,
    /// One task per live shim, which ends with it.
    readers: Mutex<JoinSet<()>>,
}

impl Runtime {
    /// Opens the runtime's state and takes over the shims that still run.
    ///
    /// # Errors
    /// When a newer release has left something there: then nothing is changed.
    pub async fn open(config: RuntimeConfig) -> Result<Arc<Self>> {
        let disk = Arc::new(DiskRoom::default());
        let at = config.clone();
        let (cgroups, images) = blocking(&disk, "", move || prepare(&at)).await?;
        let images = Arc::new(images);
        let puller = Arc::new(Puller::new(config.registries.clone(), Arc::clone(&disk)));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let runtime = Arc::new(Self {
            config,
            cgroups,
            disk,
            images,
            pinned: Mutex::default(),
            puller,
            pulls: PullRoom::default(),
            sandboxes: Mutex::default(),
            events,
            found_out: Notify::new(),
            readers: Mutex::default(),
        });
        runtime.adopt().await?;
        runtime.remove_unused_layers().await?;
        Ok(runtime)
    }

    /// Everything that happens to containers and sandboxes from now on.
    pub fn subscribe(&self) -> EventReceiver {
        EventReceiver(self.events.subscribe())
    }

    fn publish(&self, event: Event) {
        // Nobody listens: nothing to tell.
        let _ = self.events.send(event);
    }

    /// The threads for work that may wait for a file system.
    pub fn disk(&self) -> &Arc<DiskRoom> {
        &self.disk
    }

    /// Runs blocking work for one sandbox; an empty uid is the node itself.
    async fn blocking<T: Send + 'static>(
        &self,
        uid: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(&self.disk, uid, work).await
    }

    fn sandbox_paths(&self, uid: &str) -> SandboxPaths {
        SandboxPaths {
            data: self.config.data_dir.join("sandboxes").join(uid),
            run: self.config.run_dir.join("sandboxes").join(uid),
        }
    }
}

/// Runs blocking work for one sandbox, or for the node itself.
async fn blocking<T: Send + 'static>(
    disk: &DiskRoom,
    uid: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let lane = if uid.is_empty() { Lane::Node } else { Lane::Pod };
    disk.run(lane, uid, DISK_DEADLINE, work).await?
}

/// A bounded view of the runtime's events.
#[derive(Debug)]
pub struct EventReceiver(broadcast::Receiver<Event>);

impl EventReceiver {
    /// The next event; `None` when the runtime is gone. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
