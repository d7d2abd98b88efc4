//! Pods leave nodes that are tainted against their running, at once or when their toleration ends.

use std::collections::HashMap;
use std::time::Duration;

use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::moment::{self, Due};
use crate::nodes::{NodeView, tolerates};
use crate::pod_control::{self, only};

const ACCOUNT: &str = "node-controller";
const NODE_NAME: &str = "spec.nodeName";

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
    /// Since when each pod has been seen under a taint that it tolerates for a while only. Taints
    /// themselves seldom say since when they are there.
    threatened: Mutex<HashMap<ObjectKey, Threat>>,
}

struct Threat {
    uid: String,
    since: Timestamp,
}

/// Runs the taint eviction controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), "taint-eviction-controller", "");
    let (nodes, pods) = (cluster.clone(), cluster.clone());
    let reconciler = Reconciler { cluster: cluster.clone(), recorder, threatened: Mutex::default() };
    Controller::new(reconciler, cluster, client)
        .watches::<Node>(move |change| pods_on_node(&nodes, change))
        .watches::<Pod>(move |change| placed_pod(&pods, change))
        .run(token)
        .await;
}

fn evicting_taints(node: &Object) -> Vec<Taint> {
    // No pod is evicted for a node that cannot be read.
    let taints = NodeView::of(node).ok().map(|n| n.taints);
    taints.into_iter().flatten().filter(|t| t.effect == "NoExecute").collect()
}

/// The pods of a node whose evicting taints have changed.
fn pods_on_node(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Change::Applied { object, old } = change else { return Vec::new() };
    let before = old.as_ref().map(evicting_taints).unwrap_or_default();
    if evicting_taints(object) == before {
        return Vec::new();
    }
    let pods = cluster.objects::<Pod>(&Query::field(NODE_NAME, &object.index.key.name));
    pods.iter().map(|p| p.index.key.clone()).collect()
}

/// A pod that has come to a node with an evicting taint.
fn placed_pod(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Change::Applied { object, old } = change else { return Vec::new() };
    let node = object.index.field(NODE_NAME).filter(|n| !n.is_empty());
    let came = old.as_ref().is_none_or(|o| o.index.field(NODE_NAME) != node);
    let Some(node) = node.filter(|_| came) else { return Vec::new() };
    let found = cluster.source().get(&GroupResource::of::<Node>(), &ObjectKey::new("", node));
    let tainted = found.is_some_and(|n| !evicting_taints(&n).is_empty());
    if tainted { vec![object.index.key.clone()] } else { Vec::new() }
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "taint-eviction-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let pod = self.cluster.get::<Pod>(&key.namespace, &key.name)?;
        let Some(pod) = pod.filter(|p| p.metadata.deletion_timestamp.is_none()) else {
            self.threatened.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = &pod.spec else { return Ok(Outcome::Done) };
        let node = ObjectKey::new("", spec.node_name.as_deref().unwrap_or_default());
        let node = self.cluster.source().get(&GroupResource::of::<Node>(), &node);
        let taints = node.as_ref().map(evicting_taints).unwrap_or_default();
        let now = Timestamp::now();
        let came = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let seen = self.threatened_since(key, &pod).unwrap_or(now);
        match due(&taints, spec.tolerations.as_deref().unwrap_or_default(), came, seen, now) {
            Due::Never => {
                self.spare(key, &pod);
                Ok(Outcome::Done)
            }
            Due::In(left) => {
                let threat = Threat { uid: pod.metadata.uid.unwrap_or_default(), since: seen };
                self.threatened.lock().insert(key.clone(), threat);
                Ok(Outcome::RequeueAfter(left))
            }
            Due::Now => {
                self.threatened.lock().remove(key);
                self.evict(&pod, key, w).await
            }
        }
    }
}

impl Reconciler {
    /// `None` for a pod that is not known yet, or that has taken a known one's name.
    fn threatened_since(&self, key: &ObjectKey, pod: &Pod) -> Option<Timestamp> {
        let threatened = self.threatened.lock();
        threatened.get(key).filter(|t| Some(&t.uid) == pod.metadata.uid.as_ref()).map(|t| t.since)
    }

    /// Forgets a pod that nothing threatens any more.
    fn spare(&self, key: &ObjectKey, pod: &Pod) {
        if self.threatened.lock().remove(key).is_some() {
            let message = format!("Cancelling deletion of Pod {key}");
            self.recorder.event(&pod_control::reference(pod), EventType::Normal, "TaintManagerEviction", &message);
        }
    }

    async fn evict(&self, pod: &Pod, key: &ObjectKey, w: &Writes) -> kube::Result<Outcome> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(&pod_control::reference(pod), EventType::Normal, "TaintManagerEviction", &message);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "observedGeneration": pod.metadata.generation,
            "lastTransitionTime": moment::time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        let told = w.patch_status::<Pod, _>(&key.namespace, &key.name, &Patch::Strategic(patch)).await.map(|_| ());
        let gone = match told {
            Ok(()) => w.delete::<Pod>(&key.namespace, &key.name, &only(uid)).await,
            Err(e) => Err(e),
        };
        match gone {
            Err(e) if !status::is_not_found(&e) && !status::is_conflict(&e) => Err(e),
            Ok(()) | Err(_) => Ok(Outcome::Done),
        }
    }
}

/// The pod goes at once for a taint that it does not tolerate, else when the shortest of its
/// tolerations with an end has ended. That counts from when both the taint and the pod were there:
/// the pod `came` at some time, and the two were `seen` together for the first time.
fn due(taints: &[Taint], tolerations: &[Toleration], came: Option<Timestamp>, seen: Timestamp, now: Timestamp) -> Due {
    let mut soonest: Option<Duration> = None;
    for taint in taints {
        let mut tolerating = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if tolerating.peek().is_none() {
            return Due::Now;
        }
        let Some(seconds) = tolerating.filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = match (&taint.time_added, came) {
            (Some(added), Some(came)) => came.max(added.0),
            (Some(_) | None, _) => seen,
        };
        match moment::remaining(since, seconds, now) {
            Some(left) => soonest = Some(soonest.map_or(left, |s| s.min(left))),
            None => return Due::Now,
        }
    }
    soonest.map_or(Due::Never, Due::In)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[track_caller]
    fn check(added: Option<i64>, seconds: Option<Option<i64>>, came: i64, now: i64, expected: Due) {
        let taint = Taint {
            key: "node.kubernetes.io/unreachable".into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: added.map(|t| Time(at(t))),
        };
        let toleration = seconds.map(|s| Toleration {
            key: Some("node.kubernetes.io/unreachable".into()),
            operator: Some("Exists".into()),
            toleration_seconds: s,
            ..Toleration::default()
        });
        assert_eq!(due(&[taint], toleration.as_slice(), Some(at(came)), at(120), at(now)), expected);
    }

    #[test]
    fn tolerations_delay_or_forbid_eviction() {
        let added = Some(100);
        check(added, None, 50, 100, Due::Now);
        check(added, Some(None), 50, 9_999, Due::Never);
        check(added, Some(Some(300)), 50, 150, Due::In(Duration::from_secs(250)));
        check(added, Some(Some(300)), 50, 400, Due::Now);
        check(added, Some(Some(0)), 50, 100, Due::Now);
        assert_eq!(due(&[], &[], None, at(1), at(1)), Due::Never);
    }

    #[test]
    fn a_pod_that_came_later_has_its_whole_time() {
        check(Some(100), Some(Some(300)), 140, 150, Due::In(Duration::from_secs(290)));
    }

    #[test]
    fn a_taint_that_does_not_say_since_when_counts_from_when_it_was_seen() {
        check(None, Some(Some(300)), 50, 150, Due::In(Duration::from_secs(270)));
        check(None, Some(Some(300)), 50, 420, Due::Now);
    }
}
