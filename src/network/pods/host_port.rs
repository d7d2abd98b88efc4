//! Ports of the host that lead to a pod.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPort {
    /// Absent: every address of the host. The unspecified address means the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
    #[serde(default)]
    pub protocol: Protocol,
}

impl HostPort {
    /// The address that it is bound to, if it is only one.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Both cannot be served at once: as the scheduler sees it, one address conflicts with all.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let same_address = match (self.address(), other.address()) {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && same_address
    }

    /// A program of the host listens there and would lose its clients. Of the loopback addresses a port of all
    /// addresses leaves those beside 127.0.0.1 out: a name server of the host's own is usually at one of them, and
    /// one in a pod is meant to take its place for others. The address of cluster DNS is never taken.
    pub(crate) fn is_listened_on(
        &self,
        (protocol, at): &(Protocol, SocketAddr),
        cluster_dns: Option<Ipv4Addr>,
    ) -> bool {
        let takes = |ip: IpAddr| match self.address() {
            Some(own) => ip == IpAddr::V4(own),
            None => !ip.is_loopback() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let (ip, dns) = (at.ip(), cluster_dns.map(IpAddr::V4));
        self.protocol == *protocol
            && self.host_port == at.port()
            && Some(ip) != dns
            && (ip.is_unspecified() || (ip.is_ipv4() && takes(ip)))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address().unwrap_or(Ipv4Addr::UNSPECIFIED);
        write!(f, "{address}:{}/{}", self.host_port, self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_hosts_where_a_program_listens_at_an_address_that_it_would_take() {
        #[track_caller]
        fn check(host_ip: Option<&str>, listener: &str, expected: bool) {
            let host_ip = host_ip.map(|ip| ip.parse().unwrap());
            let port = HostPort { host_ip, host_port: 53, container_port: 8053, protocol: Protocol::Udp };
            let dns = Some(Ipv4Addr::new(10, 96, 0, 10));
            let socket = (Protocol::Udp, listener.parse().unwrap());
            assert_eq!(port.is_listened_on(&socket, dns), expected, "{host_ip:?} {listener}");
        }
        for host_ip in [None, Some("127.0.0.1")] {
            check(host_ip, "127.0.0.1:53", true);
            check(host_ip, "0.0.0.0:53", true);
            check(host_ip, "[::]:53", true);
            check(host_ip, "127.0.0.53:53", false);
            check(host_ip, "10.96.0.10:53", false);
            check(host_ip, "[::1]:53", false);
            check(host_ip, "127.0.0.1:54", false);
        }
        check(None, "192.0.2.1:53", true);
        check(Some("127.0.0.1"), "192.0.2.1:53", false);
        check(Some("127.0.0.53"), "127.0.0.53:53", true);
        let tcp = (Protocol::Tcp, "0.0.0.0:53".parse().unwrap());
        let port = HostPort { host_ip: None, host_port: 53, container_port: 53, protocol: Protocol::Udp };
        assert!(!port.is_listened_on(&tcp, None));
    }

    #[test]
    fn one_address_conflicts_with_all_addresses_but_not_with_another() {
        #[track_caller]
        fn check(a: Option<&str>, b: Option<&str>, expected: bool) {
            let port = |ip: Option<&str>| HostPort {
                host_ip: ip.map(|ip| ip.parse().unwrap()),
                host_port: 80,
                container_port: 8080,
                protocol: Protocol::Tcp,
            };
            assert_eq!(port(a).conflicts_with(&port(b)), expected, "{a:?} {b:?}");
        }
        check(None, None, true);
        check(None, Some("10.0.0.1"), true);
        check(Some("0.0.0.0"), Some("10.0.0.1"), true);
        check(Some("10.0.0.1"), Some("10.0.0.1"), true);
        check(Some("10.0.0.1"), Some("10.0.0.2"), false);
    }
}
