//! What a CronJob does at a given moment: which Jobs to forget, to start, to replace and to clean up.

use std::time::Duration;

use api::batch::cron_schedule::{CronSchedule, ScheduleError};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::schedule::next;
use crate::{claim, job};

const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed starts than this point to a clock that jumped or a CronJob nobody misses.
const MANY: usize = 100;
/// A timer that fires early must not find that nothing is due.
const SLACK: Duration = Duration::from_millis(100);

/// What to do about the schedule.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    Nothing,
    /// Warned of, then as if nothing were due.
    Missed(Timestamp),
    HeldBack,
    At(Timestamp),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) start: Start,
    pub(super) too_many_missed: bool,
    pub(super) recheck: Option<Duration>,
}

/// Whether a start is due now, and when to look again.
pub(super) fn decide(
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &CronJobStatus,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Decision, ScheduleError> {
    let schedule: CronSchedule = spec.schedule.parse()?;
    let recheck = next(&schedule, now, zone)
        .map(|due| Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO) + SLACK);
    let (due, missed) = most_recent(cron, spec, status, &schedule, zone, now);
    let start = match due {
        None => Start::Nothing,
        Some(due) if status.last_schedule_time.as_ref().is_some_and(|last| last.0 >= due) => Start::Nothing,
        Some(due) if is_too_late(spec, due, now) => Start::Missed(due),
        Some(due) if is_running(status, &job_name(cron, due)) => Start::Nothing,
        Some(_) if spec.concurrency_policy.as_deref() == Some("Forbid") && has_active(status) => Start::HeldBack,
        Some(due) => Start::At(due),
    };
    Ok(Decision { start, too_many_missed: missed > MANY, recheck })
}

/// The latest start that has come due and was not made, and how many there were.
fn most_recent(
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &CronJobStatus,
    schedule: &CronSchedule,
    zone: &TimeZone,
    now: Timestamp,
) -> (Option<Timestamp>, usize) {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut earliest = status.last_schedule_time.as_ref().map_or(created, |t| t.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        earliest = earliest.max(now.saturating_sub(SignedDuration::from_secs(deadline)).unwrap_or(earliest));
    }
    let (mut recent, mut missed) = (None, 0);
    let mut at = earliest;
    while let Some(found) = next(schedule, at, zone).filter(|found| *found <= now) {
        recent = Some(found);
        missed += 1;
        at = found;
        if missed > MANY {
            // Far behind: only the last one before now matters, found from close by.
            at = at.max(latest_before(schedule, zone, now).unwrap_or(at));
            recent = Some(at);
        }
    }
    (recent, missed)
}

/// The last start before `now`, looked for in windows that grow.
fn latest_before(schedule: &CronSchedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let mut window = SignedDuration::from_mins(2);
    while window < SignedDuration::from_hours(24 * 366 * 5) {
        let from = now.saturating_sub(window).ok()?;
        let mut last = None;
        let mut at = from;
        while let Some(found) = next(schedule, at, zone).filter(|found| *found <= now) {
            (last, at) = (Some(found), found);
        }
        if last.is_some() {
            return last;
        }
        window *= 4;
    }
    None
}

fn is_too_late(spec: &CronJobSpec, due: Timestamp, now: Timestamp) -> bool {
    spec.starting_deadline_seconds
        .is_some_and(|seconds| due.saturating_add(SignedDuration::from_secs(seconds)).is_ok_and(|latest| latest < now))
}

fn has_active(status: &CronJobStatus) -> bool {
    status.active.as_ref().is_some_and(|a| !a.is_empty())
}

fn is_running(status: &CronJobStatus, name: &str) -> bool {
    status.active.iter().flatten().any(|a| a.name.as_deref() == Some(name))
}

fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), due.as_second() / 60)
}

/// The Job of one start; its name makes a second start of the same time impossible.
pub(super) fn new_job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let stamp =
        if spec.time_zone.is_some() { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() } else { due.to_string() };
    annotations.insert(SCHEDULED_TIMESTAMP.to_owned(), stamp);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![claim::controller_ref::<CronJob>(&cron.metadata)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// News of a CronJob's Jobs, for its events.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Completed { name: String, condition: String },
    Unexpected(String),
    Missing(String),
}

/// Brings the list of active Jobs up to date.
pub(super) fn follow(status: &mut CronJobStatus, jobs: &[Job]) -> Vec<News> {
    let mut news = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    for job in jobs {
        let name = job.metadata.name.clone().unwrap_or_default();
        let position = active.iter().position(|a| a.uid == job.metadata.uid);
        match (position, job::status::finished(job)) {
            (None, None) => news.push(News::Unexpected(name)),
            (Some(at), Some(condition)) => {
                active.remove(at);
                news.push(News::Completed { name, condition: condition.type_.clone() });
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
        if completed.is_some() && completed > status.last_successful_time {
            status.last_successful_time = completed;
        }
    }
    active.retain(|a| {
        let exists = jobs.iter().any(|j| j.metadata.uid == a.uid);
        if !exists {
            news.push(News::Missing(a.name.clone().unwrap_or_default()));
        }
        exists
    });
    status.active = Some(active).filter(|a| !a.is_empty());
    news
}

/// Finished Jobs beyond the history limits, oldest first.
pub(super) fn outdated<'a>(spec: &CronJobSpec, jobs: &'a [Job]) -> Vec<&'a Job> {
    let started = |j: &Job| j.status.as_ref().and_then(|s| s.start_time.clone());
    let beyond = |kind: &str, limit: Option<i32>| -> Vec<&'a Job> {
        let Some(limit) = limit else { return Vec::new() };
        let mut finished: Vec<&Job> =
            jobs.iter().filter(|j| job::status::finished(j).is_some_and(|c| c.type_ == kind)).collect();
        finished.sort_by_key(|j| (started(j), j.metadata.name.clone()));
        let excess = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        finished.truncate(excess);
        finished
    };
    let mut all = beyond("Complete", spec.successful_jobs_history_limit);
    all.extend(beyond("Failed", spec.failed_jobs_history_limit));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(policy: &str, deadline: Option<i64>) -> CronJob {
        CronJob {
            metadata: ObjectMeta {
                name: Some("hello".into()),
                creation_timestamp: Some(Time(time("2026-01-01T00:00:10Z"))),
                ..ObjectMeta::default()
            },
            spec: CronJobSpec {
                schedule: "*/5 * * * *".into(),
                concurrency_policy: Some(policy.into()),
                starting_deadline_seconds: deadline,
                successful_jobs_history_limit: Some(1),
                failed_jobs_history_limit: Some(1),
                ..CronJobSpec::default()
            },
            status: None,
        }
    }

    fn status(last: Option<&str>, active: &[&str]) -> CronJobStatus {
        let reference = |name: &&str| ObjectReference {
            name: Some((*name).to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectReference::default()
        };
        CronJobStatus {
            last_schedule_time: last.map(|t| Time(time(t))),
            active: Some(active.iter().map(reference).collect::<Vec<_>>()).filter(|a| !a.is_empty()),
            last_successful_time: None,
        }
    }

    #[track_caller]
    fn check(cron: &CronJob, status: &CronJobStatus, now: &str, expected: &Start) -> Decision {
        let got = decide(cron, &cron.spec, status, &TimeZone::UTC, time(now)).unwrap();
        assert_eq!(&got.start, expected);
        got
    }

    #[test]
    fn starts_come_due_once() {
        let allow = cron("Allow", None);
        let early = check(&allow, &status(None, &[]), "2026-01-01T00:04:00Z", &Start::Nothing);
        assert_eq!(early.recheck, Some(Duration::from_millis(60_100)));
        let due = Start::At(time("2026-01-01T00:05:00Z"));
        check(&allow, &status(None, &[]), "2026-01-01T00:05:00Z", &due);
        check(&allow, &status(Some("2026-01-01T00:05:00Z"), &[]), "2026-01-01T00:06:00Z", &Start::Nothing);
        let late = Start::At(time("2026-01-01T00:15:00Z"));
        check(&allow, &status(Some("2026-01-01T00:05:00Z"), &[]), "2026-01-01T00:17:00Z", &late);
    }

    #[test]
    fn policy_and_deadline_hold_starts_back() {
        let running = status(Some("2026-01-01T00:00:00Z"), &["hello-1"]);
        check(&cron("Forbid", None), &running, "2026-01-01T00:05:01Z", &Start::HeldBack);
        let due = Start::At(time("2026-01-01T00:05:00Z"));
        check(&cron("Replace", None), &running, "2026-01-01T00:05:01Z", &due);
        check(&cron("Allow", Some(30)), &status(None, &[]), "2026-01-01T00:06:00Z", &Start::Nothing);
        check(&cron("Allow", Some(90)), &status(None, &[]), "2026-01-01T00:06:00Z", &due);
    }

    #[test]
    fn a_long_silence_is_told_and_only_the_last_start_made() {
        let now = "2026-02-01T00:01:00Z";
        let got = check(&cron("Allow", None), &status(None, &[]), now, &Start::At(time("2026-02-01T00:00:00Z")));
        assert!(got.too_many_missed);
    }

    #[test]
    fn a_job_is_named_by_its_minute_and_carries_its_time() {
        let cron = cron("Allow", None);
        let job = new_job(&cron, &cron.spec, time("2026-01-01T00:05:00Z"), &TimeZone::UTC);
        assert_eq!(job.metadata.name.as_deref(), Some("hello-29453765"));
        assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED_TIMESTAMP], "2026-01-01T00:05:00Z");
    }

    fn finished(name: &str, kind: &str, start: &str) -> Job {
        let condition = JobCondition { type_: kind.into(), status: "True".into(), ..JobCondition::default() };
        Job {
            metadata: ObjectMeta { name: Some(name.into()), uid: Some(format!("uid-{name}")), ..ObjectMeta::default() },
            spec: None,
            status: Some(JobStatus {
                start_time: Some(Time(time(start))),
                conditions: Some(vec![condition]),
                ..JobStatus::default()
            }),
        }
    }

    #[test]
    fn active_jobs_are_followed_to_their_end() {
        let mut status = status(None, &["a", "gone"]);
        let jobs = [finished("a", "Complete", "2026-01-01T00:05:00Z")];
        let news = follow(&mut status, &jobs);
        let completed = News::Completed { name: "a".into(), condition: "Complete".into() };
        assert_eq!(news, [completed, News::Missing("gone".into())]);
        assert_eq!(status.active, None);
    }

    #[test]
    fn history_keeps_the_youngest_of_either_outcome() {
        let jobs = [
            finished("b", "Complete", "2026-01-01T00:10:00Z"),
            finished("a", "Complete", "2026-01-01T00:05:00Z"),
            finished("c", "Failed", "2026-01-01T00:15:00Z"),
        ];
        let cron = cron("Allow", None);
        let names: Vec<_> = outdated(&cron.spec, &jobs).iter().map(|j| j.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["a"]);
    }
}
