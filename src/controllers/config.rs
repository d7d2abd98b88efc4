//! What the controllers are told at start.

use std::sync::Arc;

use api::object::GroupResource;
use ipnet::Ipv4Net;

/// One resource that the API server serves, in the version that writers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedResource {
    pub group: String,
    pub version: String,
    /// The plural name in URLs.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    /// Objects of it can be listed, watched and deleted; reviews and the like cannot.
    pub stored: bool,
}

impl ServedResource {
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Settings of all controllers.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the namespace controller and the garbage collector look after.
    pub resources: Arc<[ServedResource]>,
    /// Published to every namespace as `kube-root-ca.crt`, in PEM.
    pub root_ca: String,
    /// Nodes get a /24 of this each; absent when something else hands out pod networks.
    pub cluster_cidr: Option<Ipv4Net>,
}
