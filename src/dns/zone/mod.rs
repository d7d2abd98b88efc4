//! The zone: what names can be answered from, kept small and up to date.

#[cfg(test)]
pub(crate) mod fixtures;
mod records;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use api::object::ObjectKey;
use hickory_proto::rr::Name;
use ipnet::IpNet;

pub(crate) use records::{Endpoint, Port, ServiceRecord, Slice};

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// `cluster.local.`
    pub(crate) domain: Name,
    /// The server's own addresses, for the name server's records.
    pub(crate) servers: Vec<Ipv4Addr>,
    /// Reverse names in these ranges are nobody else's.
    pub(crate) ranges: Vec<IpNet>,
}

/// Names and addresses of one cluster.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) origin: Origin,
    namespaces: BTreeMap<Box<str>, Namespace>,
    pointers: BTreeMap<IpAddr, Vec<Pointer>>,
    /// The Service of each slice: its label may change, and is unknown once the slice is gone.
    owners: BTreeMap<ObjectKey, ObjectKey>,
    /// Of the SOA record: when the zone changed last, in seconds since 1970.
    pub(crate) serial: u32,
}

#[derive(Debug, Default)]
struct Namespace {
    exists: bool,
    services: BTreeMap<Box<str>, Service>,
}

/// A Service and its slices, either of which may be known before the other.
#[derive(Debug, Default)]
pub(crate) struct Service {
    record: Option<ServiceRecord>,
    slices: BTreeMap<Box<str>, Slice>,
}

/// What an address is called: a Service, or an endpoint of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) service: ObjectKey,
    pub(crate) host: Option<Box<str>>,
}

impl Service {
    pub(crate) fn record(&self) -> Option<&ServiceRecord> {
        self.record.as_ref()
    }

    /// Ready endpoints with the ports of their slice.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Endpoint, &[Port])> {
        self.slices.values().flat_map(|slice| slice.endpoints.iter().map(|e| (e, slice.ports.as_ref())))
    }

    fn is_empty(&self) -> bool {
        self.record.is_none() && self.slices.is_empty()
    }
}

impl Zone {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, namespaces: BTreeMap::new(), pointers: BTreeMap::new(), owners: BTreeMap::new(), serial: 0 }
    }

    /// The namespace exists: names below it that do not are a definite no.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|n| n.exists)
    }

    /// The Service, once both it and the zone know of it.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.namespaces.get(namespace)?.services.get(name).filter(|service| service.record.is_some())
    }

    pub(crate) fn pointers(&self, address: IpAddr) -> &[Pointer] {
        self.pointers.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn set_namespace(&mut self, name: &str, exists: bool) {
        self.namespaces.entry(name.into()).or_default().exists = exists;
        self.tidy(name, None);
    }

    /// Takes a Service as it is now, or notes that it is gone.
    pub(crate) fn set_service(&mut self, key: &ObjectKey, record: Option<ServiceRecord>) {
        let added: Vec<IpAddr> = record.as_ref().map(|r| r.addresses().to_vec()).unwrap_or_default();
        let old = std::mem::replace(&mut self.entry(key).record, record);
        let removed = old.as_ref().map(ServiceRecord::addresses).unwrap_or_default();
        let pointer = Pointer { service: key.clone(), host: None };
        removed.iter().for_each(|address| self.unpoint(*address, &pointer));
        added.into_iter().for_each(|address| self.point(address, pointer.clone()));
        self.tidy(&key.namespace, Some(&key.name));
    }

    /// Takes a slice as it is now, with the Service it belongs to, or notes that it is gone.
    pub(crate) fn set_slice(&mut self, key: &ObjectKey, slice: Option<(ObjectKey, Slice)>) {
        if let Some(service) = self.owners.remove(key) {
            if let Some(old) = self.entry(&service).slices.remove(&*key.name) {
                old.endpoints.iter().for_each(|endpoint| self.unpoint(endpoint.address, &pointer(&service, endpoint)));
            }
            self.tidy(&service.namespace, Some(&service.name));
        }
        if let Some((service, slice)) = slice {
            slice.endpoints.iter().for_each(|endpoint| self.point(endpoint.address, pointer(&service, endpoint)));
            self.entry(&service).slices.insert((*key.name).into(), slice);
            self.owners.insert(key.clone(), service);
        }
    }

    fn entry(&mut self, key: &ObjectKey) -> &mut Service {
        let namespace = self.namespaces.entry((*key.namespace).into()).or_default();
        namespace.services.entry((*key.name).into()).or_default()
    }

    /// Drops what holds nothing any more.
    fn tidy(&mut self, namespace: &str, service: Option<&str>) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        if let Some(service) = service
            && entry.services.get(service).is_some_and(Service::is_empty)
        {
            entry.services.remove(service);
        }
        if !entry.exists && entry.services.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    fn point(&mut self, address: IpAddr, pointer: Pointer) {
        self.pointers.entry(address).or_default().push(pointer);
    }

    /// Removes one: an endpoint that moves between slices is in two for a moment.
    fn unpoint(&mut self, address: IpAddr, pointer: &Pointer) {
        let Some(pointers) = self.pointers.get_mut(&address) else { return };
        if let Some(at) = pointers.iter().position(|p| p == pointer) {
            pointers.remove(at);
        }
        if pointers.is_empty() {
            self.pointers.remove(&address);
        }
    }
}

fn pointer(service: &ObjectKey, endpoint: &Endpoint) -> Pointer {
    Pointer { service: service.clone(), host: Some(endpoint.host().into()) }
}
