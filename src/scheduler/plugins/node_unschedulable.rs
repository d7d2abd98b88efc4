//! Keeps pods off cordoned nodes.

use api::k8s_openapi::api::core::v1::{PodSpec, Taint};

use super::taint_toleration::tolerates;
use crate::framework::{Candidate, Filter, Rejection, Remedy};

const NAME: &str = "NodeUnschedulable";
const TAINT: &str = "node.kubernetes.io/unschedulable";

/// Cordoning works like a taint of its own name, which a pod may tolerate.
pub(crate) struct NodeUnschedulable {
    tolerated: bool,
}

impl NodeUnschedulable {
    pub(crate) fn new(spec: &PodSpec) -> Self {
        let taint = Taint { key: TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        Self { tolerated: tolerates(spec.tolerations.as_deref().unwrap_or_default(), &taint) }
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        if candidate.node.unschedulable && !self.tolerated {
            return Err(Rejection::new(NAME, "node(s) were unschedulable", Remedy::None));
        }
        Ok(())
    }
}
