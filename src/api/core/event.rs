//! Events of the core group, in the older form and in the one that events.k8s.io shares.

use k8s_openapi::api::core::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct Event;

impl Kind for Event {
    type Object = api::Event;

    fn validate(&self, obj: &api::Event, errs: &mut ErrorList) {
        let involved = obj.involved_object.namespace.as_deref().unwrap_or("");
        let own = obj.metadata.namespace.as_deref().unwrap_or("");
        let path = Path::new("involvedObject.namespace");
        if involved.is_empty() {
            // What is said of a cluster-wide object is kept where everybody looks.
            if !["default", "kube-system", ""].contains(&own) {
                errs.push(field::invalid(&path, involved, "does not match event.namespace"));
            }
        } else if involved != own {
            errs.push(field::invalid(&path, involved, "does not match event.namespace"));
        }
        if obj.event_time.is_some() {
            validate_new_form(obj, errs);
        }
    }

    fn validate_update(&self, new: &api::Event, _old: &api::Event, errs: &mut ErrorList) {
        self.validate(new, errs);
    }
}

fn validate_new_form(obj: &api::Event, errs: &mut ErrorList) {
    let controller = obj.reporting_component.as_deref().unwrap_or("");
    let rows = [
        ("reportingController", controller, 0),
        ("reportingInstance", obj.reporting_instance.as_deref().unwrap_or(""), 128),
        ("action", obj.action.as_deref().unwrap_or(""), 128),
        ("reason", obj.reason.as_deref().unwrap_or(""), 128),
    ];
    for (name, value, max) in rows {
        let path = Path::new(name);
        if value.is_empty() {
            errs.push(field::required(&path, ""));
        }
        if max > 0 && value.len() > max {
            errs.push(field::invalid(&path, "", format!("can have at most {max} characters")));
        }
    }
    if !controller.is_empty() {
        let why = crate::meta::format::qualified_name(controller);
        field::invalid_each(&Path::new("reportingController"), controller, why, errs);
    }
    if obj.message.as_ref().is_some_and(|m| m.len() > 1024) {
        errs.push(field::invalid(&Path::new("message"), "", "can have at most 1024 characters"));
    }
}
