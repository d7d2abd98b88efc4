//! The resources and subresources that are not plain storage: each has a handler of its own.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;

use crate::auth::User;
use crate::error::ApiError;
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// What the special handlers are configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {}

/// A request that was authenticated and authorized. Its body is unread, so that a connection can be
/// upgraded.
#[derive(Debug)]
pub struct Call {
    pub info: RequestInfo,
    pub user: User,
    pub request: axum::extract::Request,
}

/// Answers every verb of one special resource or subresource.
#[async_trait]
pub trait SpecialHandler: Send + Sync {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError>;
}

/// The special handler of a resource (`subresource` empty) or subresource, if it has one.
#[must_use]
pub fn lookup(_group: &str, _resource: &str, _subresource: &str) -> Option<&'static dyn SpecialHandler> {
    None
}
