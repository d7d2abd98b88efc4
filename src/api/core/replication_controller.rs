//! ReplicationControllers: the oldest of the kinds that keep copies of a pod.

use k8s_openapi::api::core::v1 as api;

use super::pod::{default_template, validate_template};
use super::pod_template::template_warnings;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::selector::LabelSelector;

pub(crate) struct ReplicationController;

impl Kind for ReplicationController {
    type Object = api::ReplicationController;

    fn default(&self, obj: &mut api::ReplicationController) {
        let spec = obj.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = spec.template.as_mut() {
            default_template(template);
            if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.clone()) {
                if spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
                    spec.selector = Some(labels.clone());
                }
                if obj.metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
                    obj.metadata.labels = Some(labels);
                }
            }
        }
    }

    fn validate(&self, obj: &api::ReplicationController, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::ReplicationControllerSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        field::non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or(0)), errs);
        let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
        if selector.is_none() {
            errs.push(field::required(&path.child("selector"), ""));
        }
        field::non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or(0)), errs);
        let at = path.child("template");
        let Some(template) = spec.template.as_ref() else {
            errs.push(field::required(&at, ""));
            return;
        };
        let selector = selector.map(LabelSelector::from_map);
        validate_owned_template(template, selector.as_ref(), &at, errs);
        if template.spec.as_ref().is_some_and(|s| s.active_deadline_seconds.is_some()) {
            let why = "activeDeadlineSeconds in ReplicationController is not Supported";
            errs.push(field::forbidden(&at.child("spec.activeDeadlineSeconds"), why));
        }
    }

    fn warnings_on_create(&self, obj: &api::ReplicationController) -> Vec<String> {
        crate::meta::name_warnings(&obj.metadata, "Pod names and hostnames")
    }

    fn warnings(&self, obj: &api::ReplicationController) -> Vec<String> {
        template_warnings(obj.spec.as_ref().and_then(|s| s.template.as_ref()), "spec.template")
    }
}

/// The template of a kind that keeps pods running: its selector finds them, and they restart.
pub(crate) fn validate_owned_template(
    template: &api::PodTemplateSpec,
    selector: Option<&LabelSelector>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if selector.is_some_and(|s| !s.is_everything() && !s.matches(&labels)) {
        let why = "`selector` does not match template `labels`";
        errs.push(field::invalid(&path.child("metadata.labels"), &labels, why));
    }
    validate_template(template, path, errs);
    let policy = template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("");
    if policy != "Always" {
        errs.push(field::not_supported(&path.child("spec.restartPolicy"), policy, &["Always"]));
    }
}
