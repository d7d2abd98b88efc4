//! The node's own ports, told in annotations of the Node: see [`api::core::node_ports`]; and those that Services
//! have of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use api::core::node_ports::{self, LISTENING, Port, RESERVED, write};
use api::k8s_openapi::api::core::v1::{Node, Service};
use client::kube::api::{Api, Patch, PatchParams};
use client::{Cluster, Query, kube, status as api_status};
use network::{HostPort, Protocol};
use runtime::Lane;
use serde_json::json;
use tracing::warn;

use crate::kubelet::Kubelet;

/// For a few tables of the kernel.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// What the Node says at the moment.
#[derive(Default)]
pub(super) struct HostPorts {
    sent: Option<String>,
}

impl HostPorts {
    /// What a Node that is about to be made says.
    pub(super) async fn to_be_sent(kubelet: &Kubelet) -> Self {
        Self { sent: listening(kubelet).await }
    }

    /// With the annotations of a new Node; it has none where the ports cannot be read.
    pub(super) fn annotations(&self, kubelet: &Kubelet) -> BTreeMap<String, String> {
        self.sent.iter().flat_map(|listening| annotations(kubelet, listening)).collect()
    }

    /// Writes the annotations if the ports have changed. The kernel walks its tables of sockets to tell
    /// them, which costs more than all else on an idle node: after the first time they are asked for only while
    /// somebody wants them.
    pub(super) async fn publish(&mut self, kubelet: &Kubelet) {
        if self.sent.is_some() && !has_load_balancer(&kubelet.cluster) {
            return;
        }
        let Some(listening) = listening(kubelet).await else { return };
        if self.sent.as_ref() == Some(&listening) {
            return;
        }
        match annotate(kubelet, &listening).await {
            Ok(()) => self.sent = Some(listening),
            Err(e) => warn!("the node's ports not published, will retry: {}", api_status::message(&e)),
        }
    }
}

/// The ports that this host listens on, as the annotation has them.
async fn listening(kubelet: &Kubelet) -> Option<String> {
    let addresses = kubelet.cfg.node_ips.clone();
    let read = move || network::listeners(&addresses);
    let told = |error: &dyn Display| warn!("cannot read which ports this host listens on: {error}");
    match kubelet.disk().run(Lane::Node, "", READ_DEADLINE, read).await {
        Ok(Ok(ports)) => return Some(write(&ports.into_iter().filter_map(port).collect())),
        Ok(Err(error)) => told(&error),
        Err(error) => told(&error),
    }
    None
}

/// What load balancers have of the node's addresses: a pod cannot have it as well.
pub(crate) fn balanced(cluster: &Cluster, node_ips: &[IpAddr]) -> Vec<HostPort> {
    let services = cluster.objects::<Service>(&Query::field("spec.type", "LoadBalancer"));
    // One that cannot be read is served to nobody.
    let services = services.iter().filter_map(|o| o.decode::<Service>().ok());
    services.flat_map(|service| balanced_by(&service, node_ips)).collect()
}

fn balanced_by(service: &Service, node_ips: &[IpAddr]) -> Vec<HostPort> {
    let here = node_ports::balanced(service).into_iter().filter(|(ip, _)| node_ips.contains(ip));
    here.filter_map(|(ip, port)| {
        let IpAddr::V4(ip) = ip else { return None };
        let protocol = match port.protocol {
            node_ports::Protocol::Tcp => Protocol::Tcp,
            node_ports::Protocol::Udp => Protocol::Udp,
            node_ports::Protocol::Sctp => Protocol::Sctp,
        };
        Some(HostPort { host_ip: Some(ip), host_port: port.number, container_port: port.number, protocol })
    })
    .collect()
}

/// Whether there is a Service that may take a port of this node.
fn has_load_balancer(cluster: &Cluster) -> bool {
    !cluster.objects::<Service>(&Query::field("spec.type", "LoadBalancer")).is_empty()
}

async fn annotate(kubelet: &Kubelet, listening: &str) -> kube::Result<()> {
    let annotations: BTreeMap<String, String> = annotations(kubelet, listening).into();
    let patch = json!({"metadata": {"annotations": annotations}});
    let api: Api<Node> = Api::all(kubelet.client.clone());
    api.patch(&kubelet.cfg.node_name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

fn annotations(kubelet: &Kubelet, listening: &str) -> [(String, String); 2] {
    let reserved: BTreeSet<Port> =
        kubelet.cfg.own_ports.iter().filter_map(|own| port((own.protocol, own.host_port))).collect();
    [(RESERVED.to_owned(), write(&reserved)), (LISTENING.to_owned(), listening.to_owned())]
}

fn port((protocol, number): (Protocol, u16)) -> Option<Port> {
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    Port::of(i32::from(number), Some(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancers_ports_of_this_node_are_taken() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"ip": "192.0.2.9"}]}},
        }))
        .unwrap();
        let taken = balanced_by(&service, &["192.0.2.9".parse().unwrap()]);
        let wanted = |ip: Option<&str>, port| HostPort {
            host_ip: ip.map(|ip| ip.parse().unwrap()),
            host_port: port,
            container_port: 8080,
            protocol: Protocol::Tcp,
        };
        for (wanted, conflicts) in [
            (wanted(None, 80), true),
            (wanted(Some("192.0.2.9"), 80), true),
            (wanted(Some("127.0.0.1"), 80), false),
            (wanted(None, 81), false),
        ] {
            assert_eq!(taken.iter().any(|t| wanted.conflicts_with(t)), conflicts, "{wanted}");
        }
    }
}
