//! A host port is given once a node.

use crate::framework::{Candidate, Filter, Rejection, Remedy};
use crate::pod_info::{HostPort, PodInfo};

pub(crate) const NAME: &str = "NodePorts";

pub(crate) struct NodePorts<'a> {
    wanted: &'a [HostPort],
}

impl<'a> NodePorts<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Self {
        Self { wanted: &pod.ports }
    }
}

impl Filter for NodePorts<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let mut taken = candidate.info.pods.values().flat_map(|p| &p.ports);
        if taken.any(|t| self.wanted.iter().any(|w| w.conflicts_with(t))) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            return Err(Rejection::new(NAME, reason, Remedy::Preemption));
        }
        Ok(())
    }
}
