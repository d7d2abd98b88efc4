//! StatefulSets: pods with a name, a place in an order, and storage of their own.

mod claims;
mod plan;
mod pods;

use api::object::ObjectKey;
use client::{Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::Api;
use tokio_util::sync::CancellationToken;

use crate::history::{self, Keeper, Owner, Synced};
use crate::pods::{Phase, PodView};
use crate::{claim, pod_control};
use api::selector::LabelSelector as Selector;
use plan::{Revisions, Step};

const ACCOUNT: &str = "statefulset-controller";
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

struct Reconciler {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
}

/// Runs the StatefulSet controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), recorder };
    let sets = cluster.clone();
    Controller::new(reconciler, cluster, client)
        .reconciles::<StatefulSet>()
        .watches::<Pod>(move |change| claim::owners_of::<StatefulSet>(&sets, change, selector))
        .watches::<ControllerRevision>(history::owner_of_lost::<StatefulSet>)
        .workers(2)
        .run(token)
        .await;
}

fn selector(set: StatefulSet) -> Option<Selector> {
    Selector::from_meta(Some(&set.spec?.selector)).ok()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "statefulset-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(set) = self.cluster.get::<StatefulSet>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        let Ok(selector) = Selector::from_meta(Some(&spec.selector)) else { return Ok(Outcome::Done) };
        let pods = self.own_pods(&set, &selector, w).await?;
        let keeper = Keeper { cluster: &self.cluster, client: &self.client, hash_label: HASH_LABEL };
        let collision_count = set.status.as_ref().and_then(|s| s.collision_count);
        let owner = Owner { meta: &set.metadata, template: &spec.template, collision_count };
        let history = match keeper.sync::<StatefulSet>(&owner, w).await? {
            Synced::Revisions(history) => history,
            Synced::Collision(count) => return self.note_collision(set, count, w).await,
        };
        let Some(update) = history.last().map(history::name) else { return Ok(Outcome::Done) };
        let named = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = named.filter(|n| history.iter().any(|r| history::name(r) == *n)).unwrap_or(update);
        let plan = plan::plan(&set, spec, &pods, &Revisions { current, update }, Timestamp::now());
        if set.metadata.deletion_timestamp.is_none() && spec.volume_claim_templates.is_some() {
            self.tend_claims(&set, spec, &pods, w).await?;
        }
        self.carry_out(&set, spec, &plan.steps, &history, w).await?;
        let status = plan.status;
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.clone();
            updated.status = Some(status.clone());
            w.update_status(&updated).await?;
        }
        let limit = spec.revision_history_limit.unwrap_or(10);
        let is_live = |revision: &ControllerRevision| {
            let name = history::name(revision);
            [status.current_revision.as_deref(), status.update_revision.as_deref()].contains(&Some(name))
                || pods.iter().any(|p| p.index.labels.get(pods::REVISION_LABEL).is_some_and(|r| **r == *name))
        };
        keeper.truncate(&history, limit, is_live, w).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Reconciler {
    async fn own_pods(&self, set: &StatefulSet, selector: &Selector, w: &Writes) -> kube::Result<Vec<PodView>> {
        let meta = &set.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let candidates = self
            .cluster
            .objects::<Pod>(&Query::namespace(namespace))
            .into_iter()
            // Only pods with a name of this set can be its own.
            .filter(|o| pods::ordinal(name, &o.index.key.name).is_some())
            .map(|o| {
                let claim = claim::claim(&o.index, uid, deleting, selector.matches(&o.index.labels));
                (o, claim)
            })
            .collect();
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        let owned = claim::carry_out::<StatefulSet, Pod>(candidates, meta, &api, &[], w).await?;
        PodView::all(&owned)
    }

    async fn note_collision(&self, mut set: StatefulSet, count: i32, w: &Writes) -> kube::Result<Outcome> {
        set.status.get_or_insert_default().collision_count = Some(count);
        w.update_status(&set).await?;
        Ok(Outcome::Done)
    }

    async fn carry_out(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        steps: &[Step],
        history: &[ControllerRevision],
        w: &Writes,
    ) -> kube::Result<()> {
        let about = pod_control::reference(set);
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        for step in steps {
            match step {
                Step::Create { ordinal, revision } => {
                    let stored = history.iter().find(|r| history::name(r) == revision).map(history::template);
                    let template = stored.transpose()?.flatten().unwrap_or_else(|| spec.template.clone());
                    let pod = pods::new_pod(set, spec, &template, revision, *ordinal);
                    self.create(set, spec, *ordinal, &pod, &about, w).await?;
                }
                Step::Recreate(pod) => {
                    let failed = pod.status.phase == Phase::Failed;
                    let (kind, reason, what) = if failed {
                        (EventType::Warning, "RecreatingFailedPod", "failed")
                    } else {
                        (EventType::Normal, "RecreatingTerminatedPod", "terminated")
                    };
                    let namespace = &pod.index.key.namespace;
                    let name = pod.name();
                    let message = format!("StatefulSet {namespace}/{set_name} is recreating {what} Pod {name}");
                    self.recorder.event(&about, kind, reason, &message);
                    self.delete(set_name, pod, &about, w).await?;
                }
                Step::ScaleDown(pod) | Step::Update(pod) => self.delete(set_name, pod, &about, w).await?,
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
        pod: &Pod,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<()> {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        self.make_claims(set, spec, ordinal, about, w).await?;
        let what = format!("Pod {pod_name} in StatefulSet {set_name}");
        self.tell("create", &what, "successful", w.create(pod).await.map(|_| ()), about)
    }

    async fn delete(&self, set: &str, pod: &PodView, about: &ObjectReference, w: &Writes) -> kube::Result<()> {
        let key = &pod.index.key;
        let deleted = w.delete::<Pod>(&key.namespace, &key.name, &pod_control::only(&pod.index.uid)).await;
        match deleted {
            Err(e) if status::is_not_found(&e) => Ok(()),
            other => self.tell("delete", &format!("Pod {} in StatefulSet {set}", key.name), "successful", other, about),
        }
    }

    /// Makes the claims of one pod that are not there.
    async fn make_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<()> {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        let pod_name = pods::pod_name(set_name, ordinal);
        for wanted in claims::wanted(set, spec, ordinal) {
            let claim = wanted.metadata.name.clone().unwrap_or_default();
            let namespace = wanted.metadata.namespace.clone().unwrap_or_default();
            if self.cluster.get::<PersistentVolumeClaim>(&namespace, &claim)?.is_some() {
                continue;
            }
            let what = format!("Claim {claim} Pod {pod_name} in StatefulSet {set_name}");
            let made = w.create(&wanted).await.map(|_| ());
            self.tell("create", &what, "success", made, about)?;
        }
        Ok(())
    }

    /// Gives pods that wait the claims that they lost, and all claims the owners that the policy asks for.
    async fn tend_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        own: &[PodView],
        w: &Writes,
    ) -> kube::Result<()> {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        let about = pod_control::reference(set);
        for pod in own {
            let Some(ordinal) = pods::ordinal(set_name, pod.name()) else { continue };
            if pod.status.phase == Phase::Pending && !pod.index.deleting {
                self.make_claims(set, spec, ordinal, &about, w).await?;
            }
            for template in spec.volume_claim_templates.iter().flatten() {
                let name = claims::name(template, pod.name());
                let found = self.cluster.get::<PersistentVolumeClaim>(&pod.index.key.namespace, &name)?;
                let Some(mut claim) = found else { continue };
                let current = claim.metadata.owner_references.as_deref().unwrap_or_default();
                if let Some(owners) = claims::changed_owners(set, spec, pod, current) {
                    claim.metadata.owner_references = Some(owners);
                    w.update(&claim).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells of a write as upstream does: `create Pod web-0 in StatefulSet web successful`.
    fn tell(
        &self,
        verb: &str,
        what: &str,
        success: &str,
        result: kube::Result<()>,
        about: &ObjectReference,
    ) -> kube::Result<()> {
        let noun = if verb == "create" { "Create" } else { "Delete" };
        match result {
            Ok(()) => {
                let message = format!("{verb} {what} {success}");
                self.recorder.event(about, EventType::Normal, &format!("Successful{noun}"), &message);
                Ok(())
            }
            Err(e) if status::is_namespace_terminating(&e) => Err(e),
            Err(e) => {
                let message = format!("{verb} {what} failed error: {}", status::message(&e));
                self.recorder.event(about, EventType::Warning, &format!("Failed{noun}"), &message);
                Err(e)
            }
        }
    }
}
