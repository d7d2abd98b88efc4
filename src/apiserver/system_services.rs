//! The services that the server itself keeps, as objects: `kubernetes` with the server's address behind
//! it, and `kube-dns`, whose address the nodes answer themselves.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::allocate::api_address;
use crate::config::Config;
use crate::registry::timestamp;

pub(crate) const API: &str = "kubernetes";
pub(crate) const DNS: &str = "kube-dns";

/// The service that clients look for cluster DNS by. It selects no pods and has no endpoints: every
/// node answers at its address.
pub(crate) fn dns_service(config: &Config) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": 53});
    let labels = json!({"k8s-app": DNS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let ports = json!([port("dns", "UDP"), port("dns-tcp", "TCP")]);
    cluster_ip_service(("kube-system", DNS), &labels, config.cluster_dns, &ports)
}

pub(crate) fn api_service(config: &Config) -> Value {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ports = json!([{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.secure_port}]);
    cluster_ip_service(("default", API), &labels, api_address(config.service_cidr), &ports)
}

fn cluster_ip_service((namespace, name): (&str, &str), labels: &Value, address: IpAddr, ports: &Value) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": ports,
        },
        "status": {"loadBalancer": {}},
    })
}

pub(crate) fn service_cidr(config: &Config) -> Value {
    json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": API},
        "spec": {"cidrs": [config.service_cidr.trunc()]},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": timestamp(jiff::Timestamp::now()),
        }]},
    })
}

pub(crate) fn endpoints(config: &Config) -> Value {
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        // The slice is made here, too: the mirroring controller must not make another.
        "metadata": {"name": API, "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": config.advertise_address}],
            "ports": [{"name": "https", "port": config.secure_port, "protocol": "TCP"}],
        }],
    })
}

pub(crate) fn endpoint_slice(config: &Config) -> Value {
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": API, "namespace": "default",
            "labels": {"kubernetes.io/service-name": API}},
        "addressType": if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [config.advertise_address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.secure_port, "protocol": "TCP"}],
    })
}
