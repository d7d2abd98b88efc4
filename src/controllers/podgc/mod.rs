//! Pods that nobody else will remove: of nodes that are gone, terminating before they had a node,
//! and finished ones beyond the number that is kept.

use std::collections::HashMap;
use std::time::Duration;

use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Query, Reconcile, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::moment;
use crate::pod_control::only;
use crate::pods::PodView;

const ACCOUNT: &str = "pod-garbage-collector";
/// Finished pods that are kept; upstream's default.
const KEPT: usize = 12_500;
/// A node must be missing this long before its pods are taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);
const NODE_NAME: &str = "spec.nodeName";

struct Reconciler {
    cluster: Cluster,
    client: Client,
    /// Since when pods were seen on a node that is not there.
    missing: Mutex<HashMap<ObjectKey, Instant>>,
}

/// Runs the pod garbage collector until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), missing: Mutex::default() };
    let (pods, nodes) = (cluster.clone(), cluster.clone());
    Controller::new(reconciler, cluster, client)
        .watches::<Pod>(move |change| suspects(&pods, change))
        .watches::<Node>(move |change| pods_of_gone_node(&nodes, change))
        .run(token)
        .await;
}

/// The key of the round that counts finished pods.
fn all_finished() -> ObjectKey {
    ObjectKey::new("", "")
}

fn suspects(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Change::Applied { object, old } = change else { return Vec::new() };
    let is_finished = |o: &Object| matches!(o.index.field("status.phase"), Some("Succeeded" | "Failed"));
    let mut keys = Vec::new();
    if is_finished(object) && !old.as_ref().is_some_and(is_finished) {
        keys.push(all_finished());
    }
    let node = object.index.field(NODE_NAME).unwrap_or_default();
    let is_lost = if node.is_empty() { object.index.deleting } else { !node_exists(cluster, node) };
    if is_lost {
        keys.push(object.index.key.clone());
    }
    keys
}

fn node_exists(cluster: &Cluster, node: &str) -> bool {
    cluster.may_be_there::<Node>("", node)
}

fn pods_of_gone_node(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Change::Deleted { object } = change else { return Vec::new() };
    let pods = cluster.objects::<Pod>(&Query::field(NODE_NAME, &object.index.key.name));
    pods.iter().map(|p| p.index.key.clone()).collect()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "pod-garbage-collector-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        if *key == all_finished() {
            return self.collect_finished(w).await;
        }
        let object = self.cluster.source().get(&GroupResource::of::<Pod>(), key);
        let Some(pod) = object.as_ref().and_then(PodView::of) else {
            self.missing.lock().remove(key);
            return Ok(Outcome::Done);
        };
        if pod.spec.node_name.is_empty() {
            if pod.index.deleting {
                self.remove(&pod, None, w).await?;
            }
            return Ok(Outcome::Done);
        }
        if node_exists(&self.cluster, &pod.spec.node_name) {
            self.missing.lock().remove(key);
            return Ok(Outcome::Done);
        }
        let since = *self.missing.lock().entry(key.clone()).or_insert_with(Instant::now);
        if let Some(left) = QUARANTINE.checked_sub(since.elapsed()).filter(|d| !d.is_zero()) {
            return Ok(Outcome::RequeueAfter(left));
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_metadata_opt(&pod.spec.node_name).await?.is_none() {
            self.remove(&pod, Some("PodGC: node no longer exists"), w).await?;
        }
        self.missing.lock().remove(key);
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    /// Removes at once: there is no kubelet to wait for. A reason is told in the pod's status first,
    /// so that a Job sees a failure and not a vanished pod.
    async fn remove(&self, pod: &PodView, reason: Option<&str>, w: &Writes) -> kube::Result<()> {
        let key = &pod.index.key;
        if let Some(message) = reason.filter(|_| !pod.is_finished()) {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                "lastTransitionTime": moment::time(Timestamp::now()),
            });
            let patch =
                json!({"metadata": {"uid": &*pod.index.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
            ignore_gone(
                w.patch_status::<Pod, _>(&key.namespace, &key.name, &Patch::Strategic(patch)).await.map(|_| ()),
            )?;
        }
        ignore_gone(w.delete::<Pod>(&key.namespace, &key.name, &only(&pod.index.uid).grace_period(0)).await)
    }

    async fn collect_finished(&self, w: &Writes) -> kube::Result<Outcome> {
        let of_phase = |phase| self.cluster.objects::<Pod>(&Query::field("status.phase", phase));
        let mut finished = of_phase("Succeeded");
        finished.extend(of_phase("Failed"));
        let Some(excess) = finished.len().checked_sub(KEPT).filter(|&n| n > 0) else { return Ok(Outcome::Done) };
        let mut pods: Vec<PodView> = finished.iter().filter_map(PodView::of).collect();
        pods.sort_by_key(|p| (p.created(), p.index.key.clone()));
        for pod in pods.iter().take(excess) {
            self.remove(pod, None, w).await?;
        }
        Ok(Outcome::Done)
    }
}

fn ignore_gone(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(e) if !status::is_not_found(&e) && !status::is_conflict(&e) => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}
