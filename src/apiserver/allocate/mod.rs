//! Addresses and node ports of services.
//!
//! What is allocated stands in the services themselves and nowhere else. An allocation looks at all
//! stored services and at those that are about to be stored; the latter are held by a [`Reservation`]
//! until their write is published, so that two writers never choose the same.

mod families;
mod range;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use api::core::service_inheritance::{inherit, may_have_node_ports, needs_cluster_ip, needs_health_check_port};
use api::field::{self, Path};
use api::object::{Object, ObjectKey};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use parking_lot::Mutex;
use rand::Rng;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::projection::{Change, Projection};
use crate::registry::Registry;
use families::{HEADLESS, IPV4, IPV6};
use range::{IpRange, PortRange};

const NODE_PORTS: PortRange = PortRange { first: 30000, last: 32767 };

/// What a service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    ips: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// Allocates for all services of the cluster.
#[derive(Debug)]
pub struct Allocator {
    ranges: Vec<IpRange>,
    /// Addresses of the server's own services, whether these are there at the moment or not.
    reserved: Vec<IpAddr>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    services: Projection,
    /// Nothing is known of a service that cannot be read.
    stored: HashMap<ObjectKey, Option<Held>>,
    /// By a running number: allocated, but not yet seen in the store.
    pending: HashMap<u64, Held>,
    next: u64,
}

/// Keeps an allocation from others until it is dropped, which is right once the write is published or
/// has failed.
#[derive(Debug)]
#[must_use = "the allocation is free for others as soon as this is dropped"]
pub struct Reservation<'a> {
    allocator: &'a Allocator,
    number: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.allocator.state.lock().pending.remove(&self.number);
    }
}

impl Allocator {
    /// An allocator for the cluster's service networks: one, or one of each family. Nobody else is
    /// given the address of cluster DNS or of the `kubernetes` service.
    #[must_use]
    pub fn new(networks: &[IpNet], cluster_dns: IpAddr) -> Self {
        let state = State {
            services: Projection::new("", "services"),
            stored: HashMap::new(),
            pending: HashMap::new(),
            next: 0,
        };
        let ranges: Vec<_> = networks.iter().copied().map(IpRange::new).collect();
        let reserved = networks.iter().copied().map(api_address).chain([cluster_dns]).collect();
        Self { ranges, reserved, state: Mutex::new(state) }
    }

    /// Fills in what a service that is about to be written needs. `old` is its stored version.
    ///
    /// # Errors
    /// `Invalid` when what it asks for cannot be had; `Internal` when nothing is left.
    pub fn allocate(
        &self,
        registry: &Registry,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation<'_>, ApiError> {
        let mut new = Service::deserialize(&*service).map_err(ApiError::internal)?;
        let old = old.map(Service::deserialize).transpose().map_err(ApiError::internal)?;
        let mut random = rand::rng();
        let mut choose = |size: u128| random.random_range(0..size);
        let mut state = self.state.lock();
        state.refresh(registry);
        let mut used = state.used(old.as_ref().map(key_of).as_ref())?;
        used.ips.extend(&self.reserved);
        let held = self.assign(&mut new, old.as_ref(), &mut used, &mut choose)?;
        *service = serde_json::to_value(&new).map_err(ApiError::internal)?;
        state.next += 1;
        let number = state.next;
        state.pending.insert(number, held);
        drop(state);
        Ok(Reservation { allocator: self, number })
    }

    /// The pure part: decides on the basis of what others use.
    fn assign(
        &self,
        service: &mut Service,
        old: Option<&Service>,
        used: &mut Used,
        choose: range::Choose<'_>,
    ) -> Result<Held, ApiError> {
        let name = service.metadata.name.clone().unwrap_or_default();
        let invalid = |errors: &[field::Error]| ApiError::invalid("", "Service", &name, errors);
        let spec = service.spec.get_or_insert_default();
        inherit(spec, old.and_then(|o| o.spec.as_ref()));
        families::initialize(spec, old, &self.offered()).map_err(|e| invalid(&e))?;
        let ips = self.assign_ips(spec, old, used, choose).map_err(|e| e.into_api(&invalid))?;
        let ports = assign_ports(spec, old, used, choose).map_err(|e| e.into_api(&invalid))?;
        Ok(Held { ips, ports })
    }

    fn offered(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|r| if r.is_ipv4() { IPV4 } else { IPV6 }).collect()
    }

    fn assign_ips(
        &self,
        spec: &mut ServiceSpec,
        old: Option<&Service>,
        used: &Used,
        choose: range::Choose<'_>,
    ) -> Result<Vec<IpAddr>, Failure> {
        if !needs_cluster_ip(spec) || spec.cluster_ip.as_deref() == Some(HEADLESS) {
            return Ok(Vec::new());
        }
        let families = spec.ip_families.clone().unwrap_or_default();
        let own: Vec<String> = old.and_then(|o| o.spec.as_ref()?.cluster_ips.clone()).unwrap_or_default();
        let mut ips = spec.cluster_ips.clone().unwrap_or_default();
        ips.resize(families.len().max(ips.len()), String::new());
        let mut taken = Vec::new();
        for (i, family) in families.iter().enumerate() {
            let Some(range) = self.ranges.iter().find(|r| r.is_ipv4() == (family == IPV4)) else { continue };
            if ips[i].is_empty() {
                let ip = range.take_any(&used.ips, choose).map_err(|e| Failure::full("a serviceIP", &e))?;
                ips[i] = ip.to_string();
                taken.push(ip);
                continue;
            }
            // What is no address at all, validation will say.
            let Ok(ip) = ips[i].parse::<IpAddr>() else { continue };
            if !own.contains(&ips[i]) {
                range.take(ip, &used.ips).map_err(|e| Failure::ip(&ips, i, &e))?;
            }
            taken.push(ip);
        }
        spec.cluster_ip = ips.first().cloned();
        spec.cluster_ips = Some(ips);
        Ok(taken)
    }
}

/// The address of the `kubernetes` service: the first of its network.
#[must_use]
pub fn api_address(network: IpNet) -> IpAddr {
    IpRange::new(network).first()
}

/// What other services hold.
#[derive(Debug, Default)]
struct Used {
    ips: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

impl State {
    fn refresh(&mut self, registry: &Registry) {
        for change in self.services.changes(registry) {
            match &change {
                Change::Set(object) => self.stored.insert(object.index.key.clone(), held_by(object)),
                Change::Gone(key) => self.stored.remove(key),
            };
        }
    }

    fn used(&self, own: Option<&ObjectKey>) -> Result<Used, ApiError> {
        let mut used = Used::default();
        let mut add = |held: &Held| {
            used.ips.extend(&held.ips);
            used.ports.extend(&held.ports);
        };
        for (key, held) in self.stored.iter().filter(|(key, _)| Some(*key) != own) {
            // It may hold just what would be chosen.
            let unreadable = || ApiError::internal(format!("cannot allocate: the stored service {key} is unreadable"));
            add(held.as_ref().ok_or_else(unreadable)?);
        }
        self.pending.values().for_each(add);
        Ok(used)
    }
}

fn held_by(object: &Object) -> Option<Held> {
    let spec = object.decode::<Service>().ok()?.spec.unwrap_or_default();
    let ports = spec.ports.iter().flatten().filter_map(|p| p.node_port).chain(spec.health_check_node_port);
    Some(Held {
        ips: spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
        ports: ports.filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0).collect(),
    })
}

fn key_of(service: &Service) -> ObjectKey {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    ObjectKey::new(&text(&service.metadata.namespace), &text(&service.metadata.name))
}

fn needs_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn assign_ports(
    spec: &mut ServiceSpec,
    old: Option<&Service>,
    used: &mut Used,
    choose: range::Choose<'_>,
) -> Result<Vec<u16>, Failure> {
    let automatic = needs_ports(spec);
    let own: HashSet<i32> =
        old.and_then(|o| o.spec.as_ref()?.ports.clone()).into_iter().flatten().filter_map(|p| p.node_port).collect();
    let mut taken: Vec<u16> = Vec::new();
    // One port number of two protocols shares a node port.
    let mut by_port: HashMap<i32, i32> = HashMap::new();
    if may_have_node_ports(spec) {
        for port in spec.ports.iter().flatten() {
            if let Some(node_port) = port.node_port.filter(|p| *p != 0) {
                by_port.entry(port.port).or_insert(node_port);
            }
        }
        for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
            let wanted = port.node_port.unwrap_or(0);
            let wanted = if wanted == 0 && automatic { by_port.get(&port.port).copied().unwrap_or(0) } else { wanted };
            if wanted == 0 {
                if !automatic {
                    continue;
                }
                let number = NODE_PORTS.take_any(&used.ports, choose).map_err(|e| Failure::full("a nodePort", &e))?;
                by_port.insert(port.port, i32::from(number));
                port.node_port = Some(i32::from(number));
                used.ports.insert(number);
                taken.push(number);
                continue;
            }
            port.node_port = Some(wanted);
            let held = u16::try_from(wanted).ok().filter(|p| own.contains(&wanted) || taken.contains(p));
            let number = match held {
                Some(number) => number,
                None => NODE_PORTS.take(wanted, &used.ports).map_err(|e| Failure::port(i, wanted, &e))?,
            };
            used.ports.insert(number);
            taken.push(number);
        }
    }
    taken.extend(assign_health_port(spec, old, used, choose)?);
    Ok(taken)
}

fn assign_health_port(
    spec: &mut ServiceSpec,
    old: Option<&Service>,
    used: &Used,
    choose: range::Choose<'_>,
) -> Result<Option<u16>, Failure> {
    if !needs_health_check_port(spec) {
        return Ok(None);
    }
    let own = old.and_then(|o| o.spec.as_ref()?.health_check_node_port);
    let number = match spec.health_check_node_port.filter(|p| *p != 0) {
        None => NODE_PORTS.take_any(&used.ports, choose).map_err(|e| Failure::full("a HealthCheck NodePort", &e))?,
        Some(port) if Some(port) == own => return Ok(u16::try_from(port).ok()),
        Some(port) => NODE_PORTS
            .take(port, &used.ports)
            .map_err(|e| Failure::Internal(format!("failed to allocate requested HealthCheck NodePort {port}: {e}")))?,
    };
    spec.health_check_node_port = Some(i32::from(number));
    Ok(Some(number))
}

/// Why nothing was allocated.
#[derive(Debug)]
enum Failure {
    Field(field::Error),
    Internal(String),
}

impl Failure {
    fn full(what: &str, cause: &range::Unavailable) -> Self {
        Self::Internal(format!("failed to allocate {what}: {cause}"))
    }

    fn ip(ips: &[String], index: usize, cause: &range::Unavailable) -> Self {
        let spec = Path::new("spec");
        let detail = format!("failed to allocate IP {}: {cause}", ips[index]);
        Self::Field(field::invalid(&spec.child("clusterIPs"), ips, detail))
    }

    fn port(index: usize, port: i32, cause: &range::Unavailable) -> Self {
        let spec = Path::new("spec");
        let ports = spec.child("ports");
        let entry = ports.index(index);
        Self::Field(field::invalid(&entry.child("nodePort"), &port, cause.to_string()))
    }

    fn into_api(self, invalid: &dyn Fn(&[field::Error]) -> ApiError) -> ApiError {
        match self {
            Self::Field(error) => invalid(&[error]),
            Self::Internal(message) => ApiError::internal(message),
        }
    }
}

#[cfg(test)]
mod tests;
