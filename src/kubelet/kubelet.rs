//! What all parts of one node's kubelet share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::{Cluster, Recorder, kube};
use network::PodNetwork;
use parking_lot::Mutex;
use runtime::{DiskRoom, Lane, Runtime};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::disk_walks::Walks;
use crate::node::{Machine, Pressure};
use crate::registry::Registry;
use crate::resources::Allocatable;
use crate::server::Rates;
use crate::source_room::SourceRoom;
use crate::volumes::References;

/// To remove what a pod leaves, millions of files maybe, takes minutes on a slow card.
const DISK_DEADLINE: Duration = Duration::from_secs(600);

pub(crate) struct Kubelet {
    pub(crate) cfg: Config,
    pub(crate) cluster: Cluster,
    /// Writes as `system:node:<name>`.
    pub(crate) client: kube::Client,
    pub(crate) recorder: Recorder,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) images: Images,
    pub(crate) references: References,
    pub(crate) sources: SourceRoom,
    pub(crate) pods: Registry,
    /// Clients of exec and attach that are connected.
    pub(crate) sessions: Mutex<JoinSet<()>>,
    pub(crate) machine: Machine,
    pub(crate) allocatable: Allocatable,
    /// What runs short, as it was seen last.
    pub(crate) pressure: Mutex<Pressure>,
    pub(crate) cpu_rates: Mutex<Rates>,
    pub(crate) disk_walks: Arc<Walks>,
    pub(crate) metrics: Metrics,
}

impl Kubelet {
    pub(crate) fn disk(&self) -> &Arc<DiskRoom> {
        self.runtime.disk()
    }

    /// Runs work on what a pod has on the node's own file systems, in its name.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        uid: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.disk().run(Lane::Pod, uid, DISK_DEADLINE, work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}
