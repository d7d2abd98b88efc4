//! What the zone keeps of a Service and of an EndpointSlice.

use std::borrow::Cow;
use std::net::IpAddr;

use api::object::{ObjectIndex, ObjectKey};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How a Service is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceRecord {
    ClusterIp {
        addresses: Box<[IpAddr]>,
        ports: Box<[Port]>,
    },
    /// By its endpoints.
    Headless,
    /// By another name.
    Alias(Name),
}

impl ServiceRecord {
    /// Absent when there is nothing to answer.
    pub(crate) fn of(service: Service) -> Option<Self> {
        let spec = service.spec?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return alias(&spec).map(Self::Alias);
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(Self::Headless);
        }
        let texts = spec.cluster_ips.as_deref().unwrap_or_default();
        let mut addresses: Vec<IpAddr> =
            texts.iter().chain(&spec.cluster_ip).filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let ports = spec.ports.into_iter().flatten();
        let ports = ports.filter_map(|p| Port::of(p.name.as_deref(), p.protocol.as_deref(), Some(p.port)));
        (!addresses.is_empty()).then(|| Self::ClusterIp { addresses: addresses.into(), ports: ports.collect() })
    }

    pub(crate) fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::ClusterIp { addresses, .. } => addresses,
            Self::Headless | Self::Alias(_) => &[],
        }
    }
}

/// An address is no name, and an alias to one has no record type.
fn alias(spec: &ServiceSpec) -> Option<Name> {
    let target = spec.external_name.as_deref()?;
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_utf8(target).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A port that SRV records name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty for the only port of a Service.
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

impl Port {
    fn of(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Self> {
        let protocol = match protocol {
            None | Some("TCP" | "") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        let number = u16::try_from(number?).ok()?;
        Some(Self { name: name.unwrap_or_default().to_lowercase().into(), protocol, number })
    }

    /// Whether the labels of an SRV name, without underscores, name this port.
    pub(crate) fn is_named(&self, name: &str, protocol: &str) -> bool {
        *self.name == *name && !name.is_empty() && self.protocol.label() == protocol
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// The ready endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Box<[Port]>,
    pub(crate) endpoints: Box<[Endpoint]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    hostname: Option<Box<str>>,
}

impl Endpoint {
    /// The first label of the endpoint's own name: its hostname, or its address with dashes.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        match &self.hostname {
            Some(hostname) => Cow::Borrowed(hostname),
            None => Cow::Owned(self.address.to_string().replace(['.', ':'], "-")),
        }
    }
}

impl Slice {
    /// The Service and the slice; absent when it belongs to none, or lists names.
    pub(crate) fn of(index: &ObjectIndex, slice: EndpointSlice) -> Option<(ObjectKey, Self)> {
        let service = ObjectKey::new(&index.key.namespace, index.labels.get(SERVICE_NAME)?);
        if slice.address_type == "FQDN" {
            return None;
        }
        let ports = slice.ports.into_iter().flatten();
        let ports = ports.filter_map(|p| Port::of(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect();
        let ready = slice
            .endpoints
            .into_iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let endpoints = ready
            .filter_map(|e| {
                let hostname = e.hostname.filter(|h| !h.is_empty()).map(|h| h.to_lowercase().into());
                Some(Endpoint { address: e.addresses.first()?.parse().ok()?, hostname })
            })
            .collect();
        Some((service, Self { ports, endpoints }))
    }
}
