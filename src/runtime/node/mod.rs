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
mod streams;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use streams::{Input, Output, Resizer, Streams};

use crate::cgroup::Cgroups;
use crate::contract::records::SandboxPaths;
use crate::error::{IoContext, Result};
use crate::image::registries::Registries;
use crate::image::{pull::Puller, store::ImageStore};
use crate::sys::mount;
use crate::types::{Event, LogLimit};
use state::Sandbox;

/// Events that a slow reader may be behind: a node has a few hundred containers, each with a few
/// events in a burst.
const EVENTS_MAX: usize = 1024;

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
}

/// Sandboxes, containers and images of one node.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    cgroups: Cgroups,
    images: Arc<ImageStore>,
    puller: Puller,
    sandboxes: Mutex<HashMap<String, Sandbox>>,
    events: broadcast::Sender<Event>,
    /// One task per live shim, which ends with it.
    readers: Mutex<JoinSet<()>>,
}

impl Runtime {
    /// Opens the runtime's state and takes over the shims that still run.
    ///
    /// # Errors
    /// When a newer release has left something there: then nothing is changed.
    pub async fn open(config: RuntimeConfig) -> Result<Arc<Self>> {
        adopt::refuse_newer(&config)?;
        ImageStore::refuse_newer(&config.data_dir.join(IMAGES))?;
        for dir in [config.data_dir.join("sandboxes"), config.run_dir.join("sandboxes")] {
            fs::create_dir_all(&dir).at("create", &dir)?;
        }
        let private = config.run_dir.join("sandboxes");
        mount::private_tmpfs(&private).at("mount a tmpfs at", &private)?;
        let cgroups = Cgroups::detect()?;
        cgroups.prepare()?;
        let images = Arc::new(ImageStore::open(&config.data_dir.join(IMAGES))?);
        let puller = Puller::new(config.registries.clone());
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let runtime = Arc::new(Self {
            config,
            cgroups,
            images,
            puller,
            sandboxes: Mutex::default(),
            events,
            readers: Mutex::default(),
        });
        runtime.adopt().await?;
        runtime.remove_unused_layers()?;
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

    fn sandbox_paths(&self, uid: &str) -> SandboxPaths {
        SandboxPaths {
            data: self.config.data_dir.join("sandboxes").join(uid),
            run: self.config.run_dir.join("sandboxes").join(uid),
        }
    }
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

/// Runs blocking work; a panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
