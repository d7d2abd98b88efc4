//! ReplicaSets and ReplicationControllers: so many pods of a template, no more and no fewer.
//!
//! Both kinds are the same machine; [`Replicated`] is what it needs to know of either.

mod kinds;
mod plan;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use api::object::ObjectKey;
use client::{Cluster, Controller, Outcome, Query, Reconcile, Recorder, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use tokio_util::sync::CancellationToken;

use crate::claim;
use crate::generate_name::generate_name;
use crate::pod_control::{self, PodControl};
use crate::pods::PodView;
use api::selector::LabelSelector as Selector;

/// A kind that keeps a number of like pods.
pub(crate) trait Replicated: client::Kind + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> {
    /// Upstream's name of the controller.
    const CONTROLLER: &'static str;

    fn spec(&self) -> Option<Spec<'_>>;
    /// The status in the form that both kinds share.
    fn status(&self) -> ReplicaSetStatus;
    fn set_status(&mut self, status: ReplicaSetStatus);
}

/// What is wanted.
pub(crate) struct Spec<'a> {
    pub(crate) replicas: i32,
    pub(crate) min_ready_seconds: i32,
    pub(crate) selector: Selector,
    pub(crate) template: &'a PodTemplateSpec,
}

struct Reconciler<K> {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    kind: PhantomData<fn() -> K>,
}

/// Runs the ReplicaSet controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    run_kind::<ReplicaSet>(cluster, "replicaset-controller", token).await;
}

/// Runs the ReplicationController controller until cancelled.
pub(crate) async fn run_replication_controller(cluster: Cluster, token: CancellationToken) {
    run_kind::<ReplicationController>(cluster, "replication-controller", token).await;
}

async fn run_kind<K: Replicated>(cluster: Cluster, account: &'static str, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", account);
    let recorder = Recorder::new(client.clone(), account, "");
    let reconciler = Reconciler::<K> { cluster: cluster.clone(), client: client.clone(), recorder, kind: PhantomData };
    let pods = cluster.clone();
    Controller::new(reconciler, cluster, client)
        .reconciles::<K>()
        .watches::<Pod>(move |change| {
            claim::owners_of::<K>(&pods, change, |owner| owner.spec().map(|spec| spec.selector))
        })
        .workers(4)
        .run(token)
        .await;
}

impl<K: Replicated> Reconcile for Reconciler<K> {
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(owner) = self.cluster.get::<K>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        let Some(spec) = owner.spec() else { return Ok(Outcome::Done) };
        let (pods, terminating) = self.own_pods(&owner, &spec, w).await?;
        let now = Timestamp::now();

        let mut pods = pods;
        let mut failure = None;
        if owner.metadata().deletion_timestamp.is_none() {
            failure = self.manage(&owner, &spec, &mut pods, now, w).await.err();
        }
        let observed = plan::Observed { pods: &pods, terminating, failure: failure.as_ref().map(status::message) };
        let new = plan::status(owner.metadata(), &owner.status(), &spec, &observed, now);
        let recheck = plan::recheck_in(&pods, spec.min_ready_seconds, now);
        let mut updated = owner.clone();
        updated.set_status(new);
        if updated.status() != owner.status() {
            w.update_status(&updated).await?;
        }
        match failure {
            Some(e) => Err(e),
            None => Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter)),
        }
    }
}

impl<K: Replicated> Reconciler<K> {
    /// The active pods that are the owner's after adoption and release, and how many are going.
    async fn own_pods(&self, owner: &K, spec: &Spec<'_>, w: &Writes) -> kube::Result<(Vec<PodView>, usize)> {
        let meta = owner.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let candidates = self
            .cluster
            .objects::<Pod>(&Query::namespace(namespace))
            .into_iter()
            .map(|o| {
                let claim = claim::claim(&o.index, uid, deleting, spec.selector.matches(&o.index.labels));
                (o, claim)
            })
            .filter(|(o, claim)| match claim {
                claim::Claim::NotOurs => false,
                // A finished pod is left where it is: nobody adopts or releases it.
                claim::Claim::Adopt | claim::Claim::Release => PodView::of(o).is_some_and(|p| p.is_active()),
                claim::Claim::Owned => true,
            })
            .collect();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let owned = claim::carry_out::<K, Pod>(candidates, meta, &api, &[], w).await?;
        let views = PodView::all(&owned)?;
        let terminating = views.iter().filter(|p| p.is_terminating()).count();
        Ok((views.into_iter().filter(PodView::is_active).collect(), terminating))
    }

    /// Creates what is missing or deletes what is too many.
    async fn manage(
        &self,
        owner: &K,
        spec: &Spec<'_>,
        pods: &mut [PodView],
        now: Timestamp,
        w: &Writes,
    ) -> kube::Result<()> {
        let reference = pod_control::reference(owner);
        let control = PodControl { writes: w, recorder: &self.recorder, owner: &reference };
        match plan::scale(pods.len(), spec.replicas) {
            plan::Scale::Keep => Ok(()),
            plan::Scale::Create(count) => control.create_all(vec![new_pod(owner, spec.template); count]).await,
            plan::Scale::Delete(count) => {
                if count < pods.len() {
                    let colocated = self.colocated(owner, pods);
                    crate::pods::rank_for_deletion(pods, &colocated, now);
                }
                control.delete_all(&pods[..count]).await
            }
        }
    }

    /// Active pods by node, of this owner and of its siblings under the same controller: of an old
    /// and a new ReplicaSet of one Deployment, the node that carries most gives first.
    fn colocated(&self, owner: &K, pods: &[PodView]) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        let mut add = |pod: &PodView| *count.entry(pod.spec.node_name.clone()).or_insert(0) += 1;
        let Some(grandparent) = controller_uid(owner.metadata()) else {
            pods.iter().for_each(add);
            return count;
        };
        for sibling in self.cluster.objects::<K>(&Query::owner(grandparent)) {
            for pod in self.cluster.objects::<Pod>(&Query::owner(&sibling.index.uid)) {
                PodView::of(&pod).filter(PodView::is_active).iter().for_each(&mut add);
            }
        }
        count
    }
}

fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

fn new_pod<K: Replicated>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = owner.metadata();
    let reference = claim::controller_ref::<K>(meta);
    let mut pod = pod_control::from_template(template, meta.namespace.as_deref().unwrap_or_default(), reference);
    pod.metadata.generate_name = Some(generate_name(meta.name.as_deref().unwrap_or_default()));
    pod
}
