//! Making and deleting the pods of a workload, with the events that say so.

use client::{EventType, Kind, Recorder, Writes, status};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Preconditions};

use crate::pods::PodView;

/// Upstream's first batch; each batch that succeeds doubles the next.
const FIRST_BATCH: usize = 1;

/// A pod made from a template, without a name.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: meta.and_then(|m| m.annotations.clone()),
            finalizers: meta.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// What events about `object` refer to.
pub(crate) fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// Writes pods on behalf of one owner, and tells its events.
pub(crate) struct PodControl<'a> {
    pub(crate) writes: &'a Writes,
    pub(crate) recorder: &'a Recorder,
    pub(crate) owner: &'a ObjectReference,
}

impl PodControl<'_> {
    /// Creates in batches of 1, 2, 4, …, so that a refusal that would meet every pod is met by few.
    /// After the first failure the rest is left for the next round; the failure is returned.
    pub(crate) async fn create_all(&self, pods: Vec<Pod>) -> kube::Result<()> {
        let mut rest = pods.as_slice();
        let mut size = FIRST_BATCH;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let results = join_all(batch.iter().map(|pod| self.create(pod))).await;
            results.into_iter().collect::<Result<Vec<()>, _>>()?;
            rest = later;
            size *= 2;
        }
        Ok(())
    }

    /// In a namespace that is going away nothing can be created, and nothing needs to be.
    pub(crate) async fn create(&self, pod: &Pod) -> kube::Result<()> {
        match self.writes.create(pod).await {
            Ok(made) => {
                let name = made.metadata.name.unwrap_or_default();
                self.event(EventType::Normal, "SuccessfulCreate", &format!("Created pod: {name}"));
                Ok(())
            }
            Err(e) if status::is_namespace_terminating(&e) => Ok(()),
            Err(e) => {
                let why = status::message(&e);
                self.event(EventType::Warning, "FailedCreate", &format!("Error creating: {why}"));
                Err(e)
            }
        }
    }

    pub(crate) async fn delete_all(&self, pods: &[PodView]) -> kube::Result<()> {
        let results = join_all(pods.iter().map(|pod| self.delete(pod))).await;
        results.into_iter().collect::<Result<Vec<()>, _>>().map(|_| ())
    }

    /// A pod that has gone already is as good as deleted.
    pub(crate) async fn delete(&self, pod: &PodView) -> kube::Result<()> {
        let key = &pod.index.key;
        match self.writes.delete::<Pod>(&key.namespace, &key.name, &only(&pod.index.uid)).await {
            Ok(()) => {
                self.event(EventType::Normal, "SuccessfulDelete", &format!("Deleted pod: {}", key.name));
                Ok(())
            }
            Err(e) if status::is_not_found(&e) || status::is_conflict(&e) => Ok(()),
            Err(e) => {
                let why = status::message(&e);
                self.event(EventType::Warning, "FailedDelete", &format!("Error deleting: {why}"));
                Err(e)
            }
        }
    }

    fn event(&self, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(self.owner, kind, reason, message);
    }
}

/// Deletes this very object and no namesake.
pub(crate) fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}
