//! Pods that keep a Job's finalizer though no Job will count them: their Job is gone or finished, or
//! they were released from it.

use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Query, Reconcile, Writes};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{ACCOUNT, FINALIZER, is_ours, release, status};
use crate::claim;
use crate::pods::PodView;

struct Reconciler {
    cluster: Cluster,
}

/// Frees orphaned Job pods until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let (pods, jobs) = (cluster.clone(), cluster.clone());
    Controller::new(Reconciler { cluster: cluster.clone() }, cluster, client)
        .watches::<Pod>(move |change| match change {
            Change::Applied { object, .. } if is_orphan(&pods, object) => vec![object.index.key.clone()],
            Change::Applied { .. } | Change::Deleted { .. } | Change::Synced | Change::Resync => Vec::new(),
        })
        .watches::<Job>(move |change| pods_of_ended_job(&jobs, change))
        .run(token)
        .await;
}

fn is_tracked(object: &Object) -> bool {
    object.index.finalizers.iter().any(|f| **f == *FINALIZER)
}

fn is_orphan(cluster: &Cluster, pod: &Object) -> bool {
    if !is_tracked(pod) {
        return false;
    }
    let Some(owner) = pod.index.controller() else { return true };
    // The finalizers of other owners' pods, and of Jobs that others manage, are theirs to remove.
    let Some(key) = claim::owner_key::<Job>(pod) else { return false };
    if cluster.source().is_unreadable(&GroupResource::of::<Job>(), &key) {
        return false;
    }
    let job = cluster.source().get(&GroupResource::of::<Job>(), &key).filter(|j| j.index.uid == owner.uid);
    job.is_none_or(|j| j.decode::<Job>().is_ok_and(|j| is_ours(&j) && status::finished(&j).is_some()))
}

fn pods_of_ended_job(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let Some(job) = change.object() else { return Vec::new() };
    let pods = cluster.objects::<Pod>(&Query::owner(&job.index.uid));
    pods.iter().filter(|p| is_orphan(cluster, p)).map(|p| p.index.key.clone()).collect()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "job-orphan-pods";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let object = self.cluster.source().get(&GroupResource::of::<Pod>(), key);
        if let Some(pod) = object.filter(|o| is_orphan(&self.cluster, o)).as_ref().and_then(PodView::of) {
            release(&[pod], w).await?;
        }
        Ok(Outcome::Done)
    }
}
