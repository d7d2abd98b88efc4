//! CronJobs: a schedule, and the template of the jobs it makes.

use k8s_openapi::api::batch::v1 as api;

use super::cron_schedule::CronSchedule;
use super::job::{default_job_spec, job_warnings, validate_job_spec};
use super::time_zone::{TimeZoneError, time_zone};
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

/// Jobs append eleven characters to the name, and pods more.
const NAME_MAX: usize = 52;
/// The longest part of a zone's name, by the rules of the database.
const ZONE_PART_MAX: usize = 14;
/// A zone that exists, but is another one on each machine.
const LOCAL: &str = "Local";
const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];

pub(crate) struct CronJob;

impl Kind for CronJob {
    type Object = api::CronJob;

    fn default(&self, obj: &mut api::CronJob) {
        let spec = &mut obj.spec;
        spec.concurrency_policy.get_or_insert_with(|| "Allow".to_owned());
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let job = spec.job_template.spec.get_or_insert_default();
        let unset = (job.completions, job.parallelism, job.backoff_limit, job.suspend);
        let mode = job.completion_mode.clone();
        let (replacement, manual) = (job.pod_replacement_policy.clone(), job.manual_selector);
        default_job_spec(job);
        // The job's own defaults are filled in when it is made.
        (job.completions, job.parallelism, job.backoff_limit, job.suspend) = unset;
        (job.completion_mode, job.pod_replacement_policy, job.manual_selector) = (mode, replacement, manual);
    }

    fn prepare_create(&self, obj: &mut api::CronJob) {
        obj.status = Some(api::CronJobStatus::default());
    }

    fn validate(&self, obj: &api::CronJob, errs: &mut ErrorList) {
        validate_spec(obj, None, errs);
        let name = obj.metadata.name.as_deref().unwrap_or("");
        if name.len() > NAME_MAX {
            let why = format!("must be no more than {NAME_MAX} characters");
            errs.push(field::invalid(&Path::new("metadata.name"), name, why));
        }
    }

    /// A stored time zone that the database has no more does not stand in the way.
    fn validate_update(&self, new: &api::CronJob, old: &api::CronJob, errs: &mut ErrorList) {
        validate_spec(new, old.spec.time_zone.as_deref(), errs);
    }

    fn warnings_on_create(&self, obj: &api::CronJob) -> Vec<String> {
        crate::meta::name_warnings(&obj.metadata, "Pod names and hostnames")
    }

    fn warnings(&self, obj: &api::CronJob) -> Vec<String> {
        let spec = &obj.spec;
        let mut out = Vec::new();
        if spec.schedule.contains("TZ") {
            out.push("spec.schedule: CRON_TZ or TZ used in \"spec.schedule\" is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        out.extend(spec.job_template.spec.iter().flat_map(|job| job_warnings(job, "spec.jobTemplate.spec")));
        out
    }
}

fn validate_spec(obj: &api::CronJob, stored_zone: Option<&str>, errs: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = &obj.spec;
    validate_schedule(&spec.schedule, &path.child("schedule"), errs);
    if let Some(seconds) = spec.starting_deadline_seconds {
        field::non_negative(&path.child("startingDeadlineSeconds"), seconds, errs);
    }
    if let Some(zone) = spec.time_zone.as_deref().filter(|zone| Some(*zone) != stored_zone) {
        validate_time_zone(zone, &path.child("timeZone"), errs);
    }
    crate::core::pod::validate_choice(
        spec.concurrency_policy.as_deref(),
        POLICIES,
        &path.child("concurrencyPolicy"),
        errs,
    );
    let template = &spec.job_template;
    let at = path.child("jobTemplate");
    if let Some(job) = template.spec.as_ref() {
        let at = at.child("spec");
        validate_job_spec(job, &at, errs);
        if job.selector.is_some() {
            errs.push(field::invalid(&at.child("selector"), &job.selector, "`selector` will be auto-generated"));
        }
        if job.manual_selector == Some(true) {
            errs.push(field::not_supported(&at.child("manualSelector"), &true, &["nil", "false"]));
        }
    }
    for (name, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        field::non_negative(&path.child(name), i64::from(limit.unwrap_or(0)), errs);
    }
}

fn validate_schedule(schedule: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if schedule.is_empty() {
        errs.push(field::required(path, ""));
        return;
    }
    if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errs.push(field::invalid(path, schedule, why));
    } else if let Err(error) = schedule.parse::<CronSchedule>() {
        errs.push(field::invalid(path, schedule, error.to_string()));
    }
}

fn validate_time_zone(zone: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if zone.is_empty() {
        errs.push(field::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let plain = |part: &str| {
        let characters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
        characters && (1..=ZONE_PART_MAX).contains(&part.len()) && !part.starts_with('-') && part != "." && part != ".."
    };
    if !zone.split('/').all(plain) {
        errs.push(field::invalid(path, zone, TimeZoneError::Unknown(zone.to_owned()).to_string()));
        return;
    }
    if zone.eq_ignore_ascii_case(LOCAL) {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errs.push(field::invalid(path, zone, why));
    }
    if let Err(error) = time_zone(zone)
        && zone != LOCAL
    {
        errs.push(field::invalid(path, zone, error.to_string()));
    }
}
