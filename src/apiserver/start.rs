//! From a configuration to a server that has what every cluster has.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::allocate::Allocator;
use crate::auth::Auth;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::error::ApiError;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::registry::Registry;
use crate::rest::kubelet::{KubeletConfigError, Kubelets};
use crate::rest::tunnel::Tunnels;
use crate::room::Room;
use crate::server::ApiServer;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] storage::OpenError),
    #[error(transparent)]
    Auth(#[from] crate::auth::ConfigError),
    #[error(transparent)]
    Kubelets(#[from] KubeletConfigError),
    #[error("cannot start a thread")]
    Threads(#[source] std::io::Error),
    #[error("opening the store was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    #[error("cannot write the first objects")]
    Bootstrap(#[source] ApiError),
}

impl ApiServer {
    /// Opens the store and writes the objects that every cluster has.
    ///
    /// # Errors
    /// When the store, a key or a certificate cannot be read, or the first objects not be written.
    pub async fn new(config: Config) -> Result<Arc<Self>, StartError> {
        let store = config.store.clone();
        let registry = tokio::task::spawn_blocking(move || Registry::open(&store)).await??;
        crate::bootstrap::first_objects(&registry).await.map_err(StartError::Bootstrap)?;
        crate::system_objects::ensure(&registry, &config).await.map_err(StartError::Bootstrap)?;
        Ok(Arc::new(Self {
            auth: Auth::new(&config.auth)?,
            admission: admission::Chain::default(),
            allocator: Allocator::new(&[config.service_cidr], config.cluster_dns),
            kubelets: Kubelets::new(&config.rest)?,
            tunnels: Tunnels::default(),
            discovery: Discovery::new(registry.resources()),
            openapi: Documents::default(),
            metrics: Metrics::default(),
            room: Room::open().map_err(StartError::Threads)?,
            in_flight: InFlight::default(),
            shutdown: CancellationToken::new(),
            registry,
            config,
        }))
    }
}
