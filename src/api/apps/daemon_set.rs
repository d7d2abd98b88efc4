//! DaemonSets.

use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::validate_selector;
use super::rolling_update::{magnitude, validate_at_most_all, validate_int_or_percent};
use crate::core::pod::default_template;
use crate::core::pod_template::template_warnings;
use crate::core::replication_controller::validate_owned_template;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

/// How often the template changed. Once a field of its own, which v1 carries as an annotation that
/// only the API server changes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) struct DaemonSet;

impl Kind for DaemonSet {
    type Object = api::DaemonSet;

    fn default(&self, obj: &mut api::DaemonSet) {
        let spec = obj.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".to_owned());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        default_template(&mut spec.template);
    }

    fn prepare_create(&self, obj: &mut api::DaemonSet) {
        let given = template_generation(obj).filter(|&n| n > 0);
        set_template_generation(obj, given.unwrap_or(1));
    }

    fn prepare_update(&self, new: &mut api::DaemonSet, old: &api::DaemonSet) {
        let template = |set: &api::DaemonSet| set.spec.as_ref().map(|s| s.template.clone());
        let before = template_generation(old).unwrap_or(1);
        set_template_generation(new, before + i64::from(template(new) != template(old)));
    }

    fn validate(&self, obj: &api::DaemonSet, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::DaemonSetSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        let selector = validate_selector(Some(&spec.selector), "daemonset", &path.child("selector"), errs);
        validate_owned_template(&spec.template, selector.as_ref(), &path.child("template"), errs);
        field::non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or(0)), errs);
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        let at = path.child("updateStrategy");
        match (strategy.type_.as_deref().unwrap_or(""), strategy.rolling_update.as_ref()) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errs.push(field::required(&at.child("rollingUpdate"), "")),
            ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &at.child("rollingUpdate"), errs),
            (other, _) => {
                errs.push(field::not_supported(&at.child("type"), other, &["RollingUpdate", "OnDelete"]));
            }
        }
        let history = i64::from(spec.revision_history_limit.unwrap_or(0));
        field::non_negative(&path.child("revisionHistoryLimit"), history, errs);
    }

    fn validate_update(&self, new: &api::DaemonSet, old: &api::DaemonSet, errs: &mut ErrorList) {
        self.validate(new, errs);
        if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
            field::immutable(&Path::new("spec.selector"), &new.selector, &old.selector, errs);
        }
    }

    fn warnings(&self, obj: &api::DaemonSet) -> Vec<String> {
        template_warnings(obj.spec.as_ref().map(|s| &s.template), "spec.template")
    }
}

fn template_generation(set: &api::DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

fn set_template_generation(set: &mut api::DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_rolling(rolling: &api::RollingUpdateDaemonSet, path: &Path<'_>, errs: &mut ErrorList) {
    let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
    for (name, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        if let Some(value) = value {
            validate_int_or_percent(value, &path.child(name), errs);
            validate_at_most_all(value, &path.child(name), errs);
        }
    }
    match (magnitude(unavailable) > 0, magnitude(surge) > 0) {
        (true, true) => {
            let why = "may not be set when maxUnavailable is non-zero";
            errs.push(field::invalid(&path.child("maxSurge"), &rolling.max_surge, why));
        }
        (false, false) => {
            errs.push(field::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}
