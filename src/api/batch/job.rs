//! Jobs: their selector is made from the job's own uid unless the user insists on one.

use k8s_openapi::api::batch::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;

use super::job_policies::validate_policies;
use crate::core::pod::{default_template, validate_template};
use crate::core::pod_template::template_warnings;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::validate_label_selector;
use crate::selector::LabelSelector;

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_UID: &str = "controller-uid";
const LEGACY_NAME: &str = "job-name";
const PARALLELISM_MAX_INDEXED: i32 = 100_000;

pub(crate) struct Job;

/// Defaults of the spec, also below a CronJob.
pub(super) fn default_job_spec(spec: &mut api::JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.backoff_limit.get_or_insert(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| p.rules.iter_mut()) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if pattern.status.as_deref().unwrap_or("").is_empty() {
                pattern.status = Some("True".to_owned());
            }
        }
    }
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replacement.to_owned());
    spec.manual_selector.get_or_insert(false);
    default_template(&mut spec.template);
}

impl Kind for Job {
    type Object = api::Job;

    fn default(&self, obj: &mut api::Job) {
        let spec = obj.spec.get_or_insert_default();
        default_job_spec(spec);
        let empty = |labels: &Option<std::collections::BTreeMap<String, String>>| {
            labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        };
        if empty(&obj.metadata.labels) {
            let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
            obj.metadata.labels = labels.filter(|l| !l.is_empty());
        }
    }

    /// The server gives the uid before it asks for this.
    fn prepare_create(&self, obj: &mut api::Job) {
        obj.status = Some(api::JobStatus::default());
        generate_selector(obj);
    }

    fn validate(&self, obj: &api::Job, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::JobSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        validate_generated_selector(obj, errs);
        validate_job_spec(spec, &path, errs);
        if spec.completion_mode.as_deref() == Some("Indexed") && spec.completions.unwrap_or(0) > 0 {
            let longest =
                format!("{}-{}", obj.metadata.name.as_deref().unwrap_or(""), spec.completions.unwrap_or(1) - 1);
            let wrong = crate::meta::format::dns1123_label(&longest);
            if !wrong.is_empty() {
                let why = format!("will not able to create pod with invalid DNS label: {longest}");
                errs.push(field::invalid(&Path::new("metadata.name"), &obj.metadata.name, why));
            }
        }
        let selector = LabelSelector::from_meta(spec.selector.as_ref());
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if spec.selector.is_none() {
            errs.push(field::required(&path.child("selector"), ""));
        } else if selector.is_ok_and(|s| !s.matches(&labels)) {
            let why = "`selector` does not match template `labels`";
            errs.push(field::invalid(&path.child("template.metadata.labels"), &labels, why));
        }
    }

    fn validate_update(&self, new: &api::Job, old: &api::Job, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let (Some(new_spec), Some(old_spec)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
        validate_job_spec(new_spec, &path, errs);
        let elastic = new_spec.completion_mode.as_deref() == Some("Indexed")
            && new_spec.completions.is_some()
            && new_spec.completions == new_spec.parallelism;
        if !elastic {
            field::immutable(&path.child("completions"), &new_spec.completions, &old_spec.completions, errs);
        }
        field::immutable(&path.child("selector"), &new_spec.selector, &old_spec.selector, errs);
        validate_template_update(new_spec, old, &path.child("template"), errs);
        field::immutable(&path.child("completionMode"), &new_spec.completion_mode, &old_spec.completion_mode, errs);
        let (new_policy, old_policy) = (&new_spec.pod_failure_policy, &old_spec.pod_failure_policy);
        field::immutable(&path.child("podFailurePolicy"), new_policy, old_policy, errs);
        let (new_index, old_index) = (&new_spec.backoff_limit_per_index, &old_spec.backoff_limit_per_index);
        field::immutable(&path.child("backoffLimitPerIndex"), new_index, old_index, errs);
        field::immutable(&path.child("managedBy"), &new_spec.managed_by, &old_spec.managed_by, errs);
        field::immutable(&path.child("successPolicy"), &new_spec.success_policy, &old_spec.success_policy, errs);
    }

    fn warnings_on_create(&self, obj: &api::Job) -> Vec<String> {
        crate::meta::name_warnings(&obj.metadata, "Pod names and hostnames")
    }

    fn warnings(&self, obj: &api::Job) -> Vec<String> {
        let Some(spec) = obj.spec.as_ref() else { return Vec::new() };
        job_warnings(spec, "spec")
    }
}

pub(super) fn job_warnings(spec: &api::JobSpec, path: &str) -> Vec<String> {
    let mut out = Vec::new();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if indexed && spec.completions.unwrap_or(0) > 100_000 && spec.parallelism.unwrap_or(0) > 10_000 {
        out.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
    }
    out.extend(template_warnings(Some(&spec.template), &format!("{path}.template")));
    out
}

fn generate_selector(obj: &mut api::Job) {
    let (Some(uid), Some(name)) = (obj.metadata.uid.clone(), obj.metadata.name.clone()) else { return };
    let Some(spec) = obj.spec.as_mut() else { return };
    let manual = spec.manual_selector == Some(true);
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if manual {
        return;
    }
    for (key, value) in [(UID, &uid), (LEGACY_UID, &uid), (NAME, &name), (LEGACY_NAME, &name)] {
        labels.insert(key.to_owned(), value.clone());
    }
    let selector = spec.selector.get_or_insert_with(MetaSelector::default);
    selector.match_labels.get_or_insert_default().entry(UID.to_owned()).or_insert(uid);
}

/// A generated selector must name this very job, or jobs would take each other's pods.
fn validate_generated_selector(obj: &api::Job, errs: &mut ErrorList) {
    let Some(spec) = obj.spec.as_ref().filter(|s| s.manual_selector != Some(true) && s.selector.is_some()) else {
        return;
    };
    let Some(uid) = obj.metadata.uid.as_deref() else { return };
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let path = Path::new("spec.template.metadata.labels");
    let name = obj.metadata.name.as_deref().unwrap_or("");
    for (key, expected) in [(UID, uid), (NAME, name)] {
        match labels.and_then(|l| l.get(key)) {
            None => errs.push(field::required(&path.key(key), &format!("must be '{expected}'"))),
            Some(value) if value != expected => {
                errs.push(field::invalid(&path.key(key), &labels, format!("must be '{expected}'")));
            }
            Some(_) => {}
        }
    }
    let matched = spec.selector.as_ref().and_then(|s| s.match_labels.as_ref());
    let value = |key: &str| matched.and_then(|l| l.get(key)).map(String::as_str);
    if value(UID).or_else(|| value(LEGACY_UID)) != Some(uid) {
        let why = "`selector` not auto-generated";
        errs.push(field::invalid(&Path::new("spec.selector"), &spec.selector, why));
    }
}

pub(super) fn validate_job_spec(spec: &api::JobSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (name, number) in numbers {
        field::non_negative(&path.child(name), number.unwrap_or(0), errs);
    }
    if let Some(selector) = spec.selector.as_ref() {
        validate_label_selector(Some(selector), &path.child("selector"), errs);
    }
    validate_mode(spec, path, errs);
    validate_policies(spec, path, errs);
    let at = path.child("template");
    validate_template(&spec.template, &at, errs);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("");
    let policy_at = at.child("spec.restartPolicy");
    if policy.is_empty() || policy == "Always" {
        // The default of pods, which jobs must override.
        let why = "valid values: \"OnFailure\", \"Never\"";
        errs.push(field::required(&policy_at, why));
    } else if !["OnFailure", "Never"].contains(&policy) {
        errs.push(field::not_supported(&policy_at, policy, &["OnFailure", "Never"]));
    } else if spec.pod_failure_policy.is_some() && policy != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        errs.push(field::invalid(&policy_at, policy, why));
    }
}

fn validate_mode(spec: &api::JobSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if let Some(mode) = spec.completion_mode.as_deref() {
        let at = path.child("completionMode");
        if !["Indexed", "NonIndexed"].contains(&mode) {
            errs.push(field::not_supported(&at, mode, &["NonIndexed", "Indexed"]));
        }
    }
    if indexed {
        if spec.completions.is_none() {
            let why = "when completion mode is Indexed";
            errs.push(field::required(&path.child("completions"), why));
        }
        if let Some(parallelism) = spec.parallelism.filter(|p| *p > PARALLELISM_MAX_INDEXED) {
            let why =
                format!("must be less than or equal to {PARALLELISM_MAX_INDEXED} when completion mode is Indexed");
            errs.push(field::invalid(&path.child("parallelism"), &parallelism, why));
        }
        if let (Some(failed), Some(all)) = (spec.max_failed_indexes, spec.completions)
            && failed > all
        {
            let why = "must be less than or equal to completions";
            errs.push(field::invalid(&path.child("maxFailedIndexes"), &failed, why));
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let why = "when maxFailedIndexes is specified";
        errs.push(field::required(&path.child("backoffLimitPerIndex"), why));
    }
    if spec.backoff_limit_per_index.is_some() && !indexed {
        let at = path.child("backoffLimitPerIndex");
        errs.push(field::invalid(&at, &spec.backoff_limit_per_index, "requires indexed completion mode"));
    }
    if let Some(manager) = spec.managed_by.as_deref() {
        let at = path.child("managedBy");
        field::invalid_each(&at, manager, crate::meta::format::domain_prefixed_path(manager), errs);
        if manager.len() > 63 {
            errs.push(field::too_long(&at, 63));
        }
    }
    if let Some(policy) = spec.pod_replacement_policy.as_deref() {
        let at = path.child("podReplacementPolicy");
        if spec.pod_failure_policy.is_some() && policy != "Failed" {
            errs.push(field::not_supported(&at, policy, &["Failed"]));
        } else if !["Failed", "TerminatingOrFailed"].contains(&policy) {
            errs.push(field::not_supported(&at, policy, &["Failed", "TerminatingOrFailed"]));
        }
    }
}

/// The template is fixed; only where pods go may change while the job has never started.
fn validate_template_update(new: &api::JobSpec, old: &api::Job, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(old_spec) = old.spec.as_ref() else { return };
    let suspended = old_spec.suspend == Some(true);
    let started = old.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let mut before = old_spec.template.clone();
    if suspended && !started {
        if let (Some(before_spec), Some(now)) = (before.spec.as_mut(), new.template.spec.as_ref()) {
            before_spec.node_selector.clone_from(&now.node_selector);
            before_spec.tolerations.clone_from(&now.tolerations);
            before_spec.scheduling_gates.clone_from(&now.scheduling_gates);
            before_spec.affinity.clone_from(&now.affinity);
        }
        if let Some(meta) = before.metadata.as_mut() {
            meta.annotations = new.template.metadata.as_ref().and_then(|m| m.annotations.clone());
            meta.labels = new.template.metadata.as_ref().and_then(|m| m.labels.clone());
        }
    }
    field::immutable(path, &new.template, &before, errs);
}
