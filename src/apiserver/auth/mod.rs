//! Who asks (authentication) and whether they may (authorization).

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::error::ApiError;
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// An authenticated identity. As a request extension it is taken as it is: only code of this process
/// can put it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The chain that the TLS client presented; the handshake proved possession of its key.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Arc<[CertificateDer<'static>]>);

/// What authentication and authorization are configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Not allowed; the reason is shown to the user, as upstream does.
    Deny {
        reason: String,
    },
}

/// Authenticators and authorizers with their caches.
#[derive(Debug, Default)]
pub struct Auth {}

impl Auth {
    #[must_use]
    pub fn new(_config: &Config) -> Self {
        Self::default()
    }

    /// Finds out who sent a request.
    ///
    /// # Errors
    /// `Unauthorized` when credentials were presented and none of them is valid.
    pub async fn authenticate(&self, _server: &ApiServer, parts: &http::request::Parts) -> Result<User, ApiError> {
        parts.extensions.get::<User>().cloned().ok_or(ApiError::Unauthorized)
    }

    /// Decides whether `user` may do what `info` says.
    pub fn authorize(&self, _server: &ApiServer, _user: &User, _info: &RequestInfo) -> Decision {
        Decision::Allow
    }
}
