//! Ingress classes: the controller of a class never changes.

use k8s_openapi::api::networking::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

const CONTROLLER_MAX: usize = 250;

pub(crate) struct IngressClass;

impl Kind for IngressClass {
    type Object = api::IngressClass;

    fn default(&self, obj: &mut api::IngressClass) {
        if let Some(parameters) = obj.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn validate(&self, obj: &api::IngressClass, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let controller = obj.spec.as_ref().and_then(|s| s.controller.as_deref()).unwrap_or("");
        let at = path.child("controller");
        if controller.len() > CONTROLLER_MAX {
            errs.push(field::too_long(&at, CONTROLLER_MAX));
        }
        if controller.is_empty() {
            errs.push(field::required(&at, ""));
        } else {
            field::invalid_each(&at, controller, format::domain_prefixed_path(controller), errs);
        }
        let Some(parameters) = obj.spec.as_ref().and_then(|s| s.parameters.as_ref()) else { return };
        let at = path.child("parameters");
        for (name, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
            if value.is_empty() {
                errs.push(field::required(&at.child(name), ""));
            }
        }
        let namespace = parameters.namespace.as_deref();
        match parameters.scope.as_deref().unwrap_or("") {
            "" => errs.push(field::required(&at.child("scope"), "")),
            "Namespace" if namespace.is_none() => {
                let why = "`parameters.scope` is set to 'Namespace'";
                errs.push(field::required(&at.child("namespace"), why));
            }
            "Cluster" if namespace.is_some() => {
                let why = "`parameters.scope` is set to 'Cluster'";
                errs.push(field::forbidden(&at.child("namespace"), why));
            }
            "Cluster" | "Namespace" => {}
            other => errs.push(field::not_supported(&at.child("scope"), other, &["Cluster", "Namespace"])),
        }
    }

    fn validate_update(&self, new: &api::IngressClass, old: &api::IngressClass, errs: &mut ErrorList) {
        self.validate(new, errs);
        let controller = |obj: &api::IngressClass| obj.spec.as_ref().and_then(|s| s.controller.clone());
        field::immutable(&Path::new("spec.controller"), &controller(new), &controller(old), errs);
    }
}
