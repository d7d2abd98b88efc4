//! The resources and subresources that are not plain storage: each has a handler of its own.

mod access_review;
mod answer;
mod binding;
mod container;
mod dial;
mod eviction;
pub(crate) mod kubelet;
mod log;
mod loopback;
pub(crate) mod openid;
pub(crate) mod prepare;
pub(crate) mod proxy;
mod self_subject;
mod streaming;
mod token_request;
mod token_review;
pub(crate) mod tunnel;

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;

pub use kubelet::{Config, KubeletConfigError, KubeletIdentity, Kubelets};
pub use tunnel::Tunnels;

use crate::auth::User;
use crate::error::ApiError;
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// A request that was authenticated and authorized. Its body is unread, so that a connection can be
/// upgraded.
#[derive(Debug)]
pub struct Call {
    pub info: RequestInfo,
    pub user: Arc<User>,
    pub request: axum::extract::Request,
}

/// Answers every verb of one special resource or subresource.
#[async_trait]
pub trait SpecialHandler: Send + Sync {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError>;
}

/// The special handler of a resource (`subresource` empty) or subresource, if it has one.
#[must_use]
pub fn lookup(group: &str, resource: &str, subresource: &str) -> Option<&'static dyn SpecialHandler> {
    Some(match (group, resource, subresource) {
        ("", "bindings", "") | ("", "pods", "binding") => &binding::Handler,
        ("", "pods", "eviction") => &eviction::Handler,
        ("", "pods", "log") => &log::Handler,
        ("", "pods", "exec") => &streaming::Handler::Exec,
        ("", "pods", "attach") => &streaming::Handler::Attach,
        ("", "pods", "portforward") => &streaming::Handler::PortForward,
        ("", "pods", "proxy") => &proxy::Handler::Pod,
        ("", "services", "proxy") => &proxy::Handler::Service,
        ("", "nodes", "proxy") => &proxy::Handler::Node,
        ("", "serviceaccounts", "token") => &token_request::Handler,
        ("authentication.k8s.io", "tokenreviews", "") => &token_review::Handler,
        ("authentication.k8s.io", "selfsubjectreviews", "") => &self_subject::Handler,
        ("authorization.k8s.io", "subjectaccessreviews", "") => &access_review::Handler::Any,
        ("authorization.k8s.io", "selfsubjectaccessreviews", "") => &access_review::Handler::Own,
        ("authorization.k8s.io", "localsubjectaccessreviews", "") => &access_review::Handler::Local,
        ("authorization.k8s.io", "selfsubjectrulesreviews", "") => &access_review::Handler::Rules,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Resources;

    /// What the table calls special is told to clients; nobody else would answer it.
    #[test]
    fn every_special_resource_has_a_handler() {
        for row in Resources::built_in().all().iter().map(|r| r.row) {
            let special = row.subresources.iter().filter(|s| s.special).map(|s| s.name);
            let whole = (!row.stored).then_some("");
            for name in special.chain(whole) {
                assert!(lookup(row.group, row.resource, name).is_some(), "{}/{name}", row.resource);
            }
        }
    }
}
