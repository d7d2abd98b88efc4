//! From a configuration to a server that has what every cluster has.

use std::sync::Arc;

use storage::Health;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::allocate::Allocator;
use crate::auth::Auth;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::error::ApiError;
use crate::frames::Frames;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::receiving;
use crate::registry::Registry;
use crate::rest::kubelet::{KubeletConfigError, Kubelets};
use crate::rest::proxy::Pages;
use crate::rest::tunnel::Tunnels;
use crate::room::HeavyRoom;
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

impl StartError {
    /// Whether somebody has to do something before another try can succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_final())
    }
}

async fn write_first_objects(registry: &Registry, config: &Config) -> Result<(), ApiError> {
    crate::bootstrap::first_objects(registry).await?;
    crate::system_objects::ensure(registry, config).await
}

impl ApiServer {
    /// Objects that are in the store and cannot be read.
    #[must_use]
    pub fn set_aside(&self) -> Vec<storage::SetAside> {
        self.registry.storage().set_aside()
    }

    /// Where objects are lost of which not even the names are known.
    #[must_use]
    pub fn gaps(&self) -> Vec<storage::Gap> {
        self.registry.storage().gaps()
    }

    /// Opens the store and writes the objects that every cluster has.
    ///
    /// # Errors
    /// When the store, a key or a certificate cannot be read, or the first objects not be written.
    pub async fn new(config: Config) -> Result<Arc<Self>, StartError> {
        let (store, limit) = (config.store.clone(), config.store_limit);
        let registry = tokio::task::spawn_blocking(move || Registry::open(&store, limit)).await??;
        for gap in registry.storage().gaps() {
            tracing::error!(
                "some {gap} are lost: until the damaged file that was kept is removed, nobody takes them for deleted"
            );
        }
        for entry in registry.storage().set_aside() {
            tracing::error!(entry = entry.name, reason = entry.reason, "an object cannot be read and was set aside");
        }
        match write_first_objects(&registry, &config).await {
            Err(error) if matches!(registry.storage().health(), Health::Full | Health::AtLimit) => {
                // What is there is served, and can be deleted to make room.
                tracing::warn!(%error, "the objects that every cluster has could not all be written");
            }
            result => result.map_err(StartError::Bootstrap)?,
        }
        Ok(Arc::new(Self {
            auth: Auth::new(&config.auth)?,
            admission: admission::Chain::default(),
            allocator: Allocator::new(&[config.service_cidr], config.cluster_dns),
            kubelets: Kubelets::new(&config.rest)?,
            tunnels: Tunnels::default(),
            pages: Pages::default(),
            discovery: Discovery::new(registry.resources()),
            openapi: Documents::default(),
            metrics: Metrics::default(),
            room: HeavyRoom::open().map_err(StartError::Threads)?,
            in_flight: InFlight::default(),
            bodies: receiving::pool(),
            frames: Frames::default(),
            shutdown: CancellationToken::new(),
            registry,
            config,
        }))
    }
}
