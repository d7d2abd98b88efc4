//! The ports of a node's address that belong to the node itself, as its Node object carries them.
//!
//! The kubelet writes two annotations: the ports of Kubernetes' own servers, which no pod and no Service
//! may have, and all ports that programs of the host listen on, which no Service is put in front of.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Ports of the API server and the kubelet.
pub const RESERVED: &str = "coracle/reserved-ports";
/// Ports that the host listens on at the node's address or at every address.
pub const LISTENING: &str = "coracle/listening-ports";
/// More than any host has; annotations of an object hold 256 KiB together.
const MOST: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of one protocol, written as `80/TCP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

impl Port {
    /// A port as a Service or container names it: no protocol means TCP, and an unknown one none.
    #[must_use]
    pub fn of(number: i32, protocol: Option<&str>) -> Option<Self> {
        let protocol = match protocol.unwrap_or("") {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        Some(Self { number: u16::try_from(number).ok().filter(|n| *n > 0)?, protocol })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

impl FromStr for Port {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let (number, protocol) = text.split_once('/').ok_or(NotAPort)?;
        Self::of(number.parse().map_err(|_| NotAPort)?, Some(protocol)).ok_or(NotAPort)
    }
}

/// The text is not of the form `80/TCP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a port and its protocol")]
pub struct NotAPort;

/// The value of an annotation.
#[must_use]
pub fn write(ports: &BTreeSet<Port>) -> String {
    ports.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The ports of one of a node's annotations; none where it has not written it yet.
#[must_use]
pub fn read(node: &ObjectMeta, annotation: &str) -> BTreeSet<Port> {
    let text = node.annotations.as_ref().and_then(|a| a.get(annotation)).map_or("", String::as_str);
    text.split(',').filter_map(|port| port.parse().ok()).collect()
}

/// What a Service of type LoadBalancer has of nodes' addresses: no pod can have it as well.
#[must_use]
pub fn balanced(service: &Service) -> BTreeSet<(IpAddr, Port)> {
    let Some(spec) = service.spec.as_ref().filter(|s| s.type_.as_deref() == Some("LoadBalancer")) else {
        return BTreeSet::new();
    };
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ips = balancer.iter().flat_map(|b| b.ingress.iter().flatten()).filter_map(|i| i.ip.as_deref()?.parse().ok());
    let ports: Vec<Port> =
        spec.ports.iter().flatten().filter_map(|p| Port::of(p.port, p.protocol.as_deref())).collect();
    ips.flat_map(|ip: IpAddr| ports.iter().map(move |port| (ip, *port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_load_balancer_has_its_ports_of_its_addresses() {
        let service = |kind: &str| -> Service {
            serde_json::from_value(
                json!({"spec": {"type": kind, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "x"}]}}}),
            )
            .unwrap()
        };
        let shown: Vec<String> =
            balanced(&service("LoadBalancer")).iter().map(|(ip, port)| format!("{ip} {port}")).collect();
        assert_eq!(shown, ["192.0.2.9 53/UDP", "192.0.2.9 80/TCP"]);
        assert!(balanced(&service("NodePort")).is_empty());
    }

    #[test]
    fn ports_are_written_and_read_back() {
        let ports: BTreeSet<Port> = [Port::of(6443, None), Port::of(53, Some("UDP")), Port::of(22, Some("TCP"))]
            .into_iter()
            .flatten()
            .collect();
        let text = write(&ports);
        assert_eq!(text, "22/TCP,53/UDP,6443/TCP");
        let meta = ObjectMeta {
            annotations: Some([(RESERVED.to_owned(), format!("{text},x,0/TCP,70000/TCP,1/XXX"))].into()),
            ..ObjectMeta::default()
        };
        assert_eq!(read(&meta, RESERVED), ports);
        assert_eq!(read(&meta, LISTENING), BTreeSet::new());
    }
}
