//! EndpointSlices of Services with a selector: where the proxies and DNS find the pods.

mod mirroring;
mod plan;
mod slices;

use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use client::{Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, decode_all, status};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;

use crate::pod_control;
use crate::pods::PodView;
use crate::services::{self, Selecting};
pub(crate) use mirroring::run as run_mirroring;
use slices::Changes;

const ACCOUNT: &str = "endpointslice-controller";
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
}

/// Runs the EndpointSlice controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let selecting = Arc::new(Selecting::new(cluster.clone()));
    let seen = selecting.clone();
    Controller::new(Reconciler { cluster: cluster.clone(), recorder }, cluster, client)
        .watches::<Service>(move |change| {
            seen.forget(change);
            change.key().cloned().into_iter().collect()
        })
        .watches::<Pod>(move |change| selecting.of_pod(change))
        .watches::<EndpointSlice>(|change| {
            change.object().and_then(|o| service_of(o, MANAGED_BY)).into_iter().collect()
        })
        .workers(2)
        .run(token)
        .await;
}

/// The Service (or Endpoints) that a slice of ours belongs to.
fn service_of(slice: &Object, managed_by: &str) -> Option<ObjectKey> {
    let labels = &slice.index.labels;
    if labels.get(MANAGED_BY_LABEL).is_none_or(|m| **m != *managed_by) {
        return None;
    }
    let name = labels.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey { namespace: slice.index.key.namespace.clone(), name: (&**name).into() })
}

/// The slices that are ours of one Service.
fn slices_of(cluster: &Cluster, service: &ObjectKey, managed_by: &str) -> kube::Result<Vec<EndpointSlice>> {
    let all = cluster.objects::<EndpointSlice>(&Query::namespace(&service.namespace));
    let ours = |o: &&Object| service_of(o, managed_by).as_ref() == Some(service) && !o.index.deleting;
    decode_all(all.iter().filter(ours))
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "endpointslice-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        // Slices of a Service that is gone go with it: they name it as their owner.
        let Some(service) = self.cluster.get::<Service>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(selector) = service.spec.as_ref().and_then(services::selector) else { return Ok(Outcome::Done) };
        let pods: Vec<PodView> = self
            .cluster
            .objects::<Pod>(&Query::namespace(&key.namespace))
            .iter()
            .filter(|o| selector.matches(&o.index.labels))
            .filter_map(PodView::of)
            .collect();
        let desired = plan::desired(&service, key, &pods, |node| self.zone(node));
        let changes = slices::fit(&desired, slices_of(&self.cluster, key, MANAGED_BY)?);
        let result = write(changes, w).await;
        if let Err(e) = &result {
            let message = format!("Error updating Endpoint Slices for Service {key}: {}", status::message(e));
            let about = pod_control::reference(&service);
            self.recorder.event(&about, EventType::Warning, "FailedToUpdateEndpointSlices", &message);
        }
        result.map(|()| Outcome::Done)
    }
}

impl Reconciler {
    fn zone(&self, node: &str) -> Option<String> {
        let node = self.cluster.source().get(&GroupResource::of::<Node>(), &ObjectKey::new("", node))?;
        node.index.labels.get(ZONE_LABEL).map(|z| z.to_string())
    }
}

async fn write(changes: Changes, w: &Writes) -> kube::Result<()> {
    for slice in &changes.create {
        match w.create(slice).await {
            Ok(_) => {}
            Err(e) if status::is_namespace_terminating(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    for slice in &changes.update {
        w.update(slice).await?;
    }
    for slice in &changes.delete {
        let meta = &slice.metadata;
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref());
        let only = pod_control::only(meta.uid.as_deref().unwrap_or_default());
        match w.delete::<EndpointSlice>(namespace, name.unwrap_or_default(), &only).await {
            Err(e) if !status::is_not_found(&e) => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
