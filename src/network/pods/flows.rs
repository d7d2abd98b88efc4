//! UDP flows to host ports, which the connection tracker would keep where they went at first.
//!
//! A flow lives as long as its client sends. One that began before the pod had its port, or while an
//! earlier pod had it, is forgotten, so that its next packet meets today's rules.

use std::net::{Ipv4Addr, SocketAddrV4};

use tracing::{debug, warn};

use super::HostPort;
use crate::Protocol;
use crate::conntrack::{self, Flow};
use crate::netlink::{Kernel, Socket};
use crate::route;

/// Forgets flows to these ports that lead anywhere but to the pod, once its rules are loaded.
pub(super) fn lead_to(connections: &Socket, route: &Socket, pod: Ipv4Addr, host_ports: &[HostPort]) {
    let ports = udp(host_ports);
    if ports.is_empty() {
        return;
    }
    told(route::local_addresses(route).and_then(|addresses| {
        let local: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
        conntrack::forget_udp(connections, |flow| goes_elsewhere(flow, &ports, pod, &local))
    }));
}

/// Forgets flows that were led to the pod, once its rules are gone.
pub(super) fn leave(connections: &Socket, pod: Ipv4Addr, host_ports: &[HostPort]) {
    if !udp(host_ports).is_empty() {
        told(conntrack::forget_udp(connections, |flow| was_led_to(flow, pod)));
    }
}

/// The rules are right whether or not flows are forgotten, so failures are only told.
fn told(outcome: Result<usize, Kernel>) {
    match outcome {
        Ok(forgotten) => debug!(forgotten, "forgot UDP flows to host ports"),
        Err(e) => warn!("cannot forget UDP flows to host ports: {e}"),
    }
}

fn udp(host_ports: &[HostPort]) -> Vec<HostPort> {
    host_ports.iter().copied().filter(|port| port.protocol == Protocol::Udp).collect()
}

fn goes_elsewhere(flow: &Flow, ports: &[HostPort], pod: Ipv4Addr, local: &[Ipv4Addr]) -> bool {
    let to = flow.destination;
    // Flows to addresses of others are not the pod's, whatever its host ports name.
    if !to.ip().is_loopback() && !local.contains(to.ip()) {
        return false;
    }
    let is_at = |port: &HostPort| port.address().is_none_or(|address| address == *to.ip());
    let port = ports.iter().find(|port| port.host_port == to.port() && is_at(port));
    port.is_some_and(|port| flow.answers_from != SocketAddrV4::new(pod, port.container_port))
}

fn was_led_to(flow: &Flow, pod: Ipv4Addr) -> bool {
    *flow.answers_from.ip() == pod && flow.destination != flow.answers_from
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);

    fn flow(destination: &str, answers_from: &str) -> Flow {
        Flow { destination: destination.parse().unwrap(), answers_from: answers_from.parse().unwrap() }
    }

    #[test]
    fn flows_to_a_host_port_must_be_answered_by_its_pod() {
        let local = [Ipv4Addr::new(192, 168, 1, 9)];
        let port = |host_ip: Option<&str>, host_port| HostPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port: 53,
            protocol: Protocol::Udp,
        };
        let ports = [port(None, 5353), port(Some("192.168.1.9"), 5354), port(Some("8.8.8.8"), 53)];
        for (destination, answers_from, expected) in [
            ("192.168.1.9:5353", "10.244.1.5:53", false),
            ("192.168.1.9:5353", "10.244.1.4:53", true),
            ("192.168.1.9:5353", "192.168.1.9:5353", true),
            ("127.0.0.1:5353", "10.244.1.4:53", true),
            ("192.168.1.9:5354", "10.244.1.4:53", true),
            ("127.0.0.1:5354", "10.244.1.4:53", false),
            ("192.168.1.9:5355", "10.244.1.4:53", false),
            // Through this host to the same port elsewhere.
            ("8.8.8.8:5353", "8.8.8.8:5353", false),
            // Somebody else's address, which a pod may only name.
            ("8.8.8.8:53", "8.8.8.8:53", false),
        ] {
            let found = goes_elsewhere(&flow(destination, answers_from), &ports, POD, &local);
            assert_eq!(found, expected, "{destination} {answers_from}");
        }
    }

    #[test]
    fn only_flows_that_were_translated_to_the_pod_leave_with_it() {
        for (destination, answers_from, expected) in [
            ("192.168.1.9:5353", "10.244.1.5:53", true),
            ("10.244.1.5:53", "10.244.1.5:53", false),
            ("192.168.1.9:5353", "10.244.1.6:53", false),
        ] {
            assert_eq!(was_led_to(&flow(destination, answers_from), POD), expected, "{destination} {answers_from}");
        }
    }
}
