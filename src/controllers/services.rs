//! What controllers that follow Services ask of them: which Services select a pod, and which port
//! of a pod a Service port means.

use std::collections::HashMap;

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Query};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;

use crate::nodes::Labels;
use crate::pods::{Container, PodView};
use api::selector::LabelSelector as Selector;

/// Selectors of Services by revision, so that a pod's change decodes no Service that it has seen.
pub(crate) struct Selecting {
    cluster: Cluster,
    known: Mutex<HashMap<ObjectKey, (u64, Option<Selector>)>>,
}

impl Selecting {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, known: Mutex::default() }
    }

    /// The Services that a pod's change concerns: those that select it, or selected it before.
    pub(crate) fn of_pod(&self, change: &Change) -> Vec<ObjectKey> {
        let (object, old) = match change {
            Change::Applied { object, old } => (object, old.as_ref()),
            Change::Deleted { object } => (object, None),
            Change::Synced | Change::Resync => return Vec::new(),
        };
        let services = self.cluster.objects::<Service>(&Query::namespace(&object.index.key.namespace));
        let is_concerned =
            |s: &Object| self.selects(s, &object.index.labels) || old.is_some_and(|o| self.selects(s, &o.index.labels));
        services.iter().filter(|s| is_concerned(s)).map(|s| s.index.key.clone()).collect()
    }

    pub(crate) fn forget(&self, change: &Change) {
        if let Change::Deleted { object } = change {
            self.known.lock().remove(&object.index.key);
        }
    }

    fn selects(&self, service: &Object, labels: &Labels) -> bool {
        let mut known = self.known.lock();
        let revision = service.index.resource_version;
        let entry = known.entry(service.index.key.clone()).or_insert((0, None));
        if entry.0 != revision {
            let spec = service.decode::<Service>().ok().and_then(|s| s.spec);
            *entry = (revision, spec.as_ref().and_then(selector));
        }
        entry.1.as_ref().is_some_and(|s| s.matches(labels))
    }
}

/// Absent for Services whose endpoints somebody else provides.
pub(crate) fn selector(spec: &ServiceSpec) -> Option<Selector> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|s| !s.is_empty()).map(Selector::from_map)
}

pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// The number that a Service port's target has in this pod; a name may mean another one in each.
pub(crate) fn target_port(pod: &PodView, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let named = |c: &Container| {
                c.ports
                    .iter()
                    .find(|p| p.name == *name && (p.protocol == protocol || p.protocol.is_empty() && protocol == "TCP"))
                    .map(|p| p.container_port)
            };
            pod.spec.containers.iter().chain(sidecars).find_map(named)
        }
    }
}

/// The host name that DNS gives the pod under this Service.
pub(crate) fn hostname(pod: &PodView, service: &ObjectKey) -> Option<String> {
    let is_governed = !pod.spec.hostname.is_empty() && *pod.spec.subdomain == *service.name;
    is_governed.then(|| pod.spec.hostname.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;

    #[test]
    fn target_ports_are_numbers_names_or_the_port_itself() {
        let pod = pod("a").port("http", 8080).view();
        let port = |target: Option<IntOrString>, protocol: &str| ServicePort {
            port: 80,
            target_port: target,
            protocol: Some(protocol.to_owned()),
            ..ServicePort::default()
        };
        let name = |n: &str| Some(IntOrString::String(n.to_owned()));
        assert_eq!(target_port(&pod, &port(None, "TCP")), Some(80));
        assert_eq!(target_port(&pod, &port(Some(IntOrString::Int(9090)), "TCP")), Some(9090));
        assert_eq!(target_port(&pod, &port(name("http"), "TCP")), Some(8080));
        assert_eq!(target_port(&pod, &port(name("http"), "UDP")), None);
        assert_eq!(target_port(&pod, &port(name("metrics"), "TCP")), None);
    }
}
