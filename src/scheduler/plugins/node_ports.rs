//! A host port is given once a node, and those of the node's own servers and of load balancers never.

use api::core::node_ports::Port;

use crate::framework::{Candidate, Filter, Rejection, Remedy, View};
use crate::pod_info::{HostPort, PodInfo};

pub(crate) const NAME: &str = "NodePorts";

pub(crate) struct NodePorts<'a> {
    wanted: &'a [HostPort],
    view: View<'a>,
}

impl<'a> NodePorts<'a> {
    pub(crate) fn new(pod: &'a PodInfo, view: View<'a>) -> Self {
        Self { wanted: &pod.ports, view }
    }

    /// A Service of type LoadBalancer has the port at an address of the node that is asked for.
    fn is_balanced(&self, wanted: &HostPort, candidate: Candidate<'_>) -> bool {
        let asked = Port::of(wanted.port, Some(&wanted.protocol));
        self.view
            .cache
            .balanced()
            .any(|(ip, port)| asked == Some(*port) && candidate.node.addresses.contains(ip) && wanted.takes_of(*ip))
    }
}

impl Filter for NodePorts<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let reason = "node(s) didn't have free ports for the requested pod ports";
        let reserved = candidate.info.node.as_ref().map(|n| &n.reserved_ports);
        let is_reserved = |w: &HostPort| {
            let port = Port::of(w.port, Some(&w.protocol));
            port.is_some_and(|port| reserved.is_some_and(|reserved| reserved.contains(&port)))
        };
        if self.wanted.iter().any(|w| is_reserved(w) || self.is_balanced(w, candidate)) {
            // No pod that goes makes room.
            return Err(Rejection::new(NAME, reason, Remedy::None));
        }
        let mut taken = candidate.info.pods.values().flat_map(|p| &p.ports);
        if taken.any(|t| self.wanted.iter().any(|w| w.conflicts_with(t))) {
            return Err(Rejection::new(NAME, reason, Remedy::Preemption));
        }
        Ok(())
    }
}
