//! Jobs: pods that run to completion, so many of them and so many at a time.
//!
//! A finished pod is kept by a finalizer until the Job's status has counted it; see [`plan`] for how
//! a pod is counted exactly once. [`orphans`] removes the finalizer where no Job counts any more.

mod failure_policy;
mod indexes;
mod orphans;
mod per_index;
mod plan;
mod pods;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use api::object::{Object, ObjectKey};
use client::{Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;
use kube::api::{Api, Patch};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::claim;
use crate::pod_control::{self, PodControl};
use crate::pods::PodView;
use api::selector::LabelSelector as Selector;
pub(crate) use orphans::run as run_orphans;
use plan::Plan;
use status::End;

const ACCOUNT: &str = "job-controller";
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// `spec.managedBy` of the Jobs that are ours.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

struct Reconciler {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
}

/// Runs the Job controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), recorder };
    let jobs = cluster.clone();
    Controller::new(reconciler, cluster, client)
        .reconciles::<Job>()
        .watches::<Pod>(move |change| claim::owners_of::<Job>(&jobs, change, selector))
        .workers(4)
        .run(token)
        .await;
}

fn selector(job: Job) -> Option<Selector> {
    Selector::from_meta(job.spec?.selector.as_ref()).ok()
}

/// Whether this controller manages the Job.
fn is_ours(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.managed_by.as_deref()).is_none_or(|manager| manager == MANAGED_BY)
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "job-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(job) = self.cluster.get::<Job>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        let Some(spec) = &job.spec else { return Ok(Outcome::Done) };
        if !is_ours(&job) || status::finished(&job).is_some() {
            return Ok(Outcome::Done);
        }
        let pods = self.own_pods(&job, spec, w).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&job, spec, &pods, now);
        let about = pod_control::reference(&job);
        if let Some((reason, message)) = plan.event {
            self.recorder.event(&about, EventType::Normal, reason, message);
        }
        let recheck = plan.recheck;
        let managed = self.manage_pods(&job, spec, &plan, &about, w).await;
        self.record(job.clone(), &pods, plan, &about, w).await?;
        managed?;
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Reconciler {
    async fn own_pods(&self, job: &Job, spec: &JobSpec, w: &Writes) -> kube::Result<Vec<PodView>> {
        let meta = &job.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let selector = spec.selector.as_ref().and_then(|s| Selector::from_meta(Some(s)).ok());
        let selects = |o: &Object| selector.as_ref().is_some_and(|s| s.matches(&o.index.labels));
        let objects = self.cluster.objects::<Pod>(&Query::namespace(namespace));
        let candidates =
            objects.into_iter().map(|o| (claim::claim(&o.index, uid, deleting, selects(&o)), o)).map(|(c, o)| (o, c));
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let owned = claim::carry_out::<Job, Pod>(candidates.collect(), meta, &api, &[FINALIZER], w).await?;
        PodView::all(&owned)
    }

    async fn manage_pods(
        &self,
        job: &Job,
        spec: &JobSpec,
        plan: &Plan,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<()> {
        let control = PodControl { writes: w, recorder: &self.recorder, owner: about };
        release(&plan.pods.dismiss, w).await?;
        control.delete_all(&plan.pods.dismiss).await?;
        control.delete_all(&plan.pods.terminate).await?;
        let new = plan.pods.create.iter().map(|new| pods::new_pod(job, spec, new)).collect();
        control.create_all(new).await
    }

    /// Records finished pods, lets them go, and counts them; then the end, if nothing is left.
    async fn record(
        &self,
        mut job: Job,
        pods: &[PodView],
        plan: Plan,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<()> {
        let before = job.status.take().unwrap_or_default();
        let mut status = plan.status;
        count_living(&mut status, pods, &plan.pods);
        let records = status.uncounted_terminated_pods != before.uncounted_terminated_pods
            || status.completed_indexes != before.completed_indexes
            || status.failed_indexes != before.failed_indexes;
        if !plan.release.is_empty() && records {
            job.status = Some(status.clone());
            job = w.update_status(&job).await?;
        }
        release(&plan.release, w).await?;
        let released: HashSet<&str> = plan.release.iter().map(|p| &*p.index.uid).collect();
        let is_tracked = |p: &PodView| p.index.finalizers.iter().any(|f| **f == *FINALIZER);
        plan::fold(&mut status, |uid| {
            pods.iter().any(|p| *p.index.uid == *uid && is_tracked(p)) && !released.contains(uid)
        });
        let ended = plan.end.as_ref().is_some_and(|end| plan::enact(&mut status, end, Timestamp::now()));
        if status != before {
            job.status = Some(status);
            w.update_status(&job).await?;
        }
        if let Some(end) = plan.end.filter(|_| ended) {
            self.tell_end(&end, about);
        }
        Ok(())
    }

    fn tell_end(&self, end: &End, about: &ObjectReference) {
        if end.success {
            self.recorder.event(about, EventType::Normal, "Completed", "Job completed");
        } else {
            self.recorder.event(about, EventType::Warning, &end.reason, &end.message);
        }
    }
}

/// Active, ready and terminating pods as they are after the round's own doings.
fn count_living(status: &mut JobStatus, pods: &[PodView], doings: &plan::Pods) {
    let gone: HashSet<&str> = doings.dismiss.iter().chain(&doings.terminate).map(|p| &*p.index.uid).collect();
    let living = || pods.iter().filter(|p| p.is_active() && !gone.contains(&*p.index.uid));
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    status.active = Some(number(living().count() + doings.create.len())).filter(|&n| n != 0);
    status.ready = Some(number(living().filter(|p| p.is_ready()).count()));
    let leaving = pods.iter().filter(|p| p.is_terminating()).count();
    status.terminating = Some(number(leaving + gone.len()));
}

/// Removes the tracking finalizer; a pod that has gone needs none removed.
async fn release(pods: &[PodView], w: &Writes) -> kube::Result<()> {
    let patches = pods.iter().filter(|p| p.index.finalizers.iter().any(|f| **f == *FINALIZER)).map(|pod| async move {
        let key = &pod.index.key;
        let meta = json!({"uid": &*pod.index.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]});
        let patch = Patch::Strategic(json!({ "metadata": meta }));
        match w.patch::<Pod, _>(&key.namespace, &key.name, &patch).await {
            Err(e) if !client::status::is_not_found(&e) && !client::status::is_conflict(&e) => Err(e),
            Ok(_) | Err(_) => Ok(()),
        }
    });
    join_all(patches).await.into_iter().collect()
}
