//! A pod that names its node goes nowhere else.

use api::k8s_openapi::api::core::v1::PodSpec;

use crate::framework::{Candidate, Filter, Rejection, Remedy};

const NAME: &str = "NodeName";

/// Pods with a node name are not queued, so this only guards against races.
pub(crate) struct NodeName<'a> {
    wanted: Option<&'a str>,
}

impl<'a> NodeName<'a> {
    pub(crate) fn new(spec: &'a PodSpec) -> Self {
        Self { wanted: spec.node_name.as_deref().filter(|n| !n.is_empty()) }
    }
}

impl Filter for NodeName<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        match self.wanted {
            Some(name) if name != candidate.node.name() => {
                Err(Rejection::new(NAME, "node(s) didn't match the requested node name", Remedy::None))
            }
            _ => Ok(()),
        }
    }
}
