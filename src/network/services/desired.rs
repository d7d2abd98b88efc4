//! What the proxy wants: plain values, one for each port of each Service.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::Protocol;

/// Which endpoints may serve a class of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    /// Only those on this node; the source address is kept.
    Local,
}

/// One port of one Service that has a cluster IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub cluster_ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    /// Served on every address of the node.
    pub node_port: Option<u16>,
    pub external_ips: Vec<Ipv4Addr>,
    /// The load balancer's ingress addresses.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty means everybody.
    pub source_ranges: Vec<Ipv4Net>,
    /// For the cluster IP.
    pub internal_policy: TrafficPolicy,
    /// For all other addresses.
    pub external_policy: TrafficPolicy,
    /// A client keeps its endpoint until it was silent for this long.
    pub affinity: Option<Duration>,
    /// Endpoints on any node.
    pub endpoints: Vec<SocketAddrV4>,
    /// Endpoints on this node; may hold terminating ones that `endpoints` does not.
    pub local_endpoints: Vec<SocketAddrV4>,
}
