//! Pod templates kept as objects of their own.

use k8s_openapi::api::core::v1 as api;

use super::pod::{default_template, pod_warnings, validate_template};
use crate::field::{ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct PodTemplate;

impl Kind for PodTemplate {
    type Object = api::PodTemplate;

    fn default(&self, obj: &mut api::PodTemplate) {
        default_template(obj.template.get_or_insert_default());
    }

    fn validate(&self, obj: &api::PodTemplate, errs: &mut ErrorList) {
        if let Some(template) = obj.template.as_ref() {
            validate_template(template, &Path::new("template"), errs);
        }
    }

    fn warnings(&self, obj: &api::PodTemplate) -> Vec<String> {
        template_warnings(obj.template.as_ref(), "template")
    }
}

/// Warnings about the template that stands at `path` in its owner.
pub(crate) fn template_warnings(template: Option<&api::PodTemplateSpec>, path: &str) -> Vec<String> {
    let Some(template) = template else { return Vec::new() };
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    template.spec.as_ref().map(|spec| pod_warnings(spec, annotations, path)).unwrap_or_default()
}
