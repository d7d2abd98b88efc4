//! EndpointSlices for Endpoints that a user wrote for a Service without a selector.

use api::object::ObjectKey;
use client::{Cluster, Controller, Outcome, Reconcile, Writes};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::slices::{self, Desired, Group};
use super::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL, service_of, slices_of, write};
use crate::claim;
use crate::generate_name::generate_name;

const ACCOUNT: &str = "endpointslicemirroring-controller";
const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations of Endpoints that mean nothing on slices.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of one subset that are mirrored, as upstream bounds them.
const MAX_PER_SUBSET: usize = 1000;

struct Reconciler {
    cluster: Cluster,
}

/// Runs the EndpointSlice mirroring controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    Controller::new(Reconciler { cluster: cluster.clone() }, cluster, client)
        .reconciles::<Endpoints>()
        .reconciles::<Service>()
        .watches::<EndpointSlice>(|change| {
            change.object().and_then(|o| service_of(o, MANAGED_BY)).into_iter().collect()
        })
        .run(token)
        .await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "endpointslice-mirroring-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let endpoints = self.cluster.get::<Endpoints>(&key.namespace, &key.name)?;
        let service = self.cluster.get::<Service>(&key.namespace, &key.name)?;
        let has_selector = service.as_ref().and_then(|s| s.spec.as_ref()).is_some_and(|s| s.selector.is_some());
        let mirrored = endpoints.filter(|e| service.is_some() && !has_selector && wants_mirror(&e.metadata));
        let desired = match &mirrored {
            Some(endpoints) => desired(endpoints, key),
            None => Desired { groups: Vec::new(), address_types: Vec::new(), template: ObjectMeta::default() },
        };
        write(slices::fit(&desired, slices_of(&self.cluster, key, MANAGED_BY)?), w).await?;
        Ok(Outcome::Done)
    }
}

fn wants_mirror(meta: &ObjectMeta) -> bool {
    let skips = meta.labels.iter().flatten().any(|(k, v)| k == SKIP_LABEL && v == "true");
    let is_leader = meta.annotations.iter().flatten().any(|(k, _)| k == LEADER_ANNOTATION);
    !skips && !is_leader && meta.deletion_timestamp.is_none()
}

fn desired(endpoints: &Endpoints, key: &ObjectKey) -> Desired {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(not_ready).take(MAX_PER_SUBSET) {
            let address_type = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let endpoint = endpoint(address, ready);
            match groups.iter_mut().find(|g| g.address_type == address_type && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group {
                    address_type: address_type.to_owned(),
                    ports: ports.clone(),
                    endpoints: vec![endpoint],
                }),
            }
        }
    }
    Desired { groups, address_types: Vec::new(), template: template(endpoints, key) }
}

fn template(endpoints: &Endpoints, key: &ObjectKey) -> ObjectMeta {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME_LABEL.to_owned(), key.name.to_string());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    ObjectMeta {
        generate_name: Some(generate_name(&key.name)),
        namespace: Some(key.namespace.to_string()),
        labels: Some(labels),
        annotations: Some(annotations).filter(|a| !a.is_empty()),
        owner_references: Some(vec![claim::controller_ref::<Endpoints>(&endpoints.metadata)]),
        ..ObjectMeta::default()
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EndpointPort as Port, EndpointSubset};

    #[test]
    fn subsets_become_groups_by_family_and_ports() {
        let address = |ip: &str| EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() };
        let subset = EndpointSubset {
            addresses: Some(vec![address("192.0.2.1"), address("2001:db8::1")]),
            not_ready_addresses: Some(vec![address("192.0.2.2")]),
            ports: Some(vec![Port { port: 5432, ..Port::default() }]),
        };
        let endpoints = Endpoints { metadata: ObjectMeta::default(), subsets: Some(vec![subset]) };
        let got = desired(&endpoints, &ObjectKey::new("default", "db"));
        let rows: Vec<_> = got
            .groups
            .iter()
            .flat_map(|g| g.endpoints.iter().map(move |e| (g.address_type.as_str(), e)))
            .map(|(t, e)| (t, e.addresses[0].as_str(), e.conditions.as_ref().unwrap().ready.unwrap()))
            .collect();
        let expected = [("IPv4", "192.0.2.1", true), ("IPv4", "192.0.2.2", false), ("IPv6", "2001:db8::1", true)];
        assert_eq!(rows, expected);
    }

    #[test]
    fn mirroring_can_be_declined() {
        let meta = |label: &str| ObjectMeta {
            labels: Some([(SKIP_LABEL.to_owned(), label.to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert!(!wants_mirror(&meta("true")));
        assert!(wants_mirror(&meta("false")));
    }
}
