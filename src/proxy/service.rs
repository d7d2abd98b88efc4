//! What the proxy keeps of a Service.

use std::net::Ipv4Addr;
use std::time::Duration;

use api::object::ObjectIndex;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use network::Protocol;
use network::services::TrafficPolicy;

use crate::{HEADLESS, SERVICE_PROXY_NAME};

/// How long a client is remembered when the Service does not say.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// A Service that has a cluster IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceInfo {
    pub(crate) cluster_ip: Ipv4Addr,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) external_ips: Vec<Ipv4Addr>,
    pub(crate) load_balancer_ips: Vec<Ipv4Addr>,
    pub(crate) source_ranges: Vec<Ipv4Net>,
    pub(crate) internal_policy: TrafficPolicy,
    pub(crate) external_policy: TrafficPolicy,
    pub(crate) affinity: Option<Duration>,
    pub(crate) health_check_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortInfo {
    /// Empty for the only port of a Service.
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

impl ServiceInfo {
    /// Absent when the proxy has nothing to do for the Service: it is headless, an alias, or
    /// another proxy's, or has no IPv4 address.
    pub(crate) fn of(index: &ObjectIndex, service: Service) -> Option<Self> {
        if index.labels.contains_key(SERVICE_PROXY_NAME) || index.labels.contains_key(HEADLESS) {
            return None;
        }
        let spec = service.spec?;
        let cluster_ip = cluster_ip(&spec)?;
        let kind = Kind::of(&spec);
        let is_local = |policy: Option<&str>| match policy {
            Some("Local") => TrafficPolicy::Local,
            _ => TrafficPolicy::Cluster,
        };
        Some(Self {
            cluster_ip,
            ports: ports(&spec, kind),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            load_balancer_ips: match kind {
                Kind::LoadBalancer => ingress(service.status),
                Kind::ClusterIp | Kind::NodePort => Vec::new(),
            },
            source_ranges: match kind {
                Kind::LoadBalancer => ranges(spec.load_balancer_source_ranges.as_deref()),
                Kind::ClusterIp | Kind::NodePort => Vec::new(),
            },
            internal_policy: is_local(spec.internal_traffic_policy.as_deref()),
            external_policy: is_local(spec.external_traffic_policy.as_deref()),
            affinity: affinity(&spec),
            health_check_port: match kind {
                Kind::LoadBalancer => port_number(spec.health_check_node_port),
                Kind::ClusterIp | Kind::NodePort => None,
            },
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

impl Kind {
    fn of(spec: &ServiceSpec) -> Self {
        match spec.type_.as_deref() {
            Some("LoadBalancer") => Self::LoadBalancer,
            Some("NodePort") => Self::NodePort,
            _ => Self::ClusterIp,
        }
    }
}

fn cluster_ip(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip)).first().copied()
}

fn ports(spec: &ServiceSpec, kind: Kind) -> Vec<PortInfo> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(PortInfo {
                name: port.name.as_deref().unwrap_or_default().into(),
                protocol: protocol(port.protocol.as_deref())?,
                port: port_number(Some(port.port))?,
                node_port: match kind {
                    Kind::ClusterIp => None,
                    Kind::NodePort | Kind::LoadBalancer => port_number(port.node_port),
                },
            })
        })
        .collect()
}

/// `None` means TCP; what is unknown is not served.
pub(crate) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP" | "") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// Zero means that there is none.
pub(crate) fn port_number(number: Option<i32>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Addresses that stand for the load balancer on this node. With the mode `Proxy` the balancer
/// itself must see the traffic.
fn ingress(status: Option<ServiceStatus>) -> Vec<Ipv4Addr> {
    let ingress = status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let ours = ingress.iter().flatten().filter(|point| point.ip_mode.as_deref() != Some("Proxy"));
    addresses(ours.filter_map(|point| point.ip.as_ref()))
}

fn ranges(texts: Option<&[String]>) -> Vec<Ipv4Net> {
    texts.into_iter().flatten().filter_map(|text| text.trim().parse().ok()).collect()
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    Some(seconds.map_or(DEFAULT_AFFINITY, Duration::from_secs))
}
