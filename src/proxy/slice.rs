//! What the proxy keeps of an EndpointSlice.

use std::net::Ipv4Addr;

use api::object::{ObjectIndex, ObjectKey};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use network::Protocol;

use crate::service::{port_number, protocol};
use crate::{HEADLESS, SERVICE_PROXY_NAME};

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice of IPv4 endpoints of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceInfo {
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<EndpointInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointInfo {
    pub(crate) address: Ipv4Addr,
    pub(crate) use_for: UseFor,
    pub(crate) local: bool,
}

/// What an endpoint may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseFor {
    Traffic,
    /// It is terminating but still serves: only when nothing better is left.
    LastResort,
}

impl SliceInfo {
    /// The Service and the slice; absent when the slice is not for the proxy.
    pub(crate) fn of(index: &ObjectIndex, slice: EndpointSlice, node: &str) -> Option<(ObjectKey, Self)> {
        if slice.address_type != "IPv4"
            || index.labels.contains_key(SERVICE_PROXY_NAME)
            || index.labels.contains_key(HEADLESS)
        {
            return None;
        }
        let service = ObjectKey::new(&index.key.namespace, index.labels.get(SERVICE_NAME)?);
        let ports = slice.ports.into_iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.as_deref().unwrap_or_default().into(),
                protocol: protocol(port.protocol.as_deref())?,
                port: port_number(port.port)?,
            })
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| info(endpoint, node));
        Some((service, Self { ports: ports.collect(), endpoints: endpoints.collect() }))
    }
}

fn info(endpoint: &Endpoint, node: &str) -> Option<EndpointInfo> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let use_for = match (ready, serving && terminating) {
        (true, _) => UseFor::Traffic,
        (false, true) => UseFor::LastResort,
        (false, false) => return None,
    };
    Some(EndpointInfo {
        address: endpoint.addresses.first()?.parse().ok()?,
        use_for,
        local: endpoint.node_name.as_deref() == Some(node),
    })
}
