//! Admission: what the built-in plugins change in a request and which requests they refuse.

use api::object::GroupResource;
use serde_json::Value;

use crate::auth::User;
use crate::error::ApiError;
use crate::server::ApiServer;

/// What is about to happen to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One request as admission sees it.
#[derive(Debug)]
pub struct Review<'a> {
    pub operation: Operation,
    pub resource: &'a GroupResource,
    pub kind: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty when the name is still to be generated, and for a delete of a collection's members set.
    pub name: &'a str,
    pub user: &'a User,
    /// The object to be written, in its storage version; `None` for a delete.
    pub object: &'a mut Option<Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: &'a Value,
    /// Shown to the client in `Warning` headers.
    pub warnings: Vec<String>,
}

/// The plugins in order.
#[derive(Debug, Default)]
pub struct Chain {}

impl Chain {
    /// Lets the mutating plugins change the object.
    ///
    /// # Errors
    /// When a plugin refuses the request.
    pub async fn mutate(&self, _server: &ApiServer, _review: &mut Review<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Lets the validating plugins judge the final object.
    ///
    /// # Errors
    /// When a plugin refuses the request.
    pub async fn validate(&self, _server: &ApiServer, _review: &mut Review<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}
