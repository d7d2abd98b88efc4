//! The node's own ports at its own address: no Service is put in front of a program that listens there,
//! whatever the Service's status, `externalIPs` or node ports say.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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

/// Whether a service port is reached at the node's address at all.
pub(crate) fn claims_node(port: &ServicePort, node_ip: Ipv4Addr) -> bool {
    port.node_port.is_some() || port.external_ips.contains(&node_ip) || port.load_balancer_ips.contains(&node_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_the_host_stays_the_hosts_at_the_nodes_address() {
        let (node, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9));
        let port = |number: u16, protocol: Protocol| ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
            protocol,
            port: number,
            node_port: Some(30_001),
            external_ips: vec![node, other],
            load_balancer_ips: vec![node],
            source_ranges: Vec::new(),
            internal_policy: network::services::TrafficPolicy::Cluster,
            external_policy: network::services::TrafficPolicy::Cluster,
            affinity: None,
            endpoints: Vec::new(),
            local_endpoints: Vec::new(),
        };
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
