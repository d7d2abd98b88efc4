//! Services.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME, SELECTOR};
use super::kind::{Printed, row};
use super::text::{self, NONE, UNKNOWN, or, plain};

impl Printed for Service {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Type", "How the service is reached."),
        Column::text("Cluster-IP", "The service's first address inside the cluster."),
        Column::text("External-IP", "Addresses that reach the service from outside."),
        Column::text("Port(s)", "Ports of the service, with their node ports."),
        AGE,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let no_spec = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let cluster_ip = spec.cluster_ips.iter().flatten().next().or(spec.cluster_ip.as_ref());
        let ports: Vec<String> = spec.ports.iter().flatten().map(port).collect();
        row![
            self.name(),
            plain(spec.type_.as_ref()),
            or(cluster_ip.map(String::as_str), NONE),
            external_ip(self, spec),
            or(Some(&ports.join(",")), NONE),
            self.age(now),
            text::labels(spec.selector.as_ref()),
        ]
    }
}

fn port(port: &ServicePort) -> String {
    let protocol = plain(port.protocol.as_ref());
    match port.node_port {
        Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
        _ => format!("{}/{protocol}", port.port),
    }
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let fixed = spec.external_ips.as_deref().unwrap_or_default();
    match plain(spec.type_.as_ref()) {
        "ClusterIP" | "NodePort" => or(Some(&fixed.join(",")), NONE).to_owned(),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
            let mut addresses = text::load_balancer(ingress.map(|i| (i.ip.as_ref(), i.hostname.as_ref())));
            addresses.extend(fixed.iter().map(String::as_str));
            or(Some(&addresses.join(",")), "<pending>").to_owned()
        }
        "ExternalName" => plain(spec.external_name.as_ref()).to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}
