//! Everything about a request that its handler needs beside the body.

use std::sync::Arc;

use http::HeaderMap;

use crate::answer::{GZIP_FROM, accepts_gzip};
use crate::auth::User;
use crate::error::ApiError;
use crate::negotiate::Output;
use crate::registry::{Registry, Resource, Served};
use crate::request::RequestInfo;
use crate::room::{Client, Load};
use crate::server::ApiServer;

/// A request for a stored resource, with all that it consists of beside the body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) info: RequestInfo,
    pub(crate) user: Arc<User>,
    pub(crate) headers: HeaderMap,
    pub(crate) query: String,
    pub(crate) output: Output,
}

impl Asked {
    /// The request for its handler; in the room for heavy ones with the client that waits there.
    pub(crate) fn context<'a>(&'a self, client: Option<&'a Client>) -> Result<Context<'a>, ApiError> {
        let (resource, served) = self.server.find(&self.info)?;
        let Self { server, info, user, headers, query, output } = self;
        Ok(Context { server, resource, served, info, user, headers, query, output: *output, client })
    }
}

/// A request for a stored resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) server: &'a Arc<ApiServer>,
    pub(crate) resource: &'a Resource,
    pub(crate) served: &'a Served,
    pub(crate) info: &'a RequestInfo,
    pub(crate) user: &'a Arc<User>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a str,
    pub(crate) output: Output,
    /// Who waits for the answer in the room for heavy requests.
    pub(crate) client: Option<&'a Client>,
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

    /// What the request decodes at once: its body, the object that it changes or reads in another form than the
    /// stored one, and what admission reads of others. A list, a watch and the deletion of a collection find
    /// out what they decode and take that to the room themselves.
    pub(crate) fn load(&self, body: usize) -> Load {
        let Self { server, resource, served, info, headers, output, .. } = self;
        let is_stored_text = output.is_plain_json() && resource.is_stored_as(served) && info.subresource != "scale";
        let stored = || server.registry.object_bytes(resource, self.namespace(), &info.name);
        let object = match &*info.verb {
            // Sent as it is, unless it is compressed on the way.
            "get" if is_stored_text && !accepts_gzip(headers) => 0,
            "get" if is_stored_text => Some(stored()).filter(|bytes| *bytes >= GZIP_FROM).unwrap_or(0),
            "get" | "update" | "patch" | "delete" => stored(),
            _ => 0,
        };
        let passing = match &*info.verb {
            "update" | "patch" => server.admission.passing_bytes(&server.registry, resource, info),
            _ => 0,
        };
        Load { body, object, passing }
    }

    /// The same request for another object, to be answered elsewhere.
    pub(crate) fn asked(&self, info: RequestInfo) -> Asked {
        let (server, query) = (Arc::clone(self.server), self.query.to_owned());
        Asked { server, info, user: Arc::clone(self.user), headers: self.headers.clone(), query, output: self.output }
    }

    /// Between two phases of a heavy request: one whose client has gone ends here.
    pub(crate) fn pause(&self) -> Result<(), ApiError> {
        match self.client {
            Some(client) if client.is_gone() => Err(ApiError::Timeout("the client has gone".into())),
            Some(_) | None => Ok(()),
        }
    }

    /// An object that is there, or may be, and cannot be read.
    pub(crate) fn damaged(&self, name: &str) -> ApiError {
        let item = self.resource.item(self.namespace(), name);
        if self.registry().storage().may_be_lost(&self.resource.collection, &item) {
            return ApiError::internal(format_args!(
                "{} {name:?} may be among the objects that are lost in the store; creating it anew replaces it",
                self.resource.name
            ));
        }
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
