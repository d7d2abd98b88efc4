//! Nodes that fall silent: after a grace period their conditions become unknown, their taints keep
//! pods away, and their pods count as not ready.
//!
//! A heartbeat costs a note of the moment and no more; a timer looks at the notes when a node could
//! first be lost.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pods::PodView;
use crate::{moment, pod_control};

const ACCOUNT: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
/// Heartbeats are whole rounds apart; a timer that fires just before one would only fire again.
const MARGIN: Duration = Duration::from_millis(500);

/// When each node was last heard of, by this machine's clock: the clocks of others may be wrong.
type Heard = Arc<Mutex<HashMap<ObjectKey, Instant>>>;

/// Nodes that were told of, with their UIDs.
#[derive(Default)]
struct Registered(Mutex<HashMap<ObjectKey, String>>);

impl Registered {
    /// Whether it is seen for the first time: it came, or was made anew, or this controller started.
    fn is_new(&self, key: &ObjectKey, uid: &str) -> bool {
        self.0.lock().insert(key.clone(), uid.to_owned()).is_none_or(|before| before != uid)
    }

    fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
    heard: Heard,
    registered: Registered,
}

/// Runs the node lifecycle controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let heard = Heard::default();
    let reconciler =
        Reconciler { cluster: cluster.clone(), recorder, heard: heard.clone(), registered: Registered::default() };
    let by_lease = heard.clone();
    Controller::new(reconciler, cluster, client)
        .watches::<Node>(move |change| hear_node(&heard, change))
        .watches::<Lease>(move |change| hear_lease(&by_lease, change))
        .run(token)
        .await;
}

fn hear_node(heard: &Heard, change: &Change) -> Vec<ObjectKey> {
    let Some(key) = change.key() else { return Vec::new() };
    match change {
        Change::Deleted { .. } => {
            heard.lock().remove(key);
        }
        Change::Applied { object, old: Some(old) } if heartbeat(object) != heartbeat(old) => {
            heard.lock().insert(key.clone(), Instant::now());
        }
        Change::Applied { .. } | Change::Synced | Change::Resync => {}
    }
    vec![key.clone()]
}

/// When the kubelet last posted the node's status; what this controller writes leaves it alone.
fn heartbeat(object: &Object) -> Option<Time> {
    let node = object.decode::<Node>().ok()?;
    plan::condition(&node, "Ready")?.last_heartbeat_time.clone()
}

fn hear_lease(heard: &Heard, change: &Change) -> Vec<ObjectKey> {
    if let Change::Applied { object, .. } = change
        && &*object.index.key.namespace == LEASES
    {
        let node = ObjectKey { namespace: "".into(), name: object.index.key.name.clone() };
        heard.lock().insert(node, Instant::now());
    }
    Vec::new()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "node-lifecycle-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(mut node) = self.cluster.get::<Node>("", &key.name)? else {
            self.registered.forget(key);
            return Ok(Outcome::Done);
        };
        if self.registered.is_new(key, node.metadata.uid.as_deref().unwrap_or_default()) {
            let message = format!("Node {0} event: Registered Node {0} in Controller", key.name);
            self.recorder.event(&pod_control::reference(&node), EventType::Normal, "RegisteredNode", &message);
        }
        let now = moment::time(Timestamp::now());
        let left = self.left(key);
        if left.is_none()
            && let Some(silenced) = plan::silenced(&node, &now)
        {
            let was_ready = plan::ready(&node) == "True";
            node.status = Some(silenced);
            node = w.update_status(&node).await?;
            if was_ready {
                self.tell_not_ready(&node);
            }
        }
        self.set_taints(&mut node, &now, w).await?;
        if plan::condition(&node, "Ready").is_some_and(|c| c.status != "True") {
            self.mark_pods_not_ready(&key.name, &now, w).await?;
        }
        // Of a node that is lost the next sign of life is an event.
        Ok(left.map_or(Outcome::Done, |left| Outcome::RequeueAfter(left + MARGIN)))
    }
}

impl Reconciler {
    /// How long the node may stay silent; `None` when it has been for too long.
    fn left(&self, key: &ObjectKey) -> Option<Duration> {
        let heard = *self.heard.lock().entry(key.clone()).or_insert_with(Instant::now);
        plan::GRACE.checked_sub(heard.elapsed()).filter(|d| !d.is_zero())
    }

    fn tell_not_ready(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(&pod_control::reference(node), EventType::Normal, "NodeNotReady", &message);
    }

    async fn set_taints(&self, node: &mut Node, now: &Time, w: &Writes) -> kube::Result<()> {
        let taints = plan::taints(node, now);
        let spec = node.spec.get_or_insert_with(NodeSpec::default);
        if spec.taints.clone().unwrap_or_default() == taints {
            return Ok(());
        }
        let name = node.metadata.name.clone().unwrap_or_default();
        // The revision guards the taints of others, for a list is replaced whole.
        let meta = json!({"resourceVersion": node.metadata.resource_version});
        let patch = json!({"metadata": meta, "spec": {"taints": taints}});
        *node = w.patch::<Node, _>("", &name, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Services must not lead to pods that nobody hears of.
    async fn mark_pods_not_ready(&self, node: &str, now: &Time, w: &Writes) -> kube::Result<()> {
        for object in self.cluster.objects::<Pod>(&Query::field("spec.nodeName", node)) {
            let Some(pod) = PodView::of(&object).filter(PodView::is_ready) else { continue };
            let key = &pod.index.key;
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
            let patch = json!({"metadata": {"uid": &*pod.index.uid}, "status": {"conditions": [condition]}});
            match w.patch_status::<Pod, _>(&key.namespace, &key.name, &Patch::Strategic(patch)).await {
                Ok(pod) => {
                    let about = pod_control::reference(&pod);
                    self.recorder.event(&about, EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(e) if status::is_not_found(&e) || status::is_conflict(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_registered_once_and_anew_when_it_is_made_anew() {
        let (registered, key) = (Registered::default(), ObjectKey::new("", "n"));
        assert!(registered.is_new(&key, "1"));
        assert!(!registered.is_new(&key, "1"));
        assert!(registered.is_new(&key, "2"));
        registered.forget(&key);
        assert!(registered.is_new(&key, "2"));
    }
}
