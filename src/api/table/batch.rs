//! Jobs and cron jobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobStatus};
use serde_json::Value;

use super::Column;
use super::column::{AGE, CONTAINERS, IMAGES, NAME, SELECTOR};
use super::kind::{Printed, row};
use super::text::{self, NONE, UNSET};
use crate::meta::duration;
use crate::selector::format_label_selector;

impl Printed for Job {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Status", "How far the job has come."),
        Column::text("Completions", "How many of the pods that are needed have succeeded."),
        Column::text("Duration", "How long the job took, or has been running."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let no_status = JobStatus::default();
        let status = self.status.as_ref().unwrap_or(&no_status);
        let (containers, images) = containers(self.spec.as_ref());
        row![
            self.name(),
            state(self, status),
            completions(self.spec.as_ref(), status),
            running_time(status, now),
            self.age(now),
            containers,
            images,
            format_label_selector(self.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
        ]
    }
}

fn containers(spec: Option<&JobSpec>) -> (String, String) {
    text::containers(spec.and_then(|spec| spec.template.spec.as_ref()).map(|pod| pod.containers.as_slice()))
}

fn state(job: &Job, status: &JobStatus) -> &'static str {
    let is = |kind: &str| {
        status.conditions.iter().flatten().find(|condition| condition.type_ == kind).is_some_and(|c| c.status == "True")
    };
    match ["Complete", "Failed"].into_iter().find(|kind| is(kind)) {
        Some(end) => end,
        None if job.is_terminating() => "Terminating",
        None => {
            ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| is(kind)).unwrap_or("Running")
        }
    }
}

/// A job without a number of completions ends with the first success.
fn completions(spec: Option<&JobSpec>, status: &JobStatus) -> String {
    let succeeded = status.succeeded.unwrap_or_default();
    let parallelism = spec.and_then(|spec| spec.parallelism).unwrap_or_default();
    match spec.and_then(|spec| spec.completions) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn running_time(status: &JobStatus, now: Timestamp) -> String {
    let end = status.completion_time.as_ref().map_or(now, |time| time.0);
    let start = status.start_time.as_ref();
    start.map_or_else(String::new, |start| duration::human_duration(duration::whole_seconds(start.0, end)))
}

impl Printed for CronJob {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Schedule", "When jobs are started, in cron's notation."),
        Column::text("Timezone", "The time zone that the schedule is read in."),
        Column::boolean("Suspend", "Whether no further jobs are started."),
        Column::integer("Active", "How many of its jobs are running."),
        Column::text("Last Schedule", "Time since a job was last due and started."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&self.spec, self.status.as_ref());
        let job = spec.job_template.spec.as_ref();
        let last = status.and_then(|status| status.last_schedule_time.as_ref());
        let (containers, images) = containers(job);
        row![
            self.name(),
            spec.schedule.as_str(),
            spec.time_zone.as_deref().unwrap_or(NONE),
            suspended(spec.suspend),
            status.and_then(|status| status.active.as_ref()).map_or(0, Vec::len),
            last.map_or_else(|| NONE.to_owned(), |last| duration::age(Some(last.0), now)),
            self.age(now),
            containers,
            images,
            format_label_selector(job.and_then(|job| job.selector.as_ref())),
        ]
    }
}

fn suspended(suspend: Option<bool>) -> &'static str {
    match suspend {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}
