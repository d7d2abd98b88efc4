//! The Endpoints object that a Service should have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::object::ObjectKey;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods::PodView;
use crate::services;

const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses that one object holds, as upstream bounds it.
const MAX_ADDRESSES: usize = 1000;

/// The object to write, or nothing when what stands is right.
pub(super) fn endpoints(
    service: &Service,
    key: &ObjectKey,
    pods: &[PodView],
    current: Option<&Endpoints>,
) -> Option<Endpoints> {
    let spec = service.spec.clone().unwrap_or_default();
    let (subsets, truncated) = subsets(&spec, key, pods);
    let labels = labels(service, &spec);
    let mut wanted = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.subsets = Some(subsets).filter(|s| !s.is_empty());
    wanted.metadata.labels = Some(labels);
    let annotations = wanted.metadata.annotations.get_or_insert_with(BTreeMap::new);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        wanted.metadata.annotations = None;
    }
    (current != Some(&wanted)).then_some(wanted)
}

/// Made here, not by somebody for a Service of theirs.
pub(super) fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels.iter().flatten().any(|(k, v)| k == MANAGED_BY_LABEL && v == MANAGED_BY)
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if services::is_headless(spec) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// Ready addresses stand before others when not all fit; the flag says that some were left out.
fn subsets(spec: &ServiceSpec, key: &ObjectKey, pods: &[PodView]) -> (Vec<EndpointSubset>, bool) {
    let published = spec.publish_not_ready_addresses == Some(true);
    let mut found: Vec<(bool, EndpointAddress, Vec<EndpointPort>)> = Vec::new();
    for pod in pods {
        if pod.is_finished() || (pod.index.deleting && !published) {
            continue;
        }
        let Some(address) = address(spec, key, pod) else { continue };
        let ports = ports(spec, pod);
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|p| !p.is_empty()) {
            continue;
        }
        found.push((published || pod.is_ready(), address, ports));
    }
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| order(&a.1).cmp(&order(&b.1))));
    let truncated = found.len() > MAX_ADDRESSES;
    found.truncate(MAX_ADDRESSES);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for (ready, address, ports) in found {
        let ports = Some(ports).filter(|p| !p.is_empty());
        let at = subsets.iter().position(|s| s.ports == ports).unwrap_or_else(|| {
            subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
            subsets.len() - 1
        });
        let subset = &mut subsets[at];
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_with(Vec::new).push(address);
    }
    (subsets, truncated)
}

fn order(address: &EndpointAddress) -> (Option<IpAddr>, Option<String>) {
    (address.ip.parse().ok(), address.target_ref.as_ref().and_then(|r| r.uid.clone()))
}

fn address(spec: &ServiceSpec, key: &ObjectKey, pod: &PodView) -> Option<EndpointAddress> {
    let wants_v6 = spec.ip_families.iter().flatten().next().is_some_and(|f| f == "IPv6");
    let is_wanted = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == wants_v6);
    let ip = pod.status.pod_ips.iter().map(|p| &p.ip).find(|ip| is_wanted(ip))?;
    Some(EndpointAddress {
        ip: ip.clone(),
        hostname: services::hostname(pod, key),
        node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.index.key.namespace.to_string()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.index.uid.to_string()),
            ..ObjectReference::default()
        }),
    })
}

fn ports(spec: &ServiceSpec, pod: &PodView) -> Vec<EndpointPort> {
    let find = |port| {
        let number = services::target_port(pod, port)?;
        Some(EndpointPort {
            name: port.name.clone().filter(|n| !n.is_empty()),
            port: number,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    spec.ports.iter().flatten().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use k8s_openapi::api::core::v1::ServicePort;

    fn service() -> Service {
        let port = ServicePort { port: 80, ..ServicePort::default() };
        let spec =
            ServiceSpec { cluster_ip: Some("10.96.0.9".into()), ports: Some(vec![port]), ..ServiceSpec::default() };
        Service { metadata: ObjectMeta::default(), spec: Some(spec), status: None }
    }

    #[test]
    fn ready_and_unready_pods_stand_apart_and_terminating_ones_are_out() {
        let pods = [
            pod("a").on("n").running().ready(at(1)).ip("10.244.0.10").view(),
            pod("b").on("n").running().ready(at(1)).ip("10.244.0.9").view(),
            pod("c").on("n").running().ip("10.244.0.3").view(),
            pod("d").on("n").running().ready(at(1)).ip("10.244.0.4").deleting(at(2)).view(),
            pod("e").on("n").view(),
        ];
        let key = ObjectKey::new("default", "web");
        let got = endpoints(&service(), &key, &pods, None).unwrap();
        let [subset] = got.subsets.as_deref().unwrap() else { panic!() };
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|a| a.ip.clone()).collect()
        };
        assert_eq!(ips(&subset.addresses), ["10.244.0.9", "10.244.0.10"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.244.0.3"]);
        assert_eq!(endpoints(&service(), &key, &pods, Some(&got)), None);
    }
}
