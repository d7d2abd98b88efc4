//! The API server: one value that owns the registry, authentication, authorization and admission, and
//! the router over them.

use std::sync::Arc;

use crate::admission;
use crate::auth::Auth;
use crate::config::Config;
use crate::registry::Registry;

/// The API server. Cheap to share; every handler gets it.
#[derive(Debug)]
pub struct ApiServer {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) auth: Auth,
    pub(crate) admission: admission::Chain,
}

impl ApiServer {
    /// The router, for listeners and for in-process callers alike.
    #[must_use]
    pub fn router(self: &Arc<Self>) -> axum::Router {
        axum::Router::new()
    }
}
