//! Endpoints of Services with a selector: the older form of EndpointSlices, which many tools still
//! read.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;

use api::object::ObjectKey;
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::api::DeleteParams;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::pod_control;
use crate::pods::PodView;
use crate::services::{self, Selecting};

const ACCOUNT: &str = "endpoint-controller";

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
    deleted: Arc<DeletedServices>,
}

/// Services that were seen to go: their Endpoints go too, whoever wrote those. Endpoints that never
/// had a Service are somebody's own.
#[derive(Default)]
struct DeletedServices(Mutex<HashSet<ObjectKey>>);

impl DeletedServices {
    fn note(&self, change: &Change) {
        match change {
            Change::Applied { object, .. } => self.0.lock().remove(&object.index.key),
            Change::Deleted { object } => self.0.lock().insert(object.index.key.clone()),
            Change::Synced | Change::Resync => false,
        };
    }

    fn take(&self, key: &ObjectKey) -> bool {
        self.0.lock().remove(key)
    }
}

/// Runs the Endpoints controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let selecting = Arc::new(Selecting::new(cluster.clone()));
    let seen = selecting.clone();
    let deleted = Arc::new(DeletedServices::default());
    let going = deleted.clone();
    Controller::new(Reconciler { cluster: cluster.clone(), recorder, deleted }, cluster, client)
        .watches::<Service>(move |change| {
            seen.forget(change);
            going.note(change);
            change.key().cloned().into_iter().collect()
        })
        .watches::<Pod>(move |change| selecting.of_pod(change))
        .reconciles::<Endpoints>()
        .workers(2)
        .run(token)
        .await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "endpoints-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let current = self.cluster.get::<Endpoints>(&key.namespace, &key.name)?;
        let Some(service) = self.cluster.get::<Service>(&key.namespace, &key.name)? else {
            let seen = self.deleted.take(key);
            if current.is_some_and(|e| seen || plan::is_ours(&e.metadata)) {
                self.delete(key, w).await?;
            }
            return Ok(Outcome::Done);
        };
        let Some(selector) = service.spec.as_ref().and_then(services::selector) else { return Ok(Outcome::Done) };
        let pods: Vec<PodView> = self
            .cluster
            .objects::<Pod>(&Query::namespace(&key.namespace))
            .iter()
            .filter(|o| selector.matches(&o.index.labels))
            .filter_map(PodView::of)
            .collect();
        let Some(desired) = plan::endpoints(&service, key, &pods, current.as_ref()) else { return Ok(Outcome::Done) };
        let result = if current.is_some() { w.update(&desired).await } else { w.create(&desired).await };
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(e) if status::is_namespace_terminating(&e) => Ok(Outcome::Done),
            Err(e) => {
                let reason = if current.is_some() { "FailedToUpdateEndpoint" } else { "FailedToCreateEndpoint" };
                let verb = if current.is_some() { "update" } else { "create" };
                let message = format!("Failed to {verb} endpoint {key}: {}", status::message(&e));
                self.recorder.event(&pod_control::reference(&desired), EventType::Warning, reason, &message);
                Err(e)
            }
        }
    }
}

impl Reconciler {
    async fn delete(&self, key: &ObjectKey, w: &Writes) -> kube::Result<()> {
        match w.delete::<Endpoints>(&key.namespace, &key.name, &DeleteParams::default()).await {
            Err(e) if !status::is_not_found(&e) => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;

    #[test]
    fn only_the_end_of_a_service_takes_its_endpoints_along() {
        let deleted = DeletedServices::default();
        let service = pod("web").object();
        let key = service.index.key.clone();
        assert!(!deleted.take(&key), "there never was such a Service");
        deleted.note(&Change::Deleted { object: service.clone() });
        assert!(deleted.take(&key));
        assert!(!deleted.take(&key), "once");
        deleted.note(&Change::Deleted { object: service.clone() });
        deleted.note(&Change::Applied { object: service, old: None });
        assert!(!deleted.take(&key), "it is there again");
    }
}
