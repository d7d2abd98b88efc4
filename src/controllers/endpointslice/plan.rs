//! The endpoints that a Service should have, grouped by address type and ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::object::ObjectKey;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::slices::{Desired, Group};
use super::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::claim;
use crate::generate_name::generate_name;
use crate::pods::PodView;
use crate::services;

pub(super) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub(super) fn desired(
    service: &Service,
    key: &ObjectKey,
    pods: &[PodView],
    zone: impl Fn(&str) -> Option<String>,
) -> Desired {
    let spec = service.spec.clone().unwrap_or_default();
    let address_types = address_types(&spec);
    let mut groups: Vec<Group> = Vec::new();
    for address_type in &address_types {
        for pod in pods.iter().filter(|p| !p.is_finished()) {
            let addresses = addresses(pod, address_type);
            if addresses.is_empty() {
                continue;
            }
            let ports = ports(&spec, pod);
            let endpoint = endpoint(pod, addresses, &spec, key, &zone);
            match groups.iter_mut().find(|g| g.address_type == *address_type && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type: address_type.clone(), ports, endpoints: vec![endpoint] }),
            }
        }
    }
    Desired { groups, address_types, template: template(service, &spec, key) }
}

/// Metadata that every slice of the Service carries.
fn template(service: &Service, spec: &ServiceSpec, key: &ObjectKey) -> ObjectMeta {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| ![SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL].contains(&name.as_str()));
    labels.insert(SERVICE_NAME_LABEL.to_owned(), key.name.to_string());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    if services::is_headless(spec) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    ObjectMeta {
        generate_name: Some(generate_name(&key.name)),
        namespace: Some(key.namespace.to_string()),
        labels: Some(labels),
        owner_references: Some(vec![claim::controller_ref::<Service>(&service.metadata)]),
        ..ObjectMeta::default()
    }
}

fn address_types(spec: &ServiceSpec) -> Vec<String> {
    match spec.ip_families.as_deref() {
        None | Some([]) => vec!["IPv4".to_owned()],
        Some(families) => families.to_vec(),
    }
}

fn addresses(pod: &PodView, address_type: &str) -> Vec<String> {
    let is_of_type = |ip: &str| match ip.parse() {
        Ok(IpAddr::V4(_)) => address_type == "IPv4",
        Ok(IpAddr::V6(_)) => address_type == "IPv6",
        Err(_) => false,
    };
    pod.status.pod_ips.iter().map(|p| &p.ip).filter(|ip| is_of_type(ip)).cloned().collect()
}

fn ports(spec: &ServiceSpec, pod: &PodView) -> Vec<EndpointPort> {
    let find = |port| {
        let number = services::target_port(pod, port)?;
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    spec.ports.iter().flatten().filter_map(find).collect()
}

fn endpoint(
    pod: &PodView,
    addresses: Vec<String>,
    spec: &ServiceSpec,
    service: &ObjectKey,
    zone: impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let (serving, terminating) = (pod.is_ready(), pod.index.deleting);
    let published = spec.publish_not_ready_addresses == Some(true);
    let node = Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(published || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: services::hostname(pod, service),
        zone: node.as_deref().and_then(zone),
        node_name: node,
        target_ref: Some(pod_reference(pod)),
        deprecated_topology: None,
        hints: None,
    }
}

fn pod_reference(pod: &PodView) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.index.key.namespace.to_string()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.index.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// The labels as slices carry them compare equal whatever the order.
pub(super) fn labels(meta: &ObjectMeta) -> BTreeMap<String, String> {
    meta.labels.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PodBuilder, at, pod};
    use k8s_openapi::api::core::v1::ServicePort;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn service(publish: bool) -> Service {
        let port = ServicePort {
            name: Some("web".into()),
            port: 80,
            target_port: Some(IntOrString::String("http".into())),
            protocol: Some("TCP".into()),
            ..ServicePort::default()
        };
        Service {
            metadata: ObjectMeta { name: Some("web".into()), uid: Some("u".into()), ..ObjectMeta::default() },
            spec: Some(ServiceSpec {
                cluster_ip: Some("10.96.0.20".into()),
                ports: Some(vec![port]),
                publish_not_ready_addresses: Some(publish),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    fn up(name: &str, ip: &str) -> PodBuilder {
        pod(name).on("n1").running().ready(at(1)).ip(ip).port("http", 8080)
    }

    #[track_caller]
    fn check(pod: PodBuilder, publish: bool, expected: Option<(bool, bool, bool)>) {
        let got = desired(&service(publish), &ObjectKey::new("default", "web"), &[pod.view()], |_| None);
        let conditions = got.groups.first().and_then(|g| g.endpoints[0].conditions.clone());
        let got = conditions.map(|c| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()));
        assert_eq!(got, expected);
    }

    #[test]
    fn conditions_follow_readiness_and_deletion() {
        check(up("a", "10.244.0.2"), false, Some((true, true, false)));
        check(pod("b").on("n1").running().ip("10.244.0.3").port("http", 1), false, Some((false, false, false)));
        check(pod("b").on("n1").running().ip("10.244.0.3").port("http", 1), true, Some((true, false, false)));
        check(up("c", "10.244.0.4").deleting(at(9)), false, Some((false, true, true)));
        check(up("d", "10.244.0.5").phase("Succeeded"), false, None);
        check(pod("e").on("n1").running(), false, None);
    }

    #[test]
    fn pods_with_different_numbers_for_a_port_are_grouped_apart() {
        let pods = [
            up("a", "10.244.0.2").view(),
            up("b", "10.244.0.3").view(),
            up("c", "10.244.0.4").port("http", 9090).view(),
        ];
        let got = desired(&service(false), &ObjectKey::new("default", "web"), &pods, |n| Some(format!("zone-of-{n}")));
        let sizes: Vec<_> = got.groups.iter().map(|g| (g.ports[0].port, g.endpoints.len())).collect();
        assert_eq!(sizes, [(Some(8080), 2), (Some(9090), 1)]);
        let first = &got.groups[0].endpoints[0];
        assert_eq!(first.zone.as_deref(), Some("zone-of-n1"));
        assert_eq!(first.target_ref.as_ref().unwrap().name.as_deref(), Some("a"));
    }

    #[test]
    fn headless_services_are_labelled() {
        let mut headless = service(false);
        headless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        let got = desired(&headless, &ObjectKey::new("default", "web"), &[], |_| None);
        assert!(labels(&got.template).contains_key(HEADLESS_LABEL));
        assert_eq!(labels(&got.template)[SERVICE_NAME_LABEL], "web");
    }
}
