//! The list of what this server stores, for those who look after everything: the garbage collector
//! and the namespace controller.

use crate::server::ApiServer;

/// One resource in the version that it is stored in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedResource {
    pub group: String,
    pub version: String,
    /// The plural name in URLs.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
}

impl ApiServer {
    /// Every resource whose objects are kept, once: one that is another's second name is left out.
    #[must_use]
    pub fn served_resources(&self) -> Vec<ServedResource> {
        let kept = self.registry.resources().all().iter().filter(|r| r.row.stored && r.row.stored_in.is_none());
        let served = kept.map(|r| ServedResource {
            group: r.row.group.to_owned(),
            version: r.row.stored_version.to_owned(),
            resource: r.row.resource.to_owned(),
            kind: r.row.kind.to_owned(),
            namespaced: r.row.namespaced,
        });
        served.collect()
    }
}
