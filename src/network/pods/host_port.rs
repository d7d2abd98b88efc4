//! Ports of the host that lead to a pod.

use std::fmt;
use std::net::Ipv4Addr;

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
