//! Addresses that no Service may claim, whatever its status, `externalIPs` or node ports say: the node's own where
//! a program of the node listens, and those of pods and other Services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use network::Protocol;
use network::services::ServicePort;

/// Takes the node's address away from service ports that the host listens on itself.
pub(crate) fn leave_to_host(ports: &mut [ServicePort], node_ip: Ipv4Addr, listening: &BTreeSet<(Protocol, u16)>) {
    for port in ports {
        let protocol = port.protocol;
        let is_hosts = |number| listening.contains(&(protocol, number));
        port.node_port = port.node_port.filter(|number| !is_hosts(*number));
        if is_hosts(port.port) {
            port.external_ips.retain(|ip| *ip != node_ip);
            port.load_balancer_ips.retain(|ip| *ip != node_ip);
        }
    }
}

/// Takes away what a service port claims in the networks of pods and Services: each of these addresses is somebody's,
/// or will be.
pub(crate) fn leave_to_cluster(ports: &mut [ServicePort], networks: &[Ipv4Net]) {
    for port in ports {
        let is_outside = |ip: &Ipv4Addr| !is_inside(*ip, networks);
        port.external_ips.retain(is_outside);
        port.load_balancer_ips.retain(is_outside);
    }
}

pub(crate) fn is_inside(ip: Ipv4Addr, networks: &[Ipv4Net]) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// Whether a service port is reached at the node's address at all.
pub(crate) fn claims_node(port: &ServicePort, node_ip: Ipv4Addr) -> bool {
    port.node_port.is_some() || port.external_ips.contains(&node_ip) || port.load_balancer_ips.contains(&node_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    fn port(number: u16, protocol: Protocol) -> ServicePort {
        ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
            protocol,
            port: number,
            node_port: Some(30_001),
            external_ips: vec![NODE, OTHER],
            load_balancer_ips: vec![NODE],
            source_ranges: Vec::new(),
            internal_policy: network::services::TrafficPolicy::Cluster,
            external_policy: network::services::TrafficPolicy::Cluster,
            affinity: None,
            endpoints: Vec::new(),
            local_endpoints: Vec::new(),
        }
    }

    #[test]
    fn no_service_claims_an_address_of_a_pod_or_a_service() {
        let networks = ["10.244.0.0/16", "10.96.0.0/16"].map(|network| network.parse().unwrap());
        let (pod, service) = (Ipv4Addr::new(10, 244, 3, 4), Ipv4Addr::new(10, 96, 0, 9));
        let mut ports = [ServicePort {
            external_ips: vec![pod, OTHER, service],
            load_balancer_ips: vec![service, NODE],
            ..port(80, Protocol::Tcp)
        }];
        leave_to_cluster(&mut ports, &networks);
        let left = ServicePort { external_ips: vec![OTHER], ..port(80, Protocol::Tcp) };
        assert_eq!(ports, [left]);
    }

    #[test]
    fn a_port_of_the_host_stays_the_hosts_at_the_nodes_address() {
        let (node, other) = (NODE, OTHER);
        let inner = ServicePort {
            node_port: None,
            external_ips: vec![other],
            load_balancer_ips: Vec::new(),
            ..port(22, Protocol::Tcp)
        };
        assert!(claims_node(&port(22, Protocol::Tcp), node) && !claims_node(&inner, node));
        let mut ports = [port(22, Protocol::Tcp), port(22, Protocol::Udp), port(80, Protocol::Tcp)];
        let [_, udp, web] = ports.clone();
        let ssh = ServicePort { external_ips: vec![other], load_balancer_ips: Vec::new(), ..port(22, Protocol::Tcp) };
        leave_to_host(&mut ports, node, &BTreeSet::from([(Protocol::Tcp, 22)]));
        assert_eq!(ports, [ssh.clone(), udp.clone(), web.clone()]);
        leave_to_host(&mut ports, node, &BTreeSet::from([(Protocol::Tcp, 30_001)]));
        let without = |port| ServicePort { node_port: None, ..port };
        assert_eq!(ports, [without(ssh), udp, without(web)]);
    }
}
