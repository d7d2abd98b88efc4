//! Namespaces on their way out: everything in one is deleted, pods first, and the namespace is let
//! go when nothing is left.

mod plan;

use api::object::{GroupResource, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Query, Reconcile, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{DeleteParams, ListParams, PostParams, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::config::ServedResource;
use crate::moment;
use plan::Remaining;

const ACCOUNT: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// Deletions are told by events; this is for what no source shows.
const RECHECK: Duration = Duration::from_secs(15);

struct Reconciler {
    cluster: Cluster,
    client: Client,
    resources: Arc<[ServedResource]>,
}

/// Runs the namespace controller until cancelled.
pub(crate) async fn run(cluster: Cluster, resources: Arc<[ServedResource]>, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), resources: resources.clone() };
    let mut controller = Controller::new(reconciler, cluster.clone(), client).reconciles::<Namespace>().workers(2);
    for resource in resources.iter().filter(|r| r.namespaced && r.stored) {
        let namespaces = cluster.clone();
        controller = controller
            .watches_resource(resource.group_resource(), move |change| terminating_namespace(&namespaces, change));
    }
    controller.run(token).await;
}

/// Only what leaves a namespace that is going away matters.
fn terminating_namespace(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Change::Deleted { object } = change else { return Vec::new() };
    let key = ObjectKey { namespace: "".into(), name: object.index.key.namespace.clone() };
    let namespace = cluster.source().get(&GroupResource::of::<Namespace>(), &key);
    if namespace.is_some_and(|n| n.index.deleting) { vec![key] } else { Vec::new() }
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "namespace-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(namespace) = self.cluster.get::<Namespace>("", &key.name)? else { return Ok(Outcome::Done) };
        if namespace.metadata.deletion_timestamp.is_none() || !plan::has_finalizer(&namespace, FINALIZER) {
            return Ok(Outcome::Done);
        }
        let failures = self.delete_content(&key.name).await;
        let remaining = self.remaining(&key.name);
        let mut updated = namespace.clone();
        updated.status = Some(plan::status(&namespace, &remaining, &failures, &moment::time(Timestamp::now())));
        if updated.status != namespace.status {
            updated = w.update_status(&updated).await?;
        }
        if remaining.is_empty() && failures.is_empty() {
            self.finalize(updated).await?;
            return Ok(Outcome::Done);
        }
        Ok(Outcome::RequeueAfter(RECHECK))
    }
}

impl Reconciler {
    /// Asks for the deletion of what is there; returns what could not be asked.
    async fn delete_content(&self, namespace: &str) -> Vec<String> {
        let mut failures = Vec::new();
        let (first, then): (Vec<_>, Vec<_>) = self.content().partition(|r| plan::is_pods(r));
        for resource in first.into_iter().chain(then) {
            let objects = self.cluster.source().list(&resource.group_resource(), &Query::namespace(namespace));
            let waits_for_pods = plan::is_pods(resource) && !objects.is_empty();
            if objects.iter().any(|o| !o.index.deleting)
                && let Err(e) = self.delete_collection(resource, namespace).await
            {
                failures.push(format!("failed to delete {}: {}", resource.group_resource(), status::message(&e)));
            }
            // Pods may need what else is here until they have stopped.
            if waits_for_pods {
                break;
            }
        }
        failures
    }

    fn content(&self) -> impl Iterator<Item = &ServedResource> {
        self.resources.iter().filter(|r| r.namespaced && r.stored)
    }

    async fn delete_collection(&self, resource: &ServedResource, namespace: &str) -> kube::Result<()> {
        let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{prefix}/{}/namespaces/{namespace}/{}", resource.api_version(), resource.resource);
        let request = Request::new(path)
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await {
            Err(e) if status::is_not_found(&e) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// What is left, as far as it was asked to go.
    fn remaining(&self, namespace: &str) -> Vec<Remaining> {
        let left = self
            .content()
            .filter_map(|resource| {
                let objects = self.cluster.source().list(&resource.group_resource(), &Query::namespace(namespace));
                let finalizers =
                    objects.iter().flat_map(|o| o.index.finalizers.iter().map(ToString::to_string)).collect();
                (!objects.is_empty()).then(|| Remaining {
                    resource: resource.clone(),
                    count: objects.len(),
                    finalizers,
                })
            })
            .collect();
        plan::asked_to_go(left)
    }

    async fn finalize(&self, mut namespace: Namespace) -> kube::Result<()> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let body = serde_json::to_vec(&namespace).map_err(kube::Error::SerdeError)?;
        let request = Request::new("/api/v1/namespaces")
            .replace_subresource("finalize", &name, &PostParams::default(), body)
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await {
            Err(e) if status::is_not_found(&e) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
