//! What all parts of one node's kubelet share.

use std::sync::Arc;

use client::{Cluster, Recorder, kube};
use network::PodNetwork;
use parking_lot::Mutex;
use runtime::Runtime;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::{Machine, Pressure};
use crate::registry::Registry;
use crate::resources::Allocatable;
use crate::server::Rates;
use crate::volumes::References;

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
    pub(crate) pods: Registry,
    /// Clients of exec and attach that are connected.
    pub(crate) sessions: Mutex<JoinSet<()>>,
    pub(crate) machine: Machine,
    pub(crate) allocatable: Allocatable,
    /// What runs short, as it was seen last.
    pub(crate) pressure: Mutex<Pressure>,
    pub(crate) cpu_rates: Mutex<Rates>,
    pub(crate) metrics: Metrics,
}
