//! Which UDP flows go where no endpoint is any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::chain::Frontend;
use super::desired::ServicePort;
use super::plan::frontends;
use crate::conntrack::Flow;
use crate::protocol::Protocol;

/// The endpoints of every UDP frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UdpServices(BTreeMap<Frontend, BTreeSet<SocketAddrV4>>);

impl UdpServices {
    pub(super) fn of(ports: &[ServicePort], cluster_dns: Option<Ipv4Addr>) -> Self {
        let mut services: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            for (frontend, _) in frontends(port, cluster_dns) {
                let endpoints = port.endpoints.iter().chain(&port.local_endpoints).copied().collect();
                services.entry(frontend).or_insert(endpoints);
            }
        }
        Self(services)
    }

    /// The frontends whose flows may have gone stale by the change from `old`: those that lost an
    /// endpoint, were removed, or are served for the first time (flows from before went elsewhere).
    pub(super) fn suspects_after(&self, old: &Self) -> BTreeSet<Frontend> {
        let lost = old
            .0
            .iter()
            .filter(|(frontend, before)| self.0.get(frontend).map_or(!before.is_empty(), |now| !before.is_subset(now)));
        let first = self
            .0
            .iter()
            .filter(|(frontend, now)| !now.is_empty() && old.0.get(frontend).is_none_or(BTreeSet::is_empty));
        lost.chain(first).map(|(frontend, _)| *frontend).collect()
    }

    /// These frontends, or all that there are and these, with the endpoints that they have now.
    pub(super) fn with(&self, frontends: &BTreeSet<Frontend>, all: bool) -> Self {
        let mut services = if all { self.0.clone() } else { BTreeMap::new() };
        for frontend in frontends {
            let endpoints = self.0.get(frontend).cloned().unwrap_or_default();
            services.insert(*frontend, endpoints);
        }
        Self(services)
    }

    /// The flow is for one of these frontends, but its answers come from none of its endpoints.
    pub(super) fn is_stale(&self, flow: &Flow, local: &[Ipv4Addr]) -> bool {
        let (to, port) = (*flow.destination.ip(), flow.destination.port());
        if let Some(endpoints) = self.0.get(&Frontend::Address(to, Protocol::Udp, port)) {
            return !endpoints.contains(&flow.answers_from);
        }
        let Some(endpoints) = self.0.get(&Frontend::NodePort(Protocol::Udp, port)) else { return false };
        let translated = flow.answers_from != flow.destination;
        // A flow through this host to the same port elsewhere is none of ours.
        let ours = local.contains(&to) || to.is_loopback();
        ours && (translated || !endpoints.is_empty()) && !endpoints.contains(&flow.answers_from)
    }

    /// The flow goes from an address of the service range to an endpoint, though no Service has it.
    pub(super) fn is_of_no_service(&self, flow: &Flow, range: Ipv4Net) -> bool {
        let (to, port) = (*flow.destination.ip(), flow.destination.port());
        let translated = flow.answers_from != flow.destination;
        translated && range.contains(&to) && !self.0.contains_key(&Frontend::Address(to, Protocol::Udp, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(entries: &[(Frontend, &[&str])]) -> UdpServices {
        let endpoints = |list: &[&str]| list.iter().map(|e| e.parse().unwrap()).collect();
        UdpServices(entries.iter().map(|(frontend, list)| (*frontend, endpoints(list))).collect())
    }

    fn address(last: u8) -> Frontend {
        Frontend::Address(Ipv4Addr::new(10, 96, 0, last), Protocol::Udp, 53)
    }

    #[test]
    fn only_losses_and_first_endpoints_make_flows_suspect() {
        #[track_caller]
        fn check(old: &[&str], new: Option<&[&str]>, expected: bool) {
            let old = services(&[(address(5), old)]);
            let new = new.map(|new| services(&[(address(5), new)])).unwrap_or_default();
            assert_eq!(!new.suspects_after(&old).is_empty(), expected);
        }
        let (a, b) = ("10.244.0.2:53", "10.244.0.3:53");
        check(&[a], Some(&[a]), false);
        check(&[a], Some(&[a, b]), false);
        check(&[a, b], Some(&[b]), true);
        check(&[a], None, true);
        check(&[], Some(&[a]), true);
        check(&[], None, false);
    }

    #[test]
    fn flows_are_judged_by_where_their_answers_come_from() {
        let suspects = services(&[
            (address(5), &["10.244.0.2:53"]),
            (Frontend::NodePort(Protocol::Udp, 30053), &["10.244.0.2:53"]),
        ]);
        #[track_caller]
        fn check(suspects: &UdpServices, destination: &str, answers_from: &str, expected: bool) {
            let flow = Flow { destination: destination.parse().unwrap(), answers_from: answers_from.parse().unwrap() };
            let local = [Ipv4Addr::new(192, 168, 1, 9)];
            assert_eq!(suspects.is_stale(&flow, &local), expected, "{destination} {answers_from}");
        }
        check(&suspects, "10.96.0.5:53", "10.244.0.2:53", false);
        check(&suspects, "10.96.0.5:53", "10.244.0.9:53", true);
        check(&suspects, "10.96.0.6:53", "10.244.0.9:53", false);
        check(&suspects, "192.168.1.9:30053", "10.244.0.9:53", true);
        check(&suspects, "192.168.1.9:30053", "10.244.0.2:53", false);
        check(&suspects, "127.0.0.1:30053", "10.244.0.9:53", true);
        check(&suspects, "8.8.8.8:30053", "8.8.8.8:30053", false);
    }
}
