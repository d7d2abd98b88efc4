//! Everything about a request that its handler needs beside the body.

use std::sync::Arc;

use http::HeaderMap;

use crate::auth::User;
use crate::error::ApiError;
use crate::negotiate::Output;
use crate::registry::{Registry, Resource, Served};
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// A request for a stored resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) server: &'a Arc<ApiServer>,
    pub(crate) resource: &'a Resource,
    pub(crate) served: &'a Served,
    pub(crate) info: &'a RequestInfo,
    pub(crate) user: &'a User,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a str,
    pub(crate) output: Output,
    /// The request is answered in the room for heavy ones.
    pub(crate) heavy: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn registry(&self) -> &'a Registry {
        &self.server.registry
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.resource.row.kind
    }

    /// The namespace that objects of this request lie in: none for cluster-scoped ones.
    pub(crate) fn namespace(&self) -> &'a str {
        if self.resource.row.namespaced { &self.info.namespace } else { "" }
    }

    /// Between two phases of a heavy request: one whose client has gone ends here.
    pub(crate) async fn pause(&self) {
        if self.heavy {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn damaged(&self, name: &str) -> ApiError {
        ApiError::internal(format_args!(
            "{} {name:?} is damaged in the store and cannot be read; creating it anew replaces it",
            self.resource.name
        ))
    }

    /// The object is not there; one that cannot be read is another failure, so that nobody acts as if it
    /// had been deleted.
    pub(crate) fn not_found(&self) -> ApiError {
        let item = self.resource.item(self.namespace(), &self.info.name);
        if self.registry().storage().is_set_aside(&self.resource.collection, &item) {
            return self.damaged(&self.info.name);
        }
        ApiError::not_found(&self.resource.name, &self.info.name)
    }
}
