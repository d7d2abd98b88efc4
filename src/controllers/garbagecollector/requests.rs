//! The collector's requests: by path, for it knows objects of every resource by their index only.

use std::sync::Arc;

use api::object::{Object, ObjectKey};
use client::status;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy, Request};
use kube::core::PartialObjectMeta;
use serde_json::json;

use crate::config::ServedResource;

pub(super) struct Requests {
    client: Client,
}

impl Requests {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether the very object is there, asked of the API server.
    pub(super) async fn exists(&self, resource: &ServedResource, key: &ObjectKey, uid: &str) -> kube::Result<bool> {
        let request = requests_to(resource, &key.namespace)
            .get_metadata(&key.name, &kube::api::GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request::<PartialObjectMeta>(request).await {
            Ok(found) => Ok(found.metadata.uid.as_deref() == Some(uid)),
            Err(e) if status::is_not_found(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) async fn delete(
        &self,
        resource: &ServedResource,
        object: &Object,
        propagation: PropagationPolicy,
    ) -> kube::Result<()> {
        let index = &object.index;
        // The revision too: an owner that was added since must count.
        let preconditions = Preconditions {
            uid: Some(index.uid.to_string()),
            resource_version: Some(index.resource_version.to_string()),
        };
        let params = DeleteParams { propagation_policy: Some(propagation), ..DeleteParams::default() }
            .preconditions(preconditions);
        let request = requests_to(resource, &index.key.namespace)
            .delete(&index.key.name, &params)
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await {
            Err(e) if status::is_not_found(&e) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    pub(super) async fn drop_references(
        &self,
        resource: &ServedResource,
        object: &Object,
        owners: &[Arc<str>],
    ) -> kube::Result<()> {
        let references: Vec<_> = object
            .index
            .owners
            .iter()
            .filter(|o| !owners.contains(&o.uid))
            .map(|o| {
                json!({
                    "apiVersion": o.api_version, "kind": o.kind, "name": o.name, "uid": &*o.uid,
                    "controller": o.controller, "blockOwnerDeletion": o.block_owner_deletion,
                })
            })
            .collect();
        self.patch(resource, object, json!({ "ownerReferences": references })).await
    }

    pub(super) async fn drop_finalizer(
        &self,
        resource: &ServedResource,
        object: &Object,
        finalizer: &str,
    ) -> kube::Result<()> {
        let finalizers: Vec<_> = object.index.finalizers.iter().filter(|f| ***f != *finalizer).collect();
        match self.patch(resource, object, json!({ "finalizers": finalizers })).await {
            Err(e) if status::is_not_found(&e) => Ok(()),
            other => other,
        }
    }

    /// A merge patch of the metadata, of this very object at this very revision.
    async fn patch(&self, resource: &ServedResource, object: &Object, mut meta: serde_json::Value) -> kube::Result<()> {
        let index = &object.index;
        meta["uid"] = json!(&*index.uid);
        meta["resourceVersion"] = json!(index.resource_version.to_string());
        let patch = Patch::Merge(json!({ "metadata": meta }));
        let request = requests_to(resource, &index.key.namespace)
            .patch(&index.key.name, &PatchParams::default(), &patch)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request_text(request).await.map(|_| ())
    }
}

fn requests_to(resource: &ServedResource, namespace: &str) -> Request {
    let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
    let scope = if resource.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
    Request::new(format!("{prefix}/{}/{scope}{}", resource.api_version(), resource.resource))
}
