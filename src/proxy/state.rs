//! All Services and endpoints, in small, and the list of service ports that follows from them.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use api::object::ObjectKey;
use network::services::ServicePort;

use crate::health::HealthCheck;
use crate::service::{PortInfo, ServiceInfo};
use crate::slice::{EndpointInfo, SliceInfo, UseFor};

#[derive(Debug, Default)]
pub(crate) struct State {
    services: BTreeMap<ObjectKey, ServiceInfo>,
    /// By Service, then by the slice's name.
    slices: BTreeMap<ObjectKey, BTreeMap<Box<str>, SliceInfo>>,
    /// The Service of each slice: its label may change, and is unknown once the slice is gone.
    owners: BTreeMap<ObjectKey, ObjectKey>,
}

impl State {
    /// Takes a Service as it is now; absent when it is gone or none of ours. Tells whether that
    /// changed anything.
    pub(crate) fn set_service(&mut self, key: &ObjectKey, service: Option<ServiceInfo>) -> bool {
        match service {
            Some(service) if self.services.get(key) == Some(&service) => false,
            Some(service) => {
                self.services.insert(key.clone(), service);
                true
            }
            None => self.services.remove(key).is_some(),
        }
    }

    /// The same for a slice.
    pub(crate) fn set_slice(&mut self, key: &ObjectKey, slice: Option<(ObjectKey, SliceInfo)>) -> bool {
        let before = self.remove_slice(key);
        let changed = match (&before, &slice) {
            (None, None) => false,
            (Some(before), Some(now)) => before != now,
            (None, Some(_)) | (Some(_), None) => true,
        };
        if let Some((service, slice)) = slice {
            self.owners.insert(key.clone(), service.clone());
            self.slices.entry(service).or_default().insert((*key.name).into(), slice);
        }
        changed
    }

    fn remove_slice(&mut self, key: &ObjectKey) -> Option<(ObjectKey, SliceInfo)> {
        let service = self.owners.remove(key)?;
        let slices = self.slices.get_mut(&service)?;
        let slice = slices.remove(&*key.name)?;
        if slices.is_empty() {
            self.slices.remove(&service);
        }
        Some((service, slice))
    }

    /// What the rules must be, in the order of the Services' keys.
    pub(crate) fn service_ports(&self) -> Vec<ServicePort> {
        let mut ports = Vec::new();
        for (key, service) in &self.services {
            for port in &service.ports {
                let endpoints = self.endpoints(key, port);
                ports.push(ServicePort {
                    cluster_ip: service.cluster_ip,
                    protocol: port.protocol,
                    port: port.port,
                    node_port: port.node_port,
                    external_ips: service.external_ips.clone(),
                    load_balancer_ips: service.load_balancer_ips.clone(),
                    source_ranges: service.source_ranges.clone(),
                    internal_policy: service.internal_policy,
                    external_policy: service.external_policy,
                    affinity: service.affinity,
                    endpoints: usable(&endpoints, |_| true),
                    local_endpoints: usable(&endpoints, |endpoint| endpoint.local),
                });
            }
        }
        ports
    }

    /// What to answer on health check ports.
    pub(crate) fn health_checks(&self) -> BTreeMap<u16, HealthCheck> {
        let checks = self.services.iter().filter_map(|(key, service)| {
            let port = service.health_check_port?;
            let endpoints = self.slices.get(key).into_iter().flat_map(BTreeMap::values).flat_map(|s| &s.endpoints);
            let local = endpoints.filter(|e| e.local && e.use_for == UseFor::Traffic).map(|e| e.address);
            let local_endpoints = local.collect::<std::collections::BTreeSet<_>>().len();
            Some((port, HealthCheck { service: key.clone(), local_endpoints }))
        });
        checks.collect()
    }

    /// The endpoints of one port; a pod that moves between slices may be in two for a moment.
    fn endpoints(&self, service: &ObjectKey, port: &PortInfo) -> BTreeMap<SocketAddrV4, EndpointInfo> {
        let mut endpoints = BTreeMap::new();
        for slice in self.slices.get(service).into_iter().flat_map(BTreeMap::values) {
            let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            for number in matching.map(|p| p.port) {
                for endpoint in &slice.endpoints {
                    let entry = endpoints.entry(SocketAddrV4::new(endpoint.address, number)).or_insert(*endpoint);
                    if endpoint.use_for == UseFor::Traffic {
                        *entry = *endpoint;
                    }
                }
            }
        }
        endpoints
    }
}

/// Those that are ready, or else those that are terminating and still serve.
fn usable(
    endpoints: &BTreeMap<SocketAddrV4, EndpointInfo>,
    wanted: impl Fn(&EndpointInfo) -> bool,
) -> Vec<SocketAddrV4> {
    let of = |use_for| -> Vec<_> {
        endpoints.iter().filter(|(_, e)| e.use_for == use_for && wanted(e)).map(|(at, _)| *at).collect()
    };
    let ready = of(UseFor::Traffic);
    if ready.is_empty() { of(UseFor::LastResort) } else { ready }
}

#[cfg(test)]
mod tests;
