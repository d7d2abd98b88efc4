//! CronJobs: Jobs by the clock.

mod plan;
mod schedule;

use api::batch::time_zone::{TimeZoneError, time_zone};
use api::field;
use api::object::ObjectKey;
use client::{Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, decode_all, status};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::{claim, pod_control};
use plan::{News, Start};

const ACCOUNT: &str = "cronjob-controller";
const LOCAL_ZONE: &str = "/etc/localtime";

struct Reconciler {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    /// The zone of CronJobs that name none.
    local: TimeZone,
}

/// Runs the CronJob controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let local = local_zone().await;
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone(), recorder, local };
    Controller::new(reconciler, cluster, client)
        .reconciles::<CronJob>()
        .watches::<Job>(|change| change.object().and_then(claim::owner_key::<CronJob>).into_iter().collect())
        .workers(2)
        .run(token)
        .await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "cronjob-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(cron) = self.cluster.get::<CronJob>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        let spec = &cron.spec;
        let about = pod_control::reference(&cron);
        let jobs = self.own_jobs(&cron)?;
        let mut status = cron.status.clone().unwrap_or_default();
        for news in plan::follow(&mut status, &jobs) {
            self.tell(&about, &news);
        }
        let outcome = self.start_what_is_due(&cron, spec, &mut status, &about, w).await;
        for job in plan::outdated(spec, &jobs) {
            self.delete(job, &about, w).await?;
        }
        if Some(&status) != cron.status.as_ref() && (cron.status.is_some() || status != CronJobStatus::default()) {
            let mut updated = cron.clone();
            updated.status = Some(status);
            w.update_status(&updated).await?;
        }
        outcome
    }
}

impl Reconciler {
    fn zone(&self, name: Option<&str>) -> Result<TimeZone, TimeZoneError> {
        name.map_or_else(|| Ok(self.local.clone()), time_zone)
    }

    fn own_jobs(&self, cron: &CronJob) -> kube::Result<Vec<Job>> {
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let objects = self.cluster.objects::<Job>(&Query::owner(uid));
        let controlled = objects.iter().filter(|o| o.index.controller().is_some_and(|c| *c.uid == *uid));
        decode_all(controlled)
    }

    async fn start_what_is_due(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        about: &ObjectReference,
        w: &Writes,
    ) -> kube::Result<Outcome> {
        if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            return Ok(Outcome::Done);
        }
        let warn = |reason: &str, message: &str| self.recorder.event(about, EventType::Warning, reason, message);
        let zone = match self.zone(spec.time_zone.as_deref()) {
            Ok(zone) => zone,
            Err(e) => {
                let name = field::quote(spec.time_zone.as_deref().unwrap_or_default());
                warn("UnknownTimeZone", &format!("invalid timeZone: {name}: {e}"));
                return Ok(Outcome::Done);
            }
        };
        let decision = match plan::decide(cron, spec, status, &zone, Timestamp::now()) {
            Ok(decision) => decision,
            Err(e) => {
                warn("UnparseableSchedule", &format!("unparseable schedule: \"{}\" : {e}", spec.schedule));
                return Ok(Outcome::Done);
            }
        };
        if decision.too_many_missed {
            warn(
                "TooManyMissedTimes",
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
            );
        }
        match decision.start {
            Start::Nothing => {}
            Start::Missed(due) => {
                let due = due.to_zoned(zone).strftime("%a, %d %b %Y %H:%M:%S %z");
                warn("MissSchedule", &format!("Missed scheduled time to start a job: {due}"));
            }
            Start::HeldBack => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.event(about, EventType::Normal, "JobAlreadyActive", message);
            }
            Start::At(due) => self.start(cron, spec, due, &zone, status, w).await?,
        }
        Ok(decision.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        due: Timestamp,
        zone: &TimeZone,
        cron_status: &mut CronJobStatus,
        w: &Writes,
    ) -> kube::Result<()> {
        let about = pod_control::reference(cron);
        if spec.concurrency_policy.as_deref() == Some("Replace") {
            for active in cron_status.active.take().unwrap_or_default() {
                let namespace = active.namespace.as_deref().unwrap_or_default();
                if let Some(job) = self.cluster.get::<Job>(namespace, active.name.as_deref().unwrap_or_default())? {
                    self.delete(&job, &about, w).await?;
                }
            }
        }
        let wanted = plan::new_job(cron, spec, due, zone);
        let made = match w.create(&wanted).await {
            Ok(made) => {
                let name = made.metadata.name.clone().unwrap_or_default();
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", &format!("Created job {name}"));
                made
            }
            Err(e) if status::is_namespace_terminating(&e) => return Ok(()),
            // Made by a round that ended before it could note it.
            Err(e) if status::is_already_exists(&e) => match self.already_made(&wanted).await? {
                Some(made) => made,
                None => return Err(e),
            },
            Err(e) => {
                let message = format!("Error creating job: {}", status::message(&e));
                self.recorder.event(&about, EventType::Warning, "FailedCreate", &message);
                return Err(e);
            }
        };
        cron_status.active.get_or_insert_with(Vec::new).push(plan::reference(&made));
        cron_status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn already_made(&self, wanted: &Job) -> kube::Result<Option<Job>> {
        let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let found = jobs.get_opt(wanted.metadata.name.as_deref().unwrap_or_default()).await?;
        Ok(found.filter(|j| j.metadata.owner_references == wanted.metadata.owner_references))
    }

    async fn delete(&self, job: &Job, about: &ObjectReference, w: &Writes) -> kube::Result<()> {
        let meta = &job.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        match w.delete::<Job>(namespace, name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(()) => {
                self.recorder.event(about, EventType::Normal, "SuccessfulDelete", &format!("Deleted job {name}"));
                Ok(())
            }
            Err(e) if status::is_not_found(&e) => Ok(()),
            Err(e) => {
                let message = format!("Deleted job: {}", status::message(&e));
                self.recorder.event(about, EventType::Warning, "FailedDelete", &message);
                Err(e)
            }
        }
    }

    fn tell(&self, about: &ObjectReference, news: &News) {
        let (kind, reason, message) = match news {
            News::Completed { name, condition } => {
                (EventType::Normal, "SawCompletedJob", format!("Saw completed job: {name}, condition: {condition}"))
            }
            News::Unexpected(name) => {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                (EventType::Warning, "UnexpectedJob", message)
            }
            News::Missing(name) => (EventType::Normal, "MissingJob", format!("Active job went missing: {name}")),
        };
        self.recorder.event(about, kind, reason, &message);
    }
}

/// This machine's own zone, read once as upstream does; UTC where a machine has none.
async fn local_zone() -> TimeZone {
    let file = tokio::fs::read(LOCAL_ZONE).await.ok();
    file.and_then(|bytes| TimeZone::tzif("Local", &bytes).ok()).unwrap_or(TimeZone::UTC)
}
