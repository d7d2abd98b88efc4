//! What a plugin is and what it is given.

use std::collections::HashSet;

use api::k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::cache::Cache;
use crate::node_info::{NodeInfo, NodeView};
use crate::pod_info::PodInfo;

/// The highest score of a plugin for a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// The pod that is being placed, whole and projected.
pub(crate) struct Pending<'a> {
    pub pod: &'a Pod,
    pub spec: &'a PodSpec,
    pub info: &'a PodInfo,
}

/// A cluster as one cycle sees it: the cache, less the pods that a preemption would remove.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub cache: &'a Cache,
    pub without: &'a HashSet<Box<str>>,
}

impl<'a> View<'a> {
    pub(crate) fn pods(self) -> impl Iterator<Item = (&'a NodeView, &'a PodInfo)> {
        let pods = self.cache.pods().map(|(node, pod)| (node, &**pod));
        pods.filter(move |(_, pod)| !self.without.contains(pod.uid()))
    }
}

/// A node under test.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub node: &'a NodeView,
    pub info: &'a NodeInfo,
}

/// Why a node does not take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub plugin: &'static str,
    pub reasons: Vec<String>,
    pub remedy: Remedy,
}

/// Whether removing pods from the node could make it fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    Preemption,
    /// Only a change of the node, the pod or another object helps.
    None,
}

impl Rejection {
    pub(crate) fn new(plugin: &'static str, reason: &str, remedy: Remedy) -> Self {
        Self { plugin, reasons: vec![reason.to_owned()], remedy }
    }
}

/// Whether a change of the cluster may let a pod through that a plugin rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterEvent {
    NodeChanged,
    /// A pod that had a node is gone or has ended.
    PodGone,
    /// A pod was given a node, or its labels changed.
    PodPlaced,
    /// A load balancer has no longer all the ports that it had.
    PortFreed,
    /// A claim, volume or storage class changed.
    VolumeChanged,
}

/// A filter of nodes, made for one pod and one view.
pub(crate) trait Filter {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection>;
}

/// A judge of nodes that passed all filters.
pub(crate) trait Score {
    /// How much a plugin counts beside the others; upstream's default weights.
    fn weight(&self) -> i64;
    /// Raw score of one node.
    fn score(&self, candidate: Candidate<'_>) -> i64;
    /// Brings the raw scores into 0 to [`MAX_SCORE`].
    fn normalize(&self, scores: &mut [i64]);
}

/// Scales so that the best node gets [`MAX_SCORE`].
pub(crate) fn scale_to_max(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or(0);
    if max > 0 {
        for score in scores {
            *score = *score * MAX_SCORE / max;
        }
    }
}

/// The same for scores of which less is better.
pub(crate) fn scale_inverted(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = if max > 0 { MAX_SCORE - *score * MAX_SCORE / max } else { MAX_SCORE };
    }
}
