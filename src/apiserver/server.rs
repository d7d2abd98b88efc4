//! The API server: one value that owns the registry, authentication, authorization and admission.

use std::sync::Arc;

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
use crate::reader::Reader;
use crate::registry::Registry;
use crate::rest::kubelet::{KubeletConfigError, KubeletIdentity, Kubelets};
use crate::rest::proxy::Pages;
use crate::rest::tunnel::Tunnels;
use crate::room::HeavyRoom;
use crate::shares::Pool;

/// The API server. Cheap to share; every handler gets it.
#[derive(Debug)]
pub struct ApiServer {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) auth: Auth,
    pub(crate) admission: admission::Chain,
    pub(crate) allocator: Allocator,
    pub(crate) kubelets: Kubelets,
    pub(crate) tunnels: Tunnels,
    pub(crate) pages: Pages,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: Documents,
    pub(crate) metrics: Metrics,
    /// Where heavy requests are answered.
    pub(crate) room: HeavyRoom,
    pub(crate) in_flight: InFlight,
    /// For the bodies of requests that are being received.
    pub(crate) bodies: Arc<Pool>,
    /// Events as watches are told them.
    pub(crate) frames: Frames,
    /// Ends watches and turns readiness off.
    pub(crate) shutdown: CancellationToken,
}

impl ApiServer {
    /// Read access to the watch cache, for informers of this process.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.registry.clone())
    }

    /// Is known to kubelets by another certificate from the next connection on.
    ///
    /// # Errors
    /// When the certificate or its key is damaged; the one before then stays.
    pub fn renew_kubelet_client(&self, identity: &KubeletIdentity) -> Result<(), KubeletConfigError> {
        self.kubelets.renew(identity)
    }

    /// Waits until the store takes no more writes: it was closed, or found damaged while it was in use.
    pub async fn store_closed(&self) {
        self.registry.storage().closed().await;
    }

    /// Ends all watches, writes what is not on disk yet, and refuses further writes.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn close(&self) -> Result<(), ApiError> {
        self.shutdown.cancel();
        self.tunnels.close().await;
        self.registry.close().await
    }
}
