//! ReplicaSets.

use k8s_openapi::api::apps::v1 as api;

use super::deployment::{template_deadline, validate_selector};
use crate::core::pod::default_template;
use crate::core::pod_template::template_warnings;
use crate::core::replication_controller::validate_owned_template;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct ReplicaSet;

impl Kind for ReplicaSet {
    type Object = api::ReplicaSet;

    fn default(&self, obj: &mut api::ReplicaSet) {
        let spec = obj.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = spec.template.as_mut() {
            default_template(template);
        }
    }

    fn validate(&self, obj: &api::ReplicaSet, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::ReplicaSetSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        field::non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or(0)), errs);
        field::non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or(0)), errs);
        let selector = validate_selector(Some(&spec.selector), "ReplicaSet", &path.child("selector"), errs);
        let at = path.child("template");
        let Some(template) = spec.template.as_ref() else {
            errs.push(field::required(&at, ""));
            return;
        };
        validate_owned_template(template, selector.as_ref(), &at, errs);
        if template_deadline(template) {
            let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
            errs.push(field::forbidden(&at.child("spec.activeDeadlineSeconds"), why));
        }
    }

    fn validate_update(&self, new: &api::ReplicaSet, old: &api::ReplicaSet, errs: &mut ErrorList) {
        self.validate(new, errs);
        if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
            field::immutable(&Path::new("spec.selector"), &new.selector, &old.selector, errs);
        }
    }

    fn warnings_on_create(&self, obj: &api::ReplicaSet) -> Vec<String> {
        crate::meta::name_warnings(&obj.metadata, "Pod names and hostnames")
    }

    fn warnings(&self, obj: &api::ReplicaSet) -> Vec<String> {
        template_warnings(obj.spec.as_ref().and_then(|s| s.template.as_ref()), "spec.template")
    }
}
