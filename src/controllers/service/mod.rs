//! Services of type LoadBalancer: the nodes themselves are the load balancer, so their addresses are
//! the Service's.

use std::net::IpAddr;

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service, ServiceSpec};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::pod_control;
use crate::pods::Condition;

const ACCOUNT: &str = "service-controller";
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
}

/// Runs the load balancer controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let services = cluster.clone();
    Controller::new(Reconciler { cluster: cluster.clone(), recorder }, cluster, client)
        .reconciles::<Service>()
        .watches::<Node>(move |change| services_of_nodes(&services, change))
        .run(token)
        .await;
}

/// All Services, when the addresses that nodes offer have changed; heartbeats do not change them.
fn services_of_nodes(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    if let Change::Applied { object, old: Some(old) } = change
        && addresses(object) == addresses(old)
    {
        return Vec::new();
    }
    cluster.objects::<Service>(&Query::ALL).iter().map(|o| o.index.key.clone()).collect()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    address: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What a node offers: its external addresses if it has any, else its internal ones; nothing while it
/// is not ready or excluded.
fn addresses(node: &Object) -> Vec<IpAddr> {
    let Ok(Body { status }) = node.decode::<Body>() else { return Vec::new() };
    let ready = status.conditions.iter().flatten().any(|c| c.kind == "Ready" && c.status == "True");
    if !ready || node.index.labels.contains_key(EXCLUDE_LABEL) || node.index.deleting {
        return Vec::new();
    }
    let all = status.addresses.unwrap_or_default();
    let of = |kind: &str| -> Vec<IpAddr> {
        all.iter().filter(|a| a.kind == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "service-lb-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(mut service) = self.cluster.get::<Service>(&key.namespace, &key.name) else {
            return Ok(Outcome::Done);
        };
        let Some(spec) = &service.spec else { return Ok(Outcome::Done) };
        // A class of somebody else's is theirs to serve.
        if spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_some() {
            return Ok(Outcome::Done);
        }
        let nodes = self.cluster.objects::<Node>(&Query::ALL);
        let offered: Vec<IpAddr> = nodes.iter().flat_map(addresses).collect();
        let wanted = ingress(spec, offered);
        let current = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.clone());
        if current.unwrap_or_default() == wanted || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let served = !wanted.is_empty();
        let balancer = LoadBalancerStatus { ingress: Some(wanted).filter(|i| !i.is_empty()) };
        service.status.get_or_insert_default().load_balancer = Some(balancer);
        let updated = w.update_status(&service).await?;
        if served {
            let about = pod_control::reference(&updated);
            self.recorder.event(&about, EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer");
        }
        Ok(Outcome::Done)
    }
}

fn ingress(spec: &ServiceSpec, mut offered: Vec<IpAddr>) -> Vec<LoadBalancerIngress> {
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return Vec::new();
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let serves = |ip: &IpAddr| {
        let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        families.is_empty() || families.iter().any(|f| f == family)
    };
    offered.retain(serves);
    offered.sort_unstable();
    offered.dedup();
    offered
        .into_iter()
        .map(|ip| LoadBalancerIngress {
            ip: Some(ip.to_string()),
            ip_mode: Some("VIP".to_owned()),
            hostname: None,
            ports: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_load_balancers_get_addresses_of_their_families() {
        let offered =
            || vec!["192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let spec = |kind: &str| ServiceSpec {
            type_: Some(kind.into()),
            ip_families: Some(vec!["IPv4".into()]),
            ..ServiceSpec::default()
        };
        assert!(ingress(&spec("NodePort"), offered()).is_empty());
        let got: Vec<_> = ingress(&spec("LoadBalancer"), offered()).into_iter().map(|i| i.ip.unwrap()).collect();
        assert_eq!(got, ["192.0.2.1", "192.0.2.9"]);
    }
}
