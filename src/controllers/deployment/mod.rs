//! Deployments: declarative updates of pods by way of ReplicaSets.
//!
//! [`plan`] computes from a Deployment and its ReplicaSets every write of one round, the shell below
//! carries them out in order. A round that was cut short is simply planned anew.

mod annotations;
mod conditions;
mod plan;
mod replicasets;
mod rolling;
mod rollout_status;
mod scaling;
#[cfg(test)]
mod tests;

use api::object::{GroupResource, ObjectKey};
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;
use kube::api::Api;
use tokio_util::sync::CancellationToken;

use crate::pod_control;
use crate::pods::PodView;
use crate::{claim, moment};
use api::selector::LabelSelector as Selector;
use plan::{Plan, Step};

const ACCOUNT: &str = "deployment-controller";

struct Reconciler {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
}

/// Runs the Deployment controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), recorder };
    let (sets, pods) = (cluster.clone(), cluster.clone());
    Controller::new(reconciler, cluster, client)
        .reconciles::<Deployment>()
        .watches::<ReplicaSet>(move |change| claim::owners_of::<Deployment>(&sets, change, selector))
        .watches::<Pod>(move |change| deployment_of_gone_pod(&pods, change))
        .workers(4)
        .run(token)
        .await;
}

fn selector(deployment: Deployment) -> Option<Selector> {
    Selector::from_meta(Some(&deployment.spec?.selector)).ok()
}

/// A Recreate rollout goes on when the last old pod is gone or has finished.
fn deployment_of_gone_pod(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let gone = match change {
        Change::Deleted { object } => object,
        Change::Applied { object, .. } if object.index.deleting => object,
        Change::Applied { .. } | Change::Synced | Change::Resync => return Vec::new(),
    };
    let Some(key) = claim::owner_key::<ReplicaSet>(gone) else { return Vec::new() };
    let set = cluster.source().get(&GroupResource::of::<ReplicaSet>(), &key);
    let Some(deployment) = set.as_ref().and_then(claim::owner_key::<Deployment>) else { return Vec::new() };
    // One that cannot be read says so when it is reconciled.
    let recreates = cluster
        .get::<Deployment>(&deployment.namespace, &deployment.name)
        .map_or(true, |found| found.is_some_and(|d| plan::is_recreate(&d)));
    if recreates { vec![deployment] } else { Vec::new() }
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "deployment-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(deployment) = self.cluster.get::<Deployment>(&key.namespace, &key.name)? else {
            return Ok(Outcome::Done);
        };
        let Some(spec) = &deployment.spec else { return Ok(Outcome::Done) };
        let Ok(selector) = Selector::from_meta(Some(&spec.selector)) else { return Ok(Outcome::Done) };
        let about = pod_control::reference(&deployment);
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&about, EventType::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        let sets = self.own_replica_sets(&deployment, &selector, w).await?;
        let observed = plan::Observed {
            old_pods_run: plan::is_recreate(&deployment) && self.old_pods_run(spec, &sets),
            sets,
            now: moment::time(Timestamp::now()),
        };
        let plan = plan::plan(&deployment, &observed);
        self.carry_out(&deployment, plan, &about, w).await
    }
}

impl Reconciler {
    async fn own_replica_sets(
        &self,
        deployment: &Deployment,
        selector: &Selector,
        w: &Writes,
    ) -> kube::Result<Vec<ReplicaSet>> {
        let meta = &deployment.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let candidates = self
            .cluster
            .objects::<ReplicaSet>(&Query::namespace(namespace))
            .into_iter()
            .map(|o| {
                let claim = claim::claim(&o.index, uid, deleting, selector.matches(&o.index.labels));
                (o, claim)
            })
            .collect();
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let owned = claim::carry_out::<Deployment, ReplicaSet>(candidates, meta, &api, &[], w).await?;
        let newest = owned.iter().map(|o| self.cluster.get(&o.index.key.namespace, &o.index.key.name));
        newest.filter_map(Result::transpose).collect()
    }

    /// Whether a pod of a set other than the new one may still run: only a finished pod surely does not.
    fn old_pods_run(&self, spec: &DeploymentSpec, sets: &[ReplicaSet]) -> bool {
        let (_, old) = replicasets::part(spec, sets.to_vec());
        old.iter().any(|set| {
            let pods = self.cluster.objects::<Pod>(&Query::owner(set.metadata.uid.as_deref().unwrap_or_default()));
            replicasets::actual(set) > 0 || pods.iter().any(|pod| PodView::of(pod).is_none_or(|p| !p.is_finished()))
        })
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        plan: Plan,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<Outcome> {
        for step in &plan.steps {
            match step {
                Step::Create { set, scaled } => match w.create(set).await {
                    Ok(_) => self.tell_scaled(about, scaled),
                    Err(e) if status::is_namespace_terminating(&e) => return Ok(Outcome::Done),
                    Err(e) => return self.handle_failed_create(deployment, set, e, about, w).await,
                },
                Step::Update { set, scaled } => {
                    w.update(set).await?;
                    self.tell_scaled(about, scaled);
                }
                Step::Delete { set } => {
                    let meta = &set.metadata;
                    let (namespace, name) = (meta.namespace.as_deref(), replicasets::name(set));
                    let only = pod_control::only(meta.uid.as_deref().unwrap_or_default());
                    match w.delete::<ReplicaSet>(namespace.unwrap_or_default(), name, &only).await {
                        Err(e) if !status::is_not_found(&e) => return Err(e),
                        Ok(()) | Err(_) => {}
                    }
                }
            }
        }
        if let Some(updated) = &plan.deployment {
            w.update_status(updated).await?;
        }
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    fn tell_scaled(&self, about: &ObjectReference, messages: &[String]) {
        for message in messages {
            self.recorder.event(about, EventType::Normal, "ScalingReplicaSet", message);
        }
    }

    /// A name that is taken by somebody else's set asks for another hash; anything else is told in
    /// the status and tried again.
    async fn handle_failed_create(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: kube::Error,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<Outcome> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = replicasets::name(set);
        let mut updated = deployment.clone();
        let status = updated.status.get_or_insert_with(DeploymentStatus::default);
        if status::is_already_exists(&error) {
            let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
            let taken = api.get_opt(name).await?;
            if taken.is_some_and(|other| is_the_same_set(&other, set)) {
                return Err(error);
            }
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        } else {
            let message = format!("Failed to create new replica set \"{name}\": {}", status::message(&error));
            self.recorder.event(about, EventType::Warning, conditions::FAILED_RS_CREATE, &message);
            let now = moment::time(Timestamp::now());
            let condition =
                conditions::new(conditions::PROGRESSING, "False", conditions::FAILED_RS_CREATE, message, &now);
            conditions::set(status, condition);
        }
        if updated.status != deployment.status {
            w.update_status(&updated).await?;
        }
        Err(error)
    }
}

/// The set is ours already and the source has not shown it yet.
fn is_the_same_set(other: &ReplicaSet, set: &ReplicaSet) -> bool {
    let owner = |rs: &ReplicaSet| rs.metadata.owner_references.iter().flatten().next().map(|o| o.uid.clone());
    let template = |rs: &ReplicaSet| rs.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    owner(other) == owner(set) && replicasets::is_same_template(&template(other), &template(set))
}
