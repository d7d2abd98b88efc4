//! Deployments: their strategy, and a selector that never changes.

use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::rolling_update::{magnitude, validate_at_most_all, validate_int_or_percent};
use crate::core::pod::default_template;
use crate::core::pod_template::template_warnings;
use crate::core::replication_controller::validate_owned_template;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::validate_label_selector;
use crate::selector::LabelSelector;

pub(crate) struct Deployment;

impl Kind for Deployment {
    type Object = api::Deployment;

    fn default(&self, obj: &mut api::Deployment) {
        let spec = obj.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".to_owned());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        default_template(&mut spec.template);
    }

    fn validate(&self, obj: &api::Deployment, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::DeploymentSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        field::non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or(0)), errs);
        let selector = validate_selector(Some(&spec.selector), "deployment", &path.child("selector"), errs);
        validate_owned_template(&spec.template, selector.as_ref(), &path.child("template"), errs);
        if template_deadline(&spec.template) {
            let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
            errs.push(field::forbidden(&path.child("template.spec.activeDeadlineSeconds"), why));
        }
        let strategy = spec.strategy.clone().unwrap_or_default();
        validate_strategy(&strategy, &path.child("strategy"), errs);
        let ready = i64::from(spec.min_ready_seconds.unwrap_or(0));
        field::non_negative(&path.child("minReadySeconds"), ready, errs);
        let history = i64::from(spec.revision_history_limit.unwrap_or(0));
        field::non_negative(&path.child("revisionHistoryLimit"), history, errs);
        if let Some(deadline) = spec.progress_deadline_seconds.map(i64::from) {
            let at = path.child("progressDeadlineSeconds");
            field::non_negative(&at, deadline, errs);
            if deadline <= ready {
                errs.push(field::invalid(&at, &deadline, "must be greater than minReadySeconds"));
            }
        }
    }

    fn validate_update(&self, new: &api::Deployment, old: &api::Deployment, errs: &mut ErrorList) {
        self.validate(new, errs);
        if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
            field::immutable(&Path::new("spec.selector"), &new.selector, &old.selector, errs);
        }
    }

    fn validate_status_update(&self, new: &api::Deployment, old: &api::Deployment, errs: &mut ErrorList) {
        let path = Path::new("status");
        let (Some(new), old) = (new.status.as_ref(), old.status.clone().unwrap_or_default()) else { return };
        let total = new.replicas.unwrap_or(0);
        let rows = [
            ("updatedReplicas", new.updated_replicas),
            ("readyReplicas", new.ready_replicas),
            ("availableReplicas", new.available_replicas),
        ];
        field::non_negative(&path.child("replicas"), i64::from(total), errs);
        for (name, count) in rows {
            let count = count.unwrap_or(0);
            field::non_negative(&path.child(name), i64::from(count), errs);
            if count > total {
                errs.push(field::invalid(&path.child(name), &count, "cannot be greater than status.replicas"));
            }
        }
        if new.collision_count.unwrap_or(0) < old.collision_count.unwrap_or(0) {
            let at = path.child("collisionCount");
            errs.push(field::invalid(&at, &new.collision_count, "cannot be decremented"));
        }
    }

    fn warnings_on_create(&self, obj: &api::Deployment) -> Vec<String> {
        crate::meta::name_warnings(&obj.metadata, "Pod names and hostnames")
    }

    fn warnings(&self, obj: &api::Deployment) -> Vec<String> {
        template_warnings(obj.spec.as_ref().map(|s| &s.template), "spec.template")
    }
}

pub(super) fn template_deadline(template: &k8s_openapi::api::core::v1::PodTemplateSpec) -> bool {
    template.spec.as_ref().is_some_and(|s| s.active_deadline_seconds.is_some())
}

/// Checks the selector of a workload and returns it parsed; an empty one would own every pod.
pub(crate) fn validate_selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    owner: &str,
    path: &Path<'_>,
    errs: &mut ErrorList,
) -> Option<LabelSelector> {
    let none = |s: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
        s.match_labels.is_none() && s.match_expressions.is_none()
    };
    let Some(selector) = selector.filter(|s| !none(s)) else {
        errs.push(field::required(path, ""));
        return None;
    };
    validate_label_selector(Some(selector), path, errs);
    let empty = selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_deref().unwrap_or_default().is_empty();
    if empty {
        errs.push(field::invalid(path, selector, format!("empty selector is invalid for {owner}")));
    }
    match LabelSelector::from_meta(Some(selector)) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            errs.push(field::invalid(path, selector, "invalid label selector"));
            None
        }
    }
}

fn validate_strategy(strategy: &api::DeploymentStrategy, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or(""), strategy.rolling_update.as_ref()) {
        ("Recreate", Some(_)) => {
            errs.push(field::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errs.push(field::required(&at, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &at, errs),
        (other, _) => errs.push(field::not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"])),
    }
}

fn validate_rolling(rolling: &api::RollingUpdateDeployment, path: &Path<'_>, errs: &mut ErrorList) {
    let unavailable_at = path.child("maxUnavailable");
    if let Some(unavailable) = rolling.max_unavailable.as_ref() {
        validate_int_or_percent(unavailable, &unavailable_at, errs);
    }
    if let Some(surge) = rolling.max_surge.as_ref() {
        validate_int_or_percent(surge, &path.child("maxSurge"), errs);
    }
    if magnitude(rolling.max_unavailable.as_ref()) == 0 && magnitude(rolling.max_surge.as_ref()) == 0 {
        let why = "may not be 0 when `maxSurge` is 0";
        errs.push(field::invalid(&unavailable_at, &rolling.max_unavailable, why));
    }
    if let Some(unavailable) = rolling.max_unavailable.as_ref() {
        validate_at_most_all(unavailable, &unavailable_at, errs);
    }
}
