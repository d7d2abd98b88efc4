//! A reconciler's writes, with a note of what the source must show before the next round.

use std::collections::HashMap;
use std::fmt::Debug;

use api::object::{GroupResource, ObjectKey};
use http::Request as HttpRequest;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Request};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{Kind, ObjectSource};

/// The write half that one reconciliation is given.
///
/// Every method notes what it changed, so that the key is not reconciled again from a source that
/// has not caught up; that is what keeps a ReplicaSet from making a pod twice.
pub struct Writes {
    client: Client,
    /// Behind a lock, so that one reconciliation can write many objects at once.
    pending: Mutex<Pending>,
}

/// What a source must have seen.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    revisions: HashMap<GroupResource, u64>,
    /// Objects of a given UID that must be gone or on their way out.
    deleted: Vec<(GroupResource, ObjectKey, String)>,
}

impl Pending {
    pub(crate) fn is_seen_by(&self, source: &dyn ObjectSource) -> bool {
        self.revisions.iter().all(|(resource, &revision)| source.revision(resource) >= revision)
            && self.deleted.iter().all(|(resource, key, uid)| {
                source.get(resource, key).is_none_or(|o| *o.index.uid != **uid || o.index.deleting)
            })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.deleted.is_empty()
    }
}

impl Writes {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, pending: Mutex::default() }
    }

    /// For calls that do not change what this reconciler reads.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Creates the object in the namespace that its metadata names.
    ///
    /// # Errors
    /// The API server's refusal, or the transport's failure; so for all methods here.
    pub async fn create<K: Kind>(&self, object: &K) -> kube::Result<K> {
        let body = encode(object)?;
        let request = request::<K>(namespace_of(object)).create(&PostParams::default(), body);
        self.send(request).await
    }

    /// Replaces the whole object; only for writers that read it whole.
    pub async fn update<K: Kind>(&self, object: &K) -> kube::Result<K> {
        let body = encode(object)?;
        let request = request::<K>(namespace_of(object)).replace(name_of(object), &PostParams::default(), body);
        self.send(request).await
    }

    /// Replaces the status; `metadata.resourceVersion` guards against lost updates.
    pub async fn update_status<K: Kind>(&self, object: &K) -> kube::Result<K> {
        let body = encode(object)?;
        let request = request::<K>(namespace_of(object)).replace_subresource(
            "status",
            name_of(object),
            &PostParams::default(),
            body,
        );
        self.send(request).await
    }

    pub async fn patch<K: Kind, P: Serialize + Debug>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch<P>,
    ) -> kube::Result<K> {
        let request = request::<K>(namespace).patch(name, &PatchParams::default(), patch);
        self.send(request).await
    }

    pub async fn patch_status<K: Kind, P: Serialize + Debug>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch<P>,
    ) -> kube::Result<K> {
        let request = request::<K>(namespace).patch_subresource("status", name, &PatchParams::default(), patch);
        self.send(request).await
    }

    /// Deletes; give the UID as a precondition, so that a namesake survives and the next round waits
    /// for this very object to go.
    pub async fn delete<K: Kind>(&self, namespace: &str, name: &str, params: &DeleteParams) -> kube::Result<()> {
        let request = request::<K>(namespace).delete(name, params).map_err(kube::Error::BuildRequest)?;
        self.client.request_status::<K>(request).await?;
        if let Some(uid) = params.preconditions.as_ref().and_then(|p| p.uid.clone()) {
            self.pending.lock().deleted.push((GroupResource::of::<K>(), ObjectKey::new(namespace, name), uid));
        }
        Ok(())
    }

    async fn send<K: Kind>(
        &self,
        request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
    ) -> kube::Result<K> {
        let object: K = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        if let Some(revision) = object.metadata().resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()) {
            let mut pending = self.pending.lock();
            let seen = pending.revisions.entry(GroupResource::of::<K>()).or_insert(0);
            *seen = revision.max(*seen);
        }
        Ok(object)
    }

    pub(crate) fn into_pending(self) -> Pending {
        self.pending.into_inner()
    }
}

fn request<K: Kind>(namespace: &str) -> Request {
    Request::new(<K as kube::Resource>::url_path(&(), (!namespace.is_empty()).then_some(namespace)))
}

fn encode<K: Kind>(object: &K) -> kube::Result<Vec<u8>> {
    object.to_vec().map_err(kube::Error::SerdeError)
}

fn namespace_of<K: Kind>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or("")
}

fn name_of<K: Kind>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or("")
}
