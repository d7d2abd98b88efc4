//! The kubelet: runs the pods that are bound to this node and tells the API server how they are.
//!
//! One worker a pod (`pod_workers`) decides by pure functions (`pod_workers::plan`, `status`,
//! `admission`, `env`, `container_config`) and acts through the runtime and the pod network; `node`
//! keeps the Node object, its lease and the node's health; `server` is the HTTPS API that the API
//! server calls for logs and exec. Everything is driven by events: pods from the watch cache,
//! containers from the runtime, own timers.

mod admission;
mod allocation;
mod config;
mod container_config;
mod dns;
mod downward;
mod env;
mod events;
mod failures;
#[cfg(test)]
mod fixtures;
mod hooks;
mod images;
mod kubelet;
mod metrics;
mod node;
mod observed;
mod pod;
mod pod_workers;
mod prober;
mod registry;
mod resources;
mod runtime_class;
mod server;
mod source_room;
mod sources;
mod status;
mod sysctls;
mod volumes;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Cluster, Recorder};
use network::PodNetwork;
use runtime::{DiskError, Lane, Runtime};
use tokio_util::sync::CancellationToken;

pub use config::{Config, ServerConfig, Thresholds};

use crate::images::Images;
use crate::kubelet::Kubelet;
use crate::node::Machine;
use crate::registry::Registry;
use crate::source_room::SourceRoom;
use crate::volumes::References;

/// For a few directories on a card that wakes up.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

/// A directory for root alone.
fn make_private(path: PathBuf) -> Result<(), Error> {
    statefile::make_dir(&path).map_err(|source| Error::Directory { path, source })
}

/// Runs the kubelet of one node until `token` is cancelled. Containers then run on; the next kubelet
/// takes them over.
///
/// # Errors
/// When its directories cannot be made.
pub async fn run(
    cx: Cluster,
    cfg: Config,
    runtime: Arc<Runtime>,
    network: Arc<PodNetwork>,
    token: CancellationToken,
) -> Result<(), Error> {
    let dirs = [cfg.pods_dir(), cfg.log_dir.clone()];
    runtime.disk().run(Lane::Node, "", START_DEADLINE, move || dirs.into_iter().try_for_each(make_private)).await??;
    let user = format!("system:node:{}", cfg.node_name);
    let client = cx.as_user(&user, &["system:nodes"]);
    let recorder = Recorder::new(client.clone(), "kubelet", &cfg.node_name);
    let disk = runtime.image_fs_usage().await?.capacity_bytes;
    let machine = Machine::read(i64::try_from(disk).unwrap_or(i64::MAX));
    let allocatable = machine.allocatable(&cfg);
    let server = cfg.server.clone();
    let kubelet = Arc::new(Kubelet {
        cfg,
        cluster: cx,
        client,
        recorder,
        runtime,
        network,
        images: Images::new(),
        references: References::default(),
        sources: SourceRoom::default(),
        pods: Registry::default(),
        sessions: parking_lot::Mutex::default(),
        machine,
        allocatable,
        pressure: parking_lot::Mutex::default(),
        cpu_rates: parking_lot::Mutex::default(),
        disk_walks: Arc::default(),
        metrics: metrics::Metrics::default(),
    });
    let serve = async {
        match server {
            Some(server) => server::run(kubelet.clone(), server, token.clone()).await,
            None => token.cancelled().await,
        }
    };
    let (pods, node) = (pod_workers::run(kubelet.clone(), token.clone()), node::run(kubelet.clone(), token.clone()));
    tokio::join!(serve, pods, node);
    Ok(())
}
