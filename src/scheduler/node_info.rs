//! A node with the pods on it and what they take.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::core::node_ports::{self, Port};
use api::k8s_openapi::api::core::v1::{Node, Taint};
use api::object::ObjectIndex;
use api::quantity::Quantity;

use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::terms::Labels;

/// The part of a Node that decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeView {
    pub index: Arc<ObjectIndex>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    pub allowed_pods: usize,
    pub addresses: Vec<IpAddr>,
    /// Host ports of the node's own servers.
    pub reserved_ports: BTreeSet<Port>,
    /// Image names and their sizes in bytes.
    pub images: HashMap<Box<str>, i64>,
}

impl NodeView {
    pub(crate) fn new(index: Arc<ObjectIndex>, node: &Node) -> Self {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let pods = allocatable.and_then(|a| a.get("pods")).and_then(|q| q.0.parse::<Quantity>().ok());
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten().flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |n| (n.as_str().into(), size))
        });
        Self {
            index,
            unschedulable: node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false),
            taints: node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
            allocatable: Resources::from_list(allocatable),
            allowed_pods: pods.and_then(|q| usize::try_from(q.value()).ok()).unwrap_or(0),
            addresses: status
                .iter()
                .flat_map(|s| s.addresses.iter().flatten())
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            reserved_ports: node_ports::read(&node.metadata, node_ports::RESERVED),
            images: images.collect(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.index.key.name
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.index.labels
    }

    /// Whether pods that did not fit before might fit now.
    pub(crate) fn may_fit_more_than(&self, old: &Self) -> bool {
        self.unschedulable != old.unschedulable
            || self.taints != old.taints
            || self.allocatable != old.allocatable
            || self.allowed_pods != old.allowed_pods
            || self.addresses != old.addresses
            || self.reserved_ports != old.reserved_ports
            || self.index.labels != old.index.labels
    }
}

/// A node and its load, kept up to date by increments.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeInfo {
    /// Absent while only pods of the node are known.
    pub node: Option<NodeView>,
    pub pods: HashMap<Arc<str>, Arc<PodInfo>>,
    pub requested: Resources,
    pub scored: Resources,
}

impl NodeInfo {
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.requested.add(&pod.requested);
        self.scored.add(&pod.scored);
        self.pods.insert(pod.index.uid.clone(), pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requested);
        self.scored.subtract(&pod.scored);
        Some(pod)
    }
}
