//! Finished Jobs go when their time to live is over.

use api::object::ObjectKey;
use client::{Cluster, Controller, Outcome, Reconcile, Writes, status};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::moment::{self, Due};

const ACCOUNT: &str = "ttl-after-finished-controller";

struct Reconciler {
    cluster: Cluster,
    client: Client,
}

/// Runs the TTL-after-finished controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let reconciler = Reconciler { cluster: cluster.clone(), client: client.clone() };
    Controller::new(reconciler, cluster, client).reconciles::<Job>().run(token).await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "ttl-after-finished-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(job) = self.cluster.get::<Job>(&key.namespace, &key.name)? else { return Ok(Outcome::Done) };
        match due(&job, Timestamp::now()) {
            Due::Never => Ok(Outcome::Done),
            Due::In(left) => Ok(Outcome::RequeueAfter(left)),
            Due::Now => self.delete(key, w).await,
        }
    }
}

impl Reconciler {
    /// Asks the API server once more: the time to live may just have been raised.
    async fn delete(&self, key: &ObjectKey, w: &Writes) -> kube::Result<Outcome> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(fresh) = jobs.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
        match due(&fresh, Timestamp::now()) {
            Due::Never => return Ok(Outcome::Done),
            Due::In(left) => return Ok(Outcome::RequeueAfter(left)),
            Due::Now => {}
        }
        let preconditions =
            Preconditions { uid: fresh.metadata.uid, resource_version: fresh.metadata.resource_version };
        let params = DeleteParams::foreground().preconditions(preconditions);
        match w.delete::<Job>(&key.namespace, &key.name, &params).await {
            Err(e) if !status::is_not_found(&e) => Err(e),
            Ok(()) | Err(_) => Ok(Outcome::Done),
        }
    }
}

fn due(job: &Job, now: Timestamp) -> Due {
    let ttl = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
    let (Some(ttl), None) = (ttl, &job.metadata.deletion_timestamp) else { return Due::Never };
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut finished = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let Some(at) = finished.find_map(|c| c.last_transition_time.as_ref()) else { return Due::Never };
    moment::remaining(at.0, i64::from(ttl), now).map_or(Due::Now, Due::In)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use std::time::Duration;

    #[track_caller]
    fn check(ttl: Option<i32>, finished: Option<i64>, now: i64, expected: Due) {
        let condition = finished.map(|t| JobCondition {
            type_: "Complete".into(),
            status: "True".into(),
            last_transition_time: Some(Time(at(t))),
            ..JobCondition::default()
        });
        let job = Job {
            spec: Some(JobSpec { ttl_seconds_after_finished: ttl, ..JobSpec::default() }),
            status: Some(JobStatus { conditions: Some(condition.into_iter().collect()), ..JobStatus::default() }),
            ..Job::default()
        };
        assert_eq!(due(&job, at(now)), expected);
    }

    #[test]
    fn jobs_are_due_a_while_after_they_finished() {
        check(None, Some(100), 10_000, Due::Never);
        check(Some(10), None, 10_000, Due::Never);
        check(Some(10), Some(100), 104, Due::In(Duration::from_secs(6)));
        check(Some(10), Some(100), 110, Due::Now);
        check(Some(0), Some(100), 100, Due::Now);
    }
}
