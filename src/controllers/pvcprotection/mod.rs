//! A PersistentVolumeClaim that is being deleted stays while a pod on a node uses it.
//!
//! Pods without a node do not count: none is started with a claim that is being deleted.

use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Query, Reconcile, Writes};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use crate::protection;

const ACCOUNT: &str = "pvc-protection-controller";
const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Reconciler(Cluster);

/// Runs the PersistentVolumeClaim protection controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    Controller::new(Reconciler(cluster.clone()), cluster, client)
        .reconciles::<PersistentVolumeClaim>()
        .watches::<Pod>(freed_claims)
        .run(token)
        .await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let object = self.0.source().get(&GroupResource::of::<PersistentVolumeClaim>(), key);
        let Some(object) = object else { return Ok(Outcome::Done) };
        let in_use = || {
            let pods = self.0.objects::<Pod>(&Query::namespace(&key.namespace));
            pods.iter().any(|pod| is_scheduled(pod) && may_use(pod, &key.name))
        };
        let step = protection::step(&object.index, FINALIZER, in_use);
        protection::apply::<PersistentVolumeClaim>(w, &object, FINALIZER, step).await?;
        Ok(Outcome::Done)
    }
}

fn is_scheduled(pod: &Object) -> bool {
    pod.index.field("spec.nodeName").is_some_and(|node| !node.is_empty())
}

/// A pod that cannot be read may use any claim.
fn may_use(pod: &Object, claim: &str) -> bool {
    claims_of(pod).map_or(true, |claims| claims.iter().any(|c| c == claim))
}

/// The claims that a pod may have been the last to use.
fn freed_claims(change: &Change) -> Vec<ObjectKey> {
    let Change::Deleted { object: pod } = change else { return Vec::new() };
    // What a pod used that cannot be read shows when its claims are looked at again.
    let claims = claims_of(pod).ok().into_iter().flatten();
    claims.map(|claim| ObjectKey::new(&pod.index.key.namespace, &claim)).collect()
}

/// The claims that a pod names, and those that are made for it.
fn claims_of(pod: &Object) -> serde_json::Result<Vec<String>> {
    #[derive(Default, Deserialize)]
    struct Head {
        #[serde(default)]
        spec: Spec,
    }
    api::decode!(Head);
    #[derive(Default, Deserialize)]
    struct Spec {
        #[serde(default)]
        volumes: Vec<Volume>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Volume {
        name: String,
        persistent_volume_claim: Option<Source>,
        ephemeral: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source {
        claim_name: String,
    }
    let owner = &pod.index.key.name;
    let head: Head = pod.decode()?;
    let claims = head.spec.volumes.into_iter().filter_map(|v| match (v.persistent_volume_claim, v.ephemeral) {
        (Some(source), _) => Some(source.claim_name),
        (None, Some(_)) => Some(format!("{owner}-{}", v.name)),
        (None, None) => None,
    });
    Ok(claims.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::object::ObjectIndex;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deleted_pod_frees_the_claims_of_its_volumes() {
        let json = json!({"spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "c", "emptyDir": {}},
        ]}});
        let index = ObjectIndex { key: ObjectKey::new("n", "web"), ..ObjectIndex::default() };
        let object = Object { json: json.to_string().into(), index: Arc::new(index) };
        let keys = freed_claims(&Change::Deleted { object: object.clone() });
        assert_eq!(keys, [ObjectKey::new("n", "data"), ObjectKey::new("n", "web-b")]);
        assert_eq!([may_use(&object, "data"), may_use(&object, "other")], [true, false]);
        let unreadable = Object { json: r#"{"spec": {"volumes": 1}}"#.to_owned().into(), index: object.index.clone() };
        assert!(may_use(&unreadable, "other"));
        assert_eq!(freed_claims(&Change::Applied { object, old: None }), []);
    }
}
