//! DaemonSets: one pod on every node that fits.

mod plan;
mod pods;

use std::collections::HashMap;
use std::time::Duration;

use api::object::{Object, ObjectKey};
use client::{Backoff, Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::Client;
use kube::api::{Api, Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claim;
use crate::history::{self, Keeper, Owner, Synced};
use crate::nodes::NodeView;
use crate::pod_control::{self, PodControl};
use crate::pods::{Phase, PodView};
use api::selector::LabelSelector as Selector;
use plan::Plan;

const ACCOUNT: &str = "daemon-set-controller";
/// A daemon that ends at once must not be made anew at once, for ever.
const FAILED_PODS: Backoff =
    Backoff { base: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(900), jitter: 0.0 };
/// Failures are forgotten a while after the longest delay.
const FORGET: Duration = Duration::from_secs(1800);

struct Reconciler {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    failures: Mutex<HashMap<(ObjectKey, String), Failures>>,
}

struct Failures {
    count: u32,
    last: Instant,
}

/// Runs the DaemonSet controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), "daemonset-controller", "");
    let reconciler =
        Reconciler { cluster: cluster.clone(), client: client.clone(), recorder, failures: Mutex::default() };
    let (sets, owners) = (cluster.clone(), cluster.clone());
    Controller::new(reconciler, cluster, client)
        .reconciles::<DaemonSet>()
        .watches::<Pod>(move |change| claim::owners_of::<DaemonSet>(&owners, change, selector))
        .watches::<ControllerRevision>(history::owner_of_lost::<DaemonSet>)
        .watches::<Node>(move |change| sets_on_node(&sets, change))
        .workers(2)
        .run(token)
        .await;
}

fn selector(set: DaemonSet) -> Option<Selector> {
    Selector::from_meta(Some(&set.spec?.selector)).ok()
}

/// All sets, when a node comes, goes, or changes in what decides where daemons run; its heartbeats
/// do not.
fn sets_on_node(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    if let Change::Applied { object, old: Some(old) } = change {
        let decides = |o: &Object| NodeView::of(o).ok().map(|n| (n.taints, n.unschedulable));
        if object.index.labels == old.index.labels && decides(object) == decides(old) {
            return Vec::new();
        }
    }
    cluster.objects::<DaemonSet>(&Query::ALL).iter().map(|o| o.index.key.clone()).collect()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "daemonset-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(set) = self.cluster.get::<DaemonSet>(&key.namespace, &key.name)? else {
            self.failures.lock().retain(|(set, _), _| set != key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        let Ok(selector) = Selector::from_meta(Some(&spec.selector)) else { return Ok(Outcome::Done) };
        if selector.is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&pod_control::reference(&set), EventType::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        let pods = self.own_pods(&set, &selector, w).await?;
        let keeper = Keeper { cluster: &self.cluster, client: &self.client, hash_label: pods::HASH_LABEL };
        let collision_count = set.status.as_ref().and_then(|s| s.collision_count);
        let owner = Owner { meta: &set.metadata, template: &spec.template, collision_count };
        let history = match keeper.sync::<DaemonSet>(&owner, w).await? {
            Synced::Revisions(history) => history,
            Synced::Collision(count) => return self.note_collision(set, count, w).await,
        };
        if self.merge_duplicates(&history, &pods, w).await? {
            return Ok(Outcome::Done);
        }
        let hash = history.last().map_or("", |r| history::hash(r, pods::HASH_LABEL));
        // The pods of a node that is left out would go.
        let nodes = self.cluster.objects::<Node>(&Query::ALL);
        let nodes: Vec<_> =
            nodes.iter().map(NodeView::of).collect::<Result<_, _>>().map_err(kube::Error::SerdeError)?;
        let mut plan = plan::plan(&set, spec, &nodes, &pods, hash, Timestamp::now());
        let held = self.hold_back_failed(key, &mut plan);
        let result = self.carry_out(&set, spec, &plan, hash, w).await;
        if set.status.as_ref() != Some(&plan.status) {
            let mut updated = set.clone();
            updated.status = Some(plan.status.clone());
            w.update_status(&updated).await?;
        }
        result?;
        let is_live = |revision: &ControllerRevision| {
            let hash = history::hash(revision, pods::HASH_LABEL);
            pods.iter().any(|p| p.index.labels.get(pods::HASH_LABEL).is_some_and(|h| **h == *hash))
        };
        keeper.truncate(&history, spec.revision_history_limit.unwrap_or(10), is_live, w).await?;
        let recheck = [plan.recheck, held].into_iter().flatten().min();
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Reconciler {
    async fn own_pods(&self, set: &DaemonSet, selector: &Selector, w: &Writes) -> kube::Result<Vec<PodView>> {
        let meta = &set.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let candidates = self
            .cluster
            .objects::<Pod>(&Query::namespace(namespace))
            .into_iter()
            .map(|o| {
                let claim = claim::claim(&o.index, uid, deleting, selector.matches(&o.index.labels));
                (o, claim)
            })
            .collect();
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), namespace);
        let owned = claim::carry_out::<DaemonSet, Pod>(candidates, meta, &api, &[], w).await?;
        PodView::all(&owned)
    }

    /// Of several revisions of the current template the last one stays. Pods of the others are made its
    /// own first, so that they do not count as old. `true` if there were any: the round ends here, and
    /// their deletion brings the next one.
    async fn merge_duplicates(
        &self,
        history: &[ControllerRevision],
        pods: &[PodView],
        w: &Writes,
    ) -> kube::Result<bool> {
        let duplicates = history::duplicates(history);
        let Some(kept) = history.last().filter(|_| !duplicates.is_empty()) else { return Ok(false) };
        let hash = history::hash(kept, pods::HASH_LABEL);
        let dropped: Vec<&str> = duplicates.iter().map(|r| history::hash(r, pods::HASH_LABEL)).collect();
        let is_of_dropped =
            |p: &&PodView| p.index.labels.get(pods::HASH_LABEL).is_some_and(|h| dropped.contains(&&**h));
        for pod in pods.iter().filter(is_of_dropped) {
            let key = &pod.index.key;
            let patch = json!({ "metadata": { "uid": &*pod.index.uid, "labels": { (pods::HASH_LABEL): hash } } });
            match w.patch::<Pod, _>(&key.namespace, &key.name, &Patch::Strategic(patch)).await {
                Err(e) if !status::is_not_found(&e) && !status::is_conflict(&e) => return Err(e),
                Ok(_) | Err(_) => {}
            }
        }
        for duplicate in duplicates {
            history::delete(duplicate, w).await?;
        }
        Ok(true)
    }

    async fn note_collision(&self, mut set: DaemonSet, count: i32, w: &Writes) -> kube::Result<Outcome> {
        set.status.get_or_insert_default().collision_count = Some(count);
        w.update_status(&set).await?;
        Ok(Outcome::Done)
    }

    /// Takes failed pods whose delay is not over out of the plan; returns the shortest delay left.
    fn hold_back_failed(&self, key: &ObjectKey, plan: &mut Plan) -> Option<Duration> {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        failures.retain(|_, f| now.duration_since(f.last) < FORGET);
        let mut shortest: Option<Duration> = None;
        let mut held = Vec::new();
        for pod in plan.ended.iter().filter(|p| p.status.phase == Phase::Failed) {
            let node = pod.target_node().unwrap_or_default().to_owned();
            let entry = failures.entry((key.clone(), node)).or_insert(Failures { count: 0, last: now });
            let delay = if entry.count == 0 { Duration::ZERO } else { FAILED_PODS.base_delay(entry.count - 1) };
            match delay.checked_sub(now.duration_since(entry.last)).filter(|d| !d.is_zero()) {
                Some(left) => {
                    held.push(pod.index.uid.clone());
                    shortest = Some(shortest.map_or(left, |s| s.min(left)));
                }
                None => *entry = Failures { count: entry.count + 1, last: now },
            }
        }
        plan.ended.retain(|p| !held.contains(&p.index.uid));
        plan.delete.retain(|p| !held.contains(&p.index.uid));
        shortest
    }

    async fn carry_out(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        plan: &Plan,
        hash: &str,
        w: &Writes,
    ) -> kube::Result<()> {
        let about = pod_control::reference(set);
        self.tell_ended(&plan.ended, &about);
        let control = PodControl { writes: w, recorder: &self.recorder, owner: &about };
        let new = plan.create.iter().map(|node| pods::new_pod(set, spec, node, hash)).collect();
        let created = control.create_all(new).await;
        control.delete_all(&plan.delete).await?;
        created
    }

    fn tell_ended(&self, ended: &[PodView], about: &ObjectReference) {
        for pod in ended {
            let node = pod.target_node().unwrap_or_default();
            let (kind, reason, what, act) = if pod.status.phase == Phase::Failed {
                (EventType::Warning, "FailedDaemonPod", "failed", "kill")
            } else {
                (EventType::Normal, "SucceededDaemonPod", "succeeded", "delete")
            };
            let message = format!("Found {what} daemon pod {} on node {node}, will try to {act} it", pod.index.key);
            self.recorder.event(about, kind, reason, &message);
        }
    }
}
