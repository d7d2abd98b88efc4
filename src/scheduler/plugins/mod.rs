//! Upstream's default plugins, one file each, in upstream's order.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use crate::framework::{ClusterEvent, Filter, Pending, Score, View};

/// The filters for one pod, ready to be asked about each node.
pub(crate) fn filters<'a>(pending: &'a Pending<'a>, view: View<'a>) -> Vec<Box<dyn Filter + 'a>> {
    let mut out: Vec<Box<dyn Filter + 'a>> = vec![
        Box::new(node_unschedulable::NodeUnschedulable::new(pending.spec)),
        Box::new(node_name::NodeName::new(pending.spec)),
        Box::new(taint_toleration::TaintToleration::new(pending.spec)),
        Box::new(node_affinity::NodeAffinity::new(pending.spec)),
        Box::new(node_ports::NodePorts::new(pending.info, view)),
        Box::new(node_resources_fit::NodeResourcesFit::new(pending.info)),
    ];
    if let Some(spread) = pod_topology_spread::Required::new(pending, view) {
        out.push(Box::new(spread));
    }
    out.push(Box::new(inter_pod_affinity::Required::new(pending.info, view)));
    out
}

/// The scores for one pod; those that cannot tell nodes apart are left out.
pub(crate) fn scores<'a>(pending: &'a Pending<'a>, view: View<'a>) -> Vec<Box<dyn Score + 'a>> {
    let mut out: Vec<Box<dyn Score + 'a>> = vec![
        Box::new(taint_toleration::TaintToleration::new(pending.spec)),
        Box::new(node_resources_fit::NodeResourcesFit::new(pending.info)),
        Box::new(balanced_allocation::BalancedAllocation::new(pending.info)),
        Box::new(image_locality::ImageLocality::new(pending.spec, view)),
    ];
    if let Some(preferred) = node_affinity::Preferred::new(pending.spec) {
        out.push(Box::new(preferred));
    }
    if let Some(spread) = pod_topology_spread::Preferred::new(pending, view) {
        out.push(Box::new(spread));
    }
    if let Some(preferred) = inter_pod_affinity::Preferred::new(pending.info, view) {
        out.push(Box::new(preferred));
    }
    out
}

/// Whether a pod that this plugin rejected may pass after such a change.
pub(crate) fn is_helped(plugin: &str, event: ClusterEvent) -> bool {
    match event {
        ClusterEvent::NodeChanged => true,
        ClusterEvent::PodGone => {
            [node_ports::NAME, node_resources_fit::NAME, pod_topology_spread::NAME, inter_pod_affinity::NAME]
                .contains(&plugin)
        }
        ClusterEvent::PodPlaced => [pod_topology_spread::NAME, inter_pod_affinity::NAME].contains(&plugin),
        ClusterEvent::PortFreed => plugin == node_ports::NAME,
        ClusterEvent::VolumeChanged => plugin == crate::cycle::VOLUMES,
    }
}
